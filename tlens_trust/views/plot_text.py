"""Texts within plotly figures: labels of axes, and what a point shows when the pointer rests on it.

plotly reads a text as HTML, and a hover text as a template besides. Names and units come from data,
so each passes one of these functions first.
"""

import textwrap
from html import escape

import numpy as np
import xarray as xr


def plot_text(text: str) -> str:
    """Escape a text for plotly, which reads it as HTML.

    Examples:
        >>> plot_text("a < b")
        'a &lt; b'
    """
    return escape(text)


def template_text(text: str) -> str:
    """Escape a text for a `hovertemplate`, in which `%{...}` has a meaning besides.

    Examples:
        >>> template_text("<%{x}>")
        '&lt;&#37;{x}&gt;'
    """
    return within_template(plot_text(text))


def within_template(label: str) -> str:
    """Insert a text that is escaped already, as `quantity_label` is, into a `hovertemplate`."""
    # plotly has no escape for `%{`. It fills templates in before it decodes HTML, so that the
    # character reference passes the first and becomes a percent sign in the second.
    return label.replace("%{", "&#37;{")


def quantity_label(data: xr.DataArray) -> str:
    """Name and unit of a variable, for an axis; escaped for plotly."""
    name = str(data.attrs.get("long_name", data.name))
    unit = str(data.attrs.get("units", ""))
    return plot_text(f"{name} ({unit})" if unit not in ("", "1") else name)


def wrapped_label(values: xr.DataArray, *, width: int = 44) -> str:
    """`quantity_label` in lines, for a narrow axis; escaped for plotly.

    Args:
        values: A variable with a name and a unit.
        width: The largest number of characters in a line.

    Examples:
        >>> data = xr.DataArray(0.5, attrs={"long_name": "a very long name", "units": "nats"})
        >>> wrapped_label(data, width=12)
        'a very long<br>name (nats)'
    """
    # An escaped character is longer than it looks, and holds no space to break at.
    return "<br>".join(textwrap.wrap(quantity_label(values), width, break_long_words=False))


def hover_numbers(panel: xr.Dataset, variable: str, counts: np.ndarray) -> tuple[np.ndarray, str]:
    """Collect the numbers of a hover text, and the template that shows them.

    The figure holds numbers and not texts, so that it stays small with many checkpoints and sites.

    Args:
        panel: One concept of a trace.
        variable: What is drawn, over checkpoint and site.
        counts: Steps or tokens of each checkpoint.

    Returns:
        An array over site, checkpoint and number, for plotly's `customdata`; and the end of a
        `hovertemplate`, which shows the value with its interval and n.
    """
    values = panel[variable].transpose("site", "checkpoint").values.astype(float)
    columns = [np.broadcast_to(counts.astype(float), values.shape), values]
    template = "%{customdata[1]:.3f}"
    if f"{variable}_ci" in panel:
        interval = panel[f"{variable}_ci"].transpose("bound", "site", "checkpoint")
        columns += [interval.sel(bound="low").values, interval.sel(bound="high").values]
        template += " [%{customdata[2]:.3f}, %{customdata[3]:.3f}]"
    if f"{variable}_n" in panel:
        n = panel[f"{variable}_n"].broadcast_like(panel[variable])
        columns.append(n.transpose("site", "checkpoint").values)
        template += f"<br>n = %{{customdata[{len(columns) - 1}]:,.0f}}"
    label = within_template(quantity_label(panel[variable]))
    return np.stack(columns, axis=-1), f"{label}: {template}"


def hover_head(concept: str, site: str, x: str) -> str:
    """The beginning of a `hovertemplate`: concept, site and checkpoint.

    Args:
        concept: Its name.
        site: A text that is escaped already; it may be a part of a template itself.
        x: The training axis.
    """
    # Steps and tokens are large counts; of a loss, the decimals matter.
    number_format = ".3f" if x == "loss" else ",.0f"
    return f"<b>{template_text(concept)}</b>, {site}<br>{x} %{{customdata[0]:{number_format}}}<br>"
