"""A `Trace` as plotly figures: the map of checkpoints and layers, and curves along training."""

import math
from collections.abc import Hashable
from html import escape

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots

from tlens_trust.tracing import Trace, register_trace_accessor
from tlens_trust.views.axes import (
    DIMENSION_COLOURS,
    format_count,
    log_positions,
    quantity_label,
    training_axis,
)

_PANEL_COLUMNS = 3
_MOST_TICKS = 9
_QUIET = "#8a8a8a"


@register_trace_accessor("plot")
class TracePlot:
    """Figures of one `Trace`, reached as `trace.plot`.

    Every method returns a `plotly.graph_objects.Figure`: `.show()` shows it, and
    `.write_html("figure.html")` writes it.
    """

    def __init__(self, trace: Trace) -> None:
        self._data = trace.data

    def heatmap(self, variable: str = "accuracy", *, x: str = "step") -> go.Figure:
        """Draw a variable over checkpoints (across) and sites (upwards), one panel a concept.

        All panels share one colour scale. Hovering shows value, interval and n.

        Args:
            variable: A variable of the trace over concept, checkpoint and site.
            x: How checkpoints are labelled: "step" or "tokens".

        Raises:
            ValueError: The trace holds no such variable, holds several probes, or `x` is unknown
                for some checkpoint.
        """
        values = _panel_values(self._data, variable)
        axis = training_axis(self._data, x)
        concepts = [str(name) for name in values.coords["concept"].values]
        figure, cells = _panels(concepts)
        labels = _site_labels(self._data)
        for name, (row, column) in zip(concepts, cells, strict=True):
            panel = values.sel(concept=name)
            figure.add_trace(
                go.Heatmap(
                    z=panel.transpose("site", "checkpoint").values,
                    y=labels,
                    coloraxis="coloraxis",
                    customdata=_hover(self._data, variable, name, axis, x),
                    hovertemplate="%{customdata}<extra></extra>",
                ),
                row=row,
                col=column,
            )
        figure.update_layout(
            coloraxis={
                "colorscale": "Cividis",
                "colorbar": {"title": {"text": quantity_label(values), "side": "right"}},
            },
        )
        # Columns are equally wide, whatever the gap between two checkpoints.
        shown = np.arange(0, len(axis), math.ceil(len(axis) / _MOST_TICKS))
        figure.update_xaxes(
            title_text=_axis_title(x),
            tickvals=shown,
            ticktext=[format_count(count) for count in axis[shown]],
            tickangle=0,
            showgrid=False,
        )
        figure.update_yaxes(type="category", title_text=_site_title(self._data))
        return _finish(figure, len(concepts))

    def lines(
        self, variable: str = "accuracy", *, x: str = "step", sites: list[int] | None = None
    ) -> go.Figure:
        """Draw a variable along training, one panel a concept and one line a site.

        The horizontal axis is logarithmic; the untrained model stands left of it, under the label
        0. Lines run from early blocks (dark) to late ones (light). A line's interval is drawn as a
        band where at most three sites are drawn; a null band and a floor are drawn where the
        trace holds them.

        Args:
            variable: A variable of the trace over concept, checkpoint and site.
            x: "step" or "tokens".
            sites: Layers to draw; all by default.

        Raises:
            ValueError: The trace holds no such variable or layer, holds several probes, or `x` is
                unknown for some checkpoint.
        """
        data = _select_layers(self._data, sites)
        values = _panel_values(data, variable)
        axis = training_axis(data, x)
        where = log_positions(axis)
        concepts = [str(name) for name in values.coords["concept"].values]
        figure, cells = _panels(concepts, shared_yaxes="all")
        labels = _site_labels(data)
        dimensions = _dimensions(data)
        for name, (row, column) in zip(concepts, cells, strict=True):
            colours = _line_colours(len(labels), dimensions.get(name))
            _draw_references(figure, data, variable, name, where, row, column)
            hover = _hover(data, variable, name, axis, x)
            for i, label in enumerate(labels):
                if len(labels) <= 3 and f"{variable}_ci" in data:
                    bounds = data[f"{variable}_ci"].sel(concept=name).isel(site=i)
                    _draw_band(
                        figure,
                        where,
                        bounds.sel(bound="low").values,
                        bounds.sel(bound="high").values,
                        colours[i],
                        row,
                        column,
                    )
                figure.add_trace(
                    go.Scatter(
                        x=where,
                        y=values.sel(concept=name).isel(site=i).values,
                        mode="lines+markers",
                        name=f"{_site_title(data)} {label}",
                        legendgroup=label,
                        showlegend=(row, column) == cells[0],
                        line={"color": colours[i], "width": 2},
                        marker={"size": 5},
                        customdata=hover[i],
                        hovertemplate="%{customdata}<extra></extra>",
                    ),
                    row=row,
                    col=column,
                )
        ticks = _thin(where)
        figure.update_xaxes(
            type="log",
            title_text=_axis_title(x),
            tickvals=where[ticks],
            ticktext=[format_count(count) for count in axis[ticks]],
        )
        figure.update_yaxes(title_text=quantity_label(values), col=1)
        return _finish(figure, len(concepts))


