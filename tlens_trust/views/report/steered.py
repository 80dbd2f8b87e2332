"""The part of a report that tells of steering."""

from collections.abc import Sequence
from html import escape

import numpy as np
import xarray as xr

from tlens_trust.tracing import Trace
from tlens_trust.views.figure import Figure
from tlens_trust.views.report import parts
from tlens_trust.views.steering.figures import draw_steering, draw_steering_curve
from tlens_trust.views.steering.matrix_table import steering_effects, steering_verdict

_TOLD = (
    "Each vector was made of one half of a concept's groups and tried on the other, as strongly as "
    "moves neutral text by the same divergence as random directions beside it. That answers move "
    "does not make them right: what becomes of right answers stands beside the effect."
)


def steering_part(trace: Trace, matrices: Sequence[xr.Dataset]) -> str:
    """Sentences and a figure for each matrix; nothing where there is none.

    Args:
        trace: What the report is about.
        matrices: What `steering_matrix` gave.

    Raises:
        ValueError: One is no steering matrix, or has no source among the trace's checkpoints.
    """
    if not matrices:
        return ""
    told = []
    for matrix in matrices:
        effects = steering_effects(matrix)
        concept = str(matrix.attrs.get("concept", "?"))
        sources = [str(source) for source in matrix["source"].values]
        if not {*sources} & {*trace.checkpoints}:
            raise ValueError(
                f"The steering matrix of {concept!r} has no source among the trace's checkpoints: "
                f"{', '.join(sources)}. Give one of the same series."
            )
        sentences = [
            steering_verdict(matrix, effects[0], target=target)
            for target in matrix["target"].values.tolist()
        ]
        # What was not moved is told as well.
        sentences += [steering_verdict(matrix, effect) for effect in effects[1:]]
        items = "".join(f"<li>{escape(_bare(text, concept))}</li>" for text in sentences)
        drawn = _drawn(matrix, effects[0])
        told.append(
            f"<h3>{escape(concept)}</h3><ul>{items}</ul>"
            + parts.figure(drawn, f"steering by {concept}", height=int(drawn.layout.height or 0))
        )
    return f'<p class="quiet">{escape(_TOLD)}</p>{"".join(told)}'


def _bare(sentence: str, concept: str) -> str:
    """Without the concept before it, which stands in the heading."""
    return sentence.removeprefix(f"{concept}: ")


def _drawn(matrix: xr.Dataset, effect: str) -> Figure:
    if matrix.sizes["target"] == 1 and np.isfinite(matrix["source_step"].values).all():
        return draw_steering_curve(matrix, effect)
    return draw_steering(matrix, effect)
