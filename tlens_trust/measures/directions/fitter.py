"""What all directions share: the fitter, its result, and a scikit-learn classifier."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, no_type_check, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from tlens_trust.measures.classifier import ProbeClassifier
from tlens_trust.measures.probe import LinearProbe


@dataclass(frozen=True, eq=False)
class FittedDirection:
    """A probe, and the numbers that its fit reports.

    Attributes:
        probe: Direction and bias.
        report: Numbers by name.
    """

    probe: LinearProbe
    report: Mapping[str, float]


@runtime_checkable
class DirectionFitter(Protocol):
    """Fits one kind of direction."""

    @property
    def identity(self) -> str:
        """Every parameter that changes the probe."""

    @property
    def report_attributes(self) -> Mapping[str, dict[str, str]]:
        """`units` and `long_name` of each number in a fit's report."""

    def __call__(
        self,
        activations: Float[Tensor, "example d_model"],
        labels: Int[Tensor, " example"],
        groups: Sequence[str] | None,
    ) -> FittedDirection:
        """Fit on the given rows only. If `groups` is None, each row is its own group."""


class DirectionProbe(ProbeClassifier):
    """Any kind of direction, calibrated to log-odds, as a scikit-learn classifier.

    Args:
        fitter: Fits the direction: an `LDAFitter`, `RidgeFitter`, `SparseFitter`,
            `PairDifferenceFitter`, `ContrastConsistentFitter`, or one of your own. The fitters of
            pair differences and of contrast-consistent search need groups.

    Attributes:
        coef_: The direction, of shape `(1, d_model)`.
        intercept_: The bias, of shape `(1,)`.
        classes_: The two labels; log-odds are those of the second.
        report_: The numbers that the fit reports, by name.

    Examples:
        >>> import torch
        >>> from tlens_trust.measures.directions.lda import LDAFitter
        >>> activations = torch.tensor([[0.0, 1.0], [0.2, 3.0], [1.0, 1.1], [1.2, 3.1]])
        >>> probe = DirectionProbe(LDAFitter(shrinkage=0.1))
        >>> probe.fit(activations, torch.tensor([0, 0, 1, 1])).predict(activations).tolist()
        [0, 0, 1, 1]
        >>> probe.report_
        {'shrinkage': 0.1}
    """

    fitter: DirectionFitter

    # Scikit-learn requires that a constructor accepts any value and that `fit` refuses it.
    @no_type_check
    def __init__(self, fitter: DirectionFitter) -> None:
        self.fitter = fitter

    def _fit_direction(
        self,
        activations: Float[Tensor, "example d_model"],
        labels: Int[Tensor, " example"],
        groups: Any,
    ) -> tuple[Tensor, float]:
        if not isinstance(self.fitter, DirectionFitter):
            raise ValueError(
                f"`fitter` must be a fitter of directions, got {self.fitter!r}. Give "
                "`LDAFitter()`, for example."
            )
        result = self.fitter(activations, labels, groups)
        self.report_ = dict(result.report)
        return result.probe.direction, result.probe.bias
