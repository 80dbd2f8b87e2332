"""The evaluation of one target, steered by several vectors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from tlens_trust.steering.dose import DoseNotReachedError
from tlens_trust.steering.evaluated_model import EvaluatedModel
from tlens_trust.steering.intervention import Intervention
from tlens_trust.steering.quantities import Quantities, unknown_quantities
from tlens_trust.steering.random_directions import RandomDirections, evaluate_random_directions
from tlens_trust.steering.vector import SteeringVector


@dataclass(frozen=True, eq=False)
class TargetResult:
    """What several vectors do to one target.

    Attributes:
        unsteered: The target without steering.
        steered: The target under each vector.
        opposite: The target under each vector with its sign reversed; empty where that was not
            requested.
        strengths: The strength of each vector. NaN where no strength reaches the dose; all
            quantities under that vector are then NaN.
        random: The target under random directions at the same dose.
    """

    unsteered: Quantities
    steered: Sequence[Quantities]
    opposite: Sequence[Quantities]
    strengths: Float[np.ndarray, " source"]
    random: RandomDirections


def evaluate_target(
    evaluated: EvaluatedModel,
    vectors: Sequence[SteeringVector],
    intervention: Intervention,
    *,
    draws: int,
    seed: int,
    opposite: bool = False,
    advance: Callable[[], object] = lambda: None,
) -> TargetResult:
    """Steer one model by several vectors at one dose, and by random directions.

    The unsteered pass and the random directions serve all vectors: at an equal dose the length of
    a direction does not matter.

    Args:
        evaluated: The target.
        vectors: The vectors, all at the same sites.
        intervention: How they are used, with a dose.
        draws: The number of random directions.
        seed: Draws them.
        opposite: Whether to steer with the sign reversed too.
        advance: Called after each pass.

    Raises:
        ValueError: As `evaluate_steering`.
    """
    unsteered = evaluated.unsteered(vectors[0]).quantities
    advance()
    steered, reversed_sign, strengths = [], [], []
    for vector in vectors:
        strength, quantities = _at_dose(evaluated, vector, intervention, unsteered)
        strengths.append(strength)
        steered.append(quantities)
        if opposite:
            # At the same dose, which is not exactly the same strength.
            reversed_sign.append(_at_dose(evaluated, -vector, intervention, unsteered)[1])
        advance()
    random = evaluate_random_directions(
        evaluated, vectors[0], intervention, draws=draws, seed=seed, advance=advance
    )
    return TargetResult(unsteered, steered, reversed_sign, np.array(strengths), random)


def _at_dose(
    evaluated: EvaluatedModel,
    vector: SteeringVector,
    intervention: Intervention,
    unsteered: Quantities,
) -> tuple[float, Quantities]:
    """The strength and the quantities at it; NaN where no strength reaches the dose."""
    try:
        at_strength = evaluated.at_dose(vector, intervention)
    except DoseNotReachedError:
        # The predictions of a model that has learned nothing hardly move.
        return float("nan"), unknown_quantities(unsteered)
    assert at_strength.strength is not None
    return float(at_strength.strength), evaluated.evaluate(vector, at_strength).quantities
