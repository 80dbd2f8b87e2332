"""Normalised HSIC: a regularised sum of squared canonical correlations between feature spaces."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from tlens_trust.arguments import checked_positive
from tlens_trust.measures.kernels.kernel import GaussianKernel, Kernel, check_pair
from tlens_trust.measures.kernels.low_rank import LowRankKernel, pivoted_cholesky

# Rows of a matrix that is inverted without dividing it further.
_SMALL = 64


@dataclass(frozen=True)
class LowRankValue:
    """An estimate from low-rank kernels, and how far the exact one can lie above it.

    Attributes:
        value: Never above the exact one, up to rounding.
        bound: The exact one is at most `value + bound`.
        ranks: Of the two factors.
        residuals: What the factors leave out of each kernel, `tr(K - G Gᵀ) / n`.
    """

    value: float
    bound: float
    ranks: tuple[int, int]
    residuals: tuple[float, float]


@dataclass(frozen=True)
class NormalisedHSIC:
    """Normalised HSIC, as NOCCO has it: `tr(R_x R_y)` with `R = K (K + ε n I)⁻¹` and `K = H K H`.

    The sum, over all pairs of kernel principal components, of their squared correlation, each
    component with the weight `λ / (λ + ε n)`, `λ` being its eigenvalue. So it counts the directions
    that two readings share among those whose spread stands above `ε`: it is at most the effective
    dimension `tr R` of either, and moves with the spectrum where nothing else does. Independent
    readings give `tr(R_x) tr(R_y) / (n - 1)` and not 0. As `ε` goes to 0 at a fixed `n` it goes to
    `n - 1` for any two readings without duplicates. It is a bare number, not in nats, and not
    mutual information.

    Attributes:
        kernel: Of the first reading.
        other_kernel: Of the second; None for the same kind as the first, fitted to the second.
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
        """Kernels and ε."""
        other = (self.other_kernel or self.kernel).name
        return f"normalised_hsic({self.kernel.name}, {other}, epsilon={self.epsilon:g})"

    def __call__(self, x: Float[Tensor, "example d"], y: Float[Tensor, "example k"]) -> float:
        """Estimate the dependence of two readings, row by row the same examples.

        Exact, by one inverse for each reading: `O(n³)` operations, a few n × n
        matrices in float64.

        Raises:
            ValueError: The two differ in length, are fewer than 4, or hold what is not finite.
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
        """The same from low-rank kernels, for many examples, with a bound on the error.

        With `G Gᵀ ≤ K` and `R` a monotone function of `K`, the value lies below the exact one, by
        at most `[tr(K_x - G_x G_xᵀ) ‖R_y‖ + tr(K_y - G_y G_yᵀ) ‖R_x‖] / (ε n)`.

        Args:
            x: One reading.
            y: The other, row by row the same examples.
            rank: Of each factor at most.
            tolerance: Of the factorisation (see `pivoted_cholesky`).
            seed: Draws the pivots.

        Raises:
            ValueError: As calling it.
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
    """`R = K (K + ε n I)⁻¹` of a low-rank kernel: its eigenvectors and eigenvalues.

    Made once for each reading, for any number of others.

    Attributes:
        vectors: Orthonormal, each with mean 0, in descending order of eigenvalue.
        spread: The centred kernel's eigenvalues `λ / n`.
        epsilon: `ε`.
        residual: What the factor leaves out of the kernel, `tr(K - G Gᵀ) / n`.
    """

    vectors: Float[Tensor, "example rank"]
    spread: Float[Tensor, " rank"]
    epsilon: float
    residual: float

    @classmethod
    def of(cls, kernel: LowRankKernel, epsilon: float) -> "NormalisedFactor":
        """Centre a low-rank kernel and turn it to its principal components."""
        n = len(kernel.factor)
        factor = kernel.factor - kernel.factor.mean(dim=0)
        squares, axes = torch.linalg.eigh(factor.T @ factor)
        is_kept = squares > 1e-13 * squares[-1].clamp_min(1e-300)
        squares, axes = squares[is_kept].flip(0), axes[:, is_kept].flip(1)
        return cls(factor @ axes / squares.sqrt(), squares / n, epsilon, kernel.residual)

    @property
    def weights(self) -> Float[Tensor, " rank"]:
        """Eigenvalues of `R`."""
        return self.spread / (self.spread + self.epsilon)

    @property
    def rank(self) -> int:
        """How many eigenvectors."""
        return len(self.spread)

    def scaled(self) -> Float[Tensor, "example rank"]:
        """`F` with `R = F Fᵀ`."""
        return self.vectors * self.weights.sqrt()

    def dot(self, other: "NormalisedFactor") -> LowRankValue:
        """`tr(R R')` with that of another reading of the same examples."""
        overlap = (self.vectors.T @ other.vectors).square()
        value = float(self.weights @ overlap @ other.weights)
        return LowRankValue(
            value,
            self.error(other) + other.error(self),
            (self.rank, other.rank),
            (self.residual, other.residual),
        )

    def error(self, other: "NormalisedFactor") -> float:
        """How much, at most, `tr(R R')` misses by what this factor leaves out."""
        largest = max(self._largest(other), 0.0)
        return min(self.residual / self.epsilon, 1.0 * len(self.vectors)) * largest

    @staticmethod
    def _largest(other: "NormalisedFactor") -> float:
        """No eigenvalue of the other's exact `R` is larger."""
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
        """Of a fitted kernel on its data."""
        return cls(resolvent(kernel.between(x, x), epsilon))

    def dot(self, other: "ResolventFactor") -> float:
        """`tr(R R')` with that of another reading of the same examples."""
        return float(torch.dot(self.matrix.flatten(), other.matrix.flatten()))


def resolvent(
    kernel: Float[Tensor, "example example"], epsilon: float
) -> Float[Tensor, "example example"]:
    """`H K H (H K H + ε n I)⁻¹`, by one inverse of a positive definite matrix."""
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

    With `W = B A⁻¹` and `S = C - W Bᵀ`, the inverse of `[[A, Bᵀ], [B, C]]` is
    `[[A⁻¹ + Wᵀ S⁻¹ W, -Wᵀ S⁻¹], [-S⁻¹ W, S⁻¹]]`. That takes `4/3 n³` operations, all but all of
    them in products of matrices, which keep their speed on any number of threads.
    (`torch.cholesky_inverse` takes fewer, and was seen to take fifty times as long on two threads
    as on one while another process kept a core busy.)
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
