"""HSIC and CKA: how similarly two representations arrange the same examples.

Both are sums over pairs of examples. They are computed block by block, so no n × n matrix is
stored. Neither is in nats.
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
# Rows at a time: 2,048 × n float64 numbers are 160 MB for 10,000 examples.
_BLOCK = 2048


@dataclass(frozen=True)
class HSIC:
    """Compute the Hilbert-Schmidt independence criterion of two representations.

    The biased estimator is `tr(K H L H) / (n - 1)²`, with `H = I - 11ᵀ/n`. The unbiased one uses
    `K̃` and `L̃`, the kernel matrices with a zero diagonal:
    `[tr(K̃L̃) + 1ᵀK̃1 · 1ᵀL̃1 / ((n-1)(n-2)) - 2 · 1ᵀK̃L̃1 / (n-2)] / (n(n-3))`.

    The unbiased value is 0 on average for independent variables; the biased one is `O(1/n)` above
    that. Its unit is the product of the kernels' units. With Gaussian kernels it is a plain number;
    with linear kernels it grows with the scale of the data. It is not in nats. Two values are
    comparable only if kernels and widths are the same.

    Attributes:
        kernel: The kernel of the first representation.
        other_kernel: The kernel of the second one; None for the same kind as the first, fitted to
            the second.
        estimator: `"biased"` or `"unbiased"`.
        block: The number of rows processed together; at most `block × n` numbers are in memory.

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
        """The estimator and the kernels."""
        return (
            f"hsic({self.estimator}, {self.kernel.name}, {(self.other_kernel or self.kernel).name})"
        )

    def __call__(self, x: Float[Tensor, "example d"], y: Float[Tensor, "example k"]) -> float:
        """Estimate the dependence of two representations, row by row for the same examples.

        Raises:
            ValueError: The two differ in length, have fewer than 4 rows, or hold a NaN or an
                infinity.
        """
        check_pair(x, y)
        kernels = self.kernel.fitted(x), (self.other_kernel or self.kernel).fitted(y)
        return _pair_sums(x, y, kernels, self.block).hsic(0, 1, self.estimator)


@dataclass(frozen=True)
class CKA:
    """Compute centred kernel alignment: HSIC divided by the geometric mean of both self-HSICs.

    `HSIC(x, y) / √(HSIC(x, x) · HSIC(y, y))`, with unbiased HSIC if it is debiased. It is 1 if the
    two representations are equal up to rotation and scale, and 0 if they are independent. The
    debiased value may lie a little below 0. The biased value rises towards 1 as the width comes
    near the number of examples, whatever the data.

    CKA is a plain number, not in nats. An invertible map or a few outliers change it without a
    change of information (Davari et al.). So a fall alone does not show a loss of information.

    Attributes:
        kernel: The kernel of the first representation.
        other_kernel: The kernel of the second one; None for the same kind as the first, fitted to
            the second.
        debiased: Whether to use unbiased HSIC.
        block: The number of rows processed together; at most `block × n` numbers are in memory.

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
        """Whether it is debiased, and the kernels."""
        kind = "debiased" if self.debiased else "biased"
        return f"cka({kind}, {self.kernel.name}, {(self.other_kernel or self.kernel).name})"

    def __call__(self, x: Float[Tensor, "example d"], y: Float[Tensor, "example k"]) -> float:
        """Compare two representations, row by row for the same examples.

        Returns:
            The alignment; NaN if one representation is the same for all examples.

        Raises:
            ValueError: The two differ in length, have fewer than 4 rows, or hold a NaN or an
                infinity.
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
    """Compute biased HSIC with Gaussian kernels of the median width (see `HSIC`)."""
    return HSIC(estimator="biased")(x, y)


def hsic_unbiased(x: Float[Tensor, "example d"], y: Float[Tensor, "example k"]) -> float:
    """Compute unbiased HSIC with Gaussian kernels of the median width (see `HSIC`)."""
    return HSIC()(x, y)


def centre(
    kernel: Float[Tensor, "example example"],
    *,
    unbiased: bool = True,
    out: Float[Tensor, "example example"] | None = None,
) -> Float[Tensor, "example example"]:
    """Centre a symmetric kernel matrix about its row and column means.

    Unbiased: with `K̃` the matrix without its diagonal, the entries off the diagonal are
    `K̃ᵢⱼ - (K̃1)ᵢ/(n-2) - (K̃1)ⱼ/(n-2) + 1ᵀK̃1/((n-1)(n-2))`, and the diagonal is zero. The
    unbiased HSIC of two kernels is then the sum of the products of their entries divided by
    `n(n-3)`. Otherwise: `H K H`.

    Args:
        kernel: A symmetric matrix.
        unbiased: Which of the two to compute.
        out: Where to write the result; `kernel` itself saves memory.

    Source:
        Székely and Rizzo (2014), Annals of Statistics 42, for the unbiased one.
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
    """Sums over pairs of examples of two kernels, off the diagonal, and the diagonals.

    Attributes:
        rows: The row sums of each kernel.
        diagonals: The diagonal of each kernel.
        products: Sums of products of entries: of the first kernel with itself, of the two kernels,
            and of the second with itself.
    """

    rows: Float[Tensor, "kernel example"]
    diagonals: Float[Tensor, "kernel example"]
    products: tuple[float, float, float]

    def hsic(self, one: int, other: int, estimator: Estimator) -> float:
        """Compute HSIC of the kernels with these numbers."""
        rows, other_rows = self.rows[one], self.rows[other]
        products, n = self.products[one + other], len(rows)
        if estimator == "unbiased":
            totals = float(rows.sum() * other_rows.sum()) / ((n - 1) * (n - 2))
            crossed = 2 * float(rows @ other_rows) / (n - 2)
            return (products + totals - crossed) / (n * (n - 3))
        full_rows, other_rows = rows + self.diagonals[one], other_rows + self.diagonals[other]
        products += float(self.diagonals[one] @ self.diagonals[other])
        crossed = 2 * float(full_rows @ other_rows) / n
        return (products - crossed + float(full_rows.sum() * other_rows.sum()) / n**2) / (
            n - 1
        ) ** 2


def _pair_sums(
    x: Float[Tensor, "example d"],
    y: Float[Tensor, "example k"],
    kernels: tuple[Kernel, Kernel],
    block: int,
) -> _PairSums:
    """Compute the sums over all pairs, `block` rows at a time.

    A mean is subtracted first: of the data if the kernel is linear, and of the kernel. This keeps
    precision in the sums of products and changes no estimate.
    """
    n = len(x)
    data = [
        v.double() - v.double().mean(dim=0) if isinstance(k, LinearKernel) else v.double()
        for k, v in zip(kernels, (x, y), strict=True)
    ]
    # Any constant near the mean keeps precision, so the first block is enough.
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
