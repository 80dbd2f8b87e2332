"""Held-out scores for many draws of labels at once, also without one more fold."""

import numpy as np
import torch
from jaxtyping import Float, Int, Int8
from torch import Tensor

from tlens_trust.measures.nulls import principal_axes

RefitScores = tuple[Float[np.ndarray, "example draw"], Float[np.ndarray, "fold example draw"]]


def refit_scores(
    x: Float[Tensor, "example d"],
    draws: Int8[np.ndarray, "draw example"],
    fold: Int[np.ndarray, " example"],
    *,
    C: float,
) -> RefitScores:
    """Score every draw of labels by discriminants fitted without the statement's fold.

    The discriminants are those of `refit_null` at one penalty: the first Newton step of a logistic
    probe. Features are standardised over all rows, which does not use the labels.

    Args:
        x: One row per statement.
        draws: Labels, 0 or 1; every draw has as many of each in every fold.
        fold: The fold of each statement, from 0.
        C: The inverse penalty.

    Returns:
        The log-odds of label 1. A second array has one more axis first: the scores of discriminants
        fitted without one more fold (NaN where that is the statement's own fold).
    """
    features = x.float() - x.float().mean(dim=0)
    deviation = features.square().mean(dim=0).sqrt()
    rounding = 8 * torch.finfo(torch.float32).eps * x.float().abs().amax(dim=0)
    features = torch.where(deviation > rounding, features / deviation.clamp_min(1e-30), 0.0)
    axes, spread = principal_axes(features)
    features = features @ axes
    labels = torch.from_numpy(draws.T.astype(np.float32))
    share = float(labels[:, 0].mean())
    count = int(fold.max()) + 1
    training_share = 1 - 1 / count
    # A Newton step from zero weights, on axes where the penalised Hessian is diagonal. It is the
    # same for all draws, and nearly the same for all folds.
    weight = (C / (1 + C * share * (1 - share) * training_share * spread)).unsqueeze(1)
    rows = [torch.from_numpy(np.flatnonzero(fold == k)) for k in range(count)]
    products = [features[members].T @ labels[members] for members in rows]
    sums = [features[members].sum(dim=0) for members in rows]
    # Every draw has as many ones in a fold as the first draw.
    ones = [float(labels[members, 0].sum()) for members in rows]

    def score(left_out: set[int], judged: int) -> Float[Tensor, "judged draw"]:
        remaining = [k for k in range(count) if k not in left_out]
        trained_on = sum(len(rows[k]) for k in remaining)
        share_of_ones = sum(ones[k] for k in remaining) / trained_on
        total = torch.stack([sums[k] for k in remaining]).sum(dim=0)
        gradient = torch.stack([products[k] for k in remaining]).sum(
            dim=0
        ) - share_of_ones * total.unsqueeze(1)
        centred = features[rows[judged]] - total / trained_on
        return centred @ (weight * gradient) + float(np.log(share_of_ones / (1 - share_of_ones)))

    scores = np.empty((len(fold), len(draws)))
    fewer = np.full((count, len(fold), len(draws)), np.nan)
    for k in range(count):
        scores[rows[k].numpy()] = score({k}, k).numpy()
        for second_fold in range(count):
            if second_fold != k:
                fewer[second_fold, rows[k].numpy()] = score({k, second_fold}, k).numpy()
    return scores, fewer
