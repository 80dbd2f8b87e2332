"""Cross-validation folds that keep groups whole and depend on names and seed alone."""

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int


def assign_folds(
    labels: Int[np.ndarray, " example"],
    groups: Sequence[str],
    *,
    folds: int = 5,
    seed: int,
) -> Int[np.ndarray, " example"]:
    """Deal whole groups into folds of nearly equal size and label balance.

    Groups are dealt out from the largest to the smallest; those of one size in an order drawn by
    the seed. Each goes to the fold where it least raises `Σ_f Σ_c (n_fc / n_c)²`, with `n_fc` the
    rows of label `c` in fold `f`. The draw is a hash of seed and group name. So a statement's fold
    depends neither on its place in the file nor on numpy's generators.

    Not `sklearn.model_selection.StratifiedGroupKFold`: its folds change with the order of rows,
    and its criterion looks at the label ratio alone, so that their sizes drift apart.

    Args:
        labels: 0 or 1 for each statement.
        groups: The group of each statement.
        folds: How many folds. At least 2.
        seed: Draws the order in which groups of one size are dealt.

    Returns:
        The fold of each statement, from 0 to `folds - 1`.

    Raises:
        ValueError: There are fewer groups than folds, or a fold would lack one of the labels.

    Examples:
        >>> labels = np.array([0, 1, 0, 1, 0, 1, 0, 1])
        >>> fold = assign_folds(labels, ["a", "a", "b", "b", "c", "c", "d", "d"], folds=2, seed=0)
        >>> np.bincount(fold).tolist()
        [4, 4]
        >>> bool((fold[0::2] == fold[1::2]).all())
        True
    """
    labels = np.asarray(labels)
    if len(groups) != len(labels):
        raise ValueError(
            f"`groups` must name one group for each of the {len(labels)} labels, got {len(groups)}."
        )
    if folds < 2:
        raise ValueError(f"`folds` must be at least 2, got {folds}.")
    names, group_of_row = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    if len(names) < folds:
        raise ValueError(
            f"{len(names)} group{'s' * (len(names) != 1)} cannot be dealt into {folds} folds, "
            "since a group is never divided. "
            + (f"Ask for at most {len(names)} folds, or give" if len(names) > 1 else "Give")
            + " more groups."
        )
    counts = np.zeros((len(names), 2), dtype=np.int64)
    np.add.at(counts, (group_of_row, labels), 1)
    # A label that does not occur is refused below, and must not divide by zero here.
    totals = np.maximum(counts.sum(axis=0), 1)
    # A hash is the same with every release of numpy, and in whatever order groups come.
    draws = [hashlib.sha256(f"{seed}\0{name}".encode()).digest() for name in names.tolist()]
    sizes = counts.sum(axis=1)
    order = sorted(range(len(names)), key=lambda group: (-sizes[group], draws[group]))

    rows_in_fold = np.zeros((folds, 2))
    fold_of_group = np.empty(len(names), dtype=np.int64)
    for group in order:
        share = counts[group] / totals
        # `(n + c)² - n² = 2nc + c²`, and the last term is the same for every fold. Rounded, so that
        # rounding errors break no ties: the number of rows does, and then the fold's number.
        rise = (2 * (rows_in_fold / totals) * share).sum(axis=1)
        best = np.lexsort((rows_in_fold.sum(axis=1), rise.round(12)))[0]
        fold_of_group[group] = best
        rows_in_fold[best] += counts[group]

    missing_labels = [
        (fold, label) for fold in range(folds) for label in (0, 1) if not rows_in_fold[fold, label]
    ]
    if missing_labels:
        fold, label = missing_labels[0]
        holders = int((counts[:, label] > 0).sum())
        raise ValueError(
            f"Fold {fold} of {folds} holds no statement with label {label}, which occurs in "
            f"{holders} of {len(names)} groups. Every fold needs both labels: ask for fewer "
            f"folds, or give more groups that hold label {label}."
        )
    return fold_of_group[group_of_row]
