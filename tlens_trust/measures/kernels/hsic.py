"""HSIC and CKA: how alike two readings of the same examples arrange them.

All are sums over pairs of examples, so that they are had block by block, with no n × n matrix in
memory. None is in nats.
"""

from dataclasses import dataclass, field
from math import nan, sqrt
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from tlens_trust.arguments import checked_choice, checked_count
from tlens_trust.measures.kernels.kernel import (
    GaussianKernel,
    Kernel,
    LinearKernel,
    check_pair,
    row_blocks,
)

Estimator = Literal["biased", "unbiased"]
_BLOCK = 2048


@dataclass(frozen=True)
class HSIC:
    """The Hilbert-Schmidt independence criterion of two readings of the same examples.

    Biased: `tr(K H L H) / (n - 1)²`, `H = I - 11ᵀ/n`. Unbiased: with `K̃`, `L̃` the kernels with a
    diagonal of zeros,
    `[tr(K̃L̃) + 1ᵀK̃1 · 1ᵀL̃1 / ((n-1)(n-2)) - 2 · 1ᵀK̃L̃1 / (n-2)] / (n(n-3))`.

    0 where the two are independent (biased: `O(1/n)` above). Its unit is that of the two kernels
    together: with Gaussian kernels a bare number, with linear ones it grows with the data's scale.
    It is not in nats, and two values compare only where kernels and widths do.

    Attributes:
        kernel: Of the first reading.
        other_kernel: Of the second; None for the same kind as the first, fitted to the second.
        estimator: Which of the two.
        block: Rows that are looked at together: at most `block × n` numbers are in memory.

    Source:
        Gretton et al. (2005), Algorithmic Learning Theory, 63-77, for the biased one; Song et al.
        (2012), Journal of Machine Learning Research 13, for the unbiased one.

    Examples:
        >>> x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
        >>> round(HSIC()(x, x), 3), abs(HSIC()(x, x.flip(0))) < 0.01
        (0.026, True)
    """

    kernel: Kernel = field(default_factory=GaussianKernel)
    other_kernel: Kernel | None = None
    estimator: Estimator = "unbiased"
    block: int = _BLOCK

    def __post_init__(self) -> None:
        _check_options(self.estimator, self.block)

    @property
    def name(self) -> str:
        """Estimator and kernels."""
        return (
            f"hsic({self.estimator}, {self.kernel.name}, {(self.other_kernel or self.kernel).name})"
        )

    def __call__(self, x: Float[Tensor, "example d"], y: Float[Tensor, "example k"]) -> float:
        """Estimate the dependence of two readings, row by row the same examples.

        Raises:
            ValueError: The two differ in length, are fewer than 4, or hold what is not finite.
        """
        check_pair(x, y)
        kernels = self.kernel.fitted(x), (self.other_kernel or self.kernel).fitted(y)
        return _pair_sums(x, y, kernels, self.block).hsic(0, 1, self.estimator)


@dataclass(frozen=True)
class CKA:
    """Centred kernel alignment: HSIC by the geometric mean of each reading's HSIC with itself.

    `HSIC(x, y) / √(HSIC(x, x) · HSIC(y, y))`, of unbiased HSIC where it is debiased. 1 where the
    two arrange the examples alike up to rotation and scale, 0 where they are independent; the
    debiased one may lie a little below. (Biased, it rises towards 1 as the width of the readings
    comes near the number of examples, whatever they are.) A bare number, not in nats. It is moved
    by what leaves the information as it is (an invertible map, a few outliers: Davari et al.), so
    that a fall is not by itself a loss of information.

    Attributes:
        kernel: Of the first reading.
        other_kernel: Of the second; None for the same kind as the first, fitted to the second.
        debiased: Whether to take unbiased HSIC.
        block: Rows that are looked at together: at most `block × n` numbers are in memory.

    Source:
        Kornblith et al. (2019), arXiv:1905.00414; debiased: Nguyen, Raghu and Kornblith (2021),
        arXiv:2010.15327, and Murphy, Zylberberg and Fyshe (2024), arXiv:2405.01012. Its limits:
        Davari et al. (2022), arXiv:2210.16156.

    Examples:
        >>> from tlens_trust.measures.kernels.kernel import LinearKernel
        >>> x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
        >>> round(CKA(LinearKernel())(x, -2 * x), 6), CKA()(x, x.flip(0)) < 0.05
        (1.0, True)
    """

    kernel: Kernel = field(default_factory=GaussianKernel)
    other_kernel: Kernel | None = None
    debiased: bool = True
    block: int = _BLOCK

    def __post_init__(self) -> None:
        _check_options("unbiased", self.block)

    @property
    def name(self) -> str:
        """Whether debiased, and kernels."""
        kind = "debiased" if self.debiased else "biased"
        return f"cka({kind}, {self.kernel.name}, {(self.other_kernel or self.kernel).name})"

    def __call__(self, x: Float[Tensor, "example d"], y: Float[Tensor, "example k"]) -> float:
        """Compare two readings, row by row the same examples.

        Returns:
            NaN where one of them is the same for all examples.

        Raises:
            ValueError: The two differ in length, are fewer than 4, or hold what is not finite.
        """
        check_pair(x, y)
        if any(bool((values == values[0]).all()) for values in (x, y)):
            return nan
        kernels = self.kernel.fitted(x), (self.other_kernel or self.kernel).fitted(y)
        sums = _pair_sums(x, y, kernels, self.block)
        estimator: Estimator = "unbiased" if self.debiased else "biased"
        hsic_of_x, hsic_of_y = sums.hsic(0, 0, estimator), sums.hsic(1, 1, estimator)
        return (
            sums.hsic(0, 1, estimator) / sqrt(hsic_of_x * hsic_of_y)
            if hsic_of_x > 0 and hsic_of_y > 0
            else nan
        )


