"""Figures of a `Trace`: the map of checkpoints and layers, and curves along training or depth."""

import itertools
import math
from collections.abc import Hashable

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.colors import sample_colorscale

from tlens_trust.tracing import Trace
from tlens_trust.tracing.trace import register_trace_accessor
from tlens_trust.views.axes import format_count, log_positions, training_axis
from tlens_trust.views.figure import Figure
from tlens_trust.views.panels import (
    MOST_TICKS,
    axis_title,
    chosen_ticks,
    dimension_colour,
    dimensions,
    draw_band,
    draw_references,
    make_panels,
    over_runs,
    site_labels,
    site_title,
    style,
)
from tlens_trust.views.plot_text import (
    hover_head,
    hover_numbers,
    plot_text,
    template_text,
    wrapped_label,
)

# More bands than this hide each other, and the curves.
_MOST_BANDS = 3
# For these quantities one half is chance level and one is the maximum.
_BETWEEN_HALF_AND_ONE = ("accuracy", "balanced_accuracy", "auroc")
_BETTER_WHERE_LOWER = ("cross_entropy",)
# The symbol on cells that are not better than this reference, and its legend.
_MARKS = {
    "null": ("x-thin", "×: not beyond the null band"),
    "floor": ("line-ew", "–: not beyond the text alone"),
}


