"""What a point says when a pointer rests on it: where it is, value, interval, n."""

from html import escape

import numpy as np
import xarray as xr

from tlens_trust.views.axes import quantity_label


def hover_numbers(panel: xr.Dataset, variable: str, counts: np.ndarray) -> tuple[np.ndarray, str]:
    """Numbers for a pointer to show, and the template that shows them.

    Numbers and not texts, so that a figure of many checkpoints and sites stays small.

    Args:
        panel: One concept of a trace.
        variable: What is drawn, over checkpoint and site.
        counts: Steps or tokens of each checkpoint.

    Returns:
        An array over site, checkpoint and number, for plotly's `customdata`; and the end of a
        `hovertemplate`, for which numbers come from the array.
    """
    values = panel[variable].transpose("site", "checkpoint").values.astype(float)
    columns = [np.broadcast_to(counts.astype(float), values.shape), values]
    shown = "%{customdata[1]:.3f}"
    if f"{variable}_ci" in panel:
        interval = panel[f"{variable}_ci"].transpose("bound", "site", "checkpoint")
        columns += [interval.sel(bound="low").values, interval.sel(bound="high").values]
        shown += " [%{customdata[2]:.3f}, %{customdata[3]:.3f}]"
    if f"{variable}_n" in panel:
        n = panel[f"{variable}_n"].broadcast_like(panel[variable])
        columns.append(n.transpose("site", "checkpoint").values)
        shown += f"<br>n = %{{customdata[{len(columns) - 1}]:,.0f}}"
    return np.stack(columns, axis=-1), f"{literal(quantity_label(panel[variable]))}: {shown}"


def hover_head(concept: str, site: str, x: str) -> str:
    """The beginning of a `hovertemplate`; `site` may be a part of a template itself."""
    form = ".3f" if x == "loss" else ",.0f"
    return f"<b>{literal(escape(concept))}</b>, {site}<br>{x} %{{customdata[0]:{form}}}<br>"


def literal(text: str) -> str:
    """Text within a template that is no part of its language."""
    return text.replace("%{", "&#37;{")
