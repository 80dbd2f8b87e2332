"""What steering is held against: directions that mean nothing, at the same size or dose."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from tlens_trust.steering.battery import Battery, Manner
from tlens_trust.steering.dose import DoseNotReachedError
from tlens_trust.steering.quantities import Quantity, Reading
from tlens_trust.steering.vector import SteeringVector

CONTROLS = ("equal_norm", "equal_kl")
# With this many draws, a change that none of them reaches has p < .02.
DRAWS_FOR_A_CLAIM = 50


@dataclass(frozen=True, eq=False)
class RandomDirections:
    """What random directions do to a model.

    Attributes:
        readings: One for each direction; empty where no strength reaches the dose.
        strengths: How strongly each was used; NaN where none reaches the dose.
    """

    readings: Sequence[Reading]
    strengths: Float[np.ndarray, " draw"]

    @property
    def names(self) -> tuple[str, ...]:
        """The quantities that were read."""
        return next((tuple(reading) for reading in self.readings if reading), ())

    def values(self, quantity: Quantity) -> Float[np.ndarray, "draw example"]:
        """A quantity's values under each direction; NaN where the dose was not reached."""
        missing = np.full(len(quantity.values), np.nan)
        return np.stack(
            [reading[quantity.name].values if reading else missing for reading in self.readings]
        )


def read_random(
    battery: Battery,
    like: SteeringVector,
    manner: Manner,
    *,
    draws: int,
    seed: int,
    strength: float | None = None,
    kl: float | None = None,
    advance: Callable[[], object] = lambda: None,
) -> RandomDirections:
    """Steer by directions drawn evenly from the sphere.

    Args:
        battery: What is asked of the model.
        like: The vector whose sites and lengths they have.
        manner: How they are put to use, as the vector is.
        draws: How many.
        seed: Draws them.
        strength: How strongly, the same for all: equal norm. None: see `kl`.
        kl: How far each moves neutral text, in nats a token: equal dose.
        advance: Called after each.
    """
    readings: list[Reading] = []
    strengths: list[float] = []
    for draw in range(draws):
        # A seed of its own for each, so that the first few of many are the few.
        direction = like.random_like(
            seed=int(np.random.SeedSequence([seed, draw]).generate_state(1)[0])
        )
        if kl is not None:
            near = next((each for each in reversed(strengths) if np.isfinite(each)), None)
            try:
                own = battery.matched_strength(direction, kl, manner, near=near)
            except DoseNotReachedError:
                own = float("nan")
        else:
            assert strength is not None
            own = strength
        if np.isfinite(own):
            readings.append(battery.read(direction, own, manner, effects_only=True).reading)
        else:
            readings.append({})
        strengths.append(own)
        advance()
    return RandomDirections(readings, np.array(strengths))


def check_draws(draws: int) -> None:
    """Refuse fewer than one random direction.

    Raises:
        ValueError: There are none.
    """
    if draws < 1:
        raise ValueError(
            f"`draws` is how many random directions steering is held against, got {draws}. "
            f"{DRAWS_FOR_A_CLAIM} make a claim, a few a look; without any there is neither."
        )
