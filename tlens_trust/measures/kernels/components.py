"""Principal components of a reading, and normalised HSIC with a linear kernel on them.

With a linear kernel everything about normalised HSIC is known from the principal components: one
decomposition of each reading serves every ridge, every other reading and every permutation.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tlens_trust.arguments import checked_positive
from tlens_trust.measures.resampling import HalfSamples

# Rounding of the numbers that came in, in multiples of their precision and of their root mean
# square, below which a direction holds nothing else.
_ROUNDING = 4.0
# Likewise of the largest direction, in float64: what eigenvectors mix of it into the others.
_OWN_ROUNDING = 64.0


@dataclass(frozen=True, eq=False)
class PrincipalComponents:
    """Where the examples lie along each principal axis, and how the variance is shared out.

    Attributes:
        vectors: Of length 1 over the examples, uncorrelated, each with mean 0, largest share first.
        shares: Of the variance; they sum to 1.
    """

    vectors: Float[Tensor, "example component"]
    shares: Float[Tensor, " component"]

    @classmethod
    def of(
        cls, x: Float[Tensor, "example d"], *, standardise: bool = True
    ) -> "PrincipalComponents":
        """Of centred features.

        A component is kept where its standard deviation is above the rounding of the numbers that
        came in: four times their precision times their root mean square.

        Args:
            x: One row per example.
            standardise: Whether to divide every feature by its standard deviation first; constant
                ones are left out.
        """
        precision = torch.finfo(x.dtype).eps
        values = x.double()
        size = values.square().mean(dim=0).sqrt()
        features = values - values.mean(dim=0)
        if standardise:
            deviation = features.square().mean(dim=0).sqrt()
            varies = deviation > 2 * _ROUNDING * precision * size
            features = features[:, varies] / deviation[varies]
            size = size[varies] / deviation[varies]
        n, d = features.shape
        if n < 2 or d == 0:
            return cls(features[:, :0], features.new_zeros(0))
        vectors = _principal_scores(features)
        lengths = torch.linalg.vector_norm(vectors, dim=0)
        rounding_of_sums = _OWN_ROUNDING * torch.finfo(torch.float64).eps * float(lengths.max())
        rounding = _ROUNDING * precision * float(size.square().mean().sqrt()) * n**0.5
        is_kept = lengths > max(rounding, rounding_of_sums)
        vectors, lengths = vectors[:, is_kept], lengths[is_kept]
        shares = lengths.square()
        return cls(vectors / lengths, shares / shares.sum())

    def flat(self, components: int) -> "PrincipalComponents":
        """The leading components, every one with the same share, and exactly uncorrelated."""
        leading = self.vectors[:, :components]
        if leading.shape[1] == 0:
            return PrincipalComponents(leading, self.shares[:0])
        # Small components come out mixed with each other, which this undoes.
        basis, _ = torch.linalg.qr(leading)
        count = basis.shape[1]
        return PrincipalComponents(basis, self.shares.new_full((count,), 1 / count))

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

    Examples:
        >>> x = torch.randn(500, 5, generator=torch.Generator().manual_seed(0))
        >>> round(linear_normalised_hsic(x, x), 2), linear_normalised_hsic(x, x.flip(0)) < 0.2
        (3.95, True)
    """
    ridge = checked_positive("ridge", ridge)
    x_components = PrincipalComponents.of(x, standardise=standardise)
    y_components = PrincipalComponents.of(y, standardise=standardise)
    return shared_directions(x_components, y_components, x_components.overlap(y_components), ridge)


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
    *,
    least: float = 0.0,
) -> Float[Tensor, " example"]:
    """What each example adds to `shared_directions`, to first order in its weight.

    With `P = U ρ Uᵀ` for each reading: `2 (P P')ᵢᵢ - (P P' P)ᵢᵢ - (P' P P')ᵢᵢ`, about their mean,
    since the estimate does not change where all weights do. In float32, without components whose
    `ρ` is below the part `least` of the largest.
    """
    rho, other_rho = one.weights(ridge), other.weights(ridge)
    is_kept, other_is_kept = (weights > least * weights[0] for weights in (rho, other_rho))
    rho, other_rho = rho[is_kept].float(), other_rho[other_is_kept].float()
    weighted_overlap = rho[:, None] * overlap[is_kept][:, other_is_kept].float() * other_rho
    u, v = one.vectors[:, is_kept].float(), other.vectors[:, other_is_kept].float()
    onto = u @ weighted_overlap
    back = v @ weighted_overlap.T
    # P P' P has the diagonal of (u ρ c √ρ')(...)ᵀ.
    other_cost = (onto.square() / other_rho).sum(dim=1)
    own_cost = (back.square() / rho).sum(dim=1)
    values = 2 * (onto * v).sum(dim=1) - other_cost - own_cost
    return (values - values.mean()).double()


def linearised_halves(
    values: Float[Tensor, " example"], halves: HalfSamples
) -> Float[np.ndarray, " resample"]:
    """By how much each half sample would move an estimate, to first order."""
    members = halves.members.astype(np.float64)
    shifts: np.ndarray = members @ values.cpu().numpy() * len(values) / members.sum(axis=1)
    return shifts


def _principal_scores(centred: Float[Tensor, "example d"]) -> Float[Tensor, "example component"]:
    """Coordinates along the principal axes, the largest first.

    By the eigenvectors of the smaller of the two matrices of products. Small directions come out
    mixed with each other, and with large ones only to the rounding of these.
    """
    n, d = centred.shape
    if d <= n:
        _, axes = torch.linalg.eigh(centred.T @ centred)
        scores: Tensor = centred @ axes.flip(1)
        return scores
    _, vectors = torch.linalg.eigh(centred @ centred.T)
    vectors = vectors.flip(1)
    # Square roots of small eigenvalues would hold half the digits.
    scores = vectors * torch.linalg.vector_norm(centred.T @ vectors, dim=0)
    return scores
