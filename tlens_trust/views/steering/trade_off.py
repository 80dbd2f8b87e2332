"""The effect of steering against its damage, in one figure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from tlens_trust.views.axes import format_count
from tlens_trust.views.figure import Figure
from tlens_trust.views.panels import QUIET, finish_figure
from tlens_trust.views.plot_text import plot_text, quantity_label, wrapped_label
from tlens_trust.views.steering.matrix_table import place_of_target

_STEERED, _OPPOSITE = "#0072B2", "#D55E00"


@dataclass(frozen=True)
class _Point:
    """One vector at one strength: the changes of effect and damage, each with its interval."""

    name: str
    effect: tuple[float, float, float]
    damage: tuple[float, float, float]


def draw_trade_off(
    results: xr.Dataset | Sequence[xr.Dataset],
    effect: str = "log_odds",
    *,
    damage: str = "neutral_loss",
    target: str | int = -1,
) -> Figure:
    """Draw the effect of steering over its damage, with random directions for comparison.

    The vertical axis is the change of the effect, the horizontal axis that of the damage, each with
    its interval. A useful direction lies above the grey cloud of random directions at the same
    damage. An evaluation has a second point, for steering the opposite way. Several evaluations, at
    several strengths say, are joined in their order. In a matrix every source is a point.

    Args:
        results: What `evaluate_steering` gives, several of them, or what `steering_matrix` gives.
        effect: The quantity on the vertical axis.
        damage: The quantity on the horizontal axis.
        target: For a matrix, the name or number of the model that is steered.

    Returns:
        A figure: `.show()` shows it.

    Raises:
        ValueError: There is no such quantity or target, or these are no results of steering.

    Examples:
        >>> doses = [Intervention(target_kl=kl) for kl in (0.02, 0.05, 0.1)]  # doctest: +SKIP
        >>> draw_trade_off([evaluate_steering(  # doctest: +SKIP
        ...     model, vector, concept, intervention=dose) for dose in doses])
    """
    datasets = [results] if isinstance(results, xr.Dataset) else list(results)
    if not datasets:
        raise ValueError("There is nothing to draw. Give at least one evaluation of steering.")
    if "source" in datasets[0].dims:
        if len(datasets) > 1:
            raise ValueError("One figure cannot show several matrices. Draw each by itself.")
        column = datasets[0].isel(target=place_of_target(datasets[0], target))
        # A matrix steers one way only.
        points, opposite = _matrix_points(column, effect, damage), []
        clouds = [column]
    else:
        points = [_condition_point(data, "steered", effect, damage) for data in datasets]
        opposite = [_condition_point(data, "opposite", effect, damage) for data in datasets]
        clouds = [_control(data) for data in datasets]
    figure = Figure()
    _draw_cloud(figure, clouds, effect, damage)
    _draw_points(figure, points, _STEERED, "steered", joined=len(datasets) > 1)
    if opposite:
        _draw_points(figure, opposite, _OPPOSITE, "the other way", joined=len(datasets) > 1)
    figure.add_hline(y=0, line={"color": "#333333", "width": 1})
    figure.add_vline(x=0, line={"color": "#333333", "width": 1})
    figure.update_xaxes(title_text=quantity_label(datasets[0][f"{damage}_change"]))
    figure.update_yaxes(title_text=wrapped_label(datasets[0][f"{effect}_change"]))
    attributes = datasets[0].attrs
    parts = [str(attributes[key]) for key in ("concept", "model") if attributes.get(key)]
    if "source" in datasets[0].dims:
        parts.append(f"{attributes.get('target_kl', '?')} nats per token")
        parts.append(f"on {clouds[0]['target'].item()}")
    finish_figure(figure, ", ".join(parts), height=480)
    return figure


def _check(data: xr.Dataset, *names: str) -> None:
    for name in names:
        if f"{name}_change" not in data or f"{name}_change_ci" not in data:
            quantities = [
                str(variable).removesuffix("_change_ci")
                for variable in data
                if "_change_ci" in str(variable)
            ]
            raise ValueError(
                f"There is no {name!r} here. Choose one of "
                f"{', '.join(quantities) or 'none: these are no results of steering'}."
            )


def _matrix_points(column: xr.Dataset, effect: str, damage: str) -> list[_Point]:
    _check(column, effect, damage)
    points = []
    for number, name in enumerate(column["source"].values.tolist()):
        step = float(column["source_step"][number])
        label = f"step {format_count(step)}" if np.isfinite(step) else str(name)
        row = column.isel(source=number)
        points.append(_Point(label, _triple(row, effect), _triple(row, damage)))
    return points


def _condition_point(data: xr.Dataset, condition: str, effect: str, damage: str) -> _Point:
    if "condition" not in data.dims:
        raise ValueError(
            "These are no results of steering. Pass what `evaluate_steering` or `steering_matrix` "
            "gives."
        )
    _check(data, effect, damage)
    condition_data = data.sel(condition=condition)
    has_strength = "strength" in condition_data
    name = f"strength {float(condition_data['strength']):.3g}" if has_strength else condition
    return _Point(name, _triple(condition_data, effect), _triple(condition_data, damage))


def _triple(data: xr.Dataset, name: str) -> tuple[float, float, float]:
    low, high = data[f"{name}_change_ci"].sel(bound=["low", "high"]).values.tolist()
    return float(data[f"{name}_change"]), low, high


def _control(data: xr.Dataset) -> xr.Dataset:
    """The random directions of equal dose, where there are any."""
    if "control" not in data.dims:
        return data
    names = data["control"].values.tolist()
    # At an equal dose the cloud lies at about the damage of the vector, where the two compare.
    return data.sel(control="equal_kl" if "equal_kl" in names else names[0])


def _draw_cloud(figure: Figure, clouds: list[xr.Dataset], effect: str, damage: str) -> None:
    names = f"{damage}_random", f"{effect}_random"
    # A cloud of some of the evaluations would seem to stand for all of them.
    if any(name not in cloud for cloud in clouds for name in names):
        return
    damages, effects = (np.concatenate([cloud[name].values for cloud in clouds]) for name in names)
    figure.add_trace(
        go.Scatter(
            x=damages,
            y=effects,
            mode="markers",
            marker={"size": 5, "color": QUIET, "opacity": 0.5},
            name=f"random directions (n = {len(damages)})",
            hovertemplate="random direction<br>%{y:+.3f}, damage %{x:+.3f}<extra></extra>",
        )
    )


def _draw_points(
    figure: Figure, points: list[_Point], colour: str, name: str, *, joined: bool
) -> None:
    def bars(triples: list[tuple[float, float, float]]) -> dict[str, object]:
        values = np.array(triples)
        return {
            "type": "data",
            "symmetric": False,
            "array": values[:, 2] - values[:, 0],
            "arrayminus": values[:, 0] - values[:, 1],
            "color": colour,
            "thickness": 1,
        }

    def interval_text(triple: tuple[float, float, float]) -> str:
        return f"{triple[0]:+.3f} [{triple[1]:.3f}, {triple[2]:.3f}]"

    effects, damages = [point.effect for point in points], [point.damage for point in points]
    figure.add_trace(
        go.Scatter(
            x=[value for value, *_ in damages],
            y=[value for value, *_ in effects],
            error_x=bars(damages),
            error_y=bars(effects),
            mode="lines+markers+text" if joined else "markers+text",
            line={"color": colour},
            marker={"size": 9, "color": colour},
            text=[plot_text(point.name) for point in points],
            textposition="top center",
            textfont={"size": 11},
            name=name,
            customdata=[
                f"<b>{plot_text(point.name)}</b><br>effect {interval_text(point.effect)}<br>damage "
                f"{interval_text(point.damage)}"
                for point in points
            ],
            hovertemplate="%{customdata}<extra></extra>",
        )
    )
