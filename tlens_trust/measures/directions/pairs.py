"""Contrast pairs: statements of one group that carry opposite labels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class ContrastPairs:
    """Pairs of rows with opposite labels.

    Attributes:
        positive: The row of label 1 of each pair.
        negative: The row of label 0.
        weight: The weight of each pair. Those of one group add up to 1.
    """

    positive: Int[Tensor, " pair"]
    negative: Int[Tensor, " pair"]
    weight: Float[Tensor, " pair"]

    def __len__(self) -> int:
        return len(self.weight)


def find_pairs(labels: Int[Tensor, " example"], groups: Sequence[str] | None) -> ContrastPairs:
    """Pair every statement with each statement of its group that has the other label.

    A group of `m` statements of label 1 and `n` of label 0 gives `m·n` pairs. All groups have the
    same total weight. A statement whose group holds only one label is in no pair.

    Args:
        labels: 0 or 1.
        groups: The group of each statement.

    Returns:
        The pairs, sorted by the name of their group.

    Raises:
        ValueError: There are no groups, or none holds both labels.

    Examples:
        >>> pairs = find_pairs(torch.tensor([1, 0, 1, 0, 0]), ["a", "a", "b", "b", "b"])
        >>> pairs.positive.tolist(), pairs.negative.tolist(), pairs.weight.tolist()
        ([0, 2, 2], [1, 3, 4], [1.0, 0.5, 0.5])
    """
    if groups is None:
        raise ValueError(
            "Contrast pairs are statements of one group, and `groups` is None. Give the group of "
            "each row, or use a probe that needs no pairs."
        )
    names, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    label_of_row = labels.cpu().numpy()
    sides = []
    for label in (1, 0):
        rows = np.flatnonzero(label_of_row == label)
        rows = rows[np.argsort(group[rows], kind="stable")]
        sides.append(np.split(rows, np.searchsorted(group[rows], np.arange(1, len(names)))))
    contrasts = [(a, b) for a, b in zip(*sides, strict=True) if len(a) and len(b)]
    if not contrasts:
        raise ValueError(
            "Contrast pairs are statements of one group with opposite labels, and none of "
            f"{len(names)} groups holds both. Choose another column of groups with `group=`, "
            "or use a probe that needs no pairs."
        )
    positive = np.concatenate([np.repeat(a, len(b)) for a, b in contrasts])
    negative = np.concatenate([np.tile(b, len(a)) for a, b in contrasts])
    weight = np.concatenate([np.full(len(a) * len(b), 1 / (len(a) * len(b))) for a, b in contrasts])
    device = labels.device
    return ContrastPairs(
        torch.from_numpy(positive).to(device),
        torch.from_numpy(negative).to(device),
        torch.from_numpy(weight).to(device),
    )
