"""Controls of steering: random directions of the same length or at the same dose."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from tlens_trust.steering.dose import DoseNotReachedError
from tlens_trust.steering.evaluated_model import EvaluatedModel
from tlens_trust.steering.intervention import Intervention
from tlens_trust.steering.quantities import Quantities, Quantity
from tlens_trust.steering.sampling import DRAWS_FOR_A_CLAIM
from tlens_trust.steering.vector import SteeringVector

CONTROLS = ("equal_norm", "equal_kl")


@dataclass(frozen=True, eq=False)
class RandomDirections:
    """What random directions do to a model.

    Attributes:
        quantities: The quantities under each direction; empty where no strength reaches the dose.
        strengths: The strength of each direction; NaN where no strength reaches the dose.
    """

    quantities: Sequence[Quantities]
    strengths: Float[np.ndarray, " draw"]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the quantities."""
        return next((tuple(quantities) for quantities in self.quantities if quantities), ())

    def values(self, quantity: Quantity) -> Float[np.ndarray, "draw example"]:
        """A quantity's values under each direction; NaN where the dose was not reached."""
        unknown_values = np.full(len(quantity.values), np.nan)
        return np.stack(
            [
                quantities[quantity.name].values if quantities else unknown_values
                for quantities in self.quantities
            ]
        )


def evaluate_random_directions(
    evaluated: EvaluatedModel,
    vector: SteeringVector,
    intervention: Intervention,
    *,
    draws: int,
    seed: int,
    advance: Callable[[], object] = lambda: None,
) -> RandomDirections:
    """Steer a model by random directions, drawn uniformly from the sphere.

    Args:
        evaluated: The model.
        vector: The vector whose sites and lengths the directions have.
        intervention: How they are used. With a strength, all have the same strength (equal norm);
            with a dose, each has the strength that reaches it (equal dose).
        draws: The number of directions.
        seed: Draws them.
        advance: Called after each direction.
    """
    results: list[Quantities] = []
    strengths: list[float] = []
    for draw in range(draws):
        # Each direction has its own seed, so that the first few of many are the same as a few. The
        # seed is a hash: with `seed + draw`, neighbouring seeds would share most directions.
        direction = vector.random_like(
            seed=int(np.random.SeedSequence([seed, draw]).generate_state(1)[0])
        )
        at_strength: Intervention | None = intervention
        if intervention.target_kl is not None:
            # Directions of one length need similar strengths, so the last one is a good start.
            near = next((number for number in reversed(strengths) if np.isfinite(number)), None)
            try:
                at_strength = evaluated.at_dose(direction, intervention, near=near)
            except DoseNotReachedError:
                at_strength = None
        if at_strength is None or at_strength.strength is None:
            results.append({})
            strengths.append(float("nan"))
        else:
            evaluation = evaluated.evaluate(direction, at_strength, effects_only=True)
            results.append(evaluation.quantities)
            strengths.append(float(at_strength.strength))
        advance()
    return RandomDirections(results, np.array(strengths))


def checked_controls(controls: Sequence[str]) -> tuple[str, ...]:
    """Kinds of controls, each once.

    Raises:
        ValueError: There is none, or an unknown one.
    """
    names = (controls,) if isinstance(controls, str) else tuple(controls)
    unknown_names = [name for name in names if name not in CONTROLS]
    if unknown_names or not names:
        raise ValueError(
            f"`controls` are 'equal_norm', 'equal_kl', or both, got {controls!r}. Without controls "
            "an effect of steering is compared with nothing."
        )
    return tuple(dict.fromkeys(names))


def describe_draws(draws: int) -> str:
    """How many random directions there are, and whether they are too few for a claim."""
    if draws < DRAWS_FOR_A_CLAIM:
        return f"a look: {draws} random directions, where a claim takes {DRAWS_FOR_A_CLAIM}"
    return f"{draws} random directions"
