"""Resampling whole groups, since statements of one group go together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from tlens_trust.measures.arguments import checked_count, checked_seed


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
        resamples, seed = checked_count("resamples", resamples), checked_seed(seed)
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
