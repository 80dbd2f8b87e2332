"""The information plane: a path through the checkpoints, over two axes of one unit."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from tlens_trust.analysis.phases.phase_records import Phase, Phases
from tlens_trust.views.axes import format_count
from tlens_trust.views.figure import Figure
from tlens_trust.views.information.plane_parts import (
    NAMES,
    PHASE_COLOURS,
    axis_label,
    check_plane,
    claims,
    hover_columns,
    panel_name,
    site_of,
)
from tlens_trust.views.panels import QUIET, chosen_ticks, make_panels
from tlens_trust.views.plot_text import plot_text, template_text


def draw_plane(
    plane: xr.Dataset, phases: Phases | None = None, *, site: str | None = None
) -> Figure:
    """Draw I(T;Y) over I(T;X) along training, one panel per concept.

    A path runs through the checkpoints of one site, coloured from early (dark) to late (light) by
    the logarithm of the step, with both intervals. Dashed lines are the upper ends of the null
    bands at the last checkpoint. The open diamond is untrained weights. A broad line under the path
    marks a claimed phase: green for a rise, red for a fall, and broader for I(T;X). Hovering shows
    value, interval, null and n of both axes, and the effective rank.

    Both axes have the same unit and name it. Kernel estimates are no information in nats, and the
    axes say so.

    Args:
        plane: What `information_plane` gives.
        phases: What `find_phases` gives for the plane; None to mark none.
        site: A site's name. None chooses for each concept the site with the largest I(T;Y) at the
            last checkpoint, which is chosen by the number that is then shown.

    Returns:
        A figure: `.show()` shows it.

    Raises:
        ValueError: `plane` is no information plane, or lacks the site.

    Examples:
        >>> from tlens_trust.analysis import find_phases, information_plane
        >>> from tlens_trust.tracing import Trace
        >>> plane = information_plane(Trace.load("run"))  # doctest: +SKIP
        >>> draw_plane(plane, find_phases(plane)).show()  # doctest: +SKIP
    """
    check_plane(plane, site)
    curves = [(name, site_of(plane, name, site)) for name in plane["concept"].values.tolist()]
    titles = [panel_name(plane, *curve) for curve in curves]
    figure, cells = make_panels(titles, height=380, gap=0.36)
    position = plane["position"].values.astype(float)
    colours = {
        "colorscale": "Viridis",
        "cmin": float(position.min()),
        # A single checkpoint would leave the scale of colours without extent.
        "cmax": float(max(position.max(), position.min() + 1e-9)),
    }
    in_legend: set[str] = set()
    for (concept, place), (row, column) in zip(curves, cells, strict=True):
        part = plane.sel(concept=concept, site=place)
        is_first = (row, column) == cells[0]
        _draw_nulls(figure, part, row, column, in_legend=is_first)
        # Before the path, which would otherwise lie under the broad line.
        for phase in claims(phases, concept, place):
            _draw_phase(figure, part, phase, in_legend, row, column)
        _draw_path(figure, part, concept, place, colours, row, column, bar=is_first)
        _draw_untrained(figure, part, row, column, in_legend=is_first)
    for axis, update in (("x", figure.update_xaxes), ("y", figure.update_yaxes)):
        # Both quantities have a true zero; an axis that starts elsewhere exaggerates changes.
        update(title_text=_axis_title(plane, axis), zeroline=False, rangemode="tozero")
    # Below all panels, however many rows there are.
    legend = {"orientation": "h", "yref": "container", "y": 0.01, "yanchor": "bottom"}
    figure.update_layout(legend=legend, margin={"b": 110})
    return figure


def _axis_title(plane: xr.Dataset, axis: str) -> str:
    against = str(plane.attrs.get("against", "")).replace("_", " ")
    return axis_label(plane, axis) + (
        f", X: {plot_text(against)}" if axis == "x" and against else ""
    )


def _draw_path(
    figure: Figure,
    part: xr.Dataset,
    concept: str,
    site: str,
    colours: dict[str, object],
    row: int,
    column: int,
    *,
    bar: bool,
) -> None:
    columns = [np.asarray(part["step"].values, dtype=float)]
    lines = ["step %{customdata[0]:,.0f}"]
    for axis in ("x", "y"):
        axis_columns, template = hover_columns(part, axis)
        lines.append(f"{NAMES[axis]}: " + template.format(*range(len(columns), len(columns) + 6)))
        columns += axis_columns
    if "rankme" in part:
        lines.append(f"effective rank: %{{customdata[{len(columns)}]:.1f}} directions")
        columns.append(part["rankme"].values.astype(float))
    head = f"<b>{template_text(concept)}</b>, {template_text(site)}"
    steps = np.asarray(part["step"].values, dtype=float)
    position = part["position"].values.astype(float)
    ticks = chosen_ticks(np.exp(position), max_labels=6)
    marker = {"size": 9, "color": position, **colours, "line": {"width": 1, "color": "white"}}
    # All panels share one scale of colours, and the bar stands in the first.
    if bar:
        marker["colorbar"] = {
            "title": {"text": "training step", "side": "right"},
            "tickvals": position[ticks],
            "ticktext": [format_count(steps[i]) for i in ticks],
        }
    figure.add_trace(
        go.Scatter(
            x=part["x"].values,
            y=part["y"].values,
            mode="lines+markers",
            line={"color": "#bbbbbb", "width": 1.5},
            marker=marker,
            error_x=_bars(part, "x"),
            error_y=_bars(part, "y"),
            customdata=np.column_stack(columns),
            hovertemplate="<br>".join([head, *lines]) + "<extra></extra>",
            showlegend=False,
        ),
        row=row,
        col=column,
    )


def _bars(part: xr.Dataset, axis: str) -> dict[str, object]:
    value, interval = part[axis].values, part[f"{axis}_ci"]
    return {
        "type": "data",
        "symmetric": False,
        "array": interval.sel(bound="high").values - value,
        "arrayminus": value - interval.sel(bound="low").values,
        "color": "#999999",
        "thickness": 1,
        "width": 2,
    }


def _draw_nulls(
    figure: Figure, part: xr.Dataset, row: int, column: int, *, in_legend: bool
) -> None:
    """Draw the nulls as lines, since a band of either axis would cover the panel."""
    for axis, add in (("x", figure.add_vline), ("y", figure.add_hline)):
        if f"{axis}_null" not in part:
            continue
        high = part[f"{axis}_null"].sel(bound="high").values.astype(float)
        if np.isfinite(high[-1]):
            add(**{axis: float(high[-1])}, line={"color": QUIET, "dash": "dash", "width": 1},
                row=row, col=column)  # fmt: skip
    if in_legend and any(f"{axis}_null" in part for axis in ("x", "y")):
        figure.add_trace(
            go.Scatter(
                x=[None], y=[None], mode="lines", line={"color": QUIET, "dash": "dash", "width": 1},
                name="upper end of the null, last checkpoint", hoverinfo="skip",
            ),
            row=row, col=column,
        )  # fmt: skip


def _draw_untrained(
    figure: Figure, part: xr.Dataset, row: int, column: int, *, in_legend: bool
) -> None:
    level = [float(part[f"{axis}_untrained"]) for axis in ("x", "y") if f"{axis}_untrained" in part]
    if len(level) < 2 or not np.isfinite(level).all():
        return
    figure.add_trace(
        go.Scatter(
            x=level[:1],
            y=level[1:],
            mode="markers",
            marker={"symbol": "diamond-open", "size": 15, "color": QUIET, "line": {"width": 2}},
            name="untrained weights",
            legendgroup="untrained",
            showlegend=in_legend,
            hovertemplate="untrained weights: %{x:.3f}, %{y:.3f}<extra></extra>",
        ),
        row=row,
        col=column,
    )


def _draw_phase(
    figure: Figure, part: xr.Dataset, phase: Phase, in_legend: set[str], row: int, column: int
) -> None:
    """Mark a claimed phase by a broad line under its part of the path."""
    names = part["checkpoint"].values.tolist()
    stretch = slice(names.index(phase.first), names.index(phase.last) + 1)
    name = f"{phase.quantity} {phase.verdict}"
    # Different widths keep the axes apart where both change at once.
    width = 12 if phase.quantity == NAMES["x"] else 6
    figure.add_trace(
        go.Scatter(
            x=part["x"].values[stretch],
            y=part["y"].values[stretch],
            mode="lines",
            line={"color": PHASE_COLOURS[phase.verdict], "width": width},
            opacity=0.35,
            name=name,
            legendgroup=name,
            showlegend=name not in in_legend,
            hoverinfo="skip",
        ),
        row=row,
        col=column,
    )
    in_legend.add(name)
