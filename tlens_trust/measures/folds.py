"""Deal whole groups into folds, as `tlens_trust.concepts.folds` does for concepts."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from torch import Tensor

from tlens_trust.concepts.folds import assign_folds

__all__ = ["assign_folds", "deal_folds"]


def deal_folds(
    labels: Int[Tensor, " example"], groups: Sequence[str], *, folds: int
) -> Int[np.ndarray, " example"] | None:
    """Deal groups into at most `folds` folds that hold both labels; None if two are too many."""
    label_array = labels.cpu().numpy()
    for number in range(min(folds, len(set(groups))), 1, -1):
        try:
            return assign_folds(label_array, groups, folds=number, seed=0)
        except ValueError:
            # A fold would lack a label, so fewer folds are tried.
            continue
    return None
