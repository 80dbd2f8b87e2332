"""The steering matrices that the demo makes."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tlens_trust.cli.concept_commands import some_groups

if TYPE_CHECKING:
    import xarray as xr

    from tlens_trust.checkpoints import CheckpointSeries
    from tlens_trust.concepts import Concept

# Two whose sentences the toy series goes on from in either of two ways.
STEERED = ("toxicity", "reliability")
_STEPS = (256, 384, 768)
_GROUPS = 80
_DRAWS = 60
_KL = 0.1


def steer_toy(
    series: "CheckpointSeries",
    concepts: "Mapping[str, Concept]",
    out: Path,
    *,
    seed: int,
    progress: bool,
) -> "dict[str, xr.Dataset]":
    """Steer the trained toy by vectors from along its training.

    Args:
        series: The toy's checkpoints.
        concepts: The embedded sets.
        out: The run folder, which keeps the matrices for its report, and their figures.
        seed: Draws groups and directions.
        progress: Whether to show bars.

    Returns:
        The matrix of each concept that it is steered by.
    """
    from tlens_trust.tracing import save_result
    from tlens_trust.views import draw_steering_curve, steering_effects

    matrices = {}
    for name in STEERED:
        matrix = steer_toy_by(concepts[name], series, seed=seed, progress=progress)
        save_result(out, "steering", name, matrix)
        drawn = draw_steering_curve(matrix, steering_effects(matrix)[0])
        drawn.save(out / f"steering_{name}.html")
        matrices[name] = matrix
    return matrices


def steer_toy_by(
    concept: "Concept", series: "CheckpointSeries", *, seed: int, progress: bool = False
) -> "xr.Dataset":
    """Steer the trained toy by vectors of one concept from along its training.

    Args:
        concept: One of the embedded sets.
        series: The toy's checkpoints.
        seed: Draws groups and directions.
        progress: Whether to show a bar.
    """
    from tlens_trust.steering import FOLLOW_UPS, steering_matrix

    return steering_matrix(
        series.at(_STEPS),
        series[-1],
        some_groups(concept, _GROUPS, seed),
        site=int(series[-1].load_config().num_hidden_layers) // 2,
        target_kl=_KL,
        choices=[FOLLOW_UPS[concept.name]],
        # The toy has never heard of snow.
        everyday=False,
        draws=_DRAWS,
        seed=seed,
        progress=progress,
    )
