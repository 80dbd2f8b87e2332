"""Which statements a vector is estimated from, and which it is evaluated on."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from tlens_trust.concepts import Concept
from tlens_trust.concepts.folds import assign_folds
from tlens_trust.steering.vector import SteeringVector


def training_rows(
    concept: Concept, *, folds: int = 2, held_out: int = 0, seed: int = 0
) -> Int[np.ndarray, " row"]:
    """Choose statements to estimate a vector from, and leave the others for its evaluation.

    Whole groups are dealt into folds as for probes, and one fold is held out.

    Args:
        concept: The concept to divide.
        folds: Into how many parts: 2 holds out half, 5 a fifth.
        held_out: Which of the folds is held out.
        seed: Deals the groups.

    Returns:
        Rows of the concept, for `extract_steering_vector(…, rows=…)`. Functions that evaluate the
        vector take the whole concept, and use the rows that are left.

    Raises:
        ValueError: There are too few groups, or there is no such fold.

    Examples:
        >>> statements = tuple(f"{row} is {('even', 'odd')[row % 2]}" for row in range(8))
        >>> groups = tuple(str(row // 2) for row in range(8))
        >>> concept = Concept("parity", "reliability", statements, np.arange(8) % 2, groups)
        >>> len(training_rows(concept))
        4
    """
    if not 0 <= held_out < folds:
        raise ValueError(f"`held_out` is one of {folds} folds, from 0, got {held_out}.")
    fold = assign_folds(concept.labels, concept.groups, folds=folds, seed=seed)
    rows: np.ndarray = np.flatnonzero(fold != held_out)
    return rows


def checked_rows(rows: Any, concept: Concept) -> tuple[int, ...]:
    """Rows of a concept as numbers.

    Args:
        rows: Positions, or a mask over all statements.
        concept: The concept that they count in.

    Raises:
        ValueError: A row occurs twice, or does not exist.
    """
    numbers = np.asarray(rows)
    if numbers.dtype == bool and numbers.shape == (len(concept),):
        numbers = np.flatnonzero(numbers)
    if len(numbers) and len(np.unique(numbers)) < len(numbers):
        raise ValueError("`rows` names a statement twice. Name each of them once.")
    concept.take(numbers)  # raises where a row does not exist
    return tuple(int(row) for row in numbers)


def evaluation_concept(concept: Concept, rows: Sequence[int]) -> Concept:
    """The statements that share no group with the ones that vectors are estimated from.

    Args:
        concept: The whole concept.
        rows: The statements that vectors are estimated from.

    Raises:
        ValueError: The statements that are left do not hold both labels.
    """
    groups = np.asarray(concept.groups, dtype=str)
    is_held_out = ~np.isin(groups, groups[list(rows)])
    _check_both_labels(concept, is_held_out)
    return concept.take(is_held_out)


def evaluation_rows(vector: SteeringVector, concept: Concept) -> Bool[np.ndarray, " example"]:
    """Statements of a concept whose groups a vector was not estimated from.

    Raises:
        ValueError: The vector was estimated from the whole concept, or the statements that are left
            do not hold both labels.

    Warns:
        UserWarning: The vector does not say what it was estimated from, or was estimated from
            another concept.
    """
    if vector.fingerprint is None or vector.fingerprint != concept.fingerprint:
        origin = "does not say which statements it was estimated from"
        if vector.fingerprint is not None:
            origin = (
                f"was estimated from {vector.concept!r}, and not from {concept.name!r} as it is "
                "here"
            )
        warnings.warn(
            f"This vector {origin}, so no statement is left out. Make sure that it was estimated "
            f"from none of the {len(concept)} statements that it is evaluated on.",
            stacklevel=3,
        )
        return np.ones(len(concept), dtype=bool)
    is_held_out = vector.held_out(concept)
    _check_both_labels(concept, is_held_out)
    return is_held_out


def check_polarity(concept: Concept) -> None:
    """Refuse a concept that has no trustworthy side to steer to.

    Raises:
        ValueError: It has no polarity.
    """
    if not concept.polarity:
        raise ValueError(
            f"{concept.name!r} has no polarity: neither of its labels is the trustworthy side, so "
            "there is no side to steer to. If label 1 is the trustworthy side, say so with "
            "`dataclasses.replace(concept, polarity=True)`."
        )


def _check_both_labels(concept: Concept, is_held_out: np.ndarray) -> None:
    if len(set(concept.labels[is_held_out].tolist())) < 2:
        raise ValueError(
            f"The vector is estimated from {int((~is_held_out).sum())} of the {len(concept)} "
            f"statements of {concept.name!r} or their groups, and the rest does not hold both "
            "labels. A vector is evaluated only on groups that it was not estimated from: give "
            "`rows=training_rows(concept)`."
        )
