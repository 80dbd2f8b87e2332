"""Normalised HSIC: a regularised sum of squared canonical correlations of two feature spaces."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from tlens_trust.arguments import checked_positive
from tlens_trust.measures.kernels.kernel import GaussianKernel, Kernel, check_pair
from tlens_trust.measures.kernels.low_rank import LowRankKernel, pivoted_cholesky

# A matrix with at most this many rows is inverted directly.
_SMALL = 64


@dataclass(frozen=True)
class LowRankValue:
    """An estimate from low-rank kernels, with a bound on its error.

    Attributes:
        value: The estimate, never above the exact value up to rounding.
        bound: The exact value is at most `value + bound`.
        ranks: The ranks of the two factors.
        residuals: The part of each kernel that its factor leaves out, `tr(K - G Gᵀ) / n`.
    """

    value: float
    bound: float
    ranks: tuple[int, int]
    residuals: tuple[float, float]


@dataclass(frozen=True)
class NormalisedHSIC:
    """Compute normalised HSIC (NOCCO): `tr(R_x R_y)` with `R = K (K + ε n I)⁻¹` and `K = H K H`.

    It sums the squared correlations over all pairs of kernel principal components. A component with
    the eigenvalue `λ` has the weight `λ / (λ + ε n)`. So the value counts the directions that two
    representations share, among those with a spread above `ε`. It is at most the effective
    dimension `tr R` of either. It changes with the spectrum even if nothing else changes.

    For independent representations it is `tr(R_x) tr(R_y) / (n - 1)` on average, not 0. As `ε` goes
    to 0 at fixed `n`, it goes to `n - 1` for any two representations without duplicate rows. It is
    a plain number, not in nats, and not mutual information.

    Attributes:
        kernel: The kernel of the first representation.
        other_kernel: The kernel of the second one; None for the same kind as the first, fitted to
            the second.
        epsilon: `ε`, in the unit of the kernel.

    Raises:
        ValueError: `epsilon` is not a positive number.

    Source:
        Fukumizu, Gretton, Sun and Schölkopf (2007), Advances in Neural Information Processing
        Systems 20; as "nHSIC" in Ma, Lewis and Kleijn (2020), arXiv:1908.01580.

    Examples:
        >>> x = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
        >>> 3 < NormalisedHSIC(epsilon=1e-2)(x, x) < 20
        True
    """

    kernel: Kernel = field(default_factory=GaussianKernel)
    other_kernel: Kernel | None = None
    epsilon: float = 1e-2

    def __post_init__(self) -> None:
        checked_positive("epsilon", self.epsilon)

    @property
    def name(self) -> str:
        """The kernels and ε."""
        other_name = (self.other_kernel or self.kernel).name
        return f"normalised_hsic({self.kernel.name}, {other_name}, epsilon={self.epsilon:g})"

    def __call__(self, x: Float[Tensor, "example d"], y: Float[Tensor, "example k"]) -> float:
        """Estimate the dependence of two representations, row by row for the same examples.

        The value is exact. Each representation takes one matrix inverse: `O(n³)` operations and a
        few n × n matrices in float64.

        Raises:
            ValueError: The two differ in length, have fewer than 4 rows, or hold a NaN or an
                infinity.
        """
        check_pair(x, y)
        one = ResolventFactor.of(self.kernel.fitted(x), x, self.epsilon)
        return one.dot(
            ResolventFactor.of((self.other_kernel or self.kernel).fitted(y), y, self.epsilon)
        )

    def low_rank(
        self,
        x: Float[Tensor, "example d"],
        y: Float[Tensor, "example k"],
        *,
        rank: int = 512,
        tolerance: float = 1e-10,
        seed: int = 0,
    ) -> LowRankValue:
        """Estimate it from low-rank kernels, for many examples, with a bound on the error.

        Since `G Gᵀ ≤ K` and `R` is a monotone function of `K`, the value lies below the exact one.
        It lies below by at most `[tr(K_x - G_x G_xᵀ) ‖R_y‖ + tr(K_y - G_y G_yᵀ) ‖R_x‖] / (ε n)`.

        Args:
            x: The first representation.
            y: The second one, row by row for the same examples.
            rank: The largest rank of each factor.
            tolerance: The tolerance of the factorisation (see `pivoted_cholesky`).
            seed: Draws the pivots.

        Raises:
            ValueError: As for a call of the estimator.
        """
        check_pair(x, y)
        sides = [
            NormalisedFactor.of(
                pivoted_cholesky(kernel, values, rank=rank, tolerance=tolerance, seed=seed),
                self.epsilon,
            )
            for kernel, values in ((self.kernel, x), (self.other_kernel or self.kernel, y))
        ]
        return sides[0].dot(sides[1])


@dataclass(frozen=True, eq=False)
class NormalisedFactor:
    """`R = K (K + ε n I)⁻¹` of a low-rank kernel, as eigenvectors and eigenvalues.

    It is computed once for each representation and serves any number of others.

    Attributes:
        vectors: Orthonormal, each with mean 0, in descending order of eigenvalue.
        spread: The centred kernel's eigenvalues `λ / n`.
        epsilon: `ε`.
        residual: The part of the kernel that the factor leaves out, `tr(K - G Gᵀ) / n`.
    """

    vectors: Float[Tensor, "example rank"]
    spread: Float[Tensor, " rank"]
    epsilon: float
    residual: float

    @classmethod
    def of(cls, kernel: LowRankKernel, epsilon: float) -> "NormalisedFactor":
        """Centre a low-rank kernel and compute its principal components."""
        n = len(kernel.factor)
        factor = kernel.factor - kernel.factor.mean(dim=0)
        squares, axes = torch.linalg.eigh(factor.T @ factor)
        is_kept = squares > 1e-13 * squares[-1].clamp_min(1e-300)
        squares, axes = squares[is_kept].flip(0), axes[:, is_kept].flip(1)
        return cls(factor @ axes / squares.sqrt(), squares / n, epsilon, kernel.residual)

    @property
    def weights(self) -> Float[Tensor, " rank"]:
        """The eigenvalues of `R`."""
        return self.spread / (self.spread + self.epsilon)

    @property
    def rank(self) -> int:
        """The number of eigenvectors."""
        return len(self.spread)

    def scaled(self) -> Float[Tensor, "example rank"]:
        """Compute `F` with `R = F Fᵀ`."""
        return self.vectors * self.weights.sqrt()

    def dot(self, other: "NormalisedFactor") -> LowRankValue:
        """Compute `tr(R R')` with another representation of the same examples."""
        overlap = (self.vectors.T @ other.vectors).square()
        value = float(self.weights @ overlap @ other.weights)
        return LowRankValue(
            value,
            self.error(other) + other.error(self),
            (self.rank, other.rank),
            (self.residual, other.residual),
        )

    def error(self, other: "NormalisedFactor") -> float:
        """Bound the part of `tr(R R')` that is missing because of what this factor leaves out."""
        largest = max(self._largest(other), 0.0)
        return min(self.residual / self.epsilon, 1.0 * len(self.vectors)) * largest

    @staticmethod
    def _largest(other: "NormalisedFactor") -> float:
        """Bound the eigenvalues of the other's exact `R` from above."""
        top = float(other.spread[0]) if other.rank else 0.0
        top += other.residual * len(other.vectors)
        return top / (top + other.epsilon)


