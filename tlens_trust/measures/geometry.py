"""Effective rank, power law and isotropy of activations at one site.

All but the mean cosine are functions of the eigenvalues `λ₁ ≥ λ₂ ≥ …` of the covariance. No value
changes when the activations are rotated or multiplied by a common factor.
"""

from dataclasses import dataclass
from math import nan

import torch
from jaxtyping import Float
from torch import Tensor

from tlens_trust.arguments import checked_count

# An eigenvalue below this share of the largest is rounding, since float64 has 16 digits.
ROUNDING = 1e-13
# With fewer points, the line of a power law has almost no residual degrees of freedom.
_LEAST_POINTS = 5


@dataclass(frozen=True)
class PowerLaw:
    """A straight line through a spectrum on doubly logarithmic axes.

    Attributes:
        exponent: `α` in `λₖ ∝ k^-α`.
        standard_error: Standard error of the exponent, from the scatter about the line. The errors
            of neighbouring eigenvalues depend on each other. So it measures how straight the line
            is, not how certain the exponent is. For the latter, see the interval from `spectrum`.
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
    """Compute the effective rank by entropy: the number of directions that activations fill.

    It is `exp(-Σ pₖ ln pₖ)` with `pₖ = σₖ / Σ σ` for singular values `σₖ`. It goes from 1, if all
    rows lie on a line, to `min(n - 1, d)`, if all singular values are equal. It never exceeds the
    number of examples. It is too low if examples are not many times the effective rank.

    Args:
        x: One row per example.
        centre: Whether to subtract the mean first, so that only the spread counts, as in every
            kernel estimate. The source does not. In language models the mean is often longer than
            any deviation from it.

    Returns:
        The effective rank, in directions. NaN if the activations do not vary.

    Source:
        Garrido et al. (2023), arXiv:2210.02885; Roy and Vetterli (2007), EUSIPCO.

    Examples:
        >>> x = torch.eye(8).repeat(2, 1)
        >>> round(rankme(x, centre=False), 6), round(rankme(x), 6)
        (8.0, 7.0)
    """
    return rankme_of(eigenvalues(x, centre=centre))


def participation_ratio(x: Float[Tensor, "example d"]) -> float:
    """Compute the participation ratio, `(Σ λ)² / Σ λ²`.

    It is the number of directions that hold the variance, from 1 to `d`. Large eigenvalues count
    more than in `rankme`: a single outlier direction brings it to 1.

    Returns:
        The participation ratio, in directions. NaN if the activations do not vary.

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
    """Fit the exponent `α` of a power law `λₖ ∝ k^-α` to the eigenvalues of the covariance.

    This is a line through `ln λₖ` over `ln k`, by least squares with weights `1/k`, from eigenvalue
    `first` to eigenvalue `last`. Only the larger half of the eigenvalues is used, since there are
    too few examples to estimate the smallest ones. A large exponent means a steep spectrum, with
    few directions. `r2` shows whether there is a power law at all.

    Args:
        x: One row per example.
        first: First eigenvalue of the fit, counted from 1.
        last: Last eigenvalue of the fit.

    Returns:
        The line. Its values are NaN if the fit has fewer than 5 eigenvalues.

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
    """Compute the IsoScore: how evenly the variance is spread over all directions.

    It is 0 if all variance is in one direction, and 1 if it is the same in all. Rudman et al.
    define it by the distance between two diagonals: that of the covariance in principal axes,
    normalised, and that of the identity. This simplifies to `(PR - 1) / (d - 1)` with the
    participation ratio `PR`.

    Returns:
        The IsoScore. NaN if the activations do not vary, or have one dimension.

    Source:
        Rudman et al. (2022), arXiv:2108.07344.

    Examples:
        >>> x = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> isoscore(x), isoscore(x * torch.tensor([1.0, 0.0]))
        (1.0, 0.0)
    """
    return isoscore_of(participation_ratio(x), x.shape[1])


def mean_cosine(x: Float[Tensor, "example d"]) -> float:
    """Compute the mean cosine between two activations, over all pairs.

    The activations are not centred. If all share a large mean, the mean cosine is near 1. Rows of
    length 0 have cosine 0 with all others.

    Returns:
        The mean cosine. NaN for fewer than two examples.

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
    """Compute the eigenvalues of the covariance `Xᵀ X / n`, in descending order.

    `Xᵀ X` and `X Xᵀ` have the same eigenvalues above 0. The smaller of the two is decomposed.
    """
    values = x.double()
    if centre:
        values = values - values.mean(dim=0)
    n, d = values.shape
    product = values.T @ values if d <= n else values @ values.T
    ascending: Tensor = torch.linalg.eigvalsh(product)
    return ascending.flip(0).clamp_min(0) / n


