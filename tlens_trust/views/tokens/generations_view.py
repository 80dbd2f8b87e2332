"""What a model wrote before and after steering, side by side."""

import os
from dataclasses import dataclass
from pathlib import Path

import xarray as xr

from tlens_trust.html import render
from tlens_trust.views.tokens.page import write_page


@dataclass(frozen=True, eq=False, repr=False)
class GenerationsView:
    """Prompts, and the texts that were generated after each of them under several conditions.

    A text is marked from the point where it differs from that of the first condition. The texts are
    shown as text, never run.

    Attributes:
        title: Above the table.
        prompts: One per row.
        conditions: The name of each column; the others are compared with the first.
        texts: For each prompt, the text generated under each condition.
        note: Below the table; may be empty.
    """

    title: str
    prompts: tuple[str, ...]
    conditions: tuple[str, ...]
    texts: tuple[tuple[str, ...], ...]
    note: str = ""

    def __post_init__(self) -> None:
        widths = {len(row) for row in self.texts}
        if len(self.texts) != len(self.prompts) or widths - {len(self.conditions)}:
            raise ValueError(
                f"There must be a text for each of {len(self.prompts)} prompts and "
                f"{len(self.conditions)} conditions, got {len(self.texts)} rows of "
                f"{', '.join(map(str, sorted(widths)))}."
            )

    def __repr__(self) -> str:
        return (
            f"GenerationsView({self.title!r}, {len(self.prompts)} prompts × "
            f"{', '.join(self.conditions)})"
        )

    def fragment(self) -> str:
        """The view as a part of a page."""
        rows = [
            (
                prompt,
                [
                    (condition, *_split_at_difference(text, texts[0]))
                    for condition, text in zip(self.conditions, texts, strict=True)
                ],
            )
            for prompt, texts in zip(self.prompts, self.texts, strict=True)
        ]
        return render("tokens/generations", {"view": self, "rows": rows})

    def _repr_html_(self) -> str:
        return self.fragment()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a page that opens without a network; see `write_page`."""
        return write_page([self], path, title=self.title)


def draw_generations(evaluation: xr.Dataset) -> GenerationsView:
    """Show texts generated without steering, steered, and steered the opposite way, side by side.

    Args:
        evaluation: What `evaluate_steering` gives with `prompts`.

    Returns:
        A view: a notebook displays it, and `.save("before_after.html")` writes a page.

    Raises:
        ValueError: The evaluation holds no generated texts.

    Examples:
        >>> data = xr.Dataset(
        ...     {"generation": (("condition", "prompt"), [["a cod"], ["a cow"]])},
        ...     {"condition": ["unsteered", "steered"], "prompt": ["A trout is"]})
        >>> draw_generations(data)
        GenerationsView('Before and after steering', 1 prompts × unsteered, steered)
    """
    if not isinstance(evaluation, xr.Dataset) or "generation" not in evaluation:
        raise ValueError(
            "There are no generated texts. Pass what `evaluate_steering` gives with some `prompts`."
        )
    generations = evaluation["generation"].transpose("prompt", "condition")
    settings = [
        f"{name}: {evaluation.attrs[name]}"
        for name in ("vector", "source", "sites", "mode", "positions")
        if evaluation.attrs.get(name)
    ]
    if "strength" in evaluation and "steered" in evaluation["condition"].values:
        strength = float(evaluation["strength"].sel(condition="steered"))
        settings.append(f"strength: {strength:.3g} ({evaluation.attrs.get('units', 'vector')})")
    explanation = "Marked from where a text differs from the first one"
    return GenerationsView(
        title="Before and after steering",
        prompts=tuple(str(prompt) for prompt in generations["prompt"].values),
        conditions=tuple(str(condition) for condition in generations["condition"].values),
        texts=tuple(tuple(str(text) for text in row) for row in generations.values),
        note="; ".join([explanation, *settings]) + ".",
    )


def _split_at_difference(text: str, reference: str) -> tuple[str, str]:
    """A text in two parts: what it shares with the reference from the start, and the rest."""
    n_same = next(
        # Of two lengths, the shorter text may be the beginning of the longer one.
        (i for i, pair in enumerate(zip(text, reference, strict=False)) if pair[0] != pair[1]),
        min(len(text), len(reference)),
    )
    return text[:n_same], text[n_same:]
