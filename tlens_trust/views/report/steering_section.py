"""The section of a report that shows the effects of steering."""

import numpy as np
import xarray as xr
from markupsafe import Markup

from tlens_trust.html import render
from tlens_trust.tracing import Trace
from tlens_trust.views.figure import Figure
from tlens_trust.views.report.elements import render_figure
from tlens_trust.views.report.section import ReportContent, Section
from tlens_trust.views.steering.effect_figures import draw_steering, draw_steering_curve
from tlens_trust.views.steering.matrix_table import steering_effects, steering_verdict

_NOTE = (
    "Each vector was estimated on one half of a concept's groups and evaluated on the other half. "
    "Its dose, the divergence that it causes on neutral text, equals that of the random directions "
    "it is compared with. Moved answers are not necessarily right answers: what becomes of right "
    "answers stands beside the effect."
)


def _render(content: ReportContent) -> Markup:
    if not content.steering:
        return Markup("")
    matrices = [_describe(content.trace, matrix) for matrix in content.steering]
    return render("report/steering", {"note": _NOTE, "matrices": matrices})


def _describe(trace: Trace, matrix: xr.Dataset) -> dict[str, object]:
    effects = steering_effects(matrix)
    concept = str(matrix.attrs.get("concept", "?"))
    sources = [str(source) for source in matrix["source"].values]
    if not {*sources} & {*trace.checkpoints}:
        raise ValueError(
            f"The steering matrix of {concept!r} has no source among the trace's checkpoints: "
            f"{', '.join(sources)}. Give a matrix of the same series."
        )
    sentences = [
        steering_verdict(matrix, effects[0], target=target)
        for target in matrix["target"].values.tolist()
    ]
    # An effect that did not change is reported as well.
    sentences += [steering_verdict(matrix, effect) for effect in effects[1:]]
    figure = _draw(matrix, effects[0])
    return {
        "concept": concept,
        # The heading names the concept already.
        "sentences": [sentence.removeprefix(f"{concept}: ") for sentence in sentences],
        "figure": render_figure(
            figure, f"steering by {concept}", height=int(figure.layout.height or 0)
        ),
    }


def _draw(matrix: xr.Dataset, effect: str) -> Figure:
    # A matrix of one column is a curve, and a curve has room for intervals.
    if matrix.sizes["target"] == 1 and np.isfinite(matrix["source_step"].values).all():
        return draw_steering_curve(matrix, effect)
    return draw_steering(matrix, effect)


STEERING = Section("Steering", _render)
