"""Permutations of labels that are as likely as the labels if these do not depend on the text."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Int8

from tlens_trust.arguments import checked_count, checked_seed

# Random numbers in memory at once: 32 MB.
_KEYS_AT_ONCE = 4_000_000


@dataclass(frozen=True, eq=False)
class PermutedLabels:
    """The labels of a concept, and permutations of them.

    Attributes:
        draws: One row of labels for each draw. The first row is the labels themselves.
        stratum: The number of the stratum of each statement. Labels are exchanged within strata.
    """

    draws: Int8[np.ndarray, "draw example"]
    stratum: Int[np.ndarray, " example"]

    @property
    def labels(self) -> Int8[np.ndarray, " example"]:
        """The labels themselves, not permuted."""
        labels: np.ndarray = self.draws[0]
        return labels

    @property
    def permutations(self) -> int:
        """The number of draws, without the labels themselves."""
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

    In a group that holds both labels, the statements exchange their labels. A group with one label
    exchanges it with other such groups of the same size in the same fold. So the size of every
    group and the count of each label in every fold stay the same. Statements that share a label
    because they share a group still do. A group with one label and a size that no other group has
    keeps its label.

    If labels do not depend on the statements, each draw is as probable as the labels themselves,
    given the folds. Within a group this holds for any folds. For whole groups it holds because
    `assign_folds` uses only the size and the labels of a group, and a hash.

    Args:
        labels: 0 or 1 for each statement.
        groups: The group of each statement.
        fold: The fold of each statement; below 0 where a statement is only ever trained on.
        permutations: The number of draws.
        seed: Seed of the draws.

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
    by_stratum = np.argsort(stratum_of_unit, kind="stable")

    generator = np.random.default_rng([seed, 1])
    draws = np.empty((permutations + 1, len(labels)), dtype=np.int8)
    draws[0] = labels
    batch_size = max(1, _KEYS_AT_ONCE // units)
    for start in range(1, permutations + 1, batch_size):
        count = min(batch_size, permutations + 1 - start)
        # Each key lies between the number of its stratum and the next one. So sorting the keys
        # keeps strata together and permutes the units within each.
        permutation = np.argsort(stratum_of_unit + generator.random((count, units)), axis=1)
        permuted = np.empty((count, units), dtype=np.int8)
        permuted[:, by_stratum] = label_of_unit[permutation]
        draws[start : start + count] = permuted[:, unit]
    return PermutedLabels(draws, stratum)


def _strata(
    labels: Int[np.ndarray, " example"],
    groups: Sequence[str],
    fold: Int[np.ndarray, " example"],
) -> tuple[Int[np.ndarray, " example"], Int[np.ndarray, " example"]]:
    """Number the strata, and the units whose statements keep one label together.

    A group with both labels is a stratum, and each of its statements a unit. A group with one label
    is a unit, and groups of one size in one fold are a stratum.
    """
    names, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    size = np.bincount(group)
    ones = np.bincount(group, labels).astype(np.int64)
    mixed = (ones > 0) & (ones < size)
    fold_of_group = np.empty(len(names), dtype=np.int64)
    fold_of_group[group] = fold
    # Negative sizes, so that no key of a size is the key of a group.
    key_of_group = np.column_stack([np.arange(len(names)), np.zeros_like(size)])
    key_of_size = np.column_stack([-1 - size, fold_of_group])
    _, stratum_of_group = np.unique(
        np.where(mixed[:, None], key_of_group, key_of_size), axis=0, return_inverse=True
    )
    rows = np.arange(len(labels))
    _, unit = np.unique(np.where(mixed[group], len(names) + rows, group), return_inverse=True)
    return stratum_of_group.ravel()[group], unit
