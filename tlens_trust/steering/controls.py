"""What steering is held against: directions that mean nothing, at the same size or dose."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from tlens_trust.steering.battery import Battery, Manner
from tlens_trust.steering.quantities import Reading
from tlens_trust.steering.vector import SteeringVector

CONTROLS = ("equal_norm", "equal_kl")
# With this many draws, a change that none of them reaches has p < .02.
DRAWS_FOR_A_CLAIM = 50


@dataclass(frozen=True, eq=False)
class RandomDirections:
    """What random directions do to a model.

    Attributes:
        readings: One for each direction.
        strengths: How strongly each was used.
    """

    readings: Sequence[Reading]
    strengths: Float[np.ndarray, " draw"]

    def values(self, name: str) -> Float[np.ndarray, "draw example"]:
        """A quantity's values under each direction."""
        return np.stack([reading[name].values for reading in self.readings])


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
            near = strengths[-1] if strengths else None
            own = battery.matched_strength(direction, kl, manner, near=near)
        else:
            assert strength is not None
            own = strength
        found = battery.read(direction, own, manner, effects_only=True)
        readings.append(found.reading)
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
