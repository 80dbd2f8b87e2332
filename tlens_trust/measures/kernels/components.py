"""Principal components of a representation, and normalised HSIC with a linear kernel on them.

With a linear kernel, normalised HSIC depends only on the principal components. So one decomposition
of each representation serves every ridge, every other representation and every permutation.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tlens_trust.arguments import checked_positive
from tlens_trust.measures.resampling import HalfSamples

# A direction below this many times the input's rounding error (its precision times its root mean
# square) holds only rounding.
_ROUNDING = 4.0
# The same for the float64 decomposition: eigenvectors mix rounding of the largest direction into
# the others.
_OWN_ROUNDING = 64.0


@dataclass(frozen=True, eq=False)
class PrincipalComponents:
    """The examples' coordinates along each principal axis, and the share of variance of each axis.

    Attributes:
        vectors: Unit vectors over the examples, uncorrelated, each with mean 0, in descending order
            of share.
        shares: The share of the variance of each component; they sum to 1.
    """

    vectors: Float[Tensor, "example component"]
    shares: Float[Tensor, " component"]

    @classmethod
    def of(
        cls, x: Float[Tensor, "example d"], *, standardise: bool = True
    ) -> "PrincipalComponents":
        """Compute the principal components of centred features.

        A component is kept if its standard deviation exceeds the rounding error of the input. That
        error is four times the numbers' precision times their root mean square.

        Args:
            x: One row per example.
            standardise: Whether to divide every feature by its standard deviation first; constant
                features are left out.
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
        """Select the leading components, each with the same share and exactly uncorrelated."""
        leading = self.vectors[:, :components]
        if leading.shape[1] == 0:
            return PrincipalComponents(leading, self.shares[:0])
        # The eigenvectors of small components are not exactly orthogonal; QR makes them so.
        basis, _ = torch.linalg.qr(leading)
        count = basis.shape[1]
        return PrincipalComponents(basis, self.shares.new_full((count,), 1 / count))

    @property
    def count(self) -> int:
        """The number of components."""
        return len(self.shares)

    def weights(self, ridge: float) -> Float[Tensor, " component"]:
        """Compute the eigenvalues of `R`, near 1 for shares well above the ridge."""
        return self.shares / (self.shares + ridge)

    def overlap(self, other: "PrincipalComponents") -> Float[Tensor, "component other"]:
        """Compute correlations between the components of two representations of the examples."""
        return self.vectors.T @ other.vectors


def linear_normalised_hsic(
    x: Float[Tensor, "example d"],
    y: Float[Tensor, "example k"],
    *,
    ridge: float = 0.025,
    standardise: bool = True,
) -> float:
    """Compute normalised HSIC with linear kernels: how many directions two representations share.

    `Σᵢⱼ ρᵢ ρ'ⱼ cᵢⱼ²`, where `cᵢⱼ` is the correlation of the i-th principal component of `x` with
    the j-th of `y`. A component with the share `s` of the variance has the weight
    `ρ = s / (s + ridge)`. So the value counts shared directions, and those with a share well above
    `ridge` count in full.

    The value is at most the smaller of the two sums of `ρ`. For independent representations it is
    `Σρ Σρ' / (n - 1)` on average. It is a plain number: not in nats, and not mutual information.

    The estimator of Qian et al. (`tracingllm_information`) uses a Gaussian kernel with width σ = 50
    on standardised features. A Gaussian kernel this wide is almost linear. So their value equals
    this one with `ridge = ε σ²` = 0.025, up to a relative error of about `1/σ²`. A sweep of σ is a
    sweep of the ridge.

    Args:
        x: The first representation.
        y: The second one, row by row for the same examples.
        ridge: As a share of each representation's variance.
        standardise: Whether to scale every feature to variance 1 first.

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
    """Compute `Σᵢⱼ ρᵢ ρ'ⱼ cᵢⱼ²`, the number of shared directions."""
    return float(one.weights(ridge) @ overlap.square() @ other.weights(ridge))


def influence(
    one: PrincipalComponents,
    other: PrincipalComponents,
    overlap: Float[Tensor, "component other"],
    ridge: float,
    *,
    least: float = 0.0,
) -> Float[Tensor, " example"]:
    """Compute what each example adds to `shared_directions`, to first order in its weight.

    With `P = U ρ Uᵀ` for each representation, it is `2 (P P')ᵢᵢ - (P P' P)ᵢᵢ - (P' P P')ᵢᵢ`. The
    mean is subtracted, since scaling all weights does not change the estimate. Computed in float32,
    without components whose `ρ` is below the fraction `least` of the largest.
    """
    rho, other_rho = one.weights(ridge), other.weights(ridge)
    is_kept, other_is_kept = (weights > least * weights[0] for weights in (rho, other_rho))
    rho, other_rho = rho[is_kept].float(), other_rho[other_is_kept].float()
    weighted_overlap = rho[:, None] * overlap[is_kept][:, other_is_kept].float() * other_rho
    u, v = one.vectors[:, is_kept].float(), other.vectors[:, other_is_kept].float()
    onto = u @ weighted_overlap
    back = v @ weighted_overlap.T
    # P P' P = M Mᵀ with M = u ρ c √ρ', so its diagonal is the row sums of M².
    other_cost = (onto.square() / other_rho).sum(dim=1)
    own_cost = (back.square() / rho).sum(dim=1)
    values = 2 * (onto * v).sum(dim=1) - other_cost - own_cost
    return (values - values.mean()).double()


def linearised_halves(
    values: Float[Tensor, " example"], halves: HalfSamples
) -> Float[np.ndarray, " resample"]:
    """Compute how much each half sample changes an estimate, to first order."""
    members = halves.members.astype(np.float64)
    shifts: np.ndarray = members @ values.cpu().numpy() * len(values) / members.sum(axis=1)
    return shifts


def _principal_scores(centred: Float[Tensor, "example d"]) -> Float[Tensor, "example component"]:
    """Compute the coordinates along the principal axes, the largest first.

    They come from the eigenvectors of the smaller Gram matrix. Small directions may be mixed with
    each other. They mix with large ones only up to the rounding error of the large ones.
    """
    n, d = centred.shape
    if d <= n:
        _, axes = torch.linalg.eigh(centred.T @ centred)
        scores: Tensor = centred @ axes.flip(1)
        return scores
    _, vectors = torch.linalg.eigh(centred @ centred.T)
    vectors = vectors.flip(1)
    # The square root of a small eigenvalue would keep only half of its digits.
    scores = vectors * torch.linalg.vector_norm(centred.T @ vectors, dim=0)
    return scores
