"""A text with a number on every token, with a choice of checkpoint and site."""

import os
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from uuid import uuid4

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float
from markupsafe import Markup

from tlens_trust.html import render, script_data
from tlens_trust.views.axes import format_count
from tlens_trust.views.tokens.page import write_page
from tlens_trust.views.tokens.script import as_token_html, circuitsvis_script

# At their strongest, both are light enough for black letters. Colour-blind readers can tell them
# apart.
NEGATIVE, POSITIVE = "#E69F00", "#56B4E9"

# A notebook is one page: the first view that this process shows brings the script, no other does.
_SHOWN = count()


@dataclass(frozen=True, eq=False, repr=False)
class TokenView:
    """One text with a number on every token, at every checkpoint and site.

    A notebook displays it. Where no script can run, it shows the last checkpoint and site. The text
    is shown as text, never run.

    Attributes:
        title: What the numbers are, with their unit.
        tokens: The text's tokens, as `TokenActivations` has them.
        values: The numbers. One colour scale serves all of them, from minus to plus the largest.
        checkpoints: The label of each checkpoint.
        sites: The label of each site.
        note: Below the text; may be empty.
        marked: Which tokens to underline, such as those that steering acts on.
    """

    title: str
    tokens: tuple[str, ...]
    values: Float[np.ndarray, "checkpoint site token"]
    checkpoints: tuple[str, ...] = ("",)
    sites: tuple[str, ...] = ("",)
    note: str = ""
    marked: Bool[np.ndarray, "checkpoint token"] | None = None

    def __post_init__(self) -> None:
        shape = len(self.checkpoints), len(self.sites), len(self.tokens)
        if self.values.shape != shape:
            raise ValueError(
                f"There must be a number for each of {shape[0]} checkpoints, {shape[1]} sites and "
                f"{shape[2]} tokens, got an array of shape {self.values.shape}."
            )
        if self.marked is not None and self.marked.shape != (shape[0], shape[2]):
            raise ValueError(
                f"`marked` says of each of {shape[0]} checkpoints and {shape[2]} tokens whether to "
                f"underline it, got an array of shape {self.marked.shape}."
            )
        if not np.isfinite(self.values).all():
            raise ValueError(
                "The numbers on tokens must be finite, got NaN or an infinity. Check the "
                "activations and the direction that they come from."
            )

    def __repr__(self) -> str:
        checkpoints, sites, tokens = self.values.shape
        return (
            f"TokenView({self.title!r}, {checkpoints} checkpoint{'s' * (checkpoints != 1)} × "
            f"{sites} site{'s' * (sites != 1)} × {tokens} token{'s' * (tokens != 1)})"
        )

    def fragment(self) -> str:
        """The view without circuitsvis' script, for a page that holds it already."""
        # A page may hold the same view twice, and an id must occur once.
        name = f"tt-{uuid4().hex[:12]}"
        # Where all numbers are 0, the colours still need a scale.
        largest = float(np.abs(self.values).max()) or 1.0
        data = {
            "id": name,
            "tokens": [as_token_html(token) for token in self.tokens],
            # Three decimals keep the page small: it holds every checkpoint, site and token.
            "values": np.round(self.values.astype(float), 3).tolist(),
            "checkpoints": list(self.checkpoints),
            "marked": None if self.marked is None else self.marked.tolist(),
            "largest": largest,
            "negative": NEGATIVE,
            "positive": POSITIVE,
        }
        return render(
            "tokens/token_view",
            {
                "view": self,
                "name": name,
                "tokens": self._coloured_tokens(largest),
                "largest": f"{largest:.3g}",
                "negative": NEGATIVE,
                "positive": POSITIVE,
                "data": script_data(data),
            },
        )

    def _repr_html_(self) -> str:
        if next(_SHOWN) > 0:
            return self.fragment()
        return Markup("<script>{}</script>").format(circuitsvis_script()) + self.fragment()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a page that opens without a network; see `write_page`."""
        return write_page([self], path)

    def _coloured_tokens(self, largest: float) -> list[dict[str, object]]:
        """The text at the last checkpoint and site, as it stands before any script has run."""
        n_tokens = len(self.tokens)
        marked = [False] * n_tokens if self.marked is None else self.marked[-1].tolist()
        return [
            {
                "text": token,
                "value": f"{value:.2f}",
                "colour": POSITIVE if value >= 0 else NEGATIVE,
                "share": round(100 * min(abs(value) / largest, 1)),
                "is_marked": is_marked,
            }
            for token, value, is_marked in zip(
                self.tokens, self.values[-1, -1].tolist(), marked, strict=True
            )
        ]


def draw_tokens(scores: xr.Dataset) -> TokenView:
    """Colour every token of a text by its score, with a choice of checkpoint and site.

    All checkpoints share one colour scale, which shows when a concept appears.

    Args:
        scores: What `trace_tokens` or `project_tokens` gives. For `project_tokens`, the tokens that
            steering acts on are underlined.

    Returns:
        A view: a notebook displays it, and `.save("tokens.html")` writes a page.

    Raises:
        ValueError: `scores` holds no scores of tokens.

    Examples:
        >>> draw_tokens(trace_tokens(series, concept, "A text."))  # doctest: +SKIP
    """
    if not isinstance(scores, xr.Dataset) or "score" not in scores or "token" not in scores.dims:
        raise ValueError(
            "These are no scores of tokens. Pass what `trace_tokens` or `project_tokens` gives."
        )
    score = scores["score"]
    steps = np.asarray(scores["step"].values, dtype=float)
    names = [str(name) for name in scores["checkpoint"].values]
    layers = scores["layer"].values.tolist()
    sites = [str(site) for site in scores["site"].values]
    return TokenView(
        title=f"{score.attrs['long_name']} ({score.attrs['units']})",
        tokens=tuple(str(token) for token in scores["text"].values),
        values=score.transpose("checkpoint", "site", "token").values,
        checkpoints=tuple(
            f"step {format_count(step)}" if np.isfinite(step) else name
            for step, name in zip(steps, names, strict=True)
        ),
        sites=tuple(
            f"layer {layer}" if len(set(layers)) == len(layers) else site
            for layer, site in zip(layers, sites, strict=True)
        ),
        note=str(scores.attrs.get("note", "")),
        marked=scores["acts"].transpose("checkpoint", "token").values if "acts" in scores else None,
    )
