"""Unbiased HSIC of two kernels on each of many half samples, from sums over the kernels."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class HalfSums:
    """The sums over one kernel that unbiased HSIC on each half needs.

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
