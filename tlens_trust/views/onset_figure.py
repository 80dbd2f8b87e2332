"""When a concept becomes decodable, steerable and expressed, as a figure."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from tlens_trust.views.axes import format_count, log_positions
from tlens_trust.views.figure import Figure
from tlens_trust.views.panels import QUIET, axis_title, finish_figure
from tlens_trust.views.plot_text import plot_text, template_text

_COLOURS = {"readable": "#0072B2", "writable": "#D55E00", "expressed": "#009E73"}


def draw_onsets(onsets: xr.Dataset, *, x: str = "step") -> Figure:
    """Draw when a concept becomes readable, writable and expressed, on one axis.

    The top panel shows the interval of each onset as a bar. It ends at a diamond where there is an
    onset, and at the last checkpoint where there is none. The panels below show the tested
    quantities, with the bounds that decide.

    Args:
        onsets: What `compare_onsets` gives.
        x: `"step"` or `"tokens"`.

    Returns:
        A figure: `.show()` shows it.

    Raises:
        ValueError: `onsets` is no result of `compare_onsets`, `x` is no training axis, or steps
            are unknown.
    """
    if "onset_set" not in onsets or "kind" not in onsets.dims:
        raise ValueError(
            "This draws what `compare_onsets` gives, got a data set of "
            f"{', '.join(map(str, onsets)) or 'nothing'}."
        )
    if x not in ("step", "tokens"):
        raise ValueError(f"No training axis named {x!r}. Choose 'step' or 'tokens'.")
    counts = np.asarray(onsets[x].values, dtype=float)
    # A logarithmic axis has no place for an unknown step.
    if not np.isfinite(counts).all():
        raise ValueError(f"The {x} of some checkpoints is unknown.")
    positions = log_positions(counts)
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
        onset = onsets.sel(kind=kind)
        colour = _COLOURS.get(kind, QUIET)
        checkpoint = str(onset["onset_checkpoint"].values)
        interval = positions[onset["onset_set"].values.astype(bool)]
        figure.add_trace(
            go.Scatter(
                x=[interval[0], interval[-1]],
                y=[kind, kind],
                mode="lines",
                line={
                    "color": colour,
                    "width": 8 if checkpoint else 3,
                    "dash": "solid" if checkpoint else "dot",
                },
                opacity=0.5,
                showlegend=False,
                hoverinfo="skip",
            ),
            row=1,
            col=1,
        )
        if checkpoint:
            figure.add_trace(
                go.Scatter(
                    x=[positions[names.index(checkpoint)]],
                    y=[kind],
                    mode="markers",
                    marker={"color": colour, "symbol": "diamond", "size": 14},
                    showlegend=False,
                    hovertemplate=f"{kind} by {template_text(checkpoint)}<extra></extra>",
                ),
                row=1,
                col=1,
            )
        quantity = template_text(str(onset["told"].values))
        bounds = onset["value_ci"].transpose("checkpoint", "bound").values
        figure.add_trace(
            go.Scatter(
                x=np.concatenate([positions, positions[::-1]]),
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
                x=positions,
                y=onset["value"].values,
                mode="lines+markers",
                line={"color": colour},
                name=kind,
                showlegend=False,
                hovertemplate=f"{quantity}: %{{y:.3f}}<extra></extra>",
            ),
            row=row,
            col=1,
        )
        figure.add_hline(y=0, line={"color": "#333333", "width": 1}, row=row, col=1)
        units = plot_text(str(onset["units"].values))
        figure.update_yaxes(title_text=f"{kind}<br>({units})", row=row, col=1)
    # plotly stacks categories from the bottom; the panels below run from the top.
    figure.update_yaxes(autorange="reversed", row=1, col=1)
    figure.update_xaxes(type="log", tickvals=positions, ticktext=[format_count(n) for n in counts])
    figure.update_xaxes(title_text=axis_title(x), row=1 + len(kinds), col=1)
    finish_figure(figure, str(onsets.attrs.get("concept", "")), height=760)
    return figure
