"""What figures of a `Trace` share: panels, bands, quiet reference lines, ticks."""

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

# What a level is held against, the longest dashes for what says most against it.
_REFERENCES = {
    "chance": ("dot", "larger class"),
    "untrained": ("dashdot", "untrained weights"),
    "floor": ("dash", "text alone"),
}


def make_panels(
    names: list[str], *, height: int = 300, gap: float = 0.28, **shared: str
) -> tuple[Figure, list[tuple[int, int]]]:
    """A figure with one panel a name, and the row and column of each.

    `gap` is what lies between rows, as a share of a row's height.
    """
    columns = min(_PANEL_COLUMNS, len(names))
    rows = math.ceil(len(names) / columns)
    figure: Figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=[plot_text(name) for name in names],
        horizontal_spacing=0.07,
        vertical_spacing=gap / rows,
        figure=Figure(),
        **shared,
    )
    style(figure, height=120 + height * rows)
    return figure, [(i // columns + 1, i % columns + 1) for i in range(len(names))]


def style(figure: go.Figure, *, height: int) -> None:
    """The house's fonts, margins and background."""
    figure.update_layout(
        template="plotly_white",
        height=height,
        font={"size": 13},
        margin={"l": 70, "r": 30, "t": 60, "b": 60},
        hoverlabel={"align": "left"},
    )


def draw_band(
    figure: go.Figure,
    where: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    colour: str,
    row: int,
    column: int,
    *,
    name: str | None = None,
    in_legend: bool = False,
) -> None:
    """Fill what lies between two curves; checkpoints at which either is unknown are left out."""
    known = np.isfinite(low) & np.isfinite(high)
    if not known.any():
        return
    where, low, high = where[known], low[known], high[known]
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
    where: np.ndarray,
    row: int,
    column: int,
    *,
    in_legend: bool,
    along: str = "checkpoint",
) -> None:
    """Draw what a curve must be held against, where the trace holds it.

    The null band is the widest of the sites drawn; of the larger class, the untrained weights and
    the text alone, a line is the highest.

    Args:
        figure: What to draw in.
        panel: One concept of a trace, with the sites drawn.
        variable: What is drawn.
        where: Places of the checkpoints.
        row: Of the panel.
        column: Of the panel.
        in_legend: Whether to name the lines in the legend.
        along: Which axis the curve runs along, "checkpoint" or "site".
    """
    # Of a calibration error it is one number, what chance alone would give.
    if f"{variable}_null" in panel and "bound" in panel[f"{variable}_null"].dims:
        null = panel[f"{variable}_null"]
        others = [dim for dim in null.dims if dim not in (along, "bound")]
        low = null.sel(bound="low", drop=True).min(others)
        high = null.sel(bound="high", drop=True).max(others)
        draw_band(
            figure, where, low.values, high.values, QUIET, row, column,
            name="labels permuted", in_legend=in_legend,
        )  # fmt: skip
    for suffix, (dash, name) in _REFERENCES.items():
        if f"{variable}_{suffix}" not in panel:
            continue
        level = panel[f"{variable}_{suffix}"]
        level = level.max([dim for dim in level.dims if dim != along])
        if not np.isfinite(level.values).any():
            continue
        figure.add_trace(
            go.Scatter(
                x=where,
                y=np.broadcast_to(level.values, where.shape),
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
    known = data.coords["dimension"].values if "dimension" in data.coords else names
    return {str(name): str(dimension) for name, dimension in zip(names, known, strict=True)}


def dimension_colour(dimension: str | None) -> str:
    """The same colour for a dimension in every figure, and one for all other concepts."""
    return DIMENSION_COLOURS.get(dimension or "", OTHER_COLOUR)


def site_labels(data: xr.Dataset) -> list[str]:
    """Layer numbers where there is one site a layer, else the hook names."""
    layers = [f"{layer:g}" for layer in np.asarray(data.coords["layer"].values, dtype=float)]
    return layers if len(set(layers)) == len(layers) else [str(s) for s in data["site"].values]


def site_title(data: xr.Dataset) -> str:
    """What `site_labels` are."""
    layers = data.coords["layer"].values
    return "layer" if len(set(layers.tolist())) == len(layers) else "site"


def axis_title(x: str) -> str:
    """What the training axis counts, or measures."""
    return TRAINING_AXES[x]


def chosen_ticks(where: np.ndarray, most: int = MOST_TICKS) -> np.ndarray:
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


def over_runs(data: xr.Dataset) -> xr.Dataset:
    """The mean of several runs, with their range in place of each interval.

    A range says how far training runs lie apart; the interval of one run says how sure its number
    is, and is another thing. Of a single run nothing is changed.

    Args:
        data: Of a trace; where it has the axis `run`, that is gone after.
    """
    if "run" not in data.dims:
        return data
    runs = data.sizes["run"]
    variables = {}
    for name, variable in data.data_vars.items():
        stem = str(name).removesuffix("_ci")
        if "run" not in variable.dims:
            variables[name] = variable
        elif stem != name and stem in data and "bound" in variable.dims:
            values = data[stem]
            spread = xr.concat([values.min("run"), values.max("run")], dim=variable["bound"])
            variables[name] = spread.assign_attrs(
                variable.attrs | {"long_name": f"range over {runs} runs"}
            )
        else:
            variables[name] = variable.mean("run", keep_attrs=True)
    kept = {
        name: coordinate for name, coordinate in data.coords.items() if "run" not in coordinate.dims
    }
    averaged = {
        name: (coordinate.dims[1:], coordinate.mean("run").values, coordinate.attrs)
        for name, coordinate in data.coords.items()
        if coordinate.dims[:1] == ("run",) and len(coordinate.dims) > 1
        and np.issubdtype(coordinate.dtype, np.floating)
    }  # fmt: skip
    return xr.Dataset(variables, coords=kept | averaged, attrs=data.attrs)