def _panel_values(data: xr.Dataset, variable: str) -> xr.DataArray:
    wanted: tuple[Hashable, ...] = ("concept", "checkpoint", "site")
    drawable = sorted(str(name) for name in data if set(data[name].dims) >= set(wanted))
    drawable = [name for name in drawable if "bound" not in data[name].dims]
    if variable not in drawable:
        raise ValueError(
            f"The trace holds no variable {variable!r} over concept, checkpoint and site. "
            f"Choose one of {', '.join(drawable) or 'none'}."
        )
    values = data[variable]
    extra = [dim for dim in values.dims if dim not in wanted]
    if extra:
        choices = ", ".join(str(v) for v in data[extra[0]].values)
        raise ValueError(
            f"{variable!r} has a dimension {extra[0]!r} ({choices}), and a figure shows one of it. "
            f"Choose with `trace.sel({extra[0]}=...)`."
        )
    return values.transpose(*wanted)


def _select_layers(data: xr.Dataset, layers: list[int] | None) -> xr.Dataset:
    if layers is None:
        return data
    held = data.coords["layer"].values
    missing = [layer for layer in layers if layer not in held]
    if missing:
        raise ValueError(
            f"The trace holds no layer {missing[0]}. Choose among {sorted(set(held.tolist()))}."
        )
    return data.isel(site=np.flatnonzero(np.isin(held, layers)))


def _site_labels(data: xr.Dataset) -> list[str]:
    """Layer numbers where there is one site a layer, else the hook names."""
    layers = [f"{layer:g}" for layer in np.asarray(data.coords["layer"].values, dtype=float)]
    return layers if len(set(layers)) == len(layers) else [str(s) for s in data["site"].values]


def _site_title(data: xr.Dataset) -> str:
    layers = data.coords["layer"].values
    return "layer" if len(set(layers.tolist())) == len(layers) else "site"


def _dimensions(data: xr.Dataset) -> dict[str, str]:
    if "dimension" not in data.coords:
        return {str(name): str(name) for name in data["concept"].values}
    pairs = zip(data["concept"].values, data.coords["dimension"].values, strict=True)
    return {str(name): str(dimension) for name, dimension in pairs}


def _line_colours(count: int, dimension: str | None) -> list[str]:
    if count == 1:
        return [DIMENSION_COLOURS.get(dimension or "", "#333333")]
    # The lightest end of the scale would vanish on white.
    return list(sample_colorscale("Viridis", np.linspace(0.0, 0.85, count).tolist()))


