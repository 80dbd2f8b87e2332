"""Labels drawn anew as they might have come, had they nothing to do with the statements."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Int8

from tlens_trust.arguments import checked_count, checked_seed

# Random numbers held at once while labels are drawn.
_KEYS_AT_ONCE = 4_000_000


@dataclass(frozen=True, eq=False)
class PermutedLabels:
    """The labels of a concept, and draws of what they might have been.

    Attributes:
        draws: One row of labels for each draw. The first row is the labels themselves.
        stratum: The number of the stratum of each statement. Labels change places within strata.
    """

    draws: Int8[np.ndarray, "draw example"]
    stratum: Int[np.ndarray, " example"]

    @property
    def labels(self) -> Int8[np.ndarray, " example"]:
        """The labels themselves."""
        labels: np.ndarray = self.draws[0]
        return labels

    @property
    def permutations(self) -> int:
        """How many draws there are beside the labels themselves."""
        return len(self.draws) - 1

    @property
    def expected(self) -> Float[np.ndarray, " example"]:
        """The share of label 1 in each statement's stratum, which no permutation changes."""
        sizes = np.bincount(self.stratum)
        shares = np.bincount(self.stratum, self.labels) / sizes
        expected: np.ndarray = shares[self.stratum]
        return expected


def permute_labels(
    labels: Int[np.ndarray, " example"],
    groups: Sequence[str],
    fold: Int[np.ndarray, " example"],
    *,
    permutations: int,
    seed: int,
) -> PermutedLabels:
    """Permute labels within groups, or among whole groups that hold one label each.

    In a group that holds both labels, its statements exchange their labels. A group of one label
    keeps one label, and exchanges it with other such groups of the same size in the same fold.
    So every group keeps its size, every fold its count of each label, and labels go as they come:
    together where they come together. Where neither is possible, as for a group of one label whose
    size no other has, labels stay.

    If labels tell nothing of the statements, each draw is as probable as the labels themselves,
    given the folds. (Within a group, whatever the folds were made from. For whole groups, because
    `assign_folds` looks at a group's size and labels, and beyond these at a hash alone.)

    Args:
        labels: 0 or 1 for each statement.
        groups: The group of each statement.
        fold: The fold of each statement; below 0 where a statement is only ever trained on.
        permutations: How many draws.
        seed: Draws them.

    Raises:
        ValueError: `permutations` is less than 1.

    Examples:
        >>> labels, fold = np.array([0, 1, 0, 1, 1]), np.array([0, 0, 1, 1, 1])
        >>> groups = ["a", "a", "b", "b", "c"]
        >>> permuted = permute_labels(labels, groups, fold, permutations=100, seed=0)
        >>> np.unique(permuted.draws, axis=0).tolist()
        [[0, 1, 0, 1, 1], [0, 1, 1, 0, 1], [1, 0, 0, 1, 1], [1, 0, 1, 0, 1]]
    """
    hint = "A p-value is never below 1 / (1 + permutations)."
    permutations = checked_count("permutations", permutations, hint=hint)
    seed = checked_seed(seed)
    labels = np.asarray(labels)
    stratum, unit = _strata(labels, groups, np.asarray(fold))
    units = int(unit.max()) + 1
    stratum_of_unit = np.empty(units, dtype=np.int64)
    stratum_of_unit[unit] = stratum
    label_of_unit = np.empty(units, dtype=np.int8)
    label_of_unit[unit] = labels
    home = np.argsort(stratum_of_unit, kind="stable")

    generator = np.random.default_rng([seed, 1])
    draws = np.empty((permutations + 1, len(labels)), dtype=np.int8)
    draws[0] = labels
    at_once = max(1, _KEYS_AT_ONCE // units)
    for first in range(1, permutations + 1, at_once):
        count = min(at_once, permutations + 1 - first)
        # Sorting by stratum, and at random within it, lines units up with the homes of others.
        drawn = np.argsort(stratum_of_unit + generator.random((count, units)), axis=1)
        moved = np.empty((count, units), dtype=np.int8)
        moved[:, home] = label_of_unit[drawn]
        draws[first : first + count] = moved[:, unit]
    return PermutedLabels(draws, stratum)


def _strata(
    labels: Int[np.ndarray, " example"],
    groups: Sequence[str],
    fold: Int[np.ndarray, " example"],
) -> tuple[Int[np.ndarray, " example"], Int[np.ndarray, " example"]]:
    """Number the strata, and within them the units whose labels go together."""
    names, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    size = np.bincount(group)
    ones = np.bincount(group, labels).astype(np.int64)
    mixed = (ones > 0) & (ones < size)
    fold_of_group = np.empty(len(names), dtype=np.int64)
    fold_of_group[group] = fold
    own = np.column_stack([np.arange(len(names)), np.zeros_like(size)])
    shared = np.column_stack([-1 - size, fold_of_group])
    _, stratum_of_group = np.unique(
        np.where(mixed[:, None], own, shared), axis=0, return_inverse=True
    )
    rows = np.arange(len(labels))
    _, unit = np.unique(np.where(mixed[group], len(names) + rows, group), return_inverse=True)
    return stratum_of_group.ravel()[group], unit
