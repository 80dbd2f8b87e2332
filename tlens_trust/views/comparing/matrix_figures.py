"""Matrices as figures: checkpoint by checkpoint, and concept by concept."""

import math

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from tlens_trust.views.axes import format_count
from tlens_trust.views.figure import Figure
from tlens_trust.views.plot_text import plot_text, quantity_label, wrapped_label

_PANEL_COLUMNS = 3
_MOST_TICKS = 12
# Numbers of more concepts than this would not fit into the cells of a panel.
_MOST_TEXTS = 12
_CELL = 340


def draw_transfer(
    matrix: xr.Dataset, variable: str = "auroc", *, layers: list[int] | None = None
) -> Figure:
    """Draw how well probes of each checkpoint classify at each other one, one panel per site.

    Rows are the checkpoints that probes were fitted at, columns those that they were scored at.
    White is chance. A dot marks a value within the null band, of probes fitted to permuted labels.

    Args:
        matrix: What `transfer_matrix` gives.
        variable: `"auroc"`, `"accuracy"`, either with `_restandardised`, or `"accuracy_drop"`.
        layers: Layers to draw; all by default.

    Returns:
        A figure: `.show()` shows it.

    Raises:
        ValueError: There is no such variable or layer.
    """
    values = _pairs(matrix, variable, ("source", "target", "site"), layers)
    if variable == "accuracy_drop":
        middle = 0.0
    elif variable.startswith("accuracy"):
        middle = float(matrix["accuracy_chance"])
    else:
        middle = 0.5
    # The scale reaches as far to either side, so that its white middle is chance.
    reach = max(1 - middle, middle) if middle else _largest(values)
    return draw_between_checkpoints(
        matrix, variable, values, (middle - reach, middle + reach), "fitted at", "scored at"
    )


def draw_genealogy(
    genealogy: xr.Dataset,
    variable: str = "cosine",
    *,
    space: str = "standardised",
    layers: list[int] | None = None,
) -> Figure:
    """Draw how similar a concept's directions at two checkpoints are, one panel per site.

    A dot marks a value within the null band, of directions fitted to permuted labels. On the
    diagonal it marks a checkpoint without a reliable direction. Cells without a value are blank.

    Args:
        genealogy: What `direction_genealogy` gives.
        variable: `"cosine"`, `"cosine_corrected"`, `"cosine_same"`, or `"principal_angle"` (the
            first).
        space: `"raw"` or `"standardised"`.
        layers: Layers to draw; all by default.

    Returns:
        A figure: `.show()` shows it.

    Raises:
        ValueError: There is no such variable, space or layer.
    """
    data = _of_space(genealogy, space)
    if variable == "principal_angle":
        data = data.isel(angle=0)
    values = _pairs(data, variable, ("source", "target", "site"), layers)
    bounds = (0.0, 90.0) if variable == "principal_angle" else (-1.0, 1.0)
    return draw_between_checkpoints(data, variable, values, bounds, "checkpoint", "checkpoint")


def draw_overlap(
    overlap: xr.Dataset,
    variable: str = "cosine",
    *,
    space: str = "standardised",
    checkpoint: str | int = -1,
    layers: list[int] | None = None,
) -> Figure:
    """Draw how similar the directions of two concepts are at one checkpoint, one panel per site.

    A dot marks a value within the null band, of directions fitted to permuted labels.

    Args:
        overlap: What `direction_overlap` gives.
        variable: `"cosine"`, `"cosine_corrected"` or `"cosine_same"`.
        space: `"raw"` or `"standardised"`.
        checkpoint: Name or number of the checkpoint.
        layers: Layers to draw; all by default.

    Returns:
        A figure: `.show()` shows it.

    Raises:
        ValueError: There is no such variable, space, checkpoint or layer.
    """
    data = _at_checkpoint(_of_space(overlap, space), checkpoint)
    values = _pairs(data, variable, ("concept", "other_concept", "site"), layers)
    return _draw_concepts(data, variable, values, 1.0, "", "")


def draw_erasure(
    cost: xr.Dataset,
    variable: str = "accuracy_cost",
    *,
    checkpoint: str | int = -1,
    layers: list[int] | None = None,
) -> Figure:
    """Draw how much erasing one concept costs another, at one checkpoint, one panel per site.

    Rows are the concepts that were erased, columns those that were probed. A dot marks a cost
    within the null band, of erasing permuted labels.

    Args:
        cost: What `erasure_cost` gives.
        variable: `"accuracy_cost"` or `"cross_entropy_cost"`.
        checkpoint: Name or number of the checkpoint.
        layers: Layers to draw; all by default.

    Returns:
        A figure: `.show()` shows it.

    Raises:
        ValueError: There is no such variable, checkpoint or layer.
    """
    data = _at_checkpoint(cost, checkpoint)
    values = _pairs(data, variable, ("erased", "concept", "site"), layers)
    return _draw_concepts(data, variable, values, _largest(values), "erased", "probed")


