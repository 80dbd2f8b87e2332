"""Transfer between sets of statements along training: curves, and a table for a terminal."""

import numpy as np
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
from tlens_trust.views.text_tables import Column, lay_out, number, small_number, with_interval

_SCORES = ("accuracy", "auroc")
# By the suffix of the score's name: what the curve is, its colour, and its dash.
_CURVES = {
    "": ("transferred", "#D55E00", "solid"),
    "_source": ("in the fitted set itself", "#0072B2", "solid"),
    "_target": ("probes fitted to the scored set", "#009E73", "dash"),
}


def draw_transfer_curves(
    transfer: xr.Dataset,
    variable: str = "accuracy",
    *,
    x: str = "step",
    site: str | int | None = None,
) -> Figure:
    """Draw how well probes fitted to one set of statements classify another, along training.

    Each scored set has a panel with three curves: the transferred probes, the same probes in the
    set that they were fitted to, and probes fitted to the scored set. Bands are 95% intervals. The
    references are grey: directions fitted to permuted labels, untrained weights, a text-only
    baseline of the fitted set, and the share of the larger class.

    Args:
        transfer: What `trace_transfer` gives.
        variable: `"accuracy"` or `"auroc"`.
        x: `"step"` or `"tokens"`.
        site: A layer or the name of a site. By default the site with the highest score in the
            fitted set, over all checkpoints; so it is not chosen by the scores that are shown.

    Returns:
        A figure: `.show()` shows it.

    Raises:
        ValueError: `transfer` is no result of `trace_transfer`, there is no such variable or site,
            or `x` is unknown for some checkpoint.
    """
    if variable not in _SCORES:
        raise ValueError(f"No curve of {variable!r} here. Choose 'accuracy' or 'auroc'.")
    by_set = _with_set_axis(transfer)
    # A list keeps the axis of sites, along which references and hover texts are taken.
    data = by_set.isel(site=[_site_number(by_set, variable, site)])
    axis = training_axis(data, x)
    positions = log_positions(axis)
    names = [str(name) for name in data["scored_on"].values]
    fitted_on = str(transfer.attrs.get("fitted_on", ""))
    figure, cells = make_panels([f"{fitted_on} → {name}" for name in names], shared_yaxes="all")
    for name, (row, column) in zip(names, cells, strict=True):
        panel = data.sel(scored_on=name)
        in_legend = (row, column) == cells[0]
        draw_references(figure, panel, variable, positions, row, column, in_legend=in_legend)
        for suffix, (label, colour, dash) in _CURVES.items():
            curve = f"{variable}{suffix}"
            interval = panel[f"{curve}_ci"].isel(site=0).transpose("checkpoint", "bound").values
            draw_band(figure, positions, interval[:, 0], interval[:, 1], colour, row, column)
            numbers, template = hover_numbers(panel, curve, axis)
            figure.add_trace(
                go.Scatter(
                    x=positions,
                    y=panel[curve].isel(site=0).values,
                    mode="lines+markers",
                    line={"color": colour, "dash": dash, "width": 2},
                    marker={"size": 5},
                    name=label,
                    legendgroup=label,
                    showlegend=in_legend,
                    customdata=numbers[0],
                    hovertemplate=hover_head(name, plot_text(label), x)
                    + f"{template}<extra></extra>",
                ),
                row=row,
                col=column,
            )
    ticks = chosen_ticks(positions)
    figure.update_xaxes(
        type="log",
        title_text=axis_title(x),
        tickvals=positions[ticks],
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


def transfer_table(transfer: xr.Dataset, *, site: str | int | None = None) -> str:
    """Lay out a transfer at one site for a terminal, one row per checkpoint.

    Args:
        transfer: What `trace_transfer` gives.
        site: A layer or the name of a site. By default the site with the highest score in the
            fitted set, over all checkpoints; so it is not chosen by the scores that are shown.

    Raises:
        ValueError: `transfer` is no result of `trace_transfer`, or there is no such site.

    Examples:
        >>> from tlens_trust.analysis import trace_transfer
        >>> print(transfer_table(trace_transfer(readings, "one", "other")))  # doctest: +SKIP
    """
    by_set = _with_set_axis(transfer)
    number_of_site = _site_number(by_set, "accuracy", site)
    sections = [
        f"Probes fitted to {transfer.attrs['fitted_on']!r}, accuracy at "
        f"{by_set['site'].values[number_of_site]}"
    ]
    for name in by_set["scored_on"].values.tolist():
        panel = by_set.sel(scored_on=name).isel(site=number_of_site)
        low, high = (panel.accuracy_ci.sel(bound=bound).values for bound in ("low", "high"))
        columns: list[Column] = [
            ("checkpoint", [str(name) for name in panel["checkpoint"].values]),
            ("own", [number(value) for value in panel.accuracy_source.values]),
            (
                "transferred [95% interval]",
                [with_interval(*row) for row in zip(panel.accuracy.values, low, high, strict=True)],
            ),
            ("auroc", [number(value) for value in panel.auroc.values]),
            ("refitted", [number(value) for value in panel.accuracy_target.values]),
            ("untrained", [number(value) for value in panel.accuracy_untrained.values]),
            ("p", [small_number(p) for p in panel.accuracy_p.values]),
            ("q", [small_number(p) for p in panel.accuracy_q.values]),
        ]
        n_statements = int(panel.accuracy_n.values[0])
        floor = number(float(panel.accuracy_floor))
        sections += [
            "",
            f"to {name!r}: {n_statements} statements, {int(panel.held_out_n)} of them in groups of "
            f"the fitted set, scored without these; text only {floor}",
            *lay_out(columns, left=("checkpoint",)),
        ]
    return "\n".join(
        [
            *sections,
            "",
            "own        held out in the fitted set; refitted: probes fitted to the scored set",
            "p          test that the fitted set is decodable and its probes classify the other",
            "q          of the best site, corrected for sites, checkpoints and sets",
        ]
    )


def _with_set_axis(transfer: xr.Dataset) -> xr.Dataset:
    """Add the axis of scored sets where there is only one set.

    Raises:
        ValueError: `transfer` is no result of `trace_transfer`.
    """
    if "accuracy_source" not in transfer:
        variables = ", ".join(str(name) for name in transfer) or "nothing"
        raise ValueError(f"This shows what `trace_transfer` gives, got a data set of {variables}.")
    if "scored_on" in transfer.dims:
        return transfer
    # Scores within the fitted set do not depend on the scored set, and never have this axis.
    common = [name for name in transfer if "_source" in str(name)]
    return (
        transfer.drop_vars(common)
        .expand_dims("scored_on")
        .merge(transfer[common].drop_vars("scored_on"))
    )


def _site_number(transfer: xr.Dataset, variable: str, site: str | int | None) -> int:
    """The number of a site; for None, of the one with the highest score in the fitted set.

    Raises:
        ValueError: There is no such site.
    """
    if site is None:
        return int(np.argmax(transfer[f"{variable}_source"].mean("checkpoint").values))
    kind = "site" if isinstance(site, str) else "layer"
    names = transfer[kind].values.tolist()
    if site not in names:
        raise ValueError(f"There is no {kind} {site!r} here. Choose among {sorted(set(names))}.")
    number_of_site: int = names.index(site)
    return number_of_site
