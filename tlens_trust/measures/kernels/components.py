"""Principal components of a reading, and normalised HSIC with a linear kernel on them.

With a linear kernel everything about normalised HSIC is known from the principal components: one
decomposition of each reading serves every ridge, every other reading and every permutation.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tlens_trust.measures.kernels.halves import HalfSamples

# Components that hold a smaller share of the variance than this are rounding.
_LEAST_SHARE = 1e-12


@dataclass(frozen=True, eq=False)
class PrincipalComponents:
    """Where the examples lie along each principal axis, and how the variance is shared out.

    Attributes:
        vectors: Orthonormal over the examples, each with mean 0, largest share first.
        shares: Of the variance; they sum to 1.
    """

    vectors: Float[Tensor, "example component"]
    shares: Float[Tensor, " component"]

    @classmethod
    def of(
        cls, x: Float[Tensor, "example d"], *, standardise: bool = True
    ) -> "PrincipalComponents":
        """Of centred features.

        Args:
            x: One row per example.
            standardise: Whether to divide every feature by its standard deviation first; constant
                ones are left out.
        """
        features = x.double() - x.double().mean(dim=0)
        if standardise:
            deviation = features.square().mean(dim=0).sqrt()
            rounding = 8 * torch.finfo(x.dtype).eps * x.double().square().mean(dim=0).sqrt()
            features = features[:, deviation > rounding] / deviation[deviation > rounding]
        n, d = features.shape
        if d <= n:
            squares, axes = torch.linalg.eigh(features.T @ features)
            vectors = features @ axes
        else:
            squares, vectors = torch.linalg.eigh(features @ features.T)
        kept = squares > _LEAST_SHARE * squares.clamp_min(0).sum()
        vectors = vectors[:, kept].flip(1)
        # Their length by the features is the eigenvalue's root, but for rounding.
        vectors = vectors / torch.linalg.vector_norm(vectors, dim=0)
        shares = squares[kept].flip(0)
        return cls(vectors, shares / shares.sum())

    @classmethod
    def flat(cls, basis: Float[Tensor, "example component"]) -> "PrincipalComponents":
        """Of what `flatten_spectrum` gives: every component holds the same share."""
        n, count = basis.shape
        return cls(basis / n**0.5, torch.full((count,), 1 / max(count, 1), dtype=torch.float64))

    @property
    def count(self) -> int:
        """How many components."""
        return len(self.shares)

    def weights(self, ridge: float) -> Float[Tensor, " component"]:
        """Eigenvalues of `R`: near 1 for components whose share is well above the ridge."""
        return self.shares / (self.shares + ridge)

    def overlap(self, other: "PrincipalComponents") -> Float[Tensor, "component other"]:
        """Correlations of the components of two readings of the same examples."""
        return self.vectors.T @ other.vectors


def linear_normalised_hsic(
    x: Float[Tensor, "example d"],
    y: Float[Tensor, "example k"],
    *,
    ridge: float = 0.025,
    standardise: bool = True,
) -> float:
    """Normalised HSIC with linear kernels: how many directions two readings share.

    `Σᵢⱼ ρᵢ ρ'ⱼ cᵢⱼ²`, with `cᵢⱼ` the correlation of the i-th principal component of `x` with the
    j-th of `y`, and `ρ = s / (s + ridge)` for a component with the share `s` of the variance. So it
    counts shared directions, those that hold a larger share than `ridge` in full. It is at most
    the smaller of the two sums of `ρ`, is `Σρ Σρ' / (n - 1)` for independent readings, and is a
    bare number: not in nats, and no mutual information.

    The estimator of Qian et al. (`tracingllm_information`), with its width σ = 50 on standardised
    features and its ε, is this with `ridge = ε σ²` = 0.025, to within about `1/σ²`: so wide a
    Gaussian kernel is linear. A sweep of σ is a sweep of the ridge.

    Args:
        x: One reading.
        y: The other, row by row the same examples.
        ridge: As a share of each reading's variance.
        standardise: Whether to bring every feature to variance 1 first.

    Raises:
        ValueError: `ridge` is not a positive number.

    Example:
        >>> x = torch.randn(500, 5, generator=torch.Generator().manual_seed(0))
        >>> round(linear_normalised_hsic(x, x), 2), linear_normalised_hsic(x, x.flip(0)) < 0.2
        (3.95, True)
    """
    if not 0 < ridge < float("inf"):
        raise ValueError(f"`ridge` must be a positive number, got {ridge!r}.")
    one = PrincipalComponents.of(x, standardise=standardise)
    other = PrincipalComponents.of(y, standardise=standardise)
    return shared_directions(one, other, one.overlap(other), ridge)


def shared_directions(
    one: PrincipalComponents,
    other: PrincipalComponents,
    overlap: Float[Tensor, "component other"],
    ridge: float,
) -> float:
    """`Σᵢⱼ ρᵢ ρ'ⱼ cᵢⱼ²`."""
    return float(one.weights(ridge) @ overlap.square() @ other.weights(ridge))


def influence(
    one: PrincipalComponents,
    other: PrincipalComponents,
    overlap: Float[Tensor, "component other"],
    ridge: float,
) -> Float[Tensor, " example"]:
    """What each example adds to `shared_directions`, to first order in its weight.

    With `P = U ρ Uᵀ` for each reading: `2 (P P')ᵢᵢ - (P P' P)ᵢᵢ - (P' P P')ᵢᵢ`, about their mean,
    since the estimate does not change where all weights do. In float32.
    """
    rho, others = one.weights(ridge).float(), other.weights(ridge).float()
    turned = rho[:, None] * overlap.float() * others
    u, v = one.vectors.float(), other.vectors.float()
    onto = u @ turned
    back = v @ turned.T
    # P P' P has the diagonal of (u ρ c √ρ')(...)ᵀ.
    there = (onto.square() / others).sum(dim=1)
    here = (back.square() / rho).sum(dim=1)
    values = 2 * (onto * v).sum(dim=1) - there - here
    return (values - values.mean()).double()


def linearised_halves(
    values: Float[Tensor, " example"], halves: HalfSamples
) -> Float[np.ndarray, " resample"]:
    """By how much each half sample would move an estimate, to first order."""
    members = halves.members.astype(np.float64)
    moved: np.ndarray = members @ values.cpu().numpy() * len(values) / members.sum(axis=1)
    return moved