def draw_between_checkpoints(
    data: xr.Dataset,
    variable: str,
    values: xr.DataArray,
    bounds: tuple[float, float],
    row_title: str,
    column_title: str,
) -> Figure:
    """Draw a value for every pair of checkpoints, one panel per site.

    Args:
        data: Holds the steps, and the variable's intervals and null bands where there are any.
        variable: Its name in the data.
        values: What to draw, along two axes of checkpoints and `site`.
        bounds: Ends of the colour scale.
        row_title: What the checkpoints of the first axis are.
        column_title: What the checkpoints of the second axis are.
    """
    source, target = values.dims[:2]
    figure = _draw(data, variable, values, bounds, texts=False)
    for update, dim, name in (
        (figure.update_yaxes, source, row_title),
        (figure.update_xaxes, target, column_title),
    ):
        labels, title = _training_labels(data, str(dim), name)
        ticks = np.arange(0, len(labels), math.ceil(len(labels) / _MOST_TICKS))
        # The last checkpoint is the one that readers look for.
        ticks = ticks + (len(labels) - 1 - ticks[-1])
        update(tickvals=ticks, ticktext=[labels[i] for i in ticks], title_text=title)
    figure.update_xaxes(tickangle=0)
    return figure


def _draw_concepts(
    data: xr.Dataset,
    variable: str,
    values: xr.DataArray,
    reach: float,
    row_title: str,
    column_title: str,
) -> Figure:
    rows, columns = values.dims[:2]
    figure = _draw(data, variable, values, (-reach, reach), texts=True)
    for update, dim, title in (
        (figure.update_yaxes, rows, row_title),
        (figure.update_xaxes, columns, column_title),
    ):
        names = [plot_text(str(name)) for name in data[str(dim)].values]
        update(tickvals=np.arange(len(names)), ticktext=names, title_text=title)
    # plotly counts rows from the bottom; a table of concepts is read from the top.
    figure.update_yaxes(autorange="reversed")
    return figure


def _draw(
    data: xr.Dataset,
    variable: str,
    values: xr.DataArray,
    bounds: tuple[float, float],
    *,
    texts: bool,
) -> Figure:
    sites = [str(site) for site in values["site"].values]
    columns = min(_PANEL_COLUMNS, len(sites))
    rows = math.ceil(len(sites) / columns)
    height = 130 + _CELL * rows
    figure: Figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=_panel_titles(values),
        horizontal_spacing=0.1,
        # plotly takes a fraction of the height; titles and labels need about 100 pixels.
        vertical_spacing=min(0.3, 100 / height),
        figure=Figure(),
    )
    for i, site in enumerate(sites):
        panel = values.sel(site=site)
        row, column = i // columns + 1, i % columns + 1
        has_texts = texts and max(panel.shape) <= _MOST_TEXTS
        figure.add_trace(
            go.Heatmap(
                z=panel.values,
                coloraxis="coloraxis",
                customdata=_hover(data, variable, panel, site),
                hovertemplate="%{customdata}<extra></extra>",
                hoverongaps=False,
                text=_numbers(panel.values) if has_texts else None,
                texttemplate="%{text}" if has_texts else None,
            ),
            row=row,
            col=column,
        )
        is_null = _is_within_null(data, variable, panel, site)
        if is_null.any():
            null_rows, null_columns = np.nonzero(is_null)
            figure.add_trace(
                go.Scatter(
                    x=null_columns,
                    # Below the number, where there is one.
                    y=null_rows + (0.3 if has_texts else 0.0),
                    mode="markers",
                    marker={"size": 4, "color": "#555555"},
                    name="within the null band",
                    showlegend=i == 0,
                    hoverinfo="skip",
                ),
                row=row,
                col=column,
            )
    figure.update_xaxes(showgrid=False, zeroline=False, constrain="domain")
    figure.update_yaxes(showgrid=False, zeroline=False)
    figure.update_layout(
        template="plotly_white",
        height=height,
        width=150 + 420 * columns,
        font={"size": 13},
        margin={"l": 80, "r": 30, "t": 60, "b": 70},
        # A fraction of the height again: about the same distance below one row and below several.
        legend={"orientation": "h", "y": -0.16 * _CELL / height * 2, "x": 0},
        coloraxis={
            "colorscale": "RdBu",
            "cmin": bounds[0],
            "cmax": bounds[1],
            "colorbar": {
                "title": {"text": wrapped_label(values), "side": "right", "font": {"size": 11}}
            },
        },
    )
    return figure


