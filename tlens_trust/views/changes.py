"""What changed between checkpoints, as plotly figures."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from tlens_trust.views.axes import format_count
from tlens_trust.views.figure import Figure
from tlens_trust.views.plot_text import quantity_label, wrapped_label

_LEARNED, _FORGOTTEN, _QUIET = "#0072B2", "#D55E00", "#8a8a8a"


def draw_comparison(comparison: xr.Dataset) -> Figure:
    """Draw by how much a concept is read better at one checkpoint than at another, by site.

    Points with their 95% intervals, over the band where nothing changed. Filled where the
    difference is significant at 5% after correction for the choice among sites. Hovering shows how
    many statements flipped either way.

    Args:
        comparison: What `compare_checkpoints` gives.

    Returns:
        A figure: `.show()` shows it.

    Raises:
        ValueError: It is no comparison.
    """
    _check(comparison, "accuracy_difference", "compare_checkpoints")
    layers = comparison["layer"].values.tolist()
    names = comparison["site"].values.tolist()
    labels = [str(layer) for layer in layers] if len(set(layers)) == len(layers) else names
    difference = comparison["accuracy_difference"]
    interval = comparison["accuracy_difference_ci"].transpose("site", "bound").values
    null = comparison["accuracy_difference_null"].transpose("site", "bound").values
    p = comparison["accuracy_difference_p_best"].values
    where = np.arange(len(labels))
    figure = Figure()
    figure.add_trace(
        go.Bar(
            x=where,
            y=null[:, 1] - null[:, 0],
            base=null[:, 0].tolist(),
            width=0.8,
            marker={"color": _QUIET, "opacity": 0.25},
            name="middle 95% where nothing changed",
            hoverinfo="skip",
        )
    )
    hover = [
        f"<b>{name}</b><br>{quantity_label(difference)}: {value:.3f} [{low:.3f}, {high:.3f}]"
        f"<br>p = {alone:.4f}, among all sites {best:.4f}<br>learned {gained}, forgotten {lost}"
        for name, value, (low, high), alone, best, gained, lost in zip(
            names,
            difference.values,
            interval,
            comparison["accuracy_difference_p"].values,
            p,
            comparison["learned"].values,
            comparison["forgotten"].values,
            strict=True,
        )
    ]
    figure.add_trace(
        go.Scatter(
            x=where,
            y=difference.values,
            mode="markers",
            marker={
                "size": 10,
                "color": _LEARNED,
                "symbol": ["circle" if value <= 0.05 else "circle-open" for value in p],
            },
            error_y={
                "type": "data",
                "symmetric": False,
                "array": interval[:, 1] - difference.values,
                "arrayminus": difference.values - interval[:, 0],
                "color": _LEARNED,
            },
            name="difference, filled where p ≤ .05 among all sites",
            customdata=hover,
            hovertemplate="%{customdata}<extra></extra>",
        )
    )
    figure.add_hline(y=0, line={"color": "#333333", "width": 1})
    figure.update_xaxes(
        tickvals=where, ticktext=labels, title_text="layer" if labels != names else "site"
    )
    figure.update_yaxes(title_text=wrapped_label(difference))
    before, after = comparison.attrs.get("before", "before"), comparison.attrs.get("after", "after")
    return _finish(figure, f"{comparison.attrs.get('concept', '')}: {before} → {after}")


def draw_forgetting(forgetting: xr.Dataset, *, x: str = "step") -> Figure:
    """Draw how many known statements are forgotten at each checkpoint, beside what noise gives.

    Bars are known statements that are wrong. The dotted line is what luck gives at most: statements
    that were wrong as long, and turned right. The dashed line is how many of the known another fit
    at the checkpoint before would have called wrong; points are what goes beyond it, with interval.

    Args:
        forgetting: What `find_forgetting` gives.
        x: `"step"` or `"tokens"`.

    Returns:
        A figure: `.show()` shows it.

    Raises:
        ValueError: It is no result of `find_forgetting`, or `x` is neither.
    """
    _check(forgetting, "forgotten", "find_forgetting")
    if x not in ("step", "tokens"):
        raise ValueError(f"No training axis named {x!r}. Choose 'step' or 'tokens'.")
    axis = np.asarray(forgetting[x].values, dtype=float)
    where = np.arange(len(axis))
    noise = forgetting["forgotten_noise"].values
    excess = forgetting["forgotten_excess"].values
    figure = Figure()
    figure.add_trace(
        go.Bar(
            x=where,
            y=forgetting["forgotten"].values,
            marker={"color": _FORGOTTEN, "opacity": 0.75},
            name="known and now wrong",
            customdata=forgetting["known"].values,
            hovertemplate="%{y} of %{customdata} known statements<extra></extra>",
        )
    )
    figure.add_trace(
        go.Scatter(
            x=where,
            y=forgetting["forgotten_mirror"].values,
            mode="lines",
            line={"color": "#333333", "dash": "dot"},
            name="wrong as long, and now right",
            hovertemplate="%{y} statements<extra></extra>",
        )
    )
    if np.isfinite(noise).any():
        interval = forgetting["forgotten_excess_ci"].transpose("checkpoint", "bound").values
        figure.add_trace(
            go.Scatter(
                x=where,
                y=noise,
                mode="lines+markers",
                line={"color": _QUIET, "dash": "dash", "shape": "hvh"},
                name="by another fit at the checkpoint before",
                hovertemplate="%{y:.1f} statements<extra></extra>",
            )
        )
        figure.add_trace(
            go.Scatter(
                x=where,
                y=excess,
                mode="markers",
                marker={"color": _LEARNED, "size": 8},
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": interval[:, 1] - excess,
                    "arrayminus": excess - interval[:, 0],
                    "color": _LEARNED,
                },
                name="beyond noise, with 95% interval",
                hovertemplate="%{y:.1f} statements<extra></extra>",
            )
        )
    figure.add_hline(y=0, line={"color": "#333333", "width": 1})
    figure.update_xaxes(
        tickvals=where,
        ticktext=[format_count(value) for value in axis],
        title_text="training step" if x == "step" else "tokens seen",
    )
    figure.update_yaxes(title_text="statements")
    return _finish(
        figure, f"{forgetting.attrs.get('concept', '')}, {forgetting.attrs.get('site', '')}"
    )


def _check(data: xr.Dataset, variable: str, maker: str) -> None:
    if variable not in data:
        held = ", ".join(str(name) for name in data) or "nothing"
        raise ValueError(f"This draws what `{maker}` gives, got a data set of {held}.")


def _finish(figure: Figure, title: str) -> Figure:
    figure.update_layout(
        template="plotly_white",
        height=440,
        width=760,
        font={"size": 13},
        margin={"l": 70, "r": 30, "t": 60, "b": 60},
        title={"text": title, "font": {"size": 14}},
        legend={"orientation": "h", "y": -0.2, "x": 0},
    )
    return figure
