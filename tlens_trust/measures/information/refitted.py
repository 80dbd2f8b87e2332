"""Held-out scores of many draws of labels at once, and without one more fold."""

import numpy as np
import torch
from jaxtyping import Float, Int, Int8
from torch import Tensor

from tlens_trust.measures.nulls import principal_axes

Refitted = tuple[Float[np.ndarray, "example draw"], Float[np.ndarray, "fold example draw"]]


def refit_scores(
    x: Float[Tensor, "example d"],
    draws: Int8[np.ndarray, "draw example"],
    fold: Int[np.ndarray, " example"],
    *,
    C: float,
) -> Refitted:
    """Score every draw of labels by discriminants fitted without the statement's fold.

    The discriminants of `refit_null`, at one penalty: a logistic probe's first Newton step, on
    features standardised over all rows, which knows no labels.

    Args:
        x: One row per statement.
        draws: Labels, 0 or 1; every draw has as many of each in every fold.
        fold: From 0.
        C: Inverse penalty.

    Returns:
        The log-odds of label 1, and, along a first axis, those by discriminants without one more
        fold (NaN where it is the statement's own).
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
    trained = 1 - 1 / count
    weight = (C / (1 + C * share * (1 - share) * trained * spread)).unsqueeze(1)
    rows = [torch.from_numpy(np.flatnonzero(fold == k)) for k in range(count)]
    products = [features[own].T @ labels[own] for own in rows]
    sums = [features[own].sum(dim=0) for own in rows]
    ones = [float(labels[own, 0].sum()) for own in rows]

    def score(left_out: set[int], judged: int) -> Float[Tensor, "judged draw"]:
        remaining = [k for k in range(count) if k not in left_out]
        trained_on = sum(len(rows[k]) for k in remaining)
        part = sum(ones[k] for k in remaining) / trained_on
        total = torch.stack([sums[k] for k in remaining]).sum(dim=0)
        gradient = torch.stack([products[k] for k in remaining]).sum(
            dim=0
        ) - part * total.unsqueeze(1)
        about = features[rows[judged]] - total / trained_on
        return about @ (weight * gradient) + float(np.log(part / (1 - part)))

    scores = np.empty((len(fold), len(draws)))
    fewer = np.full((count, len(fold), len(draws)), np.nan)
    for k in range(count):
        scores[rows[k].numpy()] = score({k}, k).numpy()
        for other in range(count):
            if other != k:
                fewer[other, rows[k].numpy()] = score({k, other}, k).numpy()
    return scores, fewer
