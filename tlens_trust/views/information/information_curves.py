"""Both axes of an information plane along training, with the effective rank below."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from tlens_trust.analysis.phases.phase_records import Phases
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
from tlens_trust.views.panels import QUIET, chosen_ticks, draw_band, style
from tlens_trust.views.plot_text import (
    plot_text,
    quantity_label,
    template_text,
    within_template,
    wrapped_label,
)

_CURVE = "#0072B2"
_RANK = "#6a3d9a"


def draw_information(
    plane: xr.Dataset, phases: Phases | None = None, *, site: str | None = None
) -> Figure:
    """Draw I(T;X), I(T;Y) and the effective rank along training, one column per concept.

    Curves have intervals and lie over the null bands (grey) and the level of untrained weights
    (dash-dotted). The thin dotted curve has a flattened spectrum. It is scaled to the same largest
    distance from its null, so that the shapes can be compared. Claimed phases are shaded: green for
    a rise, red for a fall. The effective rank is drawn below. Where a curve only follows it, no
    phase is claimed.

    Args:
        plane: What `information_plane` gives.
        phases: What `find_phases` gives for the plane; None to mark none.
        site: As for `draw_plane`.

    Returns:
        A figure: `.show()` shows it.

    Raises:
        ValueError: `plane` is no information plane, or lacks the site.

    Examples:
        >>> from tlens_trust.analysis import find_phases, information_plane
        >>> from tlens_trust.tracing import Trace
        >>> plane = information_plane(Trace.load("run"))  # doctest: +SKIP
        >>> draw_information(plane, find_phases(plane)).save("curves.html")  # doctest: +SKIP
    """
    check_plane(plane, site)
    curves = [(name, site_of(plane, name, site)) for name in plane["concept"].values.tolist()]
    rows = ["x", "y", *(["rankme"] if "rankme" in plane else [])]
    figure: Figure = make_subplots(
        rows=len(rows),
        cols=len(curves),
        shared_xaxes=True,
        column_titles=[plot_text(panel_name(plane, *curve)) for curve in curves],
        vertical_spacing=0.06,
        # plotly takes a fraction of the whole figure, and more columns leave less to each gap.
        horizontal_spacing=0.3 / max(len(curves), 4),
        figure=Figure(),
    )
    style(figure, height=120 + 230 * len(rows))
    # The position is a logarithm; plotly takes the logarithm of values on such an axis itself.
    positions = np.exp(plane["position"].values.astype(float))
    in_legend: set[str] = set()
    for column, (concept, place) in enumerate(curves, start=1):
        part = plane.sel(concept=concept, site=place)
        for row, axis in enumerate(rows, start=1):
            is_first = row == column == 1
            if axis != "rankme":
                _draw_levels(figure, part, axis, positions, row, column, in_legend=is_first)
                _draw_matched(figure, part, axis, positions, row, column, in_legend=is_first)
                _shade(figure, phases, part, NAMES[axis], in_legend, row, column)
            _draw_curve(figure, part, axis, positions, concept, place, row, column)
    ticks = chosen_ticks(positions, max_labels=5)
    counts = np.asarray(plane["step"].values, dtype=float)
    figure.update_xaxes(
        type="log", tickvals=positions[ticks], ticktext=[format_count(counts[i]) for i in ticks]
    )
    figure.update_xaxes(title_text="training step", row=len(rows))
    for row, axis in enumerate(rows, start=1):
        title = (
            wrapped_label(plane[axis], width=26) if axis == "rankme" else axis_label(plane, axis)
        )
        figure.update_yaxes(title_text=title, row=row, col=1)
    figure.update_layout(legend={"orientation": "h", "y": -0.12})
    return figure


def _draw_levels(
    figure: Figure,
    part: xr.Dataset,
    axis: str,
    positions: np.ndarray,
    row: int,
    column: int,
    *,
    in_legend: bool,
) -> None:
    if f"{axis}_null" in part:
        null_band = part[f"{axis}_null"]
        low, high = (null_band.sel(bound=bound).values.astype(float) for bound in ("low", "high"))
        draw_band(figure, positions, low, high, QUIET, row, column,
                  name="pairs permuted", in_legend=in_legend)  # fmt: skip
    level = float(part[f"{axis}_untrained"]) if f"{axis}_untrained" in part else np.nan
    if np.isfinite(level):
        figure.add_trace(
            go.Scatter(
                x=positions,
                y=np.full(len(positions), level),
                mode="lines",
                line={"color": QUIET, "width": 1.2, "dash": "dashdot"},
                name="untrained weights",
                legendgroup="untrained weights",
                showlegend=in_legend,
                hovertemplate="untrained weights: %{y:.3f}<extra></extra>",
            ),
            row=row,
            col=column,
        )


def _draw_matched(
    figure: Figure,
    part: xr.Dataset,
    axis: str,
    positions: np.ndarray,
    row: int,
    column: int,
    *,
    in_legend: bool,
) -> None:
    """Draw the rank-matched variant, scaled to the largest distance of the curve from its null."""
    label = f"{axis}_control"
    if label not in part.dims or "rank-matched" not in part[label].values.tolist():
        return
    matched_curve = part.sel({label: "rank-matched"})
    null_level = _null_middle(part, axis)
    distance = matched_curve[f"{label}_value"].values.astype(float) - _null_middle(
        matched_curve, label
    )
    largest = np.nanmax(np.abs(distance), initial=0.0)
    # Nothing to scale by, also where all distances are unknown.
    if not largest > 0:
        return
    scale = np.nanmax(np.abs(part[axis].values - null_level), initial=0.0) / largest
    figure.add_trace(
        go.Scatter(
            x=positions,
            # Only the shape can be compared, so the curve is drawn around one level of the null.
            y=np.nanmean(null_level) + scale * distance,
            mode="lines",
            line={"color": _CURVE, "width": 1.5, "dash": "dot"},
            name="rank-matched, to scale",
            legendgroup="matched",
            showlegend=in_legend,
            customdata=np.column_stack([matched_curve[f"{label}_value"].values]),
            hovertemplate="rank-matched: %{customdata[0]:.3f} (its own scale)<extra></extra>",
        ),
        row=row,
        col=column,
    )


def _null_middle(part: xr.Dataset, name: str) -> np.ndarray:
    if f"{name}_null" not in part:
        return np.zeros(part.sizes["checkpoint"])
    # An unknown null counts as 0, so that the curve is still drawn, by its own values.
    middle: np.ndarray = np.nan_to_num(part[f"{name}_null"].mean("bound").values.astype(float))
    return middle


def _shade(
    figure: Figure,
    phases: Phases | None,
    part: xr.Dataset,
    quantity: str,
    in_legend: set[str],
    row: int,
    column: int,
) -> None:
    names = part["checkpoint"].values.tolist()
    positions = np.exp(part["position"].values.astype(float))
    for phase in claims(phases, str(part["concept"].item()), str(part["site"].item())):
        if phase.quantity != quantity:
            continue
        colour = PHASE_COLOURS[phase.verdict]
        figure.add_vrect(
            x0=positions[names.index(phase.first)],
            x1=positions[names.index(phase.last)],
            fillcolor=colour,
            opacity=0.15,
            line_width=0,
            row=row,
            col=column,
        )
        if phase.verdict not in in_legend:
            # A shape has no entry in the legend.
            figure.add_trace(
                go.Scatter(
                    x=[None],
                    y=[None],
                    mode="markers",
                    marker={"symbol": "square", "size": 14, "color": colour, "opacity": 0.3},
                    name=f"claimed: {phase.verdict}",
                ),
                row=row,
                col=column,
            )
            in_legend.add(phase.verdict)


def _draw_curve(
    figure: Figure,
    part: xr.Dataset,
    axis: str,
    positions: np.ndarray,
    concept: str,
    site: str,
    row: int,
    column: int,
) -> None:
    colour = _RANK if axis == "rankme" else _CURVE
    if f"{axis}_ci" in part:
        bounds = part[f"{axis}_ci"]
        low, high = (bounds.sel(bound=bound).values.astype(float) for bound in ("low", "high"))
        draw_band(figure, positions, low, high, colour, row, column)
    columns, template = hover_columns(part, axis)
    name = NAMES.get(axis) or quantity_label(part[axis])
    head = f"<b>{template_text(concept)}</b>, {template_text(site)}<br>"
    steps = np.asarray(part["step"].values, dtype=float)
    figure.add_trace(
        go.Scatter(
            x=positions,
            y=part[axis].values,
            mode="lines+markers",
            line={"color": colour, "width": 2},
            marker={"size": 5},
            customdata=np.column_stack([*columns, steps]),
            hovertemplate=f"{head}step %{{customdata[6]:,.0f}}<br>{within_template(name)}: "
            + template.format(*range(6))
            + "<extra></extra>",
            showlegend=False,
        ),
        row=row,
        col=column,
    )