@dataclass(frozen=True, eq=False)
class ResolventFactor:
    """`R = K (K + ε n I)⁻¹` of a kernel, exactly, as `I - ε n (K + ε n I)⁻¹`.

    Attributes:
        matrix: `R`.
    """

    matrix: Float[Tensor, "example example"]

    @classmethod
    def of(cls, kernel: Kernel, x: Float[Tensor, "example d"], epsilon: float) -> "ResolventFactor":
        """Compute `R` of a fitted kernel on its data."""
        return cls(resolvent(kernel.between(x, x), epsilon))

    def dot(self, other: "ResolventFactor") -> float:
        """Compute `tr(R R')` with another representation of the same examples."""
        return float(torch.dot(self.matrix.flatten(), other.matrix.flatten()))


def resolvent(
    kernel: Float[Tensor, "example example"], epsilon: float
) -> Float[Tensor, "example example"]:
    """Compute `H K H (H K H + ε n I)⁻¹`, by one inverse of a positive definite matrix."""
    n = len(kernel)
    means = kernel.mean(dim=0)
    system = kernel - means[:, None]
    system -= means - means.mean()
    system.diagonal().add_(epsilon * n)
    _invert(system)
    system *= -epsilon * n
    system.diagonal().add_(1.0)
    return system


def _invert(matrix: Float[Tensor, "row row"]) -> None:
    """Invert a symmetric positive definite matrix in place, by halves.

    The inverse of `[[A, Bᵀ], [B, C]]` is `[[A⁻¹ + Wᵀ S⁻¹ W, -Wᵀ S⁻¹], [-S⁻¹ W, S⁻¹]]`. Here
    `W = B A⁻¹` and `S = C - W Bᵀ`. This takes `4/3 n³` operations, nearly all of them matrix
    products, which are fast on any number of threads.

    `torch.cholesky_inverse` takes fewer operations. But on two threads it was up to fifty times
    slower than on one, while another process kept a core busy.
    """
    n = len(matrix)
    if n <= _SMALL:
        matrix.copy_(torch.cholesky_inverse(torch.linalg.cholesky(matrix)))
        return
    half = n // 2
    top, lower, bottom = matrix[:half, :half], matrix[half:, :half], matrix[half:, half:]
    _invert(top)
    product = lower @ top
    bottom.addmm_(product, lower.T, alpha=-1.0)
    _invert(bottom)
    torch.mm(bottom, product, out=lower)
    top.addmm_(product.T, lower)
    lower.neg_()
    matrix[:half, half:] = lower.T
