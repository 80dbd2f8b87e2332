"""Compute unbiased HSIC of two kernels on many half samples, from sums over the kernels."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class HalfSums:
    """The sums over one kernel that unbiased HSIC on each half sample needs.

    Attributes:
        matrix: The kernel in float32, centred by `hsic.centre` over all rows. This does not change
            the unbiased HSIC of any subset of rows.
        rows: The row sums within each half sample, 0 for rows outside it.
    """

    matrix: Float[Tensor, "example example"]
    rows: Float[Tensor, "example resample"]

    @classmethod
    def of(
        cls, matrix: Float[Tensor, "example example"], weights: Float[Tensor, "example resample"]
    ) -> "HalfSums":
        """Compute a centred kernel's row sums within each half sample."""
        return cls(matrix, weights * (matrix @ weights))

    def hsic(
        self,
        other: "HalfSums",
        weights: Float[Tensor, "example resample"],
        scratch: Float[Tensor, "example example"] | None = None,
    ) -> Float[np.ndarray, " resample"]:
        """Compute unbiased HSIC with another kernel on each half sample."""
        n = weights.sum(dim=0, dtype=torch.float64)
        products = torch.mul(self.matrix, other.matrix, out=scratch)
        traced = (weights * (products @ weights)).sum(dim=0, dtype=torch.float64)
        totals = self.rows.sum(dim=0, dtype=torch.float64) * other.rows.sum(
            dim=0, dtype=torch.float64
        )
        crossed = (self.rows * other.rows).sum(dim=0, dtype=torch.float64)
        # The formula of `HSIC`, with sums restricted to each half.
        sums = traced + totals / ((n - 1) * (n - 2)) - 2 * crossed / (n - 2)
        return np.asarray((sums / (n * (n - 3))).cpu().numpy())