def hsic_biased(x: Float[Tensor, "example d"], y: Float[Tensor, "example k"]) -> float:
    """Biased HSIC with Gaussian kernels of the median width (see `HSIC`)."""
    return HSIC(estimator="biased")(x, y)


def hsic_unbiased(x: Float[Tensor, "example d"], y: Float[Tensor, "example k"]) -> float:
    """Unbiased HSIC with Gaussian kernels of the median width (see `HSIC`)."""
    return HSIC()(x, y)


def centre(
    kernel: Float[Tensor, "example example"],
    *,
    unbiased: bool = True,
    out: Float[Tensor, "example example"] | None = None,
) -> Float[Tensor, "example example"]:
    """A symmetric kernel matrix about its row and column means.

    Unbiased: `K̃ᵢⱼ - (K̃1)ᵢ/(n-2) - (K̃1)ⱼ/(n-2) + 1ᵀK̃1/((n-1)(n-2))` off a diagonal of zeros, with
    `K̃` the matrix without its diagonal, so that the unbiased HSIC of two kernels is the sum of the
    products of their entries over `n(n-3)`. Otherwise `H K H`.

    Args:
        kernel: Symmetric.
        unbiased: Which of the two.
        out: Where to put the result; `kernel` itself to save memory.

    Source:
        Székely and Rizzo (2014), Annals of Statistics 42, for the former.
    """
    n = len(kernel)
    if unbiased:
        total = kernel.sum(dim=0) - kernel.diagonal()
        rows, middle = total / (n - 2), total.sum() / ((n - 1) * (n - 2))
    else:
        rows = kernel.mean(dim=0)
        middle = rows.mean()
    centred = torch.sub(kernel, rows[:, None], out=out)
    centred -= rows - middle
    return centred.fill_diagonal_(0) if unbiased else centred


@dataclass(frozen=True)
class _PairSums:
    """Sums over pairs of two kernels, off the diagonal, and their diagonals.

    Attributes:
        rows: Row sums of each kernel.
        diagonals: Of each kernel.
        products: Sums of products of entries: first with second, first, and second with itself.
    """

    rows: Float[Tensor, "kernel example"]
    diagonals: Float[Tensor, "kernel example"]
    products: tuple[float, float, float]

    def hsic(self, one: int, other: int, estimator: Estimator) -> float:
        """HSIC of the kernels of these numbers."""
        rows, others = self.rows[one], self.rows[other]
        products, n = self.products[one + other], len(rows)
        if estimator == "unbiased":
            totals = float(rows.sum() * others.sum()) / ((n - 1) * (n - 2))
            crossed = 2 * float(rows @ others) / (n - 2)
            return (products + totals - crossed) / (n * (n - 3))
        full_rows, others = rows + self.diagonals[one], others + self.diagonals[other]
        products += float(self.diagonals[one] @ self.diagonals[other])
        crossed = 2 * float(full_rows @ others) / n
        return (products - crossed + float(full_rows.sum() * others.sum()) / n**2) / (n - 1) ** 2


def _pair_sums(
    x: Float[Tensor, "example d"],
    y: Float[Tensor, "example k"],
    kernels: tuple[Kernel, Kernel],
    block: int,
) -> _PairSums:
    """Go through all pairs, `block` rows at a time.

    A mean is taken off beforehand, of the data where the kernel is linear and of the kernel, so
    that sums of products lose no digits; no estimate depends on it.
    """
    n = len(x)
    data = [
        v.double() - v.double().mean(dim=0) if isinstance(k, LinearKernel) else v.double()
        for k, v in zip(kernels, (x, y), strict=True)
    ]
    sample = slice(0, min(block, n))
    means = [
        float(k.between(v[sample], v[sample]).mean()) for k, v in zip(kernels, data, strict=True)
    ]
    rows = torch.zeros(2, n, dtype=torch.float64)
    products = [0.0, 0.0, 0.0]
    for part in row_blocks(n, block):
        matrices = []
        for number, (kernel, values) in enumerate(zip(kernels, data, strict=True)):
            matrix = kernel.between(values[part], values).sub_(means[number])
            matrix.diagonal(part.start).zero_()
            rows[number, part] = matrix.sum(dim=1).cpu()
            matrices.append(matrix.flatten())
        for place, (row_kernel, column_kernel) in {1: (0, 1), 0: (0, 0), 2: (1, 1)}.items():
            products[place] += float(torch.dot(matrices[row_kernel], matrices[column_kernel]))
    diagonals = [k.diagonal(v).cpu() - m for k, v, m in zip(kernels, data, means, strict=True)]
    return _PairSums(rows, torch.stack(diagonals), (products[0], products[1], products[2]))


def _check_options(estimator: str, block: int) -> None:
    checked_choice("estimator", estimator, get_args(Estimator))
    checked_count("block", block)