def _hover(
    data: xr.Dataset, variable: str, concept: str, axis: np.ndarray, x: str
) -> list[list[str]]:
    """One text per site and checkpoint: where, value, interval, n."""
    panel = data.sel(concept=concept)
    values = panel[variable].transpose("site", "checkpoint").values
    counts = f"{variable}_n" if f"{variable}_n" in panel else None
    texts = []
    for i, site in enumerate(panel["site"].values):
        row = []
        for j, count in enumerate(axis):
            cell = panel.isel(site=i, checkpoint=j)
            lines = [
                f"<b>{escape(concept)}</b>, {escape(str(site))}",
                f"{x} {count:,.0f}",
                f"{quantity_label(panel[variable])}: {values[i, j]:.3f}",
            ]
            if f"{variable}_ci" in panel:
                low, high = cell[f"{variable}_ci"].transpose("bound").values
                lines[-1] += f" [{low:.3f}, {high:.3f}]"
            if counts and np.isfinite(cell[counts].values):
                lines.append(f"n = {int(cell[counts].values)}")
            row.append("<br>".join(lines))
        texts.append(row)
    return texts


def _panels(concepts: list[str], **shared: str) -> tuple[go.Figure, list[tuple[int, int]]]:
    columns = min(_PANEL_COLUMNS, len(concepts))
    rows = math.ceil(len(concepts) / columns)
    figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=[escape(name) for name in concepts],
        horizontal_spacing=0.07,
        vertical_spacing=0.28 / rows,
        **shared,
    )
    return figure, [(i // columns + 1, i % columns + 1) for i in range(len(concepts))]


def _draw_band(
    figure: go.Figure,
    where: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    colour: str,
    row: int,
    column: int,
) -> None:
    figure.add_trace(
        go.Scatter(
            x=np.concatenate([where, where[::-1]]),
            y=np.concatenate([high, low[::-1]]),
            mode="lines",
            fill="toself",
            fillcolor=colour,
            opacity=0.18,
            line={"width": 0},
            hoverinfo="skip",
            showlegend=False,
        ),
        row=row,
        col=column,
    )


def _draw_references(
    figure: go.Figure,
    data: xr.Dataset,
    variable: str,
    concept: str,
    where: np.ndarray,
    row: int,
    column: int,
) -> None:
    """The levels that a curve must be held against, where the trace holds them."""
    panel = data.sel(concept=concept)
    if f"{variable}_null" in panel:
        null = panel[f"{variable}_null"].max("site")
        _draw_band(
            figure, where, null.sel(bound="low").values, null.sel(bound="high").values,
            _QUIET, row, column,
        )  # fmt: skip
    for suffix, dash in (("chance", "dot"), ("floor", "dash")):
        if f"{variable}_{suffix}" in panel:
            level = panel[f"{variable}_{suffix}"]
            level = level.max([dim for dim in level.dims if dim != "checkpoint"])
            figure.add_trace(
                go.Scatter(
                    x=where,
                    y=np.broadcast_to(level.values, where.shape),
                    mode="lines",
                    line={"color": _QUIET, "width": 1, "dash": dash},
                    name=suffix,
                    legendgroup=suffix,
                    showlegend=(row, column) == (1, 1),
                    hovertemplate=f"{suffix}: %{{y:.3f}}<extra></extra>",
                ),
                row=row,
                col=column,
            )


def _axis_title(x: str) -> str:
    return "training step" if x == "step" else "tokens seen"


def _thin(where: np.ndarray, most: int = _MOST_TICKS) -> np.ndarray:
    """Which ticks to label, so that labels on a logarithmic axis do not run into each other.

    The last checkpoint is always labelled, and the first where the second is not too close.
    """
    position = np.log(where)
    order = np.argsort(position)[::-1]
    gap = np.ptp(position) / most
    kept = [order[0]]
    for i in order[1:]:
        if position[kept[-1]] - position[i] >= gap:
            kept.append(i)
    return np.array(kept[::-1])


def _finish(figure: go.Figure, panels: int) -> go.Figure:
    rows = math.ceil(panels / _PANEL_COLUMNS)
    figure.update_layout(
        template="plotly_white",
        height=120 + 300 * rows,
        font={"size": 13},
        margin={"l": 70, "r": 30, "t": 60, "b": 60},
    )
    return figure
