"""What steering wins and what it costs, in one figure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from tlens_trust.views.axes import format_count
from tlens_trust.views.figure import Figure
from tlens_trust.views.plot_text import plot_text, quantity_label, wrapped_label
from tlens_trust.views.steering.figures import place_of_target

_OWN, _OPPOSITE, _QUIET = "#0072B2", "#D55E00", "#8a8a8a"


@dataclass(frozen=True)
class _Point:
    """One vector at one strength: change of the effect and of the damage, each with interval."""

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
    """Draw the effect of steering over its damage, with random directions beside it.

    Upwards is the change of the effect, to the right that of the damage, each with its interval. A
    direction that is worth something lies above the grey cloud of random directions at the same
    damage. Of one evaluation steering the other way is drawn too; several, as at several strengths,
    are joined in their order; of a matrix every source is a point.

    Args:
        results: What `evaluate_steering` gives, several of them, or what `steering_matrix` gives.
        effect: Which quantity stands upwards.
        damage: Which one stands to the right.
        target: Of a matrix, the name or number of the model that is steered.

    Returns:
        A figure: `.show()` shows it.

    Raises:
        ValueError: A quantity or the target is not there, or these are no results of steering.

    Examples:
        >>> draw_trade_off([evaluate_steering(  # doctest: +SKIP
        ...     model, vector, concept, target_kl=kl) for kl in (0.02, 0.05, 0.1)])
    """
    several = [results] if isinstance(results, xr.Dataset) else list(results)
    if not several:
        raise ValueError("There is nothing to draw. Give at least one evaluation of steering.")
    if "source" in several[0].dims:
        if len(several) > 1:
            raise ValueError("Several matrices do not go into one figure. Draw each by itself.")
        here = several[0].isel(target=place_of_target(several[0], target))
        points, opposite = _of_matrix(here, effect, damage), []
        clouds = [here]
    else:
        points = [_of_condition(each, "steered", effect, damage) for each in several]
        opposite = [_of_condition(each, "opposite", effect, damage) for each in several]
        clouds = [_control(each) for each in several]
    figure = Figure()
    _draw_cloud(figure, clouds, effect, damage)
    _draw_points(figure, points, _OWN, "steered", joined=len(several) > 1)
    if opposite:
        _draw_points(figure, opposite, _OPPOSITE, "the other way", joined=len(several) > 1)
    figure.add_hline(y=0, line={"color": "#333333", "width": 1})
    figure.add_vline(x=0, line={"color": "#333333", "width": 1})
    figure.update_xaxes(title_text=quantity_label(several[0][f"{damage}_change"]))
    figure.update_yaxes(title_text=wrapped_label(several[0][f"{effect}_change"]))
    attributes = several[0].attrs
    told = [str(attributes[key]) for key in ("concept", "model") if attributes.get(key)]
    if "source" in several[0].dims:
        told.append(f"{attributes.get('target_kl', '?')} nats a token")
        told.append(f"on {clouds[0]['target'].item()}")
    title = ", ".join(told)
    figure.update_layout(
        template="plotly_white",
        width=800,
        height=480,
        font={"size": 13},
        margin={"l": 90, "r": 30, "t": 60, "b": 60},
        title={"text": plot_text(title), "font": {"size": 14}},
        legend={"orientation": "h", "y": -0.2, "x": 0},
    )
    return figure


def _check(data: xr.Dataset, *names: str) -> None:
    for name in names:
        if f"{name}_change" not in data or f"{name}_change_ci" not in data:
            held = [
                str(each).removesuffix("_change_ci") for each in data if "_change_ci" in str(each)
            ]
            raise ValueError(
                f"There is no {name!r} here. Choose one of "
                f"{', '.join(held) or 'none: these are no results of steering'}."
            )


def _of_matrix(here: xr.Dataset, effect: str, damage: str) -> list[_Point]:
    _check(here, effect, damage)
    points = []
    for number, name in enumerate(here["source"].values.tolist()):
        step = float(here["source_step"][number])
        label = f"step {format_count(step)}" if np.isfinite(step) else str(name)
        one = here.isel(source=number)
        points.append(_Point(label, _triple(one, effect), _triple(one, damage)))
    return points


def _of_condition(data: xr.Dataset, condition: str, effect: str, damage: str) -> _Point:
    if "condition" not in data.dims:
        raise ValueError(
            "These are no results of steering. Pass what `evaluate_steering` or `steering_matrix` "
            "gives."
        )
    _check(data, effect, damage)
    one = data.sel(condition=condition)
    name = f"strength {float(one['strength']):.3g}" if "strength" in one else condition
    return _Point(name, _triple(one, effect), _triple(one, damage))


def _triple(one: xr.Dataset, name: str) -> tuple[float, float, float]:
    low, high = one[f"{name}_change_ci"].sel(bound=["low", "high"]).values.tolist()
    return float(one[f"{name}_change"]), low, high


def _control(data: xr.Dataset) -> xr.Dataset:
    """The random directions of equal dose, where there are such."""
    if "control" not in data.dims:
        return data
    names = data["control"].values.tolist()
    return data.sel(control="equal_kl" if "equal_kl" in names else names[0])


def _draw_cloud(figure: Figure, clouds: list[xr.Dataset], effect: str, damage: str) -> None:
    names = f"{damage}_random", f"{effect}_random"
    if any(name not in each for each in clouds for name in names):
        return
    across, upwards = (np.concatenate([each[name].values for each in clouds]) for name in names)
    figure.add_trace(
        go.Scatter(
            x=across,
            y=upwards,
            mode="markers",
            marker={"size": 5, "color": _QUIET, "opacity": 0.5},
            name=f"random directions (n = {len(across)})",
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

    def told(triple: tuple[float, float, float]) -> str:
        return f"{triple[0]:+.3f} [{triple[1]:.3f}, {triple[2]:.3f}]"

    effects, damages = [each.effect for each in points], [each.damage for each in points]
    figure.add_trace(
        go.Scatter(
            x=[value for value, *_ in damages],
            y=[value for value, *_ in effects],
            error_x=bars(damages),
            error_y=bars(effects),
            mode="lines+markers+text" if joined else "markers+text",
            line={"color": colour},
            marker={"size": 9, "color": colour},
            text=[plot_text(each.name) for each in points],
            textposition="top center",
            textfont={"size": 11},
            name=name,
            customdata=[
                f"<b>{plot_text(each.name)}</b><br>effect {told(each.effect)}<br>damage "
                f"{told(each.damage)}"
                for each in points
            ],
            hovertemplate="%{customdata}<extra></extra>",
        )
    )
