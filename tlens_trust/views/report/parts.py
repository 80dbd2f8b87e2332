"""Parts of a page: tables, figures, descriptions. Every text is escaped here."""

import json
from collections.abc import Sequence
from html import escape

import plotly.graph_objects as go

from tlens_trust.views.tokens.script import within_script


def table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    numbers: Sequence[str] = (),
    wrapped: Sequence[str] = (),
) -> str:
    """A table; columns of `numbers` are set to the right, those of `wrapped` hold sentences.

    The first column heads its row.
    """
    kinds = [
        ' class="number"'
        if heading in numbers
        else ' class="wrapped"'
        if heading in wrapped
        else ""
        for heading in headings
    ]
    head = "".join(
        f'<th scope="col"{kind}>{escape(heading)}</th>'
        for heading, kind in zip(headings, kinds, strict=True)
    )
    body = []
    for row in rows:
        first, *others = (f"{kind}>{escape(cell)}</" for cell, kind in zip(row, kinds, strict=True))
        cells = "".join(f"<td{other}td>" for other in others)
        body.append(f'<tr><th scope="row"{first}th>{cells}</tr>')
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="table"><table><thead><tr>'
        f"{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def figure(drawn: go.Figure, label: str, *, choices: Sequence[str] = (), height: int = 0) -> str:
    """A figure that the page's script draws when it comes near.

    Args:
        drawn: A plotly figure.
        label: What it shows, for those who cannot see it.
        choices: Names of its traces, of which a control shows one at a time. Where there are more
            traces than names, the names come round in order.
        height: In pixels; 0 for the figure's own.
    """
    content = drawn.to_plotly_json()
    layout = dict(content["layout"])
    layout.pop("sliders", None)
    if height:
        layout["height"] = height
    text = go.Figure({"data": content["data"], "layout": layout}, skip_invalid=True).to_json()
    data = within_script(text)
    control = ""
    if len(choices) > 1:
        shows = escape(json.dumps(list(choices)), quote=True)
        control = (
            f'<p class="controls"><label>concept <input type="range" min="0" value="0" '
            f'max="{len(choices) - 1}" data-shows="{shows}"></label> '
            f"<output>{escape(choices[0])}</output></p>"
        )
    tall = layout.get("height") or 450
    return (
        f'<div class="figure">{control}<div class="plot" role="img" '
        f'aria-label="{escape(label, quote=True)}" style="min-height:{tall}px"></div>'
        f'<script type="application/json">{data}</script></div>'
    )


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """A table of two columns without headings."""
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(text)}</td></tr>'
        for name, text in pairs
    )
    return f'<div class="scroll"><table class="facts"><tbody>{rows}</tbody></table></div>'
