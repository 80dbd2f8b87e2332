"""Sparse probes: logistic regression on a few coordinates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tlens_trust.arguments import checked_choice, checked_count, checked_positive
from tlens_trust.measures.classifier import check_training_rows
from tlens_trust.measures.cross_validation import ProbeMeasure
from tlens_trust.measures.directions.calibrated import calibrate_probe
from tlens_trust.measures.directions.cross_fitting import DirectionCrossFitter
from tlens_trust.measures.directions.fitter import FittedDirection
from tlens_trust.measures.directions.ridge_path import feature_scale
from tlens_trust.measures.probe import LinearProbe, fit_logistic_probe

_RANKINGS = ("mean_difference", "adaptive")

# Adaptive thresholding starts from this many coordinates, those whose class means differ most. A
# logistic regression on all coordinates of a wide site would be slow.
_SCREENED = 512


def choose_coordinates(
    activations: Float[Tensor, "example d_model"],
    labels: Int[Tensor, " example"],
    k: int,
    *,
    ranking: str = "mean_difference",
    C: float = 1.0,
) -> Int[Tensor, " k"]:
    """Choose the coordinates of a sparse probe, from the given rows only.

    `"mean_difference"` chooses the coordinates with the largest `|μ₁ - μ₀| / σ`, with `σ` the
    deviation within labels. `"adaptive"` fits a logistic regression to the best 512 of these, and
    keeps the half with the largest weights on standardised features. It repeats this until `k`
    are left. Of several redundant coordinates it keeps fewer.

    Args:
        activations: One row per statement.
        labels: 0 or 1; both occur.
        k: The number of coordinates. If there are fewer, all are chosen.
        ranking: `"mean_difference"` or `"adaptive"`.
        C: Inverse penalty strength of the logistic regressions.

    Returns:
        Coordinates from 0, in ascending order.

    Source:
        Gurnee et al. (2023), arXiv:2305.01610, section 3 and appendix.

    Examples:
        >>> labels = torch.arange(100) % 2
        >>> activations = torch.randn(100, 6, generator=torch.Generator().manual_seed(0))
        >>> activations[:, [1, 4]] += 2 * labels.unsqueeze(1)
        >>> choose_coordinates(activations, labels, 2).tolist()
        [1, 4]
    """
    values = activations.double()
    scale = feature_scale(activations, labels)
    means = [values[labels == label].mean(dim=0) for label in (0, 1)]
    strength = (means[1] - means[0]).abs() / scale
    coordinates = _largest(strength, k if ranking == "mean_difference" else max(k, _SCREENED))
    while len(coordinates) > k:
        probe = fit_logistic_probe(activations[:, coordinates], labels, C=C)
        largest = _largest(
            (probe.direction * scale[coordinates]).abs(), max(k, len(coordinates) // 2)
        )
        coordinates = coordinates[largest]
    return coordinates


def _largest(strength: Float[Tensor, " d_model"], k: int) -> Int[Tensor, " k"]:
    """Return the positions of the `k` largest values. Of equal values, the earliest are chosen."""
    order = torch.argsort(strength, descending=True, stable=True)
    return order[:k].sort().values


def fit_sparse_probe(
    activations: Float[Tensor, "example d_model"],
    labels: Int[Tensor, " example"],
    *,
    k: int = 16,
    groups: Sequence[str] | None = None,
    ranking: str = "mean_difference",
    C: float = 1.0,
) -> LinearProbe:
    """Fit a k-sparse logistic probe for one concept at one site.

    Chooses `k` coordinates (see `choose_coordinates`) and minimises the objective of
    `fit_logistic_probe` over them. The direction is zero elsewhere. On the rows that they were
    chosen on, coordinates look better than they are. The log-odds are therefore scaled on left-out
    groups, with coordinates chosen again without each of these. Deterministic.

    The probe shows how concentrated a concept is in the basis of the site. This basis is
    privileged for MLP neurons, and less so for the residual stream.

    Args:
        activations: One row per statement, in the model's own units.
        labels: 1 where the statement is on the trustworthy side, else 0.
        k: The number of coordinates. At least 1.
        groups: The group of each row, left out as a whole; None if each row is its own group.
        ranking: `"mean_difference"` or `"adaptive"`, as `choose_coordinates` describes.
        C: Inverse penalty strength on the standardised coordinates, as in scikit-learn.

    Returns:
        A probe of log-odds in nats.

    Raises:
        ValueError: `activations` holds a NaN or an infinity, `labels` lacks 0 or 1, `k` is less
            than 1, or `ranking` is none of the two.

    Source:
        Gurnee et al. (2023), Finding neurons in a haystack, arXiv:2305.01610.

    Examples:
        >>> labels = torch.arange(100) % 2
        >>> activations = torch.randn(100, 6, generator=torch.Generator().manual_seed(0))
        >>> activations[:, [1, 4]] += 2 * labels.unsqueeze(1)
        >>> fit_sparse_probe(activations, labels, k=2).direction.nonzero().flatten().tolist()
        [1, 4]
    """
    return SparseFitter(k, ranking, C)(activations, labels, groups).probe


@dataclass(frozen=True)
class SparseFitter:
    """Fits logistic probes on `k` coordinates, which are chosen on the training rows.

    Attributes:
        k: The number of coordinates.
        ranking: The rule by which they are chosen.
        C: Inverse penalty strength.
    """

    k: int = 16
    ranking: str = "mean_difference"
    C: float = 1.0

    def __post_init__(self) -> None:
        k = checked_count("k", self.k, hint="It is how many coordinates a probe uses.")
        C = checked_positive("C", self.C, hint="It is the inverse strength of the penalty.")
        checked_choice("ranking", self.ranking, _RANKINGS)
        object.__setattr__(self, "k", k)
        object.__setattr__(self, "C", C)

    @property
    def identity(self) -> str:
        """Name every parameter."""
        return f"k={self.k}, ranking={self.ranking}, C={self.C}"

    @property
    def report_attributes(self) -> Mapping[str, dict[str, str]]:
        """Return an empty mapping, since the fit reports no number."""
        return {}

    def __call__(
        self,
        activations: Float[Tensor, "example d_model"],
        labels: Int[Tensor, " example"],
        groups: Sequence[str] | None,
    ) -> FittedDirection:
        """Fit on the given rows."""
        check_training_rows(activations, labels, groups)

        def fit(values: Tensor, targets: Tensor, names: Sequence[str]) -> LinearProbe:
            coordinates = choose_coordinates(
                values, targets, self.k, ranking=self.ranking, C=self.C
            )
            narrow = fit_logistic_probe(values[:, coordinates], targets, C=self.C)
            direction = torch.zeros(values.shape[1], dtype=torch.float64, device=values.device)
            direction[coordinates] = narrow.direction
            return LinearProbe(direction, narrow.bias)

        return FittedDirection(calibrate_probe(fit, activations, labels, groups), {})


def sparse_probe(
    k: int = 16,
    *,
    ranking: str = "mean_difference",
    C: float = 1.0,
    folds: int = 5,
    resamples: int = 1000,
    permutations: int = 2000,
    floor: bool = True,
) -> ProbeMeasure:
    """The k-sparse probe as a measure: grouped cross-validation at every site.

    Args:
        k: The number of coordinates. They are chosen again on the training rows of every fold.
        ranking: `"mean_difference"` or `"adaptive"`, as `choose_coordinates` describes.
        C: Inverse penalty strength.
        folds: The number of folds that the groups are dealt into. At least 2.
        resamples: The number of bootstrap resamples behind an interval.
        permutations: The number of permutations of the labels behind a p-value.
        floor: Whether to classify the statements by their text alone as well.

    Returns:
        A measure named `sparse_` and `k`, so that several can run side by side.

    Raises:
        ValueError: `k` is less than 1, or `ranking` is neither.

    Examples:
        >>> [sparse_probe(k).name for k in (1, 16)]
        ['sparse_1', 'sparse_16']
    """
    fitter = SparseFitter(k, ranking, C)
    name = f"sparse_{fitter.k}" + ("_adaptive" if ranking == "adaptive" else "")
    cross_fitter = DirectionCrossFitter(fitter)
    return ProbeMeasure(name, cross_fitter, folds, resamples, permutations, floor)
