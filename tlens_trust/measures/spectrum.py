"""Effective rank, power law, norms and isotropy at every site: a measure."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from tlens_trust.activations import Activations
from tlens_trust.arguments import check_counts
from tlens_trust.concepts import Concept
from tlens_trust.measures.geometry import (
    above_rounding,
    check_range,
    isoscore_of,
    participation_ratio_of,
    power_law_of,
    rankme_of,
    slope_weights,
    unit_rows,
)
from tlens_trust.measures.labelled import Variables, labelled
from tlens_trust.measures.resampling import HalfSamples

_DESCRIPTIONS = {
    "rankme": ("directions", "effective rank by entropy (RankMe)"),
    "participation_ratio": ("directions", "participation ratio of the covariance's eigenvalues"),
    "spectrum_exponent": ("1", "exponent α of a power law of the covariance's eigenvalues"),
    "isoscore": ("1", "IsoScore: how evenly variance is spread over all directions"),
    "mean_cosine": ("1", "mean cosine of two activations' directions"),
    "norm_mean": ("activation units", "mean length of an activation"),
    "norm_rms": ("activation units", "root mean square length of an activation"),
    "norm_sd": ("activation units", "standard deviation of the lengths of activations"),
}


@dataclass(frozen=True, eq=False)
class _Estimate:
    """A value, and the first-order effect of the weight of each example on it."""

    value: float
    influence: Float[Tensor, " example"]


@dataclass(frozen=True)
class SpectrumMeasure:
    """Effective rank, power law, norms and isotropy of activations: a `Measure`.

    Attributes:
        first: First eigenvalue of the fit of the power law.
        last: Last eigenvalue of the fit of the power law.
        resamples: The number of half samples behind an interval.
    """

    first: int = 11
    last: int = 100
    resamples: int = 32

    def __post_init__(self) -> None:
        check_range(self.first, self.last)
        check_counts(self, {"first": 1, "last": 1, "resamples": 2})

    @property
    def name(self) -> str:
        """`spectrum`."""
        return "spectrum"

    @property
    def identity(self) -> str:
        """Give the name and every parameter that changes the result."""
        return (
            f"{self.name}(first={self.first}, last={self.last}, resamples={self.resamples}, "
            "version=1)"
        )

    def __call__(self, activations: Activations, concept: Concept, *, seed: int) -> xr.Dataset:
        """Compute the spectrum of the activations at every site.

        Args:
            activations: One row per statement of the concept, in its order.
            concept: Groups. Labels are not used.
            seed: Seed of the half samples, which are the same at every site and checkpoint.

        Returns:
            The variables that `spectrum` lists.

        Raises:
            ValueError: The activations are not of this concept's statements, or it has fewer than
                4 groups.
        """
        if len(activations) != len(concept):
            raise ValueError(
                f"The activations hold {len(activations)} statements, but concept "
                f"{concept.name!r} has {len(concept)}. Collect them from this concept."
            )
        halves = HalfSamples.draw(concept.groups, resamples=self.resamples, seed=seed)
        shares = torch.from_numpy(halves.members / halves.members.sum(axis=1, keepdims=True))
        values = {name: np.full(len(activations.sites), nan) for name in _DESCRIPTIONS}
        intervals = {name: np.full((len(activations.sites), 2), nan) for name in _DESCRIPTIONS}
        r2 = np.full(len(activations.sites), nan)
        last_eigenvalue = np.full(len(activations.sites), nan)
        for site in range(len(activations.sites)):
            estimates, r2[site], last_eigenvalue[site] = self._measure(activations.values[:, site])
            for name, estimate in estimates.items():
                changes = (shares @ (estimate.influence - estimate.influence.mean())).numpy()
                values[name][site] = estimate.value
                intervals[name][site] = halves.interval(
                    estimate.value, halves.replicates_about(estimate.value, changes)
                )
        return self._labelled(
            activations.sites, len(concept), values, intervals, r2, last_eigenvalue
        )

    def _measure(self, x: Float[Tensor, "example d"]) -> tuple[dict[str, _Estimate], float, float]:
        """Compute all values of one site from one decomposition.

        The last two results are the `r²` of the power law and the last eigenvalue of its fit.
        """
        n, d = x.shape
        centred = x.double() - x.double().mean(dim=0)
        all_eigenvalues, squares = principal_squares(centred)
        eigenvalues = above_rounding(all_eigenvalues)
        squares = squares[:, : len(eigenvalues)]
        ratio = participation_ratio_of(eigenvalues)
        law = power_law_of(eigenvalues, self.first, self.last)
        unknown = x.new_full((n,), nan, dtype=torch.float64)
        estimates = {name: _Estimate(nan, unknown) for name in _DESCRIPTIONS}
        # An influence is the sum, over eigenvalues, of the derivative by the eigenvalue times the
        # squared coordinate of the example along its axis (see `principal_squares`).
        if len(eigenvalues):
            total = eigenvalues.sum()
            ratio_slope = 2 * ratio * (1 / total - eigenvalues / eigenvalues.square().sum())
            rank = rankme_of(eigenvalues)
            lengths = eigenvalues.sqrt()
            p = lengths / lengths.sum()
            # λ times the derivative by λ, which stays finite as λ goes to 0.
            rank_slope = -rank * (p.log() + np.log(rank)) * p / 2
            estimates["rankme"] = _Estimate(rank, squares @ (rank_slope / eigenvalues))
            estimates["participation_ratio"] = _Estimate(ratio, squares @ ratio_slope)
            if d > 1:
                score = isoscore_of(ratio, d)
                estimates["isoscore"] = _Estimate(score, squares @ ratio_slope / (d - 1))
        if law.last - law.first >= 0 and np.isfinite(law.exponent):
            fit_range = slice(law.first - 1, law.last)
            law_slope = -slope_weights(law.first, law.last) / eigenvalues[fit_range]
            estimates["spectrum_exponent"] = _Estimate(
                law.exponent, squares[:, fit_range] @ law_slope
            )
        units = unit_rows(x)
        total_unit = units.sum(dim=0)
        cosine = float((total_unit @ total_unit - units.square().sum()) / (n * (n - 1)))
        estimates["mean_cosine"] = _Estimate(cosine, 2 * (units @ total_unit) / n)
        estimates |= _norms(torch.linalg.vector_norm(x.double(), dim=1))
        return estimates, law.r2, float(law.last) if np.isfinite(law.exponent) else nan

    def _labelled(
        self,
        sites: Sequence[str],
        statements: int,
        values: dict[str, np.ndarray],
        intervals: dict[str, np.ndarray],
        r2: np.ndarray,
        last_eigenvalue: np.ndarray,
    ) -> xr.Dataset:
        data: Variables = {}
        for name, (unit, long_name) in _DESCRIPTIONS.items():
            data |= labelled(
                name,
                values[name],
                units=unit,
                long_name=long_name,
                interval=intervals[name],
                n=statements,
                attributes={"first": self.first} if name == "spectrum_exponent" else {},
                resampling={"resamples": self.resamples},
            )
        data |= labelled(
            "spectrum_exponent_r2",
            r2,
            units="1",
            long_name="share of the variance of ln λ that the power law explains",
        )
        data |= labelled(
            "spectrum_exponent_last",
            last_eigenvalue,
            units="eigenvalues",
            long_name="last eigenvalue of the power law's fit",
        )
        return xr.Dataset(data, coords={"site": list(sites), "bound": ["low", "high"]})


def principal_squares(
    centred: Float[Tensor, "example d"],
) -> tuple[Float[Tensor, " value"], Float[Tensor, "example value"]]:
    """Compute the eigenvalues of the covariance, and squared coordinates along principal axes.

    To first order, an eigenvalue changes as the mean of the squared coordinates along its axis. So
    one decomposition gives the eigenvalues on any half of the examples. They are in descending
    order.
    """
    n, d = centred.shape
    if d <= n:
        ascending, axes = torch.linalg.eigh(centred.T @ centred)
        return ascending.flip(0).clamp_min(0) / n, (centred @ axes.flip(1)).square()
    # The eigenvectors of `X Xᵀ`, times the singular values, are the coordinates themselves.
    ascending, vectors = torch.linalg.eigh(centred @ centred.T)
    sums_of_squares = ascending.flip(0).clamp_min(0)
    return sums_of_squares / n, vectors.flip(1).square() * sums_of_squares


def _norms(norms: Float[Tensor, " example"]) -> dict[str, _Estimate]:
    mean, square = float(norms.mean()), float(norms.square().mean())
    deviation = float(norms.std(correction=0))
    # The derivative of a square root is that of its square, over twice the root.
    zero = torch.zeros_like(norms)
    excess = (norms - mean).square() - deviation**2
    deviation_influence = excess / (2 * deviation) if deviation > 0 else zero
    root = square**0.5
    root_influence = (norms.square() - square) / (2 * root) if root > 0 else zero
    return {
        "norm_mean": _Estimate(mean, norms - mean),
        "norm_rms": _Estimate(root, root_influence),
        "norm_sd": _Estimate(deviation, deviation_influence),
    }


def spectrum(*, first: int = 11, last: int = 100, resamples: int = 32) -> SpectrumMeasure:
    """Effective rank, power law, norms and isotropy of activations as a measure.

    A kernel estimate of dependence may change with these although information does not. They take
    one decomposition per site. All variables are along `site`, with `…_ci` and `…_n`.

    `rankme` and `participation_ratio` are effective ranks, in directions. `spectrum_exponent` is
    the exponent of the power law of the covariance. `spectrum_exponent_r2` describes its fit, and
    `spectrum_exponent_last` is the last eigenvalue of the fit; neither has an interval. `isoscore`
    and `mean_cosine` measure isotropy. `norm_mean`, `norm_rms` and `norm_sd` describe the lengths
    of activations, in the units of the model.

    Intervals come from half samples of the groups, to first order in the weights of the examples:
    an eigenvalue changes as the mean of squared coordinates along its axis. They describe the
    variation between samples of statements, not the bias. If examples are not many times the
    effective rank, effective ranks are too low and spectra too steep. Then eigenvalues are closer
    together than their errors, and the intervals of the exponent are up to twice too wide.

    Args:
        first: First eigenvalue of the fit of the power law, counted from 1.
        last: Last eigenvalue of the fit. At most half of the eigenvalues are used.
        resamples: The number of half samples.

    Raises:
        ValueError: `first` and `last` are no range, or `resamples` is less than 2.

    Source:
        The sources of `rankme`, `participation_ratio`, `spectrum_exponent`, `isoscore` and
        `mean_cosine`. Li et al. (2025), arXiv:2509.23024, follow the first and the third along
        pre-training.

    Examples:
        >>> spectrum().name
        'spectrum'
    """
    return SpectrumMeasure(first, last, resamples)