@register_trace_accessor("plot")
class TracePlot:
    """Figures of one `Trace`, reached as `trace.plot`.

    Every method returns a `Figure`: `.show()` shows it, and `.save("figure.html")` writes it. With
    several runs their mean is drawn, and their range replaces the intervals.
    """

    def __init__(self, trace: Trace) -> None:
        # `profile` draws a line for each run; everything else draws the mean of the runs.
        self._whole = trace.data
        self._data = over_runs(trace.data)

    def heatmap(
        self, variable: str = "accuracy", *, x: str = "step", slider: bool = False
    ) -> Figure:
        """Draw a variable over checkpoints (columns) and sites (rows), for each concept.

        All concepts share one colour scale. For accuracies and AUROCs it runs from one half (or the
        lowest value) to one. A colour is then the same number in every run, and a map of chance
        levels looks like one. `.update_coloraxes(cmin=…, cmax=…)` narrows the scale. A cross marks
        a cell that is not better than its null band (permuted labels). A dash marks a cell that is
        better than the null band but not than the text-only baseline. Hovering shows value,
        interval and n.

        Args:
            variable: A variable of the trace over concept, checkpoint and site.
            x: How checkpoints are labelled: "step", "tokens" or "loss".
            slider: Whether to draw one map with a slider over the concepts, instead of one panel
                per concept.

        Raises:
            ValueError: The trace holds no such variable, holds several probes, or `x` is unknown
                for some checkpoint.
        """
        values = _panel_values(self._data, variable)
        axis = training_axis(self._data, x)
        concepts = [str(name) for name in values.coords["concept"].values]
        labels = site_labels(self._data)
        bounds = _colour_range(variable, values.values)
        masks = _reference_masks(self._data, variable)
        maps = []
        for name in concepts:
            panel = self._data.sel(concept=name)
            numbers, template = hover_numbers(panel, variable, axis)
            maps.append(
                go.Heatmap(
                    z=values.sel(concept=name).transpose("site", "checkpoint").values,
                    y=labels,
                    coloraxis="coloraxis",
                    customdata=numbers,
                    hovertemplate=hover_head(name, f"{site_title(self._data)} %{{y}}", x)
                    + f"{template}<extra></extra>",
                    hoverongaps=False,
                )
            )
        marks = [
            _marks(values.where(mask).sel(concept=name), labels, _MARKS[kind][0], bounds)
            for kind, mask in masks.items()
            for name in concepts
        ]
        if slider:
            figure = _one_at_a_time([*maps, *marks], concepts)
        else:
            figure, cells = make_panels(concepts)
            # The marks of each kind come in the order of the maps, so the panels are gone through
            # again.
            for trace, (row, column) in zip([*maps, *marks], itertools.cycle(cells), strict=False):
                figure.add_trace(trace, row=row, col=column)
        title = "<br>".join([wrapped_label(values), *(_MARKS[kind][1] for kind in masks)])
        figure.update_layout(
            coloraxis={
                "colorscale": "Cividis",
                "colorbar": {"title": {"text": title, "side": "right"}},
                **bounds,
            },
        )
        # Columns are equally wide, whatever the gap between two checkpoints.
        ticks = np.arange(0, len(axis), math.ceil(len(axis) / MOST_TICKS))
        figure.update_xaxes(
            title_text=axis_title(x),
            tickvals=ticks,
            ticktext=[
                f"{count:.2f}" if x == "loss" else format_count(count) for count in axis[ticks]
            ],
            tickangle=0,
            showgrid=False,
            # Half a cell beyond the outer ones; for the marks, plotly would widen the axis further.
            range=[-0.5, len(axis) - 0.5],
        )
        figure.update_yaxes(
            type="category", title_text=site_title(self._data), range=[-0.5, len(labels) - 0.5]
        )
        return figure

    def lines(
        self, variable: str = "accuracy", *, x: str = "step", sites: list[int] | None = None
    ) -> Figure:
        """Draw a variable along training, one panel per concept and one line per site.

        The horizontal axis is logarithmic, with the untrained model at its left end under the label
        0. Lines run from early blocks (dark) to late ones (light). Intervals are drawn as bands if
        there are at most three sites. Where the trace holds them, the references are drawn in grey:
        the band of permuted labels, the share of the larger class, untrained weights, and a
        text-only baseline.

        Args:
            variable: A variable of the trace over concept, checkpoint and site.
            x: "step", "tokens", or "loss" on an axis of its own, from large to small.
            sites: Layers to draw; all by default.

        Raises:
            ValueError: The trace holds no such variable or layer, holds several probes, or `x` is
                unknown for some checkpoint.
        """
        data = _select_layers(self._data, sites)
        values = _panel_values(data, variable)
        axis = training_axis(data, x)
        positions = axis if x == "loss" else log_positions(axis)
        concepts = [str(name) for name in values.coords["concept"].values]
        figure, cells = make_panels(concepts, shared_yaxes="all")
        labels = site_labels(data)
        dimension_of = dimensions(data)
        for name, (row, column) in zip(concepts, cells, strict=True):
            panel = data.sel(concept=name)
            is_first = (row, column) == cells[0]
            colours = _line_colours(len(labels), dimension_of.get(name))
            draw_references(figure, panel, variable, positions, row, column, in_legend=is_first)
            numbers, template = hover_numbers(panel, variable, axis)
            curves = values.sel(concept=name).transpose("site", "checkpoint").values
            for i, label in enumerate(labels):
                if len(labels) <= _MOST_BANDS and f"{variable}_ci" in panel:
                    bounds = panel[f"{variable}_ci"].isel(site=i)
                    low, high = (bounds.sel(bound=bound).values for bound in ("low", "high"))
                    draw_band(figure, positions, low, high, colours[i], row, column)
                site = f"{site_title(data)} {template_text(label)}"
                figure.add_trace(
                    go.Scatter(
                        x=positions,
                        y=curves[i],
                        mode="lines+markers",
                        name=f"{site_title(data)} {plot_text(label)}",
                        legendgroup=label,
                        showlegend=is_first,
                        line={"color": colours[i], "width": 2},
                        marker={"size": 5},
                        customdata=numbers[i],
                        hovertemplate=f"{hover_head(name, site, x)}{template}<extra></extra>",
                    ),
                    row=row,
                    col=column,
                )
        if x == "loss":
            # The loss falls along training, and time runs to the right.
            figure.update_xaxes(autorange="reversed", title_text=axis_title(x))
        else:
            ticks = chosen_ticks(positions)
            figure.update_xaxes(
                type="log",
                title_text=axis_title(x),
                tickvals=positions[ticks],
                ticktext=[format_count(count) for count in axis[ticks]],
            )
        figure.update_yaxes(title_text=wrapped_label(values), col=1)
        return figure

    def profile(self, variable: str = "accuracy", *, checkpoint: str | None = None) -> Figure:
        """Draw a variable over depth at one checkpoint, one panel per concept and one line per run.

        A single run is drawn with its interval and, in grey, its references. Depth is the fraction
        of the blocks up to a site, so that models of several sizes can be compared.

        Args:
            variable: A variable of the trace over concept, checkpoint and site.
            checkpoint: A name along `checkpoint`; the last by default.

        Raises:
            ValueError: The trace holds no such variable, checkpoint or depth, or several probes.
        """
        name = checkpoint or str(self._whole["checkpoint"].values[-1])
        if name not in self._whole["checkpoint"].values:
            raise ValueError(
                f"The trace holds no checkpoint {name!r}. Choose one of "
                f"{', '.join(map(str, self._whole['checkpoint'].values))}."
            )
        if "depth" not in self._whole.coords:
            raise ValueError("The trace holds no depths. Draw it with `lines` or `heatmap`.")
        runs = self._whole["run"].values.tolist() if "run" in self._whole.dims else [""]
        dimension_of = dimensions(self._whole)
        concepts = [str(concept) for concept in self._whole["concept"].values]
        figure, cells = make_panels(concepts, shared_yaxes="all")
        values = None
        for number, run in enumerate(runs):
            data = self._whole.sel(run=run) if run else self._whole
            values = _panel_values(data, variable).sel(checkpoint=name)
            for concept, (row, column) in zip(concepts, cells, strict=True):
                line = values.sel(concept=concept)
                depth = line["depth"].values
                # Sites of one depth, such as the heads of a block, keep their order.
                order = np.argsort(depth, kind="stable")
                # A combination of runs has the sites of all of them; a smaller model lacks some.
                order = order[np.isfinite(line.values[order])]
                panel = data.sel(concept=concept).sel(checkpoint=[name]).isel(site=order)
                colour = (
                    dimension_colour(dimension_of.get(concept))
                    if len(runs) == 1
                    else _line_colours(len(runs), None)[number]
                )
                if len(runs) == 1:
                    draw_references(
                        figure, panel.isel(checkpoint=0), variable, depth[order], row, column,
                        in_legend=(row, column) == cells[0], along="site",
                    )  # fmt: skip
                    if f"{variable}_ci" in panel:
                        bounds = panel[f"{variable}_ci"].isel(checkpoint=0)
                        low, high = (bounds.sel(bound=bound).values for bound in ("low", "high"))
                        draw_band(figure, depth[order], low, high, colour, row, column)
                # All points are of one checkpoint, whose step is not shown: the zero fills its
                # place.
                numbers, template = hover_numbers(panel, variable, np.zeros(1))
                figure.add_trace(
                    go.Scatter(
                        x=depth[order],
                        y=line.values[order],
                        mode="lines+markers",
                        name=plot_text(run) or name,
                        legendgroup=run,
                        showlegend=(row, column) == cells[0],
                        line={"color": colour, "width": 2},
                        marker={"size": 5},
                        customdata=numbers[:, 0],
                        hovertemplate=f"<b>{template_text(concept)}</b> {template_text(run)}"
                        f"<br>depth %{{x:.2f}}<br>{template}<extra></extra>",
                    ),
                    row=row,
                    col=column,
                )
        # Slightly beyond 1, so that the marker of the last block is not cut in half.
        figure.update_xaxes(title_text="depth (fraction of the blocks)", range=[0, 1.03])
        if values is not None:
            figure.update_yaxes(title_text=wrapped_label(values), col=1)
        return figure


