"""The steering matrices of the demonstration."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tlens_trust.cli.concept_options import draw_groups

if TYPE_CHECKING:
    import xarray as xr

    from tlens_trust.checkpoints import CheckpointSeries
    from tlens_trust.concepts import Concept

# The toy continues statements of these two in either of two ways, so that steering has an effect.
STEERED_CONCEPTS = ("toxicity", "reliability")
_STEPS = (256, 384, 768)
_GROUPS = 80
# The smallest p-value that so many random directions allow is 1 / 61, or .016.
_DRAWS = 60
# The dose, in nats a token.
_KL = 0.1


def steer_toy(
    series: "CheckpointSeries",
    concepts: "Mapping[str, Concept]",
    out: Path,
    *,
    seed: int,
    progress: bool,
) -> "dict[str, xr.Dataset]":
    """Steer the trained toy by vectors made at several of its checkpoints.

    Args:
        series: The toy's checkpoints.
        concepts: The embedded sets.
        out: The run folder. The matrices are saved in it for the report, and their figures.
        seed: Seed that draws groups and directions.
        progress: Whether to show bars.

    Returns:
        The steering matrix of each concept, by name.
    """
    from tlens_trust.tracing import save_result
    from tlens_trust.views import draw_steering_curve
    from tlens_trust.views.steering.matrix_table import steering_effects

    matrices = {}
    for name in STEERED_CONCEPTS:
        matrix = steer_toy_by(concepts[name], series, seed=seed, progress=progress)
        save_result(out, "steering", name, matrix)
        figure = draw_steering_curve(matrix, steering_effects(matrix)[0])
        figure.save(out / f"steering_{name}.html")
        matrices[name] = matrix
    return matrices


def steer_toy_by(
    concept: "Concept", series: "CheckpointSeries", *, seed: int, progress: bool = False
) -> "xr.Dataset":
    """Steer the trained toy by vectors of one concept made at several of its checkpoints.

    Args:
        concept: One of the embedded sets.
        series: The toy's checkpoints.
        seed: Seed that draws groups and directions.
        progress: Whether to show a bar.
    """
    from tlens_trust.steering import (
        FOLLOW_UPS,
        EstimationOptions,
        Intervention,
        SamplingOptions,
        SteeringTasks,
        steering_matrix,
    )

    return steering_matrix(
        series.at(_STEPS),
        series[-1],
        draw_groups(concept, _GROUPS, seed),
        EstimationOptions(sites=int(series[-1].load_config().num_hidden_layers) // 2),
        intervention=Intervention(target_kl=_KL),
        # The words of the everyday questions, such as snow, are not in the toy's vocabulary.
        tasks=SteeringTasks(choices=[FOLLOW_UPS[concept.name]], everyday=False),
        sampling=SamplingOptions(draws=_DRAWS),
        seed=seed,
        progress=progress,
    )
