"""Probes by ridge regression of the label on the activations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tlens_trust.arguments import checked_grid
from tlens_trust.measures.classifier import check_training_rows
from tlens_trust.measures.cross_validation import ProbeMeasure
from tlens_trust.measures.directions.cross_fitting import DirectionCrossFitter
from tlens_trust.measures.directions.fitter import FittedDirection
from tlens_trust.measures.directions.ridge_path import RidgePath, feature_scale
from tlens_trust.measures.probe import LinearProbe

# From 0.001 to 1000, two for each power of ten.
DEFAULT_PENALTIES = tuple(float(10 ** (exponent / 2)) for exponent in range(-6, 7))


def fit_ridge_probe(
    activations: Float[Tensor, "example d_model"],
    labels: Int[Tensor, " example"],
    *,
    groups: Sequence[str] | None = None,
    penalty: float | Sequence[float] = DEFAULT_PENALTIES,
    standardise: bool = True,
) -> LinearProbe:
    """Fit a ridge-regression probe for one concept at one site.

    The direction minimises `(1/n) Σᵢ (yᵢ - b - v·zᵢ)² + α‖v‖²`, with `zᵢ` the activation
    standardised feature by feature over the given rows. On centred rows the solution is
    `v = (ZᵀZ + nαI)⁻¹Zᵀ(y - ȳ)`, which is scikit-learn's `Ridge(alpha=n * α)`.

    Of several penalties `α`, the one with the smallest squared error on left-out groups is chosen.
    These errors have a closed form, so that nothing is refitted. Slope and offset of the log-odds
    are fitted on scores of left-out groups too. The standardisation is folded back into direction
    and bias. Deterministic.

    Args:
        activations: One row per statement, in the model's own units.
        labels: 1 where the statement is on the trustworthy side, else 0.
        groups: The group of each row, left out as a whole; None if each row is its own group.
        penalty: `α`, or several to choose from. Positive.
        standardise: Whether to scale each feature to unit variance first. Without scaling, a
            rotation of activation space does not change the scores.

    Returns:
        A probe of log-odds in nats.

    Raises:
        ValueError: `activations` holds a NaN or an infinity, `labels` lacks 0 or 1, or a penalty
            is not positive.

    Source:
        Hoerl and Kennard (1970), Technometrics 12; Golub, Heath and Wahba (1979), Technometrics
        21, for the left-out residuals.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> labels = torch.arange(200) % 2
        >>> activations = torch.randn(200, 8, generator=generator)
        >>> activations[:, 3] += 3 * labels
        >>> int(fit_ridge_probe(activations, labels).direction.abs().argmax())
        3
    """
    fitter = RidgeFitter(checked_penalties(penalty), standardise)
    return fitter(activations, labels, groups).probe


def checked_penalties(penalty: float | Sequence[float]) -> tuple[float, ...]:
    """Check penalties, and return them in ascending order without repetition.

    Raises:
        ValueError: There is none, or one is not positive.
    """
    hint = "It is the strength of the ridge: the larger, the stronger."
    return checked_grid("penalty", penalty, single=True, hint=hint)


@dataclass(frozen=True)
class RidgeFitter:
    """Fits ridge probes whose penalty is chosen on left-out groups of the training rows.

    Attributes:
        penalties: The penalties to choose from, in ascending order. Of equally good ones, the
            largest is chosen.
        standardise: Whether to scale each feature first.
    """

    penalties: tuple[float, ...] = DEFAULT_PENALTIES
    standardise: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "penalties", checked_penalties(self.penalties))

    @property
    def identity(self) -> str:
        """Name penalties and scaling."""
        return f"penalty={list(self.penalties)}, standardise={self.standardise}"

    @property
    def report_attributes(self) -> Mapping[str, dict[str, str]]:
        """Describe the logarithm of the penalty."""
        return {
            "log10_penalty": {
                "units": "1",
                "long_name": "decimal logarithm of the chosen penalty, mean over the folds",
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
        width = activations.shape[1]
        scale = (
            feature_scale(activations)
            if self.standardise
            else torch.ones(width, dtype=torch.float64, device=activations.device)
        )
        path = RidgePath.of(activations, labels, groups, scale=scale)
        rows = len(labels)
        errors = [float(path.left_out(rows * p)[0].square().mean()) for p in self.penalties]
        best = max(range(len(errors)), key=lambda number: (-errors[number], number))
        penalty = self.penalties[best]
        return FittedDirection(
            path.probe(rows * penalty), {"log10_penalty": float(np.log10(penalty))}
        )


def ridge_probe(
    *,
    penalty: float | Sequence[float] = DEFAULT_PENALTIES,
    folds: int = 5,
    resamples: int = 1000,
    permutations: int = 2000,
    floor: bool = True,
) -> ProbeMeasure:
    """The ridge probe as a measure: grouped cross-validation at every site.

    Args:
        penalty: The penalty, or several to choose from on left-out groups of the training folds.
        folds: The number of folds that the groups are dealt into. At least 2.
        resamples: The number of bootstrap resamples behind an interval.
        permutations: The number of permutations of the labels behind a p-value.
        floor: Whether to classify the statements by their text alone as well.

    Returns:
        A measure named `ridge`.

    Raises:
        ValueError: A penalty is not positive.

    Examples:
        >>> ridge_probe().name
        'ridge'
    """
    fitter = DirectionCrossFitter(RidgeFitter(checked_penalties(penalty)))
    return ProbeMeasure("ridge", fitter, folds, resamples, permutations, floor)
