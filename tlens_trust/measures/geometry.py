"""Effective rank, power law and isotropy of activations, each as a function of two axes.

All but the mean cosine are functions of the covariance's eigenvalues `λ₁ ≥ λ₂ ≥ …`, so that a
rotation changes none of them and a common scale none but the norms.
"""

from dataclasses import dataclass
from math import nan

import torch
from jaxtyping import Float
from torch import Tensor

from tlens_trust.arguments import checked_count

# Below this part of the largest, an eigenvalue computed in float64 is rounding.
ROUNDING = 1e-13
_LEAST_POINTS = 5


@dataclass(frozen=True)
class PowerLaw:
    """A straight line through a spectrum on doubly logarithmic axes.

    Attributes:
        exponent: `α` in `λₖ ∝ k^-α`.
        standard_error: Of the exponent, from the scatter about the line. Neighbouring eigenvalues
            err together, so it tells how straight the line is and not how sure the exponent is; for
            the latter see the interval that `spectrum` gives.
        r2: Share of the (weighted) variance of `ln λ` that the line explains.
        first: First eigenvalue of the fit, counted from 1.
        last: Last eigenvalue of the fit.
    """

    exponent: float
    standard_error: float
    r2: float
    first: int
    last: int


def rankme(x: Float[Tensor, "example d"], *, centre: bool = True) -> float:
    """How many directions the activations fill: the effective rank by entropy, in directions.

    `exp(-Σ pₖ ln pₖ)` with `pₖ = σₖ / Σ σ` for singular values `σₖ`: from 1, where all lie on a
    line, to `min(n - 1, d)`, where all singular values are equal. It never exceeds the number of
    examples, and comes out too low where they are no more than a few times the directions filled.

    Args:
        x: One row per example.
        centre: Whether the mean is taken off first, so that spread alone counts, as in every kernel
            estimate. The source does not; in language models the mean is often the longest vector
            of all.

    Returns:
        NaN where the activations do not vary.

    Source:
        Garrido et al. (2023), arXiv:2210.02885; Roy and Vetterli (2007), EUSIPCO.

    Examples:
        >>> x = torch.eye(8).repeat(2, 1)
        >>> round(rankme(x, centre=False), 6), round(rankme(x), 6)
        (8.0, 7.0)
    """
    return rankme_of(eigenvalues(x, centre=centre))


def participation_ratio(x: Float[Tensor, "example d"]) -> float:
    """How many directions hold the variance, `(Σ λ)² / Σ λ²`, in directions.

    From 1 to `d`. Large eigenvalues count more than in `rankme`: a single outlier direction brings
    it to 1.

    Returns:
        NaN where the activations do not vary.

    Source:
        Gao et al. (2017), bioRxiv 214262.

    Examples:
        >>> x = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> participation_ratio(x), participation_ratio(x * torch.tensor([1.0, 0.0]))
        (2.0, 1.0)
    """
    return participation_ratio_of(eigenvalues(x))


def spectrum_exponent(
    x: Float[Tensor, "example d"], *, first: int = 11, last: int = 100
) -> PowerLaw:
    """The exponent `α` of a power law `λₖ ∝ k^-α` of the covariance's eigenvalues.

    A line through `ln λₖ` over `ln k` by least squares with weights `1/k`, from the `first` to the
    `last` eigenvalue, but none beyond the half of those that are there, since examples are too few
    to tell the smallest. A large exponent is a steep spectrum: few directions. Whether there is a
    power law at all, its `r2` says.

    Args:
        x: One row per example.
        first: First eigenvalue of the fit, from 1.
        last: Last eigenvalue of the fit.

    Returns:
        NaN where fewer than 5 eigenvalues are left.

    Raises:
        ValueError: `first` is below 1, or `last` below `first`.

    Source:
        Agrawal et al. (2022), α-ReQ, NeurIPS; Stringer et al. (2019), Nature 571, for the weights
        and for leaving out the first ten.

    Examples:
        >>> k = torch.arange(1, 201, dtype=torch.float64)
        >>> law = spectrum_exponent(torch.cat([torch.diag(k**-0.6), -torch.diag(k**-0.6)]))
        >>> round(law.exponent, 6), round(law.r2, 6), law.last
        (1.2, 1.0, 100)
    """
    check_range(first, last)
    return power_law_of(eigenvalues(x), first, last)