def _pairs(
    data: xr.Dataset, variable: str, dims: tuple[str, str, str], layers: list[int] | None
) -> xr.DataArray:
    drawable = [str(name) for name in data if set(data[name].dims) == set(dims)]
    # Numbers of statements are no results, and would be drawn on a scale of scores.
    drawable = [name for name in drawable if not name.endswith("_n")]
    if variable not in drawable:
        raise ValueError(
            f"There is no variable {variable!r} along {', '.join(dims)} here. Choose one of "
            f"{', '.join(drawable) or 'none'}."
        )
    values = data[variable].transpose(*dims)
    if layers is None:
        return values
    known_layers = data["layer"].values
    unknown_layers = [layer for layer in layers if layer not in known_layers]
    if unknown_layers or not layers:
        raise ValueError(
            f"There is no layer {unknown_layers[0] if unknown_layers else layers} here. Choose "
            f"among {sorted(set(known_layers.tolist()))}."
        )
    return values.isel(site=np.flatnonzero(np.isin(known_layers, layers)))


def _of_space(data: xr.Dataset, space: str) -> xr.Dataset:
    spaces = [str(name) for name in data["space"].values] if "space" in data.dims else []
    if space not in spaces:
        raise ValueError(f"There is no space {space!r} here. Choose one of {', '.join(spaces)}.")
    return data.sel(space=space)


def _at_checkpoint(data: xr.Dataset, checkpoint: str | int) -> xr.Dataset:
    names = [str(name) for name in data["checkpoint"].values]
    if isinstance(checkpoint, int) and -len(names) <= checkpoint < len(names):
        return data.isel(checkpoint=checkpoint)
    if checkpoint not in names:
        raise ValueError(
            f"There is no checkpoint {checkpoint!r} here. Choose a number from 0 to "
            f"{len(names) - 1}, or one of {', '.join(names)}."
        )
    return data.sel(checkpoint=checkpoint)


def _largest(values: xr.DataArray) -> float:
    """The end of a scale with 0 in its middle."""
    sizes = np.abs(values.values[np.isfinite(values.values)])
    # Where every value is 0 or unknown, a scale from 0 to 0 would have no middle.
    return float(sizes.max(initial=0.0)) or 1.0


def _training_labels(data: xr.Dataset, axis: str, title: str) -> tuple[list[str], str]:
    """Steps of the checkpoints along an axis, or their names where a step is unknown."""
    steps = np.asarray(data[f"{axis}_step"].values, dtype=float)
    if np.isfinite(steps).all():
        return [format_count(step) for step in steps], f"{title} (training step)"
    return [plot_text(str(name)) for name in data[axis].values], title


def _panel_titles(values: xr.DataArray) -> list[str]:
    layers = values["layer"].values.tolist()
    if len(set(layers)) == len(layers):
        return [f"layer {layer}" for layer in layers]
    return [plot_text(str(site)) for site in values["site"].values]


def _band(
    data: xr.Dataset, variable: str, panel: xr.DataArray, site: str, suffix: str
) -> np.ndarray | None:
    """Low and high of an interval or band, along the panel's axes and `bound`."""
    name = f"{variable}_{suffix}"
    if name not in data or not set(panel.dims) <= set(data[name].dims):
        return None
    band: np.ndarray = data[name].sel(site=site).transpose(*panel.dims, "bound").values
    return band


def _is_within_null(data: xr.Dataset, variable: str, panel: xr.DataArray, site: str) -> np.ndarray:
    band = _band(data, variable, panel, site, "null")
    if band is None:
        return np.zeros(panel.shape, dtype=bool)
    values = panel.values
    is_null: np.ndarray = (values >= band[..., 0]) & (values <= band[..., 1])
    return is_null


def _hover(data: xr.Dataset, variable: str, panel: xr.DataArray, site: str) -> list[list[str]]:
    rows, columns = (str(dim) for dim in panel.dims)
    interval = _band(data, variable, panel, site, "ci")
    null_band = _band(data, variable, panel, site, "null")
    texts = []
    for i, row_name in enumerate(panel[rows].values):
        row_texts = []
        for j, column_name in enumerate(panel[columns].values):
            lines = [
                f"<b>{rows.replace('_', ' ')} {plot_text(str(row_name))}</b>",
                f"<b>{columns.replace('_', ' ')} {plot_text(str(column_name))}</b>, "
                + plot_text(site),
                f"{quantity_label(panel)}: {panel.values[i, j]:.3f}",
            ]
            if interval is not None:
                lines[-1] += f" [{interval[i, j, 0]:.3f}, {interval[i, j, 1]:.3f}]"
            if null_band is not None:
                lines.append(f"null [{null_band[i, j, 0]:.3f}, {null_band[i, j, 1]:.3f}]")
            row_texts.append("<br>".join(lines))
        texts.append(row_texts)
    return texts


def _numbers(values: np.ndarray) -> list[list[str]]:
    return [[f"{value:.2f}" if np.isfinite(value) else "" for value in row] for row in values]
