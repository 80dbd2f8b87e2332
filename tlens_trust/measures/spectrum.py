"""Effective rank, power law, norms and isotropy at every site of a sweep."""

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

_DESCRIBED = {
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
    """A value, and by how much each example moves it, to first order in its weight."""

    value: float
    influence: Float[Tensor, " example"]


@dataclass(frozen=True)
class SpectrumMeasure:
    """The shape of the cloud of activations at every site: a `Measure`.

    Attributes:
        first: First eigenvalue of the power law's fit.
        last: Last eigenvalue of the power law's fit.
        resamples: How many half samples stand behind an interval.
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
        """Name and every parameter that changes the result."""
        return (
            f"{self.name}(first={self.first}, last={self.last}, resamples={self.resamples}, "
            "version=1)"
        )

    def __call__(self, activations: Activations, concept: Concept, *, seed: int) -> xr.Dataset:
        """Measure at every site.

        Args:
            activations: One reading per statement of the concept, in its order.
            concept: Gives the groups; labels are not looked at.
            seed: Draws half samples, the same ones at every site and checkpoint.

        Returns:
            See `spectrum`.

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
        values = {name: np.full(len(activations.sites), nan) for name in _DESCRIBED}
        intervals = {name: np.full((len(activations.sites), 2), nan) for name in _DESCRIBED}
        r2 = np.full(len(activations.sites), nan)
        last = np.full(len(activations.sites), nan)
        for site in range(len(activations.sites)):
            found, r2[site], last[site] = self._measure(activations.values[:, site])
            for name, estimate in found.items():
                moved = (shares @ (estimate.influence - estimate.influence.mean())).numpy()
                values[name][site] = estimate.value
                intervals[name][site] = halves.interval(
                    estimate.value, halves.replicates_about(estimate.value, moved)
                )
        return self._labelled(activations.sites, len(concept), values, intervals, r2, last)

    def _measure(self, x: Float[Tensor, "example d"]) -> tuple[dict[str, _Estimate], float, float]:
        """All of one site, from one decomposition; the power law's r² and its last eigenvalue."""
        n, d = x.shape
        centred = x.double() - x.double().mean(dim=0)
        spectrum, squares = principal_squares(centred)
        known = above_rounding(spectrum)
        squares = squares[:, : len(known)]
        ratio = participation_ratio_of(known)
        law = power_law_of(known, self.first, self.last)
        none = x.new_full((n,), nan, dtype=torch.float64)
        found = {name: _Estimate(nan, none) for name in _DESCRIBED}
        if len(known):
            total = known.sum()
            by_ratio = 2 * ratio * (1 / total - known / known.square().sum())
            rank = rankme_of(known)
            lengths = known.sqrt()
            p = lengths / lengths.sum()
            # λ times the derivative by λ, which stays finite as λ goes to 0.
            by_rank = -rank * (p.log() + np.log(rank)) * p / 2
            found["rankme"] = _Estimate(rank, squares @ (by_rank / known))
            found["participation_ratio"] = _Estimate(ratio, squares @ by_ratio)
            if d > 1:
                found["isoscore"] = _Estimate(isoscore_of(ratio, d), squares @ by_ratio / (d - 1))
        if law.last - law.first >= 0 and np.isfinite(law.exponent):
            fitted = slice(law.first - 1, law.last)
            by_law = -slope_weights(law.first, law.last) / known[fitted]
            found["spectrum_exponent"] = _Estimate(law.exponent, squares[:, fitted] @ by_law)
        units = unit_rows(x)
        total_unit = units.sum(dim=0)
        cosine = float((total_unit @ total_unit - units.square().sum()) / (n * (n - 1)))
        found["mean_cosine"] = _Estimate(cosine, 2 * (units @ total_unit) / n)
        found |= _norms(torch.linalg.vector_norm(x.double(), dim=1))
        return found, law.r2, float(law.last) if np.isfinite(law.exponent) else nan

    def _labelled(
        self,
        sites: Sequence[str],
        statements: int,
        values: dict[str, np.ndarray],
        intervals: dict[str, np.ndarray],
        r2: np.ndarray,
        last: np.ndarray,
    ) -> xr.Dataset:
        data: Variables = {}
        for name, (unit, long_name) in _DESCRIBED.items():
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
            last,
            units="eigenvalues",
            long_name="last eigenvalue of the power law's fit",
        )
        return xr.Dataset(data, coords={"site": list(sites), "bound": ["low", "high"]})


def principal_squares(
    centred: Float[Tensor, "example d"],
) -> tuple[Float[Tensor, " value"], Float[Tensor, "example value"]]:
    """Eigenvalues of the covariance, descending, and each example's squared coordinates.

    To first order an eigenvalue moves as the mean of the squared coordinates along its axis does,
    so that one decomposition tells what it would be on any half of the examples.
    """
    n, d = centred.shape
    if d <= n:
        found, axes = torch.linalg.eigh(centred.T @ centred)
        return found.flip(0).clamp_min(0) / n, (centred @ axes.flip(1)).square()
    found, vectors = torch.linalg.eigh(centred @ centred.T)
    found = found.flip(0).clamp_min(0)
    return found / n, vectors.flip(1).square() * found


def _norms(norms: Float[Tensor, " example"]) -> dict[str, _Estimate]:
    mean, square = float(norms.mean()), float(norms.square().mean())
    deviation = float(norms.std(correction=0))
    about = (norms - mean).square() - deviation**2
    by_deviation = about / (2 * deviation) if deviation > 0 else torch.zeros_like(norms)
    root = square**0.5
    by_root = (norms.square() - square) / (2 * root) if root > 0 else torch.zeros_like(norms)
    return {
        "norm_mean": _Estimate(mean, norms - mean),
        "norm_rms": _Estimate(root, by_root),
        "norm_sd": _Estimate(deviation, by_deviation),
    }


def spectrum(*, first: int = 11, last: int = 100, resamples: int = 32) -> SpectrumMeasure:
    """The shape of the cloud of activations at every site, as a measure of a sweep.

    What a kernel estimate of dependence may move with though no information does. One decomposition
    a site. It gives, along `site`, each with `…_ci` and `…_n`:

    - `rankme` and `participation_ratio`, effective ranks, in directions;
    - `spectrum_exponent`, the exponent of the covariance's power law, with
      `spectrum_exponent_r2`, and `spectrum_exponent_last`, how far the fit goes;
    - `isoscore` and `mean_cosine`, isotropy;
    - `norm_mean`, `norm_rms` and `norm_sd`, lengths, in the model's own units.

    Intervals come of half samples of the groups, to first order in the examples' weights: an
    eigenvalue moves as the mean of squared coordinates along its axis. They tell how far other
    statements of this kind would move a value, and nothing of its bias: with fewer than a few
    examples for each direction filled, effective ranks are too low and spectra too steep. There,
    eigenvalues lie closer together than they err, and the intervals of the exponent come out up to
    twice too wide.

    Args:
        first: First eigenvalue of the power law's fit, counted from 1.
        last: Last eigenvalue of the power law's fit; never beyond half of those there are.
        resamples: How many half samples.

    Raises:
        ValueError: `first` and `last` are no range, or `resamples` is less than 2.

    Source:
        Those of `rankme`, `participation_ratio`, `spectrum_exponent`, `isoscore`, `mean_cosine`;
        Li et al. (2025), arXiv:2509.23024, follow the first and third along pre-training.

    Examples:
        >>> spectrum().name
        'spectrum'
    """
    return SpectrumMeasure(first, last, resamples)
