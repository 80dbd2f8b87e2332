"""Approximate kernel matrices by products of thin factors, with a measured error."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tlens_trust.arguments import checked_count, checked_positive, checked_seed
from tlens_trust.measures.kernels.kernel import Kernel

# Pivots drawn at once: large enough for fast matrix products, small enough that most of a block
# is independent.
_PIVOTS_AT_ONCE = 64
# A pivot whose residual is below this fraction of the largest adds only rounding.
_ROUNDING = 1e-13


@dataclass(frozen=True, eq=False)
class LowRankKernel:
    """A kernel matrix `K` as `G Gᵀ`, its Nyström approximation from a few of its columns.

    `K - G Gᵀ` is a Schur complement, so it is positive semi-definite and `G Gᵀ` lies below `K`. The
    trace of the difference bounds each of its entries and eigenvalues.

    Attributes:
        factor: `G`.
        residual: `tr(K - G Gᵀ) / n`, exact up to rounding.
        pivots: The examples whose columns were used.
    """

    factor: Float[Tensor, "example rank"]
    residual: float
    pivots: Int[Tensor, " rank"]

    @property
    def rank(self) -> int:
        """The number of columns of the factor."""
        return int(self.factor.shape[1])


def pivoted_cholesky(
    kernel: Kernel,
    x: Float[Tensor, "example d"],
    *,
    rank: int,
    tolerance: float = 1e-10,
    seed: int = 0,
) -> LowRankKernel:
    """Factorise a kernel matrix from at most `rank` of its columns, without computing all of it.

    Pivots are drawn in blocks, with probabilities proportional to the residual diagonal (randomly
    pivoted Cholesky). So neither outliers nor dense regions take all pivots. The cost is
    `O(n · rank · (d + rank))` operations and `n · rank` numbers.

    Args:
        kernel: The kernel, which is first fitted to `x`.
        x: The examples.
        rank: The largest number of columns.
        tolerance: Stop once `tr(K - G Gᵀ) / tr(K)` is at most this.
        seed: Draws the pivots.

    Raises:
        ValueError: `rank` is less than 1.

    Source:
        Fine and Scheinberg (2001), Journal of Machine Learning Research 2; Chen, Epperly, Tropp and
        Webber (2022), arXiv:2207.06503, for random pivots in blocks.

    Examples:
        >>> from tlens_trust.measures.kernels.kernel import GaussianKernel
        >>> x = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
        >>> low = pivoted_cholesky(GaussianKernel(), x, rank=60)
        >>> low.factor.shape[0], low.rank <= 60, 0 <= low.residual < 1e-3
        (500, True, True)
    """
    fitted_kernel, x = kernel.fitted(x), x.double()

    def columns(pivots: Int[Tensor, " pivot"]) -> Float[Tensor, "example pivot"]:
        return fitted_kernel.between(x, x[pivots])

    return _factorise(
        columns, fitted_kernel.diagonal(x).clone(), rank=rank, tolerance=tolerance, seed=seed
    )


def _factorise(
    columns: Callable[[Int[Tensor, " pivot"]], Float[Tensor, "example pivot"]],
    diagonal: Float[Tensor, " example"],
    *,
    rank: int,
    tolerance: float,
    seed: int,
) -> LowRankKernel:
    rank, seed = checked_count("rank", rank), checked_seed(seed)
    tolerance = checked_positive("tolerance", tolerance)
    n, trace = len(diagonal), float(diagonal.sum())
    generator = np.random.default_rng([seed, 3])
    factor = diagonal.new_zeros(n, min(rank, n))
    all_pivots: list[int] = []
    residual = diagonal
    while len(all_pivots) < factor.shape[1] and float(residual.sum()) > tolerance * trace:
        weights = residual.clamp_min(0).cpu().numpy()
        weights[all_pivots] = 0
        candidates = int((weights > _ROUNDING * weights.max(initial=0.0)).sum())
        count = min(_PIVOTS_AT_ONCE, factor.shape[1] - len(all_pivots), candidates)
        if count == 0 or weights.sum() <= 0:
            break
        drawn_pivots = generator.choice(n, size=count, replace=False, p=weights / weights.sum())
        pivots = torch.from_numpy(np.sort(drawn_pivots)).to(diagonal.device)
        # The Schur complement of the block's columns: what the factor does not yet explain.
        earlier_columns = factor[:, : len(all_pivots)]
        block = columns(pivots) - earlier_columns @ earlier_columns[pivots].T
        independent, lower = _independent(block[pivots])
        new_columns = torch.linalg.solve_triangular(lower, block[:, independent].T, upper=False).T
        factor[:, len(all_pivots) : len(all_pivots) + len(independent)] = new_columns
        residual = (residual - new_columns.square().sum(dim=1)).clamp_min_(0)
        all_pivots += pivots[independent].tolist()
        residual[all_pivots] = 0
    return LowRankKernel(
        factor[:, : len(all_pivots)].contiguous(),
        float(residual.sum()) / n,
        torch.tensor(all_pivots, dtype=torch.int64),
    )


def _independent(
    block: Float[Tensor, "pivot pivot"],
) -> tuple[Int[Tensor, " kept"], Float[Tensor, "kept kept"]]:
    """Select the linearly independent pivots of a block, with their Cholesky factor."""
    lower, has_failed = torch.linalg.cholesky_ex(block)
    if not has_failed and bool((lower.diagonal().square() > 1e-10 * block.diagonal().max()).all()):
        return torch.arange(len(block)), lower
    residual, independent = block.clone(), []
    threshold = 1e-10 * float(block.diagonal().max())
    for _ in range(len(block)):
        pivot = int(residual.diagonal().argmax())
        height = float(residual[pivot, pivot])
        if height <= threshold:
            break
        independent.append(pivot)
        column = residual[:, pivot] / height**0.5
        residual = residual - torch.outer(column, column)
        residual[independent, :] = 0
        residual[:, independent] = 0
    order = torch.tensor(sorted(independent))
    return order, torch.linalg.cholesky(block[order][:, order])
