"""Linear discriminant analysis: the difference of the means, whitened."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from sklearn.covariance import ledoit_wolf_shrinkage
from torch import Tensor

from tlens_trust.arguments import checked_fraction
from tlens_trust.measures.classifier import check_training_rows
from tlens_trust.measures.cross_validation import ProbeMeasure
from tlens_trust.measures.directions.cross_fitting import DirectionCrossFitter
from tlens_trust.measures.directions.fitter import FittedDirection
from tlens_trust.measures.directions.ridge_path import RidgePath, feature_scale
from tlens_trust.measures.probe import LinearProbe

# The ridge penalty of the equivalent regression is proportional to `s / (1 - s)`. It is infinite at
# a shrinkage of 1. At 0 there is no penalty, and the regression may be singular.
_LARGEST_SHRINKAGE = 1 - 1e-9
_SMALLEST_SHRINKAGE = 1e-9


def fit_lda_probe(
    activations: Float[Tensor, "example d_model"],
    labels: Int[Tensor, " example"],
    *,
    groups: Sequence[str] | None = None,
    shrinkage: float | None = None,
    standardise: bool = True,
) -> LinearProbe:
    """Fit linear discriminant analysis for one concept at one site.

    The direction is `Σ̂⁻¹(μ₁ - μ₀)`. Here `Σ̂ = (1 - s)S + s (tr S / d) I` is the shrunk covariance
    within labels, with `S = (1/n) Σᵢ (zᵢ - μ_yᵢ)(zᵢ - μ_yᵢ)ᵀ`. Activations `z` are scaled feature
    by feature to unit variance within labels. Unless given, `s` is Ledoit and Wolf's estimate of
    the best shrinkage. The direction equals that of scikit-learn's
    `LinearDiscriminantAnalysis(solver="lsqr", shrinkage=s)` on `z`.

    With many features, the log-odds that follow from LDA's Gaussians are far too large. Slope and
    offset are therefore fitted by logistic regression on scores of left-out groups. These scores
    have a closed form, since the direction is that of a ridge regression with the penalty
    `n s (tr S / d) / (1 - s)`. `s` is estimated once, and not again for each left-out group.
    Deterministic.

    Args:
        activations: One row per statement, in the model's own units.
        labels: 1 where the statement is on the trustworthy side, else 0.
        groups: The group of each row, left out as a whole; None if each row is its own group.
        shrinkage: `s`, between 0 and 1; None for Ledoit and Wolf's estimate.
        standardise: Whether to scale each feature first. Without scaling, a rotation of activation
            space does not change the scores.

    Returns:
        A probe of log-odds in nats.

    Raises:
        ValueError: `activations` holds a NaN or an infinity, `labels` lacks 0 or 1, or
            `shrinkage` is outside 0 to 1.

    Source:
        Fisher (1936); Ledoit and Wolf (2004), Journal of Multivariate Analysis 88.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> labels = torch.arange(200) % 2
        >>> noise = torch.randn(200, 2, generator=generator)
        >>> activations = torch.stack([noise[:, 0] + labels, noise[:, 0] + 0.1 * noise[:, 1]], 1)
        >>> probe = fit_lda_probe(activations, labels, shrinkage=0.0)
        >>> bool(probe.direction[0] > 0 > probe.direction[1])  # The second cancels the noise.
        True
    """
    return LDAFitter(shrinkage, standardise)(activations, labels, groups).probe


@dataclass(frozen=True)
class LDAFitter:
    """Fits discriminant analysis with a shrunk covariance.

    Attributes:
        shrinkage: Between 0 and 1; None for Ledoit and Wolf's estimate.
        standardise: Whether to scale each feature first.
    """

    shrinkage: float | None = None
    standardise: bool = True

    def __post_init__(self) -> None:
        if self.shrinkage is not None:
            hint = (
                "0 is the unchanged covariance, 1 a multiple of the identity. Leave it out for "
                "Ledoit and Wolf's estimate."
            )
            shrinkage = checked_fraction("shrinkage", self.shrinkage, hint=hint)
            object.__setattr__(self, "shrinkage", shrinkage)

    @property
    def identity(self) -> str:
        """Name shrinkage and scaling."""
        return f"shrinkage={self.shrinkage}, standardise={self.standardise}"

    @property
    def report_attributes(self) -> Mapping[str, dict[str, str]]:
        """Describe the shrinkage."""
        return {
            "shrinkage": {
                "units": "1",
                "long_name": "weight of the identity in the covariance, mean over the folds",
            }
        }

    def __call__(
        self,
        activations: Float[Tensor, "example d_model"],
        labels: Int[Tensor, " example"],
        groups: Sequence[str] | None,
    ) -> FittedDirection:
        """Fit on the given rows."""
        check_training_rows(activations, labels, groups)
        scale = feature_scale(activations, labels)
        if not self.standardise:
            scale = torch.ones_like(scale)
        deviations = activations.double() / scale
        for label in (0, 1):
            deviations[labels == label] -= deviations[labels == label].mean(dim=0)
        shrinkage = self.shrinkage
        if shrinkage is None:
            array = deviations.cpu().numpy()
            shrinkage = float(ledoit_wolf_shrinkage(array, assume_centered=True))
        shrinkage_inside = min(max(shrinkage, _SMALLEST_SHRINKAGE), _LARGEST_SHRINKAGE)
        # `tr S / d`. The penalty of the equivalent ridge regression follows from it.
        mean_variance = float(deviations.square().mean())
        path = RidgePath.of(activations, labels, groups, scale=scale)
        ridge = (
            len(labels)
            * max(mean_variance, torch.finfo(torch.float64).tiny)
            * shrinkage_inside
            / (1 - shrinkage_inside)
        )
        return FittedDirection(path.probe(ridge), {"shrinkage": shrinkage})


def lda_probe(
    *,
    shrinkage: float | None = None,
    folds: int = 5,
    resamples: int = 1000,
    permutations: int = 2000,
    floor: bool = True,
) -> ProbeMeasure:
    """Linear discriminant analysis as a measure: grouped cross-validation at every site.

    Args:
        shrinkage: Between 0 and 1; None for Ledoit and Wolf's estimate on the training rows.
        folds: The number of folds that the groups are dealt into. At least 2.
        resamples: The number of bootstrap resamples behind an interval.
        permutations: The number of permutations of the labels behind a p-value.
        floor: Whether to classify the statements by their text alone as well.

    Returns:
        A measure named `lda`.

    Raises:
        ValueError: `shrinkage` is outside 0 to 1.

    Examples:
        >>> lda_probe().name
        'lda'
    """
    fitter = DirectionCrossFitter(LDAFitter(shrinkage))
    return ProbeMeasure("lda", fitter, folds, resamples, permutations, floor)
