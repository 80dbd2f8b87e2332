"""A view of tokens: a part of a page, with a choice of checkpoint and site."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import count
from pathlib import Path
from typing import Protocol, runtime_checkable
from uuid import uuid4

import numpy as np
from jaxtyping import Bool, Float

from tlens_trust.files import write_file
from tlens_trust.views.tokens.script import as_script_data, as_token_html, circuitsvis_script

# Light enough, at their strongest, for black letters; told apart by colour-blind readers.
NEGATIVE, POSITIVE = "#E69F00", "#56B4E9"

# Whether this process has shown the script: a notebook is one page.
_SHOWN = count()

_STYLE = """
<style>
.tt-tokens { font: 14px/1.5 system-ui, sans-serif; margin: 1em 0; }
.tt-tokens p { margin: .2em 0 .5em; }
.tt-tokens label { margin-right: 1.5em; }
.tt-tokens input[type=range] { vertical-align: middle; width: 16em; max-width: 60vw; }
.tt-tokens output { display: inline-block; min-width: 6em; }
.tt-tokens .tt-text { overflow-wrap: anywhere; unicode-bidi: isolate; }
.tt-tokens .colored-tokens { line-height: 2; }
.tt-tokens .colored-tokens span { unicode-bidi: isolate; }
</style>
"""

_DRAW = """
<script>
(() => {
  const data = DATA;
  const root = document.getElementById(data.id);
  const pick = name => root.querySelector(`[data-pick=${name}]`);
  const drawn = root.querySelector(".tt-text");
  let number = 0;
  const draw = () => {
    const c = pick("checkpoint") ? +pick("checkpoint").value : 0;
    const s = pick("site") ? +pick("site").value : 0;
    const shown = root.querySelector("output");
    if (shown) shown.textContent = data.checkpoints[c];
    const place = document.createElement("div");
    place.id = `${data.id}-${number++}`;
    drawn.replaceChildren(place);
    CircuitsVis.render(place.id, CircuitsVis.ColoredTokens, {
      tokens: data.tokens.map((t, k) => data.marked && data.marked[c][k] ? `<u>${t}</u>` : t),
      values: data.values[c][s], minValue: -data.most, maxValue: data.most,
      negativeColor: data.negative, positiveColor: data.positive,
    });
  };
  let tries = 0;
  const start = () => {
    if (window.CircuitsVis) {
      root.querySelectorAll("[data-pick]").forEach(e => e.addEventListener("input", draw));
      draw();
    } else if (tries++ < 100) setTimeout(start, 100);
  };
  start();
})();
</script>
"""


@dataclass(frozen=True, eq=False, repr=False)
class TokenView:
    """One text with a number on every token, at every checkpoint and site.

    In a notebook it shows itself. Where no script runs, the last checkpoint and site are shown.
    Whatever the text says is shown and not run.

    Attributes:
        title: What the numbers are, with their unit.
        tokens: The text's tokens, as `TokenReadings` has them.
        values: The numbers; one colour scale for all of them, from minus to plus the largest.
        checkpoints: What to call each checkpoint.
        sites: What to call each site.
        note: What to know when looking; may be empty.
        marked: Tokens to underline, as those that steering acts on.
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
                "The numbers on tokens must be finite, got NaN or an infinity. Look at the "
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
        name = f"tt-{uuid4().hex[:12]}"
        data = {
            "id": name,
            "tokens": [as_token_html(token) for token in self.tokens],
            "values": np.round(self.values.astype(float), 3).tolist(),
            "checkpoints": list(self.checkpoints),
            "marked": None if self.marked is None else self.marked.tolist(),
            "most": self._most,
            "negative": NEGATIVE,
            "positive": POSITIVE,
        }
        controls = self._controls(name)
        note = f"<p><small>{escape(self.note)}</small></p>" if self.note else ""
        return (
            f'<div class="tt-tokens" id="{name}"><p><b>{escape(self.title)}</b></p>{controls}'
            f'<div class="tt-text">{self._plain()}</div>{self._key()}{note}</div>'
            f"{_STYLE}{_DRAW.replace('DATA', as_script_data(data))}"
        )

    def _repr_html_(self) -> str:
        script = circuitsvis_script() if next(_SHOWN) == 0 else ""
        return script + self.fragment()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a page that opens without a network; see `write_page`."""
        return write_page([self], path)

    @property
    def _most(self) -> float:
        return float(np.abs(self.values).max()) or 1.0

    def _controls(self, name: str) -> str:
        parts = []
        if len(self.checkpoints) > 1:
            last = len(self.checkpoints) - 1
            parts.append(
                f'<label for="{name}-c">checkpoint <input id="{name}-c" data-pick="checkpoint" '
                f'type="range" min="0" max="{last}" value="{last}"> '
                f'<output for="{name}-c">{escape(self.checkpoints[-1])}</output></label>'
            )
        if len(self.sites) > 1:
            last = len(self.sites) - 1
            options = "".join(
                f'<option value="{i}"{" selected" * (i == last)}>{escape(site)}</option>'
                for i, site in enumerate(self.sites)
            )
            parts.append(
                f'<label for="{name}-s">site <select id="{name}-s" data-pick="site">{options}'
                "</select></label>"
            )
        return f"<p>{''.join(parts)}</p>" if parts else ""

    def _plain(self) -> str:
        """The text as it stands before any script has run."""
        spans = []
        marks = [False] * len(self.tokens) if self.marked is None else self.marked[-1].tolist()
        last = self.values[-1, -1].tolist()
        for token, value, mark in zip(self.tokens, last, marks, strict=True):
            share = round(100 * min(abs(value) / self._most, 1))
            colour = f"color-mix(in srgb, {POSITIVE if value >= 0 else NEGATIVE} {share}%, white)"
            spans.append(
                f'<span style="background:{colour};color:black;white-space:pre-wrap" '
                f'title="{value:.2f}">{_underlined(escape(token), mark)}</span>'
            )
        return "".join(spans)

    def _key(self) -> str:
        most = f"{self._most:.3g}"
        return (
            f'<p><small><span style="background:{NEGATIVE};color:black">&nbsp;−{most}&nbsp;</span>'
            f' to <span style="background:{POSITIVE};color:black">&nbsp;+{most}&nbsp;</span>; '
            "the pointer on a token shows its number</small></p>"
        )


def _underlined(token: str, mark: bool) -> str:
    return f"<u>{token}</u>" if mark else token


@runtime_checkable
class PagePart(Protocol):
    """Something that stands in a page."""

    def fragment(self) -> str:
        """Its HTML, for a page that holds circuitsvis' script."""


def write_page(
    views: Sequence[PagePart], path: str | os.PathLike[str], *, title: str = "Token scores"
) -> Path:
    """Write several views into one page, with circuitsvis' script once. It asks no network.

    Args:
        views: What to show, in order.
        path: A file that ends in `.html`; what is there is replaced.
        title: Of the page.

    Returns:
        The file.

    Raises:
        ValueError: There is nothing to show, or the file has another ending.
    """
    file = Path(path).expanduser()
    if not views:
        raise ValueError("There is nothing to show. Give at least one view.")
    if file.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"A page is saved as .html, got {str(path)!r}.")
    body = "\n".join(view.fragment() for view in views)
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title>"
        "<style>body{max-width:60em;margin:2em auto;padding:0 1em}</style></head>"
        f"<body><h1>{escape(title)}</h1>{circuitsvis_script()}\n{body}</body></html>"
    )
    write_file(file, page)
    return file
