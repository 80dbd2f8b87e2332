"""What changed between checkpoints: figures, and a table for a terminal."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from tlens_trust.views.axes import format_count
from tlens_trust.views.figure import Figure
from tlens_trust.views.panels import QUIET, finish_figure
from tlens_trust.views.plot_text import plot_text, quantity_label, wrapped_label
from tlens_trust.views.text_tables import Column, lay_out, number, small_number, with_interval

_LEARNED, _FORGOTTEN = "#0072B2", "#D55E00"


def draw_comparison(comparison: xr.Dataset) -> Figure:
    """Draw the difference in held-out accuracy between two checkpoints, by site.

    Points have 95% intervals and lie over the null band, where nothing changed. A point is filled
    where the difference is significant at 5% after correction for the choice among sites. Hovering
    shows how many statements flipped either way.

    Args:
        comparison: What `compare_checkpoints` gives.

    Returns:
        A figure: `.show()` shows it.

    Raises:
        ValueError: `comparison` is no comparison of checkpoints.
    """
    _check(comparison, "accuracy_difference", "compare_checkpoints")
    layers = comparison["layer"].values.tolist()
    names = comparison["site"].values.tolist()
    # Several sites of one layer, such as heads, can be told apart only by name.
    labels = [str(layer) for layer in layers] if len(set(layers)) == len(layers) else names
    difference = comparison["accuracy_difference"]
    interval = comparison["accuracy_difference_ci"].transpose("site", "bound").values
    null_band = comparison["accuracy_difference_null"].transpose("site", "bound").values
    corrected_p = comparison["accuracy_difference_p_best"].values
    positions = np.arange(len(labels))
    figure = Figure()
    figure.add_trace(
        go.Bar(
            x=positions,
            # A bar from the lower to the upper end: sites are categories, between which no band
            # runs.
            y=null_band[:, 1] - null_band[:, 0],
            base=null_band[:, 0].tolist(),
            width=0.8,
            marker={"color": QUIET, "opacity": 0.25},
            name="95% null band: nothing changed",
            hoverinfo="skip",
        )
    )
    hover = [
        f"<b>{plot_text(name)}</b><br>{quantity_label(difference)}: "
        f"{value:.3f} [{low:.3f}, {high:.3f}]"
        f"<br>p = {p:.4f}, among all sites {p_best:.4f}<br>learned {learned}, forgotten {forgotten}"
        for name, value, (low, high), p, p_best, learned, forgotten in zip(
            names,
            difference.values,
            interval,
            comparison["accuracy_difference_p"].values,
            corrected_p,
            comparison["learned"].values,
            comparison["forgotten"].values,
            strict=True,
        )
    ]
    figure.add_trace(
        go.Scatter(
            x=positions,
            y=difference.values,
            mode="markers",
            marker={
                "size": 10,
                "color": _LEARNED,
                "symbol": ["circle" if value <= 0.05 else "circle-open" for value in corrected_p],
            },
            error_y={
                "type": "data",
                "symmetric": False,
                "array": interval[:, 1] - difference.values,
                "arrayminus": difference.values - interval[:, 0],
                "color": _LEARNED,
            },
            name="difference, filled where p ≤ .05 among all sites",
            # plotly fills in a template once, so a `%{` in a name within `customdata` stays a text.
            customdata=hover,
            hovertemplate="%{customdata}<extra></extra>",
        )
    )
    figure.add_hline(y=0, line={"color": "#333333", "width": 1})
    figure.update_xaxes(
        tickvals=positions, ticktext=labels, title_text="layer" if labels != names else "site"
    )
    figure.update_yaxes(title_text=wrapped_label(difference))
    ends = " → ".join(str(comparison.attrs.get(end, end)) for end in ("before", "after"))
    title = f"{comparison.attrs.get('concept', '')}: {ends}"
    finish_figure(figure, title, height=440, width=760)
    return figure


def draw_forgetting(forgetting: xr.Dataset, *, x: str = "step") -> Figure:
    """Draw how many known statements are forgotten at each checkpoint, with two noise levels.

    Bars are known statements that are classified wrongly. The dotted line is an upper bound of what
    chance gives: statements that were wrong for as long, and turned right. The dashed line is how
    many known statements another fit at the checkpoint before classifies wrongly. Points are the
    excess over it, with intervals.

    Args:
        forgetting: What `find_forgetting` gives.
        x: `"step"` or `"tokens"`.

    Returns:
        A figure: `.show()` shows it.

    Raises:
        ValueError: `forgetting` is no result of `find_forgetting`, or `x` is no training axis.
    """
    _check(forgetting, "forgotten", "find_forgetting")
    if x not in ("step", "tokens"):
        raise ValueError(f"No training axis named {x!r}. Choose 'step' or 'tokens'.")
    counts = np.asarray(forgetting[x].values, dtype=float)
    positions = np.arange(len(counts))
    noise = forgetting["forgotten_noise"].values
    excess = forgetting["forgotten_excess"].values
    figure = Figure()
    figure.add_trace(
        go.Bar(
            x=positions,
            y=forgetting["forgotten"].values,
            marker={"color": _FORGOTTEN, "opacity": 0.75},
            name="known, and wrong now",
            customdata=forgetting["known"].values,
            hovertemplate="%{y} of %{customdata} known statements<extra></extra>",
        )
    )
    figure.add_trace(
        go.Scatter(
            x=positions,
            y=forgetting["forgotten_mirror"].values,
            mode="lines",
            line={"color": "#333333", "dash": "dot"},
            name="wrong for as long, and right now",
            hovertemplate="%{y} statements<extra></extra>",
        )
    )
    # Without refits, `find_forgetting` leaves the noise unknown.
    if np.isfinite(noise).any():
        interval = forgetting["forgotten_excess_ci"].transpose("checkpoint", "bound").values
        figure.add_trace(
            go.Scatter(
                x=positions,
                y=noise,
                mode="lines+markers",
                line={"color": QUIET, "dash": "dash", "shape": "hvh"},
                name="another fit at the checkpoint before",
                hovertemplate="%{y:.1f} statements<extra></extra>",
            )
        )
        figure.add_trace(
            go.Scatter(
                x=positions,
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
        tickvals=positions,
        ticktext=[format_count(count) for count in counts],
        title_text="training step" if x == "step" else "tokens seen",
    )
    figure.update_yaxes(title_text="statements")
    title = f"{forgetting.attrs.get('concept', '')}, {forgetting.attrs.get('site', '')}"
    finish_figure(figure, title, height=440, width=760)
    return figure


def comparison_table(comparison: xr.Dataset) -> str:
    """Lay out a comparison of two checkpoints for a terminal, one row per site.

    Args:
        comparison: What `compare_checkpoints` gives.

    Examples:
        >>> from tlens_trust.analysis import compare_checkpoints
        >>> print(comparison_table(compare_checkpoints("run", "privacy", 0, 512)))  # doctest: +SKIP
    """
    difference = comparison.accuracy_difference.values
    interval = comparison.accuracy_difference_ci.sel(bound=["low", "high"]).transpose(
        "bound", "site"
    )
    columns: list[Column] = [
        ("site", [str(site) for site in comparison["site"].values]),
        ("before", [number(value) for value in comparison.accuracy_before.values]),
        ("after", [number(value) for value in comparison.accuracy_after.values]),
        (
            "after - before [95% interval]",
            [with_interval(*row) for row in zip(difference, *interval.values, strict=True)],
        ),
        ("p", [small_number(p) for p in comparison.accuracy_difference_p.values]),
        ("p best", [small_number(p) for p in comparison.accuracy_difference_p_best.values]),
        ("learned", [f"{count:.0f}" for count in comparison.learned.values]),
        ("forgotten", [f"{count:.0f}" for count in comparison.forgotten.values]),
    ]
    test_attributes = comparison.accuracy_difference_p.attrs
    return "\n".join(
        [
            f"{comparison.attrs['concept']}: {comparison.attrs['before']} to "
            f"{comparison.attrs['after']}, held-out accuracy of "
            f"{int(comparison.accuracy_difference_n.values[0])} statements in "
            f"{test_attributes['groups']} groups",
            "",
            *lay_out(columns, left=("site",)),
            "",
            "p        two-sided test of no change at that site (flips the groups' signs)",
            "p best   corrected for the choice among sites; learned, forgotten: statements",
        ]
    )


def _check(data: xr.Dataset, variable: str, maker: str) -> None:
    if variable not in data:
        variables = ", ".join(str(name) for name in data) or "nothing"
        raise ValueError(f"This draws what `{maker}` gives, got a data set of {variables}.")
