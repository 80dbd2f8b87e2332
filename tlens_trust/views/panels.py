"""What figures share: panels, bands, grey reference lines, ticks, and means over runs."""

import math

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from tlens_trust.views.axes import DIMENSION_COLOURS, OTHER_COLOUR, TRAINING_AXES
from tlens_trust.views.figure import Figure
from tlens_trust.views.plot_text import plot_text

QUIET = "#8a8a8a"
MOST_TICKS = 9
_PANEL_COLUMNS = 3

# Dash and name of each reference line; the stricter the reference, the longer its dashes.
_REFERENCES = {
    "chance": ("dot", "larger class"),
    "untrained": ("dashdot", "untrained weights"),
    "floor": ("dash", "text alone"),
}


def make_panels(
    names: list[str],
    *,
    height: int = 300,
    gap: float = 0.28,
    shared_yaxes: bool | str = False,
) -> tuple[Figure, list[tuple[int, int]]]:
    """Make a figure with one panel per name.

    Args:
        names: Titles of the panels.
        height: Of a panel, in pixels.
        gap: Between rows, as a fraction of a row's height.
        shared_yaxes: As plotly's `make_subplots` takes it.

    Returns:
        The figure, and the row and column of each panel.
    """
    columns = min(_PANEL_COLUMNS, len(names))
    rows = math.ceil(len(names) / columns)
    figure: Figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=[plot_text(name) for name in names],
        horizontal_spacing=0.07,
        # plotly takes the spacing as a fraction of the whole figure, not of a row.
        vertical_spacing=gap / rows,
        figure=Figure(),
        shared_yaxes=shared_yaxes,
    )
    style(figure, height=120 + height * rows)
    return figure, [(i // columns + 1, i % columns + 1) for i in range(len(names))]


def style(figure: go.Figure, *, height: int) -> None:
    """Apply the package's fonts, margins and background."""
    figure.update_layout(
        template="plotly_white",
        height=height,
        font={"size": 13},
        margin={"l": 70, "r": 30, "t": 60, "b": 60},
        hoverlabel={"align": "left"},
    )


def finish_figure(figure: go.Figure, title: str, *, height: int, width: int = 800) -> None:
    """Give a figure of one panel its title, its size, and a legend below it.

    Args:
        figure: What to style.
        title: A text; it is escaped here.
        height: In pixels.
        width: In pixels.
    """
    style(figure, height=height)
    figure.update_layout(
        width=width,
        margin={"l": 90},
        title={"text": plot_text(title), "font": {"size": 14}},
        legend={"orientation": "h", "y": -0.2, "x": 0},
    )


def draw_band(
    figure: go.Figure,
    positions: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    colour: str,
    row: int,
    column: int,
    *,
    name: str | None = None,
    in_legend: bool = False,
) -> None:
    """Fill the area between two curves; checkpoints where either is unknown are left out."""
    # A gap would split the outline below into pieces, each closed by a line of its own.
    is_known = np.isfinite(low) & np.isfinite(high)
    if not is_known.any():
        return
    positions, low, high = positions[is_known], low[is_known], high[is_known]
    figure.add_trace(
        go.Scatter(
            # One closed outline, there and back; `fill="tonexty"` depends on the order of two
            # traces.
            x=np.concatenate([positions, positions[::-1]]),
            y=np.concatenate([high, low[::-1]]),
            mode="lines",
            fill="toself",
            fillcolor=colour,
            opacity=0.18,
            line={"width": 0},
            hoverinfo="skip",
            name=name,
            legendgroup=name,
            showlegend=in_legend,
        ),
        row=row,
        col=column,
    )


def draw_references(
    figure: go.Figure,
    panel: xr.Dataset,
    variable: str,
    positions: np.ndarray,
    row: int,
    column: int,
    *,
    in_legend: bool,
    along: str = "checkpoint",
) -> None:
    """Draw the references of a curve, where the trace holds them.

    These are the null band, the larger class, untrained weights and the text-only baseline. The
    band spans those of all drawn sites, and each line is the highest of the drawn sites.

    Args:
        figure: The figure to draw in.
        panel: One concept of a trace, with the drawn sites.
        variable: Name of the drawn variable.
        positions: Horizontal positions of the curve's points.
        row: Of the panel.
        column: Of the panel.
        in_legend: Whether to name the lines in the legend.
        along: The axis that the curve runs along, "checkpoint" or "site".
    """
    # The null of a calibration error is one number, its value under chance alone.
    if f"{variable}_null" in panel and "bound" in panel[f"{variable}_null"].dims:
        null_band = panel[f"{variable}_null"]
        other_axes = [dim for dim in null_band.dims if dim not in (along, "bound")]
        low = null_band.sel(bound="low", drop=True).min(other_axes)
        high = null_band.sel(bound="high", drop=True).max(other_axes)
        draw_band(
            figure, positions, low.values, high.values, QUIET, row, column,
            name="labels permuted", in_legend=in_legend,
        )  # fmt: skip
    for suffix, (dash, name) in _REFERENCES.items():
        if f"{variable}_{suffix}" not in panel:
            continue
        level = panel[f"{variable}_{suffix}"]
        level = level.max([dim for dim in level.dims if dim != along])
        # A line without a point would still have its entry in the legend.
        if not np.isfinite(level.values).any():
            continue
        figure.add_trace(
            go.Scatter(
                x=positions,
                # Chance and text alone are one number for a concept, the same at every checkpoint.
                y=np.broadcast_to(level.values, positions.shape),
                mode="lines",
                line={"color": QUIET, "width": 1.2, "dash": dash},
                name=name,
                legendgroup=name,
                showlegend=in_legend,
                hovertemplate=f"{name}: %{{y:.3f}}<extra></extra>",
            ),
            row=row,
            col=column,
        )


def dimensions(data: xr.Dataset) -> dict[str, str]:
    """The dimension of trustworthiness of each concept."""
    names = data["concept"].values
    values = data.coords["dimension"].values if "dimension" in data.coords else names
    return {str(name): str(dimension) for name, dimension in zip(names, values, strict=True)}


def dimension_colour(dimension: str | None) -> str:
    """The colour of a dimension, the same in every figure; other concepts share one colour."""
    return DIMENSION_COLOURS.get(dimension or "", OTHER_COLOUR)


def site_labels(data: xr.Dataset) -> list[str]:
    """Layer numbers where each layer has one site, else the hook names."""
    # Heads, and sites of several kinds, share the number of a layer.
    layers = [f"{layer:g}" for layer in np.asarray(data.coords["layer"].values, dtype=float)]
    return layers if len(set(layers)) == len(layers) else [str(s) for s in data["site"].values]


def site_title(data: xr.Dataset) -> str:
    """What `site_labels` gives: "layer" or "site"."""
    layers = data.coords["layer"].values
    return "layer" if len(set(layers.tolist())) == len(layers) else "site"


def axis_title(x: str) -> str:
    """The title of a training axis."""
    return TRAINING_AXES[x]


def chosen_ticks(positions: np.ndarray, max_labels: int = MOST_TICKS) -> np.ndarray:
    """Choose the ticks to label, so that labels on a logarithmic axis do not overlap.

    The last checkpoint always has a label, and so has the first if the second is not too close.

    Args:
        positions: Positions of the checkpoints.
        max_labels: The largest number of labels, roughly.

    Returns:
        Numbers of the checkpoints, in order.
    """
    # Labels overlap by their distance on the page, which is logarithmic.
    logarithms = np.log(positions)
    # From the last one backwards, so that the last checkpoint has a label whatever the gaps.
    order = np.argsort(logarithms)[::-1]
    gap = np.ptp(logarithms) / max_labels
    ticks = [order[0]]
    for i in order[1:]:
        if logarithms[ticks[-1]] - logarithms[i] >= gap:
            ticks.append(i)
    return np.array(ticks[::-1])


def over_runs(data: xr.Dataset) -> xr.Dataset:
    """Average several runs, and replace each interval by the range over the runs.

    The range shows how much training runs differ. The interval of one run shows the precision of
    its number, which is a different question. Data of a single run are returned unchanged.

    Args:
        data: Of a trace. The result has no axis `run`.
    """
    if "run" not in data.dims:
        return data
    runs = data.sizes["run"]
    variables = {}
    for name, variable in data.data_vars.items():
        stem = str(name).removesuffix("_ci")
        if "run" not in variable.dims:
            variables[name] = variable
        # Only an interval is replaced; a null band has bounds too, and is averaged below.
        elif stem != name and stem in data and "bound" in variable.dims:
            values = data[stem]
            spread = xr.concat([values.min("run"), values.max("run")], dim=variable["bound"])
            variables[name] = spread.assign_attrs(
                variable.attrs | {"long_name": f"range over {runs} runs"}
            )
        else:
            variables[name] = variable.mean("run", keep_attrs=True)
    shared_coordinates = {
        name: coordinate for name, coordinate in data.coords.items() if "run" not in coordinate.dims
    }
    # Only numbers have a mean: a revision that differs between runs belongs to none of them.
    mean_coordinates = {
        name: (coordinate.dims[1:], coordinate.mean("run").values, coordinate.attrs)
        for name, coordinate in data.coords.items()
        if coordinate.dims[:1] == ("run",) and len(coordinate.dims) > 1
        and np.issubdtype(coordinate.dtype, np.floating)
    }  # fmt: skip
    return xr.Dataset(variables, coords=shared_coordinates | mean_coordinates, attrs=data.attrs)
