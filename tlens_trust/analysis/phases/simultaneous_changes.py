"""Changes of a curve between two checkpoints that were chosen by looking at it.

Turning points are found in the very values whose change is then reported. So the change between any
two checkpoints is compared with the largest that noise alone gives between any two.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

_AT_ONCE = 2_000_000


@dataclass(frozen=True, eq=False)
class Changes:
    """How far noise alone moves a curve between any two of its checkpoints.

    Attributes:
        values: The curve.
        errors: Standard error of the change between each two checkpoints.
        largest: For each draw of noise, the largest change between any two checkpoints, in standard
            errors, in ascending order.

    Source:
        Hothorn, Bretz and Westfall (2008), Biometrical Journal 50, on simultaneous inference for
        many contrasts; Berk et al. (2013), Annals of Statistics 41, on contrasts that were chosen
        by looking.
    """

    values: Float[np.ndarray, " checkpoint"]
    errors: Float[np.ndarray, "checkpoint checkpoint"]
    largest: Float[np.ndarray, " draw"]

    @classmethod
    def of(
        cls,
        values: Float[np.ndarray, " checkpoint"],
        replicates: Float[np.ndarray, "resample checkpoint"],
        noise: Float[np.ndarray, "draw resample"],
        *,
        min_steps: int,
    ) -> "Changes":
        """Estimate the noise from half-sample replicates, which are paired along the curve.

        Args:
            values: The curve.
            replicates: Its replicates on the same halves at every checkpoint.
            noise: Weights, as `draw_noise` gives them.
            min_steps: Smallest number of steps from checkpoint to checkpoint in a change.
        """
        centred = replicates - replicates.mean(axis=0)
        differences = centred[:, None, :] - centred[:, :, None]
        errors = np.sqrt(np.square(differences).sum(axis=0) / (len(centred) - 1))
        # Values that differ by rounding alone must not count as a change.
        errors = np.maximum(errors, 1e-9 * max(float(np.abs(values).max()), 1e-300))
        first_numbers, last_numbers = np.triu_indices(len(values), k=min_steps)
        noisy = noise @ centred
        largest = np.zeros(len(noise))
        batch_size = max(1, _AT_ONCE // max(len(first_numbers), 1))
        for start in range(0, len(noise) if len(first_numbers) else 0, batch_size):
            batch = noisy[start : start + batch_size]
            change = (
                np.abs(batch[:, last_numbers] - batch[:, first_numbers])
                / errors[first_numbers, last_numbers]
            )
            largest[start : start + batch_size] = change.max(axis=1)
        return cls(values, errors, np.sort(largest))

    def change(self, start: int, end: int) -> float:
        """The change of the curve from one checkpoint to another."""
        return float(self.values[end] - self.values[start])

    def p_value(self, start: int, end: int) -> float:
        """The share of draws in which noise alone gives so large a change between any two."""
        standardised = abs(self.change(start, end)) / float(self.errors[start, end])
        exceedances = len(self.largest) - int(
            np.searchsorted(self.largest, standardised * (1 - 1e-9))
        )
        return (1 + exceedances) / (1 + len(self.largest))

    def interval(self, start: int, end: int, confidence: float) -> tuple[float, float]:
        """The interval of a change; those between any two checkpoints hold at once."""
        change = self.change(start, end)
        width = float(np.quantile(self.largest, confidence) * self.errors[start, end])
        return change - width, change + width


def draw_noise(
    resamples: int, *, draws: int, freedom: int, generator: np.random.Generator
) -> Float[np.ndarray, "draw resample"]:
    """Draw normal weights that turn replicates into noise with their covariance.

    The covariance is estimated from few replicates. So each draw is divided by the root of `χ²/f`,
    as in Student's distribution.
    """
    weights = generator.standard_normal((draws, resamples)) / np.sqrt(resamples - 1)
    scale = np.sqrt(generator.chisquare(freedom, size=draws) / freedom)
    scaled: np.ndarray = weights / scale[:, None]
    return scaled