def isoscore(x: Float[Tensor, "example d"]) -> float:
    """How evenly the variance is spread over all directions: 0 for one direction, 1 for all alike.

    Rudman et al. give it as a distance of the normalised diagonal of the covariance in principal
    axes from that of the identity; worked out, it is `(PR - 1) / (d - 1)` with the participation
    ratio `PR`.

    Returns:
        NaN where the activations do not vary, or have one dimension.

    Source:
        Rudman et al. (2022), arXiv:2108.07344.

    Examples:
        >>> x = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> isoscore(x), isoscore(x * torch.tensor([1.0, 0.0]))
        (1.0, 0.0)
    """
    return isoscore_of(participation_ratio(x), x.shape[1])


def mean_cosine(x: Float[Tensor, "example d"]) -> float:
    """Mean cosine of two activations' directions, over all pairs.

    Not centred: where all activations share a large mean it is near 1, whatever they differ in.
    Rows of length 0 count as having cosine 0 with all others.

    Returns:
        NaN for fewer than two examples.

    Source:
        Ethayarajh (2019), arXiv:1909.00512, who calls it anisotropy.

    Examples:
        >>> mean_cosine(torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]]))
        0.333...
    """
    n = len(x)
    if n < 2:
        return nan
    units = unit_rows(x)
    total = units.sum(dim=0)
    return float((total @ total - units.square().sum()) / (n * (n - 1)))


def eigenvalues(x: Float[Tensor, "example d"], *, centre: bool = True) -> Float[Tensor, " value"]:
    """Of the covariance `Xᵀ X / n`, descending, by the smaller of the two products of `X`."""
    values = x.double()
    if centre:
        values = values - values.mean(dim=0)
    n, d = values.shape
    product = values.T @ values if d <= n else values @ values.T
    ascending: Tensor = torch.linalg.eigvalsh(product)
    return ascending.flip(0).clamp_min(0) / n


def rankme_of(spectrum: Float[Tensor, " value"]) -> float:
    """`rankme` from eigenvalues."""
    lengths = above_rounding(spectrum).sqrt()
    if not len(lengths):
        return nan
    p = lengths / lengths.sum()
    return float(torch.exp(-(p * p.log()).sum()))


def participation_ratio_of(spectrum: Float[Tensor, " value"]) -> float:
    """`participation_ratio` from eigenvalues."""
    known = above_rounding(spectrum)
    return float(known.sum() ** 2 / known.square().sum()) if len(known) else nan


def isoscore_of(ratio: float, d: int) -> float:
    """`isoscore` from the participation ratio."""
    return (ratio - 1) / (d - 1) if d > 1 else nan


def power_law_of(spectrum: Float[Tensor, " value"], first: int, last: int) -> PowerLaw:
    """`spectrum_exponent` from eigenvalues."""
    known = above_rounding(spectrum)
    last = min(last, len(known) // 2)
    if last - first + 1 < _LEAST_POINTS:
        return PowerLaw(nan, nan, nan, first, last)
    k = torch.arange(first, last + 1, dtype=torch.float64)
    y = known[first - 1 : last].log()
    slopes = slope_weights(first, last)
    slope = float(slopes @ y)
    weights = 1 / k / (1 / k).sum()
    about = y - weights @ y
    off = about - slope * (k.log() - weights @ k.log())
    spread, left = float(weights @ about.square()), float(weights @ off.square())
    variance = float(off.square().sum()) / (len(k) - 2)
    error = float(slopes.square().sum() * variance) ** 0.5
    return PowerLaw(-slope, error, 1 - left / spread if spread > 0 else nan, first, last)


def slope_weights(first: int, last: int) -> Float[Tensor, " value"]:
    """What each `ln λₖ` adds to the slope of the line through them, with weights `1/k`."""
    k = torch.arange(first, last + 1, dtype=torch.float64)
    weights = 1 / k / (1 / k).sum()
    about = k.log() - weights @ k.log()
    return weights * about / (weights @ about.square())


def above_rounding(spectrum: Float[Tensor, " value"]) -> Float[Tensor, " known"]:
    """Those eigenvalues that are no rounding; none where nothing varies."""
    largest = spectrum.max() if len(spectrum) else 0.0
    return spectrum[(spectrum > ROUNDING * largest) & (spectrum > 0)]


def unit_rows(x: Float[Tensor, "example d"]) -> Float[Tensor, "example d"]:
    """Rows of length 1, in float64; rows of length 0 stay."""
    return torch.nn.functional.normalize(x.double(), dim=1, eps=1e-300)


def check_range(first: int, last: int) -> None:
    """Refuse a range of eigenvalues that is not one.

    Raises:
        ValueError: `first` or `last` is not a whole number from 1, or `last` is below `first`.
    """
    hint = "Eigenvalues are counted from 1, the largest."
    if checked_count("first", first, hint=hint) > checked_count("last", last, hint=hint):
        raise ValueError(
            f"`first` must not be above `last`, got first={first} and last={last}. {hint}"
        )
