"""Effects of steering as figures: a matrix of checkpoints, and a curve along training."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from tlens_trust.measures.multiplicity import benjamini_hochberg
from tlens_trust.views.axes import format_count, log_positions
from tlens_trust.views.comparing.matrix_figures import draw_between_checkpoints
from tlens_trust.views.figure import Figure
from tlens_trust.views.panels import QUIET, axis_title, finish_figure
from tlens_trust.views.plot_text import plot_text, wrapped_label
from tlens_trust.views.steering.matrix_table import place_of_target

_EFFECT = "#0072B2"
# The middle 95%, as wide as the intervals that it is compared with.
_TAILS = (0.025, 0.975)


def draw_steering(matrix: xr.Dataset, effect: str = "log_odds") -> Figure:
    """Draw the effect of each source's vector on each target, at one dose.

    Rows are the checkpoints that vectors were estimated at, columns those that were steered. White
    is no change, and blue is a change to the trustworthy side. A dot marks a change within the
    middle 95% of the changes by random directions on that target at the same dose.

    Args:
        matrix: What `steering_matrix` gives.
        effect: A quantity: an effect such as `"log_odds"` or `"follow_up_log_odds"`, or a measure
            of damage such as `"neutral_loss"`.

    Returns:
        A figure: `.show()` shows it.

    Raises:
        ValueError: There is no such quantity, or `matrix` is no steering matrix.
    """
    name = _change_variable(matrix, effect)
    data = matrix[[name, f"{name}_ci"]]
    if f"{effect}_random" in matrix:
        # Random directions are drawn for a target, and serve all of its sources.
        ends = np.quantile(matrix[f"{effect}_random"].transpose("target", "draw"), _TAILS, axis=1)
        band = np.broadcast_to(ends.T, (matrix.sizes["source"], matrix.sizes["target"], 2))
        data = data.assign({f"{name}_null": (("source", "target", "bound"), band)})
    site = str(matrix["site"].values)
    layer = int(matrix["layer"].values)
    # A steering matrix is of one site; `draw_between_checkpoints` expects an axis of sites.
    data = data.drop_vars(["site", "layer"]).expand_dims({"site": [site]})
    data = data.assign_coords(layer=("site", [layer]))
    values = data[name].transpose("source", "target", "site")
    sizes = np.abs(values.values[np.isfinite(values.values)])
    reach = float(sizes.max(initial=0.0)) or 1.0
    figure = draw_between_checkpoints(
        data, name, values, (-reach, reach), "vector estimated at", "model steered"
    )
    figure.update_layout(
        title={"text": plot_text(_title(matrix)), "font": {"size": 14}}, margin={"t": 90}
    )
    return figure


def draw_steering_curve(
    matrix: xr.Dataset, effect: str = "log_odds", *, target: str | int = -1, x: str = "step"
) -> Figure:
    """Draw the effect on one target by the checkpoint that the vector was estimated at.

    Points have intervals and lie over the middle 95% of the changes by random directions at the
    same dose. A point is filled where its p-value among these is at most 5% after correction over
    the sources (Benjamini and Hochberg). The dashed line is the effect of the target's own vector,
    if the target is among the sources.

    Args:
        matrix: What `steering_matrix` gives.
        effect: A quantity, as for `draw_steering`.
        target: Name or number of the target.
        x: `"step"` or `"tokens"`, of the sources.

    Returns:
        A figure: `.show()` shows it.

    Raises:
        ValueError: There is no such quantity or target, `x` is no training axis, or steps are
            unknown.
    """
    name = _change_variable(matrix, effect)
    if f"{effect}_p" not in matrix:
        raise ValueError(f"{effect!r} measures damage and has no p-value. Choose an effect.")
    if x not in ("step", "tokens"):
        raise ValueError(f"No training axis named {x!r}. Choose 'step' or 'tokens'.")
    column = matrix.isel(target=place_of_target(matrix, target))
    counts = np.asarray(column[f"source_{x}"].values, dtype=float)
    if not np.isfinite(counts).all():
        raise ValueError(f"The {x} of some sources is unknown. Draw the matrix instead.")
    positions = log_positions(counts)
    changes = column[name].values
    interval = column[f"{name}_ci"].transpose("source", "bound").values
    random = np.quantile(column[f"{effect}_random"].values, _TAILS)
    q = benjamini_hochberg(column[f"{effect}_p"].values)
    figure = Figure()
    figure.add_hrect(
        y0=random[0], y1=random[1], fillcolor=QUIET, opacity=0.25, line_width=0, layer="below"
    )
    # A rectangle has no entry in the legend.
    figure.add_trace(
        go.Scatter(
            x=[None],
            y=[None],
            mode="markers",
            marker={"symbol": "square", "size": 12, "color": QUIET, "opacity": 0.4},
            name="middle 95% of random directions",
        )
    )
    own_sources = np.flatnonzero(column["source"].values == column["target"].values)
    if len(own_sources):
        figure.add_hline(y=float(changes[own_sources[0]]), line={"color": QUIET, "dash": "dash"})
    hover = [
        f"<b>{plot_text(str(source))}</b><br>{value:+.3f} [{low:.3f}, {high:.3f}]<br>"
        f"p = {p:.3f}, corrected {corrected:.3f}<br>moved the wrong way {wrong_share:.0%}"
        for source, value, (low, high), p, corrected, wrong_share in zip(
            column["source"].values,
            changes,
            interval,
            column[f"{effect}_p"].values,
            q,
            column[f"{effect}_wrong_way"].values,
            strict=True,
        )
    ]
    figure.add_trace(
        go.Scatter(
            x=positions,
            y=changes,
            mode="lines+markers",
            line={"color": _EFFECT},
            marker={
                "size": 10,
                "color": _EFFECT,
                "symbol": ["circle" if value <= 0.05 else "circle-open" for value in q],
            },
            error_y={
                "type": "data",
                "symmetric": False,
                "array": interval[:, 1] - changes,
                "arrayminus": changes - interval[:, 0],
                "color": _EFFECT,
            },
            name="vector of the source, filled where p ≤ .05 corrected",
            customdata=hover,
            hovertemplate="%{customdata}<extra></extra>",
        )
    )
    figure.add_hline(y=0, line={"color": "#333333", "width": 1})
    figure.update_xaxes(
        type="log",
        tickvals=positions,
        ticktext=[format_count(count) for count in counts],
        title_text=f"vector estimated at ({axis_title(x)})",
    )
    figure.update_yaxes(title_text=wrapped_label(column[name]))
    finish_figure(figure, f"{_title(matrix)}, on {column['target'].values}", height=460)
    return figure


def _change_variable(matrix: xr.Dataset, effect: str) -> str:
    effects = [
        str(name).removesuffix("_change")
        for name in matrix
        if str(name).endswith("_change") and set(matrix[name].dims) == {"source", "target"}
    ]
    if effect not in effects:
        raise ValueError(
            f"There is no {effect!r} of every source and target here. Choose one of "
            f"{', '.join(effects) or 'none: this is no result of `steering_matrix`'}."
        )
    return f"{effect}_change"


def _title(matrix: xr.Dataset) -> str:
    parts = [
        str(matrix.attrs.get("concept", "")),
        str(matrix["site"].values),
        f"{matrix.attrs.get('target_kl', '?')} nats per token",
    ]
    return ", ".join(parts)
