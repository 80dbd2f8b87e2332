"""Cross-validation of any direction that is fitted on one site and one set of rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tlens_trust.measures.cross_fitters import HeldOut
from tlens_trust.measures.directions.fitter import DirectionFitter, FittedDirection


@dataclass(frozen=True)
class DirectionCrossFitter:
    """Fits a direction for each site and fold, on all other folds: a `CrossFitter`.

    The fitter chooses everything that has to be chosen (penalty, coordinates, sign, scale). It gets
    training rows only. The numbers that fits report are averaged over the folds. With three folds
    or more, there is a further fit without every two folds. The intervals of cross-validated scores
    need these fits.

    Attributes:
        fitter: Fits the direction.
    """

    fitter: DirectionFitter

    least_folds: ClassVar[int] = 2

    @property
    def identity(self) -> str:
        """Give the identity of the fitter."""
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
        reports = {name: np.empty((sites, folds)) for name in self.fitter.report_attributes}
        fewer = np.full((folds, rows, sites), np.nan) if folds > 2 else None
        norms = None if fewer is None else np.full((sites, folds, folds), np.nan)
        names = np.asarray(groups, dtype=str)

        def fit(site: int, *left_out: int) -> FittedDirection:
            in_training = ~np.isin(fold, left_out)
            train = torch.from_numpy(in_training).to(activations.device)
            return self.fitter(activations[train, site], labels[train], names[in_training].tolist())

        def score(result: FittedDirection, site: int, k: int) -> Float[np.ndarray, " left_out"]:
            left_out_rows = torch.from_numpy(fold == k).to(activations.device)
            log_odds: np.ndarray = (
                result.probe.log_odds(activations[left_out_rows, site]).cpu().numpy()
            )
            return log_odds

        for site in range(sites):
            for k in range(folds):
                result = fit(site, k)
                scores[fold == k, site] = score(result, site, k)
                directions[site, k] = result.probe.direction.cpu().numpy()
                biases[site, k] = result.probe.bias
                for name, number in result.report.items():
                    reports[name][site, k] = number
            if fewer is None or norms is None:
                continue
            for j, k in combinations(range(folds), 2):
                result = fit(site, j, k)
                fewer[k, fold == j, site] = score(result, site, j)
                fewer[j, fold == k, site] = score(result, site, k)
                norms[site, j, k] = norms[site, k, j] = float(result.probe.direction.norm())
        return HeldOut(
            scores,
            {
                name: (values.mean(axis=1), dict(self.fitter.report_attributes[name]))
                for name, values in reports.items()
            },
            directions,
            biases,
            fewer,
            norms,
        )
