"""Steering, as plotly figures: from checkpoint to checkpoint, and since when."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from tlens_trust.measures.multiplicity import benjamini_hochberg
from tlens_trust.views.axes import format_count, log_positions
from tlens_trust.views.figure import Figure
from tlens_trust.views.plot_text import plot_text, wrapped_label
from tlens_trust.views.steering.matrices import draw_between_checkpoints

_OWN, _QUIET = "#0072B2", "#8a8a8a"
_COLOURS = {"readable": "#0072B2", "writable": "#D55E00", "expressed": "#009E73"}
_TAILS = (0.025, 0.975)


def draw_steering(matrix: xr.Dataset, effect: str = "log_odds") -> Figure:
    """Draw how far each source's vector moves each target, at one dose.

    Upwards stand the checkpoints that vectors were taken at, across those that were steered. White
    is no change, blue one to the trustworthy side. A dot marks a change within the middle 95% of
    what random directions do to that target at the same dose.

    Args:
        matrix: What `steering_matrix` gives.
        effect: Which quantity: `"log_odds"`, `"follow_up_log_odds"` and the like, or one that tells
            of damage, as `"neutral_loss"`.

    Returns:
        A figure: `.show()` shows it.

    Raises:
        ValueError: There is no such quantity, or this is no steering matrix.
    """
    name = _checked(matrix, effect)
    data = matrix[[name, f"{name}_ci"]]
    if f"{effect}_random" in matrix:
        ends = np.quantile(matrix[f"{effect}_random"].transpose("target", "draw"), _TAILS, axis=1)
        band = np.broadcast_to(ends.T, (matrix.sizes["source"], matrix.sizes["target"], 2))
        data = data.assign({f"{name}_null": (("source", "target", "bound"), band)})
    site = str(matrix["site"].values)
    layer = int(matrix["layer"].values)
    data = data.drop_vars(["site", "layer"]).expand_dims({"site": [site]})
    data = data.assign_coords(layer=("site", [layer]))
    values = data[name].transpose("source", "target", "site")
    sizes = np.abs(values.values[np.isfinite(values.values)])
    reach = float(sizes.max(initial=0.0)) or 1.0
    figure = draw_between_checkpoints(
        data, name, values, (-reach, reach), "vector taken at", "model steered"
    )
    figure.update_layout(title={"text": _title(matrix), "font": {"size": 14}}, margin={"t": 90})
    return figure


def draw_steering_curve(
    matrix: xr.Dataset, effect: str = "log_odds", *, target: str | int = -1, x: str = "step"
) -> Figure:
    """Draw how early a vector works on one target: its effect by where it was taken.

    Points with their intervals, over the middle 95% of what random directions do to the target at
    the same dose. Filled where the p-value among them is at most 5% after correction over the
    sources (Benjamini and Hochberg). The dashed line is what the target's own vector does, where it
    is among the sources.

    Args:
        matrix: What `steering_matrix` gives.
        effect: Which quantity.
        target: Name or number of the target.
        x: `"step"` or `"tokens"`, of the sources.

    Returns:
        A figure: `.show()` shows it.

    Raises:
        ValueError: There is no such quantity or target, `x` is neither, or steps are unknown.
    """
    name = _checked(matrix, effect)
    if f"{effect}_p" not in matrix:
        raise ValueError(f"{effect!r} tells of damage, and has no p-value. Draw an effect.")
    if x not in ("step", "tokens"):
        raise ValueError(f"No training axis named {x!r}. Choose 'step' or 'tokens'.")
    here = matrix.isel(target=place_of_target(matrix, target))
    counts = np.asarray(here[f"source_{x}"].values, dtype=float)
    if not np.isfinite(counts).all():
        raise ValueError(f"The {x} of some sources is unknown. Draw the matrix instead.")
    where = log_positions(counts)
    change = here[name].values
    interval = here[f"{name}_ci"].transpose("source", "bound").values
    random = np.quantile(here[f"{effect}_random"].values, _TAILS)
    q = benjamini_hochberg(here[f"{effect}_p"].values)
    figure = Figure()
    figure.add_hrect(
        y0=random[0], y1=random[1], fillcolor=_QUIET, opacity=0.25, line_width=0, layer="below"
    )
    # A rectangle has no entry in the legend.
    figure.add_trace(
        go.Scatter(
            x=[None],
            y=[None],
            mode="markers",
            marker={"symbol": "square", "size": 12, "color": _QUIET, "opacity": 0.4},
            name="middle 95% of random directions",
        )
    )
    own = np.flatnonzero(here["source"].values == here["target"].values)
    if len(own):
        figure.add_hline(y=float(change[own[0]]), line={"color": _QUIET, "dash": "dash"})
    hover = [
        f"<b>{plot_text(str(source))}</b><br>{value:+.3f} [{low:.3f}, {high:.3f}]<br>"
        f"p = {p:.3f}, corrected {corrected:.3f}<br>moved the wrong way {wrong:.0%}"
        for source, value, (low, high), p, corrected, wrong in zip(
            here["source"].values,
            change,
            interval,
            here[f"{effect}_p"].values,
            q,
            here[f"{effect}_wrong_way"].values,
            strict=True,
        )
    ]
    figure.add_trace(
        go.Scatter(
            x=where,
            y=change,
            mode="lines+markers",
            line={"color": _OWN},
            marker={
                "size": 10,
                "color": _OWN,
                "symbol": ["circle" if value <= 0.05 else "circle-open" for value in q],
            },
            error_y={
                "type": "data",
                "symmetric": False,
                "array": interval[:, 1] - change,
                "arrayminus": change - interval[:, 0],
                "color": _OWN,
            },
            name="vector of the source, filled where p ≤ .05 corrected",
            customdata=hover,
            hovertemplate="%{customdata}<extra></extra>",
        )
    )
    figure.add_hline(y=0, line={"color": "#333333", "width": 1})
    figure.update_xaxes(
        type="log",
        tickvals=where,
        ticktext=[format_count(count) for count in counts],
        title_text=f"vector taken at ({'training step' if x == 'step' else 'tokens seen'})",
    )
    figure.update_yaxes(title_text=wrapped_label(here[name]))
    return _finish(figure, f"{_title(matrix)}, on {plot_text(str(here['target'].values))}", 460)


def draw_onsets(onsets: xr.Dataset, *, x: str = "step") -> Figure:
    """Draw since when a concept is readable, writable and expressed, on one axis.

    Above, the set of each onset as a bar, which ends at the diamond where it is shown, or runs out
    at the last checkpoint where it never is. Below, what was looked at, with the bounds that the
    answers rest on.

    Args:
        onsets: What `compare_onsets` gives.
        x: `"step"` or `"tokens"`.

    Returns:
        A figure: `.show()` shows it.

    Raises:
        ValueError: It is no result of `compare_onsets`, `x` is neither, or steps are unknown.
    """
    if "onset_set" not in onsets or "kind" not in onsets.dims:
        raise ValueError(
            "This draws what `compare_onsets` gives, got a data set of "
            f"{', '.join(map(str, onsets)) or 'nothing'}."
        )
    if x not in ("step", "tokens"):
        raise ValueError(f"No training axis named {x!r}. Choose 'step' or 'tokens'.")
    counts = np.asarray(onsets[x].values, dtype=float)
    if not np.isfinite(counts).all():
        raise ValueError(f"The {x} of some checkpoints is unknown.")
    where = log_positions(counts)
    kinds = [str(kind) for kind in onsets["kind"].values]
    figure: Figure = make_subplots(
        rows=1 + len(kinds),
        cols=1,
        shared_xaxes=True,
        row_heights=[0.25, *[0.75 / len(kinds)] * len(kinds)],
        vertical_spacing=0.05,
        figure=Figure(),
    )
    names = [str(name) for name in onsets["checkpoint"].values]
    for row, kind in enumerate(kinds, start=2):
        here = onsets.sel(kind=kind)
        colour = _COLOURS.get(kind, _QUIET)
        shown = str(here["onset_checkpoint"].values)
        inside = where[here["onset_set"].values.astype(bool)]
        figure.add_trace(
            go.Scatter(
                x=[inside[0], inside[-1]],
                y=[kind, kind],
                mode="lines",
                line={
                    "color": colour,
                    "width": 8 if shown else 3,
                    "dash": "solid" if shown else "dot",
                },
                opacity=0.5,
                showlegend=False,
                hoverinfo="skip",
            ),
            row=1,
            col=1,
        )
        if shown:
            figure.add_trace(
                go.Scatter(
                    x=[where[names.index(shown)]],
                    y=[kind],
                    mode="markers",
                    marker={"color": colour, "symbol": "diamond", "size": 14},
                    showlegend=False,
                    hovertemplate=f"{kind} by {plot_text(shown)}<extra></extra>",
                ),
                row=1,
                col=1,
            )
        bounds = here["value_ci"].transpose("checkpoint", "bound").values
        figure.add_trace(
            go.Scatter(
                x=np.concatenate([where, where[::-1]]),
                y=np.concatenate([bounds[:, 0], bounds[::-1, 1]]),
                fill="toself",
                fillcolor=colour,
                opacity=0.2,
                line={"width": 0},
                showlegend=False,
                hoverinfo="skip",
            ),
            row=row,
            col=1,
        )
        figure.add_trace(
            go.Scatter(
                x=where,
                y=here["value"].values,
                mode="lines+markers",
                line={"color": colour},
                name=kind,
                showlegend=False,
                hovertemplate=f"{plot_text(str(here['told'].values))}: %{{y:.3f}}<extra></extra>",
            ),
            row=row,
            col=1,
        )
        figure.add_hline(y=0, line={"color": "#333333", "width": 1}, row=row, col=1)
        units = plot_text(str(here["units"].values))
        figure.update_yaxes(title_text=f"{kind}<br>({units})", row=row, col=1)
    figure.update_yaxes(autorange="reversed", row=1, col=1)
    figure.update_xaxes(type="log", tickvals=where, ticktext=[format_count(n) for n in counts])
    figure.update_xaxes(
        title_text="training step" if x == "step" else "tokens seen", row=1 + len(kinds), col=1
    )
    return _finish(figure, plot_text(str(onsets.attrs.get("concept", ""))), 760)


def _checked(matrix: xr.Dataset, effect: str) -> str:
    known = [
        str(name).removesuffix("_change")
        for name in matrix
        if str(name).endswith("_change") and set(matrix[name].dims) == {"source", "target"}
    ]
    if effect not in known:
        raise ValueError(
            f"There is no {effect!r} of every source and target here. Choose one of "
            f"{', '.join(known) or 'none: this is nothing that `steering_matrix` gave'}."
        )
    return f"{effect}_change"


def place_of_target(matrix: xr.Dataset, target: str | int) -> int:
    """Which of a matrix's targets a user means.

    Raises:
        ValueError: There is none of that name or number.
    """
    names = [str(name) for name in matrix["target"].values]
    if isinstance(target, int) and -len(names) <= target < len(names):
        return target % len(names)
    if target not in names:
        raise ValueError(
            f"There is no target {target!r} here. Choose a number from 0 to {len(names) - 1}, or "
            f"one of {', '.join(names)}."
        )
    return names.index(str(target))


def _title(matrix: xr.Dataset) -> str:
    told = [
        str(matrix.attrs.get("concept", "")),
        str(matrix["site"].values),
        f"{matrix.attrs.get('target_kl', '?')} nats a token",
    ]
    return plot_text(", ".join(told))


def _finish(figure: Figure, title: str, height: int) -> Figure:
    figure.update_layout(
        template="plotly_white",
        height=height,
        width=800,
        font={"size": 13},
        margin={"l": 90, "r": 30, "t": 60, "b": 60},
        title={"text": title, "font": {"size": 14}},
        legend={"orientation": "h", "y": -0.2, "x": 0},
    )
    return figure
