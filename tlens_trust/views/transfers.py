"""Transfer between sets of statements along training, as plotly figures."""

import plotly.graph_objects as go
import xarray as xr

from tlens_trust.views.axes import format_count, log_positions, training_axis
from tlens_trust.views.figure import Figure
from tlens_trust.views.panels import (
    axis_title,
    chosen_ticks,
    draw_band,
    draw_references,
    make_panels,
    site_labels,
    site_title,
)
from tlens_trust.views.plot_text import hover_head, hover_numbers, plot_text
from tlens_trust.views.transfer_table import by_set, chosen_site

_SCORES = ("accuracy", "auroc")
# Behind the score's name: what is drawn, in which colour, dashed or not.
_CURVES = {
    "": ("transferred", "#D55E00", "solid"),
    "_source": ("in the fitted set itself", "#0072B2", "solid"),
    "_target": ("probes of the scored set's own", "#009E73", "dash"),
}


def draw_transfer_curves(
    transfer: xr.Dataset,
    variable: str = "accuracy",
    *,
    x: str = "step",
    site: str | int | None = None,
) -> Figure:
    """Draw how well probes of one set of statements read another along training.

    One panel for each scored set. Beside the transferred probes' curve stand their own in the set
    that they were fitted to, and that of probes fitted to the scored set; bands are 95% intervals.
    In grey is what the transferred curve must be held against: what directions get that were fitted
    to permuted labels, untrained weights, the fitted set's text, the share of the larger class.

    Args:
        transfer: What `trace_transfer` gives.
        variable: `"accuracy"` or `"auroc"`.
        x: `"step"` or `"tokens"`.
        site: A layer or the name of a site. By default the one that reads the fitted set best, over
            all checkpoints: so it is not chosen by what is shown.

    Returns:
        A figure: `.show()` shows it.

    Raises:
        ValueError: It is no result of `trace_transfer`, there is no such variable or site, or `x`
            is unknown for some checkpoint.
    """
    if variable not in _SCORES:
        raise ValueError(f"No curve of {variable!r} here. Choose 'accuracy' or 'auroc'.")
    several = by_set(transfer)
    data = several.isel(site=[chosen_site(several, variable, site)])
    axis = training_axis(data, x)
    where = log_positions(axis)
    names = [str(name) for name in data["scored_on"].values]
    fitted_on = str(transfer.attrs.get("fitted_on", ""))
    figure, cells = make_panels([f"{fitted_on} → {name}" for name in names], shared_yaxes="all")
    for name, (row, column) in zip(names, cells, strict=True):
        panel = data.sel(scored_on=name)
        first = (row, column) == cells[0]
        draw_references(figure, panel, variable, where, row, column, in_legend=first)
        for suffix, (told, colour, dash) in _CURVES.items():
            drawn = f"{variable}{suffix}"
            interval = panel[f"{drawn}_ci"].isel(site=0).transpose("checkpoint", "bound").values
            draw_band(figure, where, interval[:, 0], interval[:, 1], colour, row, column)
            numbers, shown = hover_numbers(panel, drawn, axis)
            figure.add_trace(
                go.Scatter(
                    x=where,
                    y=panel[drawn].isel(site=0).values,
                    mode="lines+markers",
                    line={"color": colour, "dash": dash, "width": 2},
                    marker={"size": 5},
                    name=told,
                    legendgroup=told,
                    showlegend=first,
                    customdata=numbers[0],
                    hovertemplate=hover_head(name, plot_text(told), x) + f"{shown}<extra></extra>",
                ),
                row=row,
                col=column,
            )
    ticks = chosen_ticks(where)
    figure.update_xaxes(
        type="log",
        title_text=axis_title(x),
        tickvals=where[ticks],
        ticktext=[format_count(axis[i]) for i in ticks],
    )
    units = "" if variable == "auroc" else " (fraction of statements)"
    figure.update_yaxes(title_text=f"{variable}{units}", col=1)
    figure.update_layout(
        title={
            "text": f"{site_title(data)} {plot_text(site_labels(data)[0])}", "font": {"size": 14},
        },
        legend={"orientation": "h", "y": -0.25, "x": 0},
    )  # fmt: skip
    return figure
