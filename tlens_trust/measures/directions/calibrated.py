"""Log-odds along a direction, from rows that the direction was not fitted on."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tlens_trust.measures.folds import deal_folds
from tlens_trust.measures.log_odds import fit_log_odds
from tlens_trust.measures.probe import LinearProbe

# Fits a probe, its log-odds not to be believed yet, on activations, labels and groups.
RawFit = Callable[[Tensor, Tensor, Sequence[str]], LinearProbe]


def calibrate_probe(
    fit: RawFit,
    activations: Float[Tensor, "example d_model"],
    labels: Int[Tensor, " example"],
    groups: Sequence[str] | None,
    *,
    folds: int = 5,
) -> LinearProbe:
    """Fit a probe on all rows, and the scale of its log-odds on rows left out.

    Whole groups are dealt into folds; each fold is scored by a fit without it, and the slope and
    offset that turn these scores into log-odds are put on the fit of all rows. So a direction
    that leans towards the rows it was taken from is not surer than it may be. Where there are too
    few groups for two folds that hold both labels, the fit's own rows have to do.

    Args:
        fit: Gives direction and bias, along which the scores are to be scaled.
        activations: One row per statement, in the model's own units.
        labels: 0 or 1; both occur.
        groups: What is left out together; None where every row stands for itself.
        folds: Into how many folds the groups are dealt, at most.

    Returns:
        The probe of all rows, of log-odds in nats.
    """
    names = [str(row) for row in range(len(labels))] if groups is None else list(groups)
    probe = fit(activations, labels, names)
    scores = probe.log_odds(activations)
    fold = deal_folds(labels, names, folds=folds)
    if fold is not None:
        for k in range(int(fold.max()) + 1):
            held = torch.from_numpy(fold == k).to(activations.device)
            kept = [name for name, number in zip(names, fold.tolist(), strict=True) if number != k]
            without = fit(activations[~held], labels[~held], kept)
            scores[held] = without.log_odds(activations[held])
    slope, offset = fit_log_odds(scores, labels)
    return LinearProbe(slope * probe.direction.double(), slope * probe.bias + offset)
