"""Folds of whole groups; see `tlens_trust.concepts.folds`."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from torch import Tensor

from tlens_trust.concepts.folds import assign_folds

__all__ = ["assign_folds", "deal_folds"]


def deal_folds(
    labels: Int[Tensor, " example"], groups: Sequence[str], *, folds: int
) -> Int[np.ndarray, " example"] | None:
    """Deal groups into folds: fewer folds if there are few groups, None if two are too many."""
    counts = labels.cpu().numpy()
    for number in range(min(folds, len(set(groups))), 1, -1):
        try:
            return assign_folds(counts, groups, folds=number, seed=0)
        except ValueError:
            # A fold lacks a label: try fewer.
            continue
    return None