def _one_at_a_time(traces: list[go.Heatmap | go.Scatter], names: list[str]) -> Figure:
    """Draw the traces of one name, with a slider to choose it; the names repeat in order."""
    figure = Figure()
    for i, trace in enumerate(traces):
        figure.add_trace(trace.update(visible=i % len(names) == 0))
    style(figure, height=480)
    steps = [
        {
            "method": "update",
            "label": plot_text(name),
            "args": [{"visible": [j % len(names) == i for j in range(len(traces))]}],
        }
        for i, name in enumerate(names)
    ]
    figure.update_layout(
        sliders=[{"steps": steps, "currentvalue": {"prefix": "concept: "}, "pad": {"t": 60}}],
    )
    return figure


def _reference_masks(data: xr.Dataset, variable: str) -> dict[str, xr.DataArray]:
    """Where a variable is not better than a reference, for each reference of which that is so.

    A cell belongs to one reference at most, the null band before the text-only baseline.
    """
    values = data[variable]
    is_lower_better = variable in _BETTER_WHERE_LOWER
    masks: dict[str, xr.DataArray] = {}
    is_unmarked = values.notnull()
    for kind in _MARKS:
        level = data.get(f"{variable}_{kind}")
        if level is None:
            continue
        if kind == "null":
            # A calibration error has one number here, its value under chance alone, and no band.
            if "bound" not in level.dims:
                continue
            # The end of the band that a better value lies beyond.
            level = level.sel(bound="low" if is_lower_better else "high", drop=True)
        if not {*level.dims} <= {*values.dims}:
            continue
        mask = is_unmarked & (values >= level if is_lower_better else values <= level)
        if mask.any():
            masks[kind] = mask
        is_unmarked = is_unmarked & ~mask
    return masks


