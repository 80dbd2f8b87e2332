"""Elements that several sections of a report share: tables, figures, notes."""

import json
from collections.abc import Iterable, Mapping, Sequence

import plotly.graph_objects as go
from markupsafe import Markup

from tlens_trust.html import render, script_json

_DEFAULT_HEIGHT = 450


def render_table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    numbers: Sequence[str] = (),
    wrapped: Sequence[str] = (),
) -> Markup:
    """Write a table whose first column heads the rows.

    Args:
        headings: One per column.
        rows: Cells, as many per row as there are headings.
        numbers: Headings of the columns that are aligned to the right.
        wrapped: Headings of the columns that hold sentences.
    """
    kinds = [
        (heading, "number" if heading in numbers else "wrapped" if heading in wrapped else "")
        for heading in headings
    ]
    return render("report/table", {"headings": kinds, "rows": rows})


def render_columns(columns: Mapping[str, Sequence[str]], *, numbers: Sequence[str] = ()) -> Markup:
    """Write a table by columns; a column without any text is left out.

    Args:
        columns: Cells by heading.
        numbers: As for `render_table`.
    """
    nonempty_columns = {heading: cells for heading, cells in columns.items() if any(cells)}
    return render_table(
        list(nonempty_columns), list(zip(*nonempty_columns.values(), strict=True)), numbers=numbers
    )


def render_figure(
    figure: go.Figure, label: str, *, choices: Sequence[str] = (), height: int = 0
) -> Markup:
    """Write a figure, which the page's script draws when it comes into view.

    Args:
        figure: A plotly figure.
        label: What it shows, for screen readers.
        choices: Names of its traces. A slider shows the traces of one name at a time. With more
            traces than names, the names repeat in order.
        height: In pixels; 0 for the figure's own.
    """
    content = figure.to_plotly_json()
    layout = dict(content["layout"])
    # The page has a slider of its own, which a keyboard moves and a screen reader names.
    layout.pop("sliders", None)
    if height:
        layout["height"] = height
    text = go.Figure({"data": content["data"], "layout": layout}, skip_invalid=True).to_json()
    return render(
        "report/figure",
        {
            "label": label,
            "choices": choices,
            "choices_json": json.dumps(list(choices)),
            "height": layout.get("height") or _DEFAULT_HEIGHT,
            "data": script_json(text),
        },
    )


def render_grid(figures: Sequence[Markup]) -> Markup:
    """Write figures side by side, as many in a row as the page is wide."""
    return render("report/grid", {"figures": figures})


def render_notes(notes: Iterable[str]) -> Markup:
    """Write paragraphs that explain what stands above them."""
    return render("report/notes", {"notes": notes})


def render_subsections(bodies: Mapping[str, Markup]) -> Markup:
    """Write parts one after the other, each under its name; without a name or a body no heading.

    Args:
        bodies: HTML by name.
    """
    return Markup("").join(
        render("report/subsection", {"heading": name, "body": body}) if name and body else body
        for name, body in bodies.items()
    )
