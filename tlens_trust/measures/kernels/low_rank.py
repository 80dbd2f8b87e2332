"""Kernel matrices as products of thin factors, with what is left out measured."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tlens_trust.arguments import checked_count, checked_positive, checked_seed
from tlens_trust.measures.kernels.kernel import Kernel

_PIVOTS_AT_ONCE = 64
# A pivot whose residual is this small beside the largest of its block adds rounding alone.
_ROUNDING = 1e-13


@dataclass(frozen=True, eq=False)
class LowRankKernel:
    """A kernel matrix `K` as `G Gᵀ`, its Nyström approximation from a few of its columns.

    `K - G Gᵀ` is a Schur complement, hence positive semi-definite: `G Gᵀ` lies below `K`, and the
    trace of what is left out bounds every one of its entries and eigenvalues.

    Attributes:
        factor: `G`.
        residual: `tr(K - G Gᵀ) / n`, exactly, up to rounding.
        pivots: The examples whose columns were taken.
    """

    factor: Float[Tensor, "example rank"]
    residual: float
    pivots: Int[Tensor, " rank"]

    @property
    def rank(self) -> int:
        """Columns of the factor."""
        return int(self.factor.shape[1])


def pivoted_cholesky(
    kernel: Kernel,
    x: Float[Tensor, "example d"],
    *,
    rank: int,
    tolerance: float = 1e-10,
    seed: int = 0,
) -> LowRankKernel:
    """Factorise a kernel matrix from at most `rank` of its columns, without forming it.

    Pivots are drawn in blocks, with probabilities in proportion to what is left of the diagonal
    (randomly pivoted Cholesky), so that neither outliers nor dense regions take all of them. Takes
    `O(n · rank · (d + rank))` operations and `n · rank` numbers.

    Args:
        kernel: It is fitted to `x` first.
        x: The examples.
        rank: At most so many columns.
        tolerance: Stop where `tr(K - G Gᵀ) / tr(K)` is no more than this.
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
    """The pivots of a block that the others do not span, and the Cholesky factor of theirs."""
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
