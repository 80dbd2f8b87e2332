"""Calibrate log-odds along a direction on rows that the direction was not fitted on."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tlens_trust.measures.folds import deal_folds
from tlens_trust.measures.log_odds import fit_log_odds
from tlens_trust.measures.probe import LinearProbe

# Fits a probe, whose log-odds are not calibrated yet, on activations, labels and groups.
RawFit = Callable[[Tensor, Tensor, Sequence[str]], LinearProbe]


def calibrate_probe(
    fit: RawFit,
    activations: Float[Tensor, "example d_model"],
    labels: Int[Tensor, " example"],
    groups: Sequence[str] | None,
    *,
    folds: int = 5,
) -> LinearProbe:
    """Fit a probe on all rows, and scale its log-odds on left-out rows.

    Whole groups are dealt into folds, and each fold is scored by a fit without it. A logistic
    regression on these scores gives a slope and an offset, which scale the fit of all rows.
    Therefore the log-odds are not too large where a direction overfits its training rows. If there
    are too few groups for two folds with both labels, the scores of the training rows are used.

    Args:
        fit: Returns the direction and the bias whose scores are scaled.
        activations: One row per statement, in the model's own units.
        labels: 0 or 1; both occur.
        groups: The group of each row, left out as a whole; None if each row is its own group.
        folds: The largest number of folds that the groups are dealt into.

    Returns:
        The probe of all rows. It returns log-odds in nats.
    """
    names = [str(row) for row in range(len(labels))] if groups is None else list(groups)
    probe = fit(activations, labels, names)
    scores = probe.log_odds(activations)
    fold = deal_folds(labels, names, folds=folds)
    if fold is not None:
        for k in range(int(fold.max()) + 1):
            left_out = torch.from_numpy(fold == k).to(activations.device)
            other_names = [
                name for name, number in zip(names, fold.tolist(), strict=True) if number != k
            ]
            other_probe = fit(activations[~left_out], labels[~left_out], other_names)
            scores[left_out] = other_probe.log_odds(activations[left_out])
    slope, offset = fit_log_odds(scores, labels)
    return LinearProbe(slope * probe.direction.double(), slope * probe.bias + offset)