def rankme_of(spectrum: Float[Tensor, " value"]) -> float:
    """Compute `rankme` from eigenvalues."""
    lengths = above_rounding(spectrum).sqrt()
    if not len(lengths):
        return nan
    p = lengths / lengths.sum()
    return float(torch.exp(-(p * p.log()).sum()))


def participation_ratio_of(spectrum: Float[Tensor, " value"]) -> float:
    """Compute `participation_ratio` from eigenvalues."""
    significant = above_rounding(spectrum)
    if not len(significant):
        return nan
    return float(significant.sum() ** 2 / significant.square().sum())


def isoscore_of(ratio: float, d: int) -> float:
    """Compute `isoscore` from the participation ratio."""
    return (ratio - 1) / (d - 1) if d > 1 else nan


def power_law_of(spectrum: Float[Tensor, " value"], first: int, last: int) -> PowerLaw:
    """Compute `spectrum_exponent` from eigenvalues."""
    significant = above_rounding(spectrum)
    last = min(last, len(significant) // 2)
    if last - first + 1 < _LEAST_POINTS:
        return PowerLaw(nan, nan, nan, first, last)
    k = torch.arange(first, last + 1, dtype=torch.float64)
    y = significant[first - 1 : last].log()
    slopes = slope_weights(first, last)
    slope = float(slopes @ y)
    weights = 1 / k / (1 / k).sum()
    centred = y - weights @ y
    residuals = centred - slope * (k.log() - weights @ k.log())
    total = float(weights @ centred.square())
    unexplained = float(weights @ residuals.square())
    variance = float(residuals.square().sum()) / (len(k) - 2)
    error = float(slopes.square().sum() * variance) ** 0.5
    return PowerLaw(-slope, error, 1 - unexplained / total if total > 0 else nan, first, last)


def slope_weights(first: int, last: int) -> Float[Tensor, " value"]:
    """Compute the coefficient of each `ln λₖ` in the slope of the line, with weights `1/k`."""
    k = torch.arange(first, last + 1, dtype=torch.float64)
    weights = 1 / k / (1 / k).sum()
    centred = k.log() - weights @ k.log()
    return weights * centred / (weights @ centred.square())


def above_rounding(spectrum: Float[Tensor, " value"]) -> Float[Tensor, " significant"]:
    """Select the eigenvalues that are larger than rounding. There are none if nothing varies."""
    largest = spectrum.max() if len(spectrum) else 0.0
    return spectrum[(spectrum > ROUNDING * largest) & (spectrum > 0)]


def unit_rows(x: Float[Tensor, "example d"]) -> Float[Tensor, "example d"]:
    """Scale rows to length 1, in float64. Rows of length 0 stay."""
    return torch.nn.functional.normalize(x.double(), dim=1, eps=1e-300)


def check_range(first: int, last: int) -> None:
    """Check a range of eigenvalues.

    Raises:
        ValueError: `first` or `last` is not a whole number from 1, or `last` is below `first`.
    """
    hint = "Eigenvalues are counted from 1, the largest."
    if checked_count("first", first, hint=hint) > checked_count("last", last, hint=hint):
        raise ValueError(
            f"`first` must not be above `last`, got first={first} and last={last}. {hint}"
        )
