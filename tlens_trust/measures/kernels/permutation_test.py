"""Permutation tests by HSIC: whether two representations depend on each other at all."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tlens_trust.arguments import checked_choice, checked_count, checked_seed
from tlens_trust.measures.kernels.hsic import centre
from tlens_trust.measures.kernels.kernel import GaussianKernel, Kernel, check_pair
from tlens_trust.measures.kernels.precomputed_kernels import SignUnits
from tlens_trust.measures.kernels.rotations import Rotations, exchange_rows
from tlens_trust.measures.nulls import middle_95
from tlens_trust.measures.permutations import permute_labels

Scheme = Literal["rotations", "random"]
# Rows of a permuted matrix that are summed at once: a whole permuted copy would double memory.
_ROWS_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class PermutationTest:
    """A statistic and its null distribution under independence.

    Attributes:
        value: The statistic.
        null: The statistic under each permutation.
    """

    value: float
    null: Float[np.ndarray, " draw"]

    @property
    def p(self) -> float:
        """The one-sided p-value `(1 + #{null ≥ value}) / (1 + permutations)`, which is exact."""
        # A permutation that changes nothing gives the value again, up to float32 rounding. It
        # must count as a tie, or the test would not be exact.
        tie = 1e-4 * float(np.std(self.null))
        return float((1 + (self.null >= self.value - tie).sum()) / (1 + len(self.null)))

    @property
    def band(self) -> tuple[float, float]:
        """The middle 95% of the null."""
        low, high = middle_95(self.null).tolist()
        return low, high

    @property
    def permutations(self) -> int:
        """The number of permutations of the null."""
        return len(self.null)


def permutation_test_labels(
    x: Float[Tensor, "example d"],
    labels: Int[np.ndarray, " example"],
    *,
    groups: Sequence[str] | None = None,
    kernel: Kernel | None = None,
    permutations: int = 1000,
    seed: int = 0,
) -> PermutationTest:
    """Test whether a representation depends on binary labels, by unbiased HSIC.

    The labels have a delta kernel. All permutations are computed at once from one centred kernel
    `K̃`. For signs `s` of the labels the statistic is `½ sᵀ K̃ s / (n(n-3))`, so one matrix product
    serves all draws. The null is in float32 and the value in float64.

    Args:
        x: The representation.
        labels: 0 or 1 for each row.
        groups: The group of each row; rows of a group stay together (see `permute_labels`). None:
            each row alone.
        kernel: The kernel of the representation; None for a Gaussian kernel of the median width.
        permutations: The number of permutations.
        seed: Draws the permutations.

    Raises:
        ValueError: As for `HSIC`, or `permutations` is less than 1.

    Source:
        Gretton et al. (2008), Advances in Neural Information Processing Systems 20, for the test.

    Examples:
        >>> x = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
        >>> labels = (x[:, 0] > 0).int().numpy()
        >>> permutation_test_labels(x, labels).p
        0.000999...
    """
    columns = torch.from_numpy(np.asarray(labels, dtype=np.float64)).unsqueeze(1)
    check_pair(x, columns)
    n = len(x)
    alone = [str(row) for row in range(n)]
    permuted = permute_labels(
        np.asarray(labels),
        alone if groups is None else groups,
        np.zeros(n, dtype=np.int64),
        permutations=permutations,
        seed=seed,
    )
    fitted_kernel = (GaussianKernel() if kernel is None else kernel).fitted(x)
    centred = centre(fitted_kernel.between(x, x))
    signs = torch.from_numpy(2.0 * permuted.draws.T - 1)
    value = 0.5 * float(signs[:, 0] @ centred @ signs[:, 0]) / (n * (n - 3))
    forms = SignUnits.of(signs.float()).quadratic_forms(centred.float())
    return PermutationTest(value, 0.5 * forms[1:] / (n * (n - 3)))


def permutation_test(
    x: Float[Tensor, "example d"],
    y: Float[Tensor, "example k"],
    *,
    groups: Sequence[str] | None = None,
    kernel: Kernel | None = None,
    other_kernel: Kernel | None = None,
    scheme: Scheme = "rotations",
    permutations: int = 1000,
    seed: int = 0,
) -> PermutationTest:
    """Test whether two representations depend on each other, by unbiased HSIC.

    Args:
        x: The first representation.
        y: The second one, row by row for the same examples.
        groups: The group of each row; rows of a group stay together. None: each row alone.
        kernel: The kernel of `x`; None for a Gaussian kernel of the median width.
        other_kernel: The kernel of `y`; None for the same kind as the first.
        scheme: `"rotations"` computes all permutations at once, for about the cost of three (see
            `Rotations`; with `g` groups of one size there are `g - 1`). `"random"` draws from all
            permutations that keep groups together and computes one after the other.
        permutations: The number of random permutations, or the largest number of rotations.
        seed: Draws the permutations.

    Raises:
        ValueError: As for `HSIC`, or `scheme` or `permutations` is out of range.

    Source:
        Gretton et al. (2008), Advances in Neural Information Processing Systems 20; Hemerik and
        Goeman (2018), TEST 27, on tests by a subgroup of the permutations.

    Examples:
        >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> y = x.square() + 0.1
        >>> permutation_test(x, y).p, permutation_test(x, y, scheme="random", permutations=99).p
        (0.005, 0.01)
    """
    check_pair(x, y)
    checked_choice("scheme", scheme, get_args(Scheme))
    permutations, seed = checked_count("permutations", permutations), checked_seed(seed)
    n = len(x)
    groups = [str(row) for row in range(n)] if groups is None else groups
    x_kernel = (GaussianKernel() if kernel is None else kernel).fitted(x)
    y_kernel = (other_kernel or kernel or GaussianKernel()).fitted(y)
    K, L = centre(x_kernel.between(x, x)), centre(y_kernel.between(y, y))
    value = float(torch.dot(K.flatten(), L.flatten())) / (n * (n - 3))
    if scheme == "rotations":
        rotations = Rotations.draw(groups, permutations=permutations, seed=seed)
        sums = rotations.sums(rotations.transform(K.float()), rotations.transform(L.float()))
        return PermutationTest(value, sums[1:] / (n * (n - 3)))
    K_single, L_single = K.float(), L.float()
    null = np.empty(permutations)
    for draw, order in enumerate(exchange_rows(groups, permutations=permutations, seed=seed)):
        rows = torch.from_numpy(order)
        null[draw] = sum(
            float((K_single[part] * L_single[rows[part]][:, rows]).sum())
            for part in (slice(a, a + _ROWS_AT_ONCE) for a in range(0, n, _ROWS_AT_ONCE))
        )
    return PermutationTest(value, null / (n * (n - 3)))
