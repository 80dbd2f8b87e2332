"""Resampling whole groups, since statements of one group go together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import beta


@dataclass(frozen=True, eq=False)
class GroupBootstrap:
    """Resamples of groups with replacement, the same ones for whatever is summed over them.

    Attributes:
        group: The number of each statement's group.
        counts: How often each resample draws each group.
    """

    group: Int[np.ndarray, " example"]
    counts: Float[np.ndarray, "resample group"]

    @classmethod
    def draw(cls, groups: Sequence[str], *, seed: int, resamples: int) -> "GroupBootstrap":
        """Draw as many groups as there are, so many times.

        Args:
            groups: The group of each statement; their order does not matter.
            seed: Draws the resamples.
            resamples: How many.

        Examples:
            >>> bootstrap = GroupBootstrap.draw(["a", "a", "b"], seed=0, resamples=4)
            >>> bootstrap.counts.sum(axis=1).tolist()
            [2.0, 2.0, 2.0, 2.0]
        """
        names, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
        generator = np.random.default_rng(seed)
        drawn = generator.integers(len(names), size=(resamples, len(names)))
        drawn += len(names) * np.arange(resamples)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=resamples * len(names))
        return cls(group, counts.reshape(resamples, len(names)).astype(np.float64))

    @property
    def groups(self) -> int:
        """How many groups there are."""
        return int(self.counts.shape[1])

    def sums(self, rows: Float[np.ndarray, "example ..."]) -> Float[np.ndarray, "resample ..."]:
        """Sum over each resample's rows, every row as often as its group was drawn."""
        flat = rows.reshape(len(rows), -1)
        totals = np.zeros((self.groups, flat.shape[1]))
        np.add.at(totals, self.group, flat)
        sums: np.ndarray = self.counts @ totals
        return sums.reshape(len(sums), *rows.shape[1:])

    def means(self, rows: Float[np.ndarray, "example ..."]) -> Float[np.ndarray, "resample ..."]:
        """Mean over each resample's rows."""
        sizes = self.sums(np.ones(len(rows)))
        means: np.ndarray = self.sums(rows) / sizes.reshape(-1, *[1] * (rows.ndim - 1))
        return means


def percentile_interval(
    resampled: Float[np.ndarray, "resample ..."], confidence: float = 0.95
) -> Float[np.ndarray, "... bound"]:
    """The middle of what was resampled, low and high along the last axis.

    NaN marks a resample that has no value; it is left out, unless all are.
    """
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    lost = np.isnan(resampled).all(axis=0)
    filled = np.where(lost, 0.0, resampled)
    interval: np.ndarray = np.moveaxis(np.nanquantile(filled, tails, axis=0), 0, -1)
    interval[lost] = np.nan
    return interval


def clopper_pearson(fraction: float, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact binomial interval; `fraction` of the `trials` succeeded.

    Source:
        Clopper and Pearson (1934), Biometrika 26.

    Examples:
        >>> low, high = clopper_pearson(1.0, 10)
        >>> round(low, 2), high
        (0.69, 1.0)
    """
    tails = (1 - confidence) / 2, (1 + confidence) / 2
    successes = fraction * trials
    low = beta.ppf(tails[0], successes, trials - successes + 1) if successes > 0 else 0.0
    high = beta.ppf(tails[1], successes + 1, trials - successes) if successes < trials else 1.0
    return float(low), float(high)