def _marks(
    values: xr.DataArray, labels: list[str], symbol: str, bounds: dict[str, float]
) -> go.Scatter:
    """Mark the cells of a map that have a value, in a grey that is visible on their colours."""
    z = values.transpose("site", "checkpoint").values
    sites, checkpoints = np.nonzero(np.isfinite(z))
    # The upper part of the colour scale is bright yellow, on which a light mark would vanish.
    is_bright = z[sites, checkpoints] > np.dot([0.4, 0.6], [bounds["cmin"], bounds["cmax"]])
    return go.Scatter(
        x=checkpoints,
        y=[labels[site] for site in sites],
        mode="markers",
        marker={
            "symbol": symbol,
            "size": 5,
            "line": {
                "width": 1,
                # Numbers, since plotly is slow with many names of colours.
                "color": is_bright.astype(float),
                "colorscale": [[0, "#d8d8d8"], [1, "#303030"]],
                "cmin": 0,
                "cmax": 1,
            },
        },
        hoverinfo="skip",
        showlegend=False,
    )


def _colour_range(variable: str, values: np.ndarray) -> dict[str, float]:
    finite_values = values[np.isfinite(values)]
    if not finite_values.size:
        return {}
    low, high = float(finite_values.min()), float(finite_values.max())
    if variable.removesuffix("_untrained").removesuffix("_unseen") in _BETWEEN_HALF_AND_ONE:
        # On a scale from the lowest to the highest value, chance levels look like results.
        low, high = min(low, 0.5), 1.0
    return {"cmin": low, "cmax": high}


def _panel_values(data: xr.Dataset, variable: str) -> xr.DataArray:
    axes: tuple[Hashable, ...] = ("concept", "checkpoint", "site")
    drawable = sorted(str(name) for name in data if set(data[name].dims) >= set(axes))
    # Intervals and replicates belong to a quantity, and have no single value in a cell.
    drawable = [name for name in drawable if not {"bound", "resample"} & set(data[name].dims)]
    if variable not in drawable:
        raise ValueError(
            f"The trace holds no variable {variable!r} over concept, checkpoint and site. "
            f"Choose one of {', '.join(drawable) or 'none'}."
        )
    values = data[variable]
    extra = [dim for dim in values.dims if dim not in axes]
    if extra:
        choices = ", ".join(str(v) for v in data[extra[0]].values)
        raise ValueError(
            f"{variable!r} has a dimension {extra[0]!r} ({choices}), and a figure shows one. "
            f"Choose with `trace.sel({extra[0]}=...)`."
        )
    return values.transpose(*axes)


def _select_layers(data: xr.Dataset, layers: list[int] | None) -> xr.Dataset:
    if layers is None:
        return data
    known_layers = data.coords["layer"].values
    unknown_layers = [layer for layer in layers if layer not in known_layers]
    if unknown_layers:
        raise ValueError(
            f"The trace holds no layer {unknown_layers[0]}. Choose among "
            f"{sorted(set(known_layers.tolist()))}."
        )
    return data.isel(site=np.flatnonzero(np.isin(known_layers, layers)))


def _line_colours(count: int, dimension: str | None) -> list[str]:
    if count == 1:
        return [dimension_colour(dimension)]
    # The lightest end of the scale would vanish on white.
    return list(sample_colorscale("Viridis", np.linspace(0.0, 0.85, count).tolist()))
