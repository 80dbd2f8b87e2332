"""What a model wrote before and after steering, side by side."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import xarray as xr

from tlens_trust.views.tokens.view import write_page

_STYLE = """
<style>
.tt-written { overflow-x: auto; font: 14px/1.5 system-ui, sans-serif; margin: 1em 0; }
.tt-written table { border-collapse: collapse; width: 100%; table-layout: fixed; }
.tt-written th, .tt-written td { text-align: left; vertical-align: top; padding: .3em .6em;
  border-bottom: 1px solid color-mix(in srgb, currentColor 25%, transparent); min-width: 9em;
  white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate; }
.tt-written td mark { background: #56B4E9; color: black; }
@media (max-width: 40rem) {
  .tt-written tr { display: block; } .tt-written td, .tt-written tbody th { display: block; }
  .tt-written thead { display: none; }
  .tt-written td::before { content: attr(data-what) ": "; font-weight: 600; }
}
</style>
"""


@dataclass(frozen=True, eq=False, repr=False)
class GenerationsView:
    """Prompts, and what was written after each of them under several conditions.

    From where a text differs from that of the first condition on it is marked. Whatever the texts
    say is shown and not run.

    Attributes:
        title: Above the table.
        prompts: One a row.
        conditions: What to call each column; the first is what others are held against.
        texts: For each prompt, what was written under each condition.
        note: What to know when looking; may be empty.
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
        heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in self.conditions)
        rows = "".join(map(self._row, self.prompts, self.texts))
        note = f"<p><small>{escape(self.note)}</small></p>" if self.note else ""
        return (
            f'<div class="tt-written"><p><b>{escape(self.title)}</b></p><table><thead><tr>'
            f'<th scope="col">prompt</th>{heads}</tr></thead><tbody>{rows}</tbody></table>{note}'
            f"</div>{_STYLE}"
        )

    def _repr_html_(self) -> str:
        return self.fragment()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a page that opens without a network; see `write_page`."""
        return write_page([self], path, title=self.title)

    def _row(self, prompt: str, texts: Sequence[str]) -> str:
        first = texts[0]
        cells = "".join(
            f'<td data-what="{escape(name, quote=True)}">{_marked(text, first)}</td>'
            for name, text in zip(self.conditions, texts, strict=True)
        )
        return f'<tr><th scope="row">{escape(prompt)}</th>{cells}</tr>'


def draw_generations(evaluation: xr.Dataset) -> GenerationsView:
    """Show what was written without steering, steered, and steered the other way, side by side.

    Args:
        evaluation: What `evaluate_steering` gives with `prompts`.

    Returns:
        A view: in a notebook it shows itself, `.save("before_after.html")` writes a page.

    Raises:
        ValueError: Nothing was written.

    Examples:
        >>> data = xr.Dataset(
        ...     {"generation": (("condition", "prompt"), [["a cod"], ["a cow"]])},
        ...     {"condition": ["unsteered", "steered"], "prompt": ["A trout is"]})
        >>> draw_generations(data)
        GenerationsView('Before and after steering', 1 prompts × unsteered, steered)
    """
    if not isinstance(evaluation, xr.Dataset) or "generation" not in evaluation:
        raise ValueError(
            "Nothing was written. Pass what `evaluate_steering` gives with some `prompts`."
        )
    written = evaluation["generation"].transpose("prompt", "condition")
    how = [
        f"{name}: {evaluation.attrs[name]}"
        for name in ("vector", "source", "sites", "mode", "positions")
        if evaluation.attrs.get(name)
    ]
    if "strength" in evaluation and "steered" in evaluation["condition"].values:
        strength = float(evaluation["strength"].sel(condition="steered"))
        how.append(f"strength: {strength:.3g} ({evaluation.attrs.get('units', 'vector')})")
    return GenerationsView(
        title="Before and after steering",
        prompts=tuple(str(each) for each in written["prompt"].values),
        conditions=tuple(str(each) for each in written["condition"].values),
        texts=tuple(tuple(str(text) for text in row) for row in written.values),
        note="; ".join(["Marked from where a text departs from the first one", *how]) + ".",
    )


def _marked(text: str, first: str) -> str:
    same = next(
        (i for i, pair in enumerate(zip(text, first, strict=False)) if pair[0] != pair[1]),
        min(len(text), len(first)),
    )
    if same == len(text):
        return escape(text)
    return f"{escape(text[:same])}<mark>{escape(text[same:])}</mark>"
