"""How sure an estimate is: the same on random halves of the groups.

A bootstrap draws examples twice, and a kernel estimator takes the two copies for a dependence. Half
samples do not: each holds half of the groups, none twice. Of a smooth statistic, the spread of its
values on random halves about the value on all has the variance of the latter's sampling error
(`h` groups out of `G` without replacement: `(1/h)(1 - h/G) = 1/G` at `h = G/2`); of an estimate
of what is zero it is larger, up to √3-fold, so that intervals are then too wide and not too
narrow.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tlens_trust.measures.quantiles import student_quantile


@dataclass(frozen=True, eq=False)
class HalfSamples:
    """Random halves of the groups, the same ones for whatever is estimated on them.

    Attributes:
        members: Whether each half holds each row.
        groups: How many groups there are.

    Source:
        Shao and Wu (1989), Annals of Statistics 17, on the delete-d jackknife; Politis and Romano
        (1994), Annals of Statistics 22, on subsampling.
    """

    members: Bool[np.ndarray, "resample example"]
    groups: int

    @classmethod
    def draw(cls, groups: Sequence[str], *, resamples: int, seed: int) -> "HalfSamples":
        """Draw halves of the groups, whose names and the seed alone tell them.

        Args:
            groups: The group of each row.
            resamples: How many halves.
            seed: Draws them.

        Raises:
            ValueError: There are fewer than 4 groups.

        Examples:
            >>> halves = HalfSamples.draw(list("aabbccdd"), resamples=3, seed=0)
            >>> halves.members.sum(axis=1).tolist()
            [4, 4, 4]
        """
        names, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
        if len(names) < 4:
            raise ValueError(
                f"Half samples take at least 4 groups, got {len(names)}. Without more there is no "
                "telling how sure an estimate is."
            )
        keys = np.random.default_rng([seed, 7]).random((resamples, len(names)))
        drawn = np.argsort(np.argsort(keys, axis=1), axis=1) < len(names) // 2
        return cls(drawn[:, group], len(names))

    @property
    def resamples(self) -> int:
        """How many halves."""
        return len(self.members)

    def weights(self) -> Float[Tensor, "example resample"]:
        """1 where a half holds a row, else 0, in float32."""
        return torch.from_numpy(self.members.T.astype(np.float32))

    def about(
        self, value: float, on_halves: Float[np.ndarray, " resample"]
    ) -> Float[np.ndarray, " resample"]:
        """Replicates of a value: those on halves, moved so that their mean is the value.

        An estimate that depends on the number of examples is on half of them off on one side; what
        is of interest is the spread.
        """
        half = self.groups // 2
        stretch = np.sqrt(half / (self.groups - half))
        replicates: np.ndarray = value + stretch * (on_halves - on_halves.mean())
        return replicates

    def interval(
        self, value: float, replicates: Float[np.ndarray, " resample"], confidence: float = 0.95
    ) -> tuple[float, float]:
        """Value plus and minus Student's quantile times the replicates' standard deviation."""
        freedom = min(self.resamples, self.groups) - 1
        width = student_quantile((1 + confidence) / 2, freedom) * replicates.std(ddof=1)
        return value - float(width), value + float(width)


@dataclass(frozen=True, eq=False)
class HalfSums:
    """What unbiased HSIC on each half takes of one kernel.

    Attributes:
        matrix: The kernel, centred by `hsic.centre` over all rows (an unbiased HSIC of any rows
            stays the same under that), in float32.
        rows: Its row sums within each half, 0 for rows outside.
    """

    matrix: Float[Tensor, "example example"]
    rows: Float[Tensor, "example resample"]

    @classmethod
    def of(
        cls, matrix: Float[Tensor, "example example"], weights: Float[Tensor, "example resample"]
    ) -> "HalfSums":
        """Sum a centred kernel's rows within each half."""
        return cls(matrix, weights * (matrix @ weights))

    def hsic(
        self,
        other: "HalfSums",
        weights: Float[Tensor, "example resample"],
        scratch: Float[Tensor, "example example"] | None = None,
    ) -> Float[np.ndarray, " resample"]:
        """Unbiased HSIC with another kernel on each half."""
        n = weights.sum(dim=0, dtype=torch.float64)
        products = torch.mul(self.matrix, other.matrix, out=scratch)
        traced = (weights * (products @ weights)).sum(dim=0, dtype=torch.float64)
        totals = self.rows.sum(dim=0, dtype=torch.float64) * other.rows.sum(
            dim=0, dtype=torch.float64
        )
        crossed = (self.rows * other.rows).sum(dim=0, dtype=torch.float64)
        sums = traced + totals / ((n - 1) * (n - 2)) - 2 * crossed / (n - 2)
        return np.asarray((sums / (n * (n - 3))).cpu().numpy())
