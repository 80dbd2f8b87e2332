"""Cross-validation of any direction that is fitted on one site and one set of rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tlens_trust.measures.cross_validation import HeldOut
from tlens_trust.measures.probe import LinearProbe


@dataclass(frozen=True, eq=False)
class Fitted:
    """A probe, and what its fit has to say of itself.

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
    def described(self) -> Mapping[str, dict[str, str]]:
        """`units` and `long_name` of each number in a fit's report."""

    def __call__(
        self,
        activations: Float[Tensor, "example d_model"],
        labels: Int[Tensor, " example"],
        groups: Sequence[str],
    ) -> Fitted:
        """Fit on the rows given and nothing else."""


@dataclass(frozen=True)
class DirectionCrossFitter:
    """One fit for each site and fold, on all folds but that one: a `CrossFitter`.

    Whatever has to be chosen (penalty, coordinates, sign, scale) is chosen by the fitter, which
    is given training rows only. The numbers that fits report are averaged over the folds.

    Attributes:
        fitter: Fits the direction.
    """

    fitter: DirectionFitter

    @property
    def identity(self) -> str:
        """The fitter's."""
        return self.fitter.identity

    def __call__(
        self,
        activations: Float[Tensor, "example site d_model"],
        labels: Int[Tensor, " example"],
        groups: Sequence[str],
        fold: Int[np.ndarray, " example"],
    ) -> HeldOut:
        """Score every statement at every site."""
        rows, sites, width = activations.shape
        folds = int(fold.max()) + 1
        scores = np.empty((rows, sites))
        directions, biases = np.empty((sites, folds, width)), np.empty((sites, folds))
        reports = {name: np.empty((sites, folds)) for name in self.fitter.described}
        names = np.asarray(groups, dtype=str)
        for k in range(folds):
            held = fold == k
            train = torch.from_numpy(~held).to(activations.device)
            for site in range(sites):
                fitted = self.fitter(activations[train, site], labels[train], names[~held].tolist())
                log_odds = fitted.probe.log_odds(activations[~train, site])
                scores[held, site] = log_odds.cpu().numpy()
                directions[site, k] = fitted.probe.direction.cpu().numpy()
                biases[site, k] = fitted.probe.bias
                for name, number in fitted.report.items():
                    reports[name][site, k] = number
        return HeldOut(
            scores,
            {
                name: (values.mean(axis=1), dict(self.fitter.described[name]))
                for name, values in reports.items()
            },
            directions,
            biases,
        )
