"""Which statements a vector is made of, and which it is tried on."""

import warnings

import numpy as np
from jaxtyping import Bool, Int

from tlens_trust.concepts import Concept
from tlens_trust.concepts.folds import assign_folds
from tlens_trust.steering.vector import SteeringVector


def training_rows(
    concept: Concept, *, folds: int = 2, held_out: int = 0, seed: int = 0
) -> Int[np.ndarray, " row"]:
    """Statements to make a vector of, so that the others are left to try it on.

    Whole groups are dealt into folds as for probes, and one fold is held out.

    Args:
        concept: What to divide.
        folds: Into how many parts; 2 holds out half, 5 a fifth.
        held_out: Which of them is held out.
        seed: Deals the groups.

    Returns:
        Rows of the concept, for `extract_steering_vector(…, rows=…)`. What evaluates the vector
        takes the whole concept, and the rest of it by itself.

    Raises:
        ValueError: There are too few groups, or there is no such fold.

    Examples:
        >>> said = tuple(f"{row} is {('even', 'odd')[row % 2]}" for row in range(8))
        >>> groups = tuple(str(row // 2) for row in range(8))
        >>> concept = Concept("parity", "reliability", said, np.arange(8) % 2, groups)
        >>> len(training_rows(concept))
        4
    """
    if not 0 <= held_out < folds:
        raise ValueError(f"`held_out` is one of {folds} folds, from 0, got {held_out}.")
    fold = assign_folds(concept.labels, concept.groups, folds=folds, seed=seed)
    rows: np.ndarray = np.flatnonzero(fold != held_out)
    return rows


def rows_to_try(vector: SteeringVector, concept: Concept) -> Bool[np.ndarray, " example"]:
    """Statements of a concept that a vector has not seen, nor others of their groups.

    Raises:
        ValueError: The vector was made of all of this concept, or of so much of it that what is
            left holds one label.

    Warns:
        UserWarning: The vector does not say what it was made of, or was made of another concept.
    """
    if vector.fingerprint is None or vector.fingerprint != concept.fingerprint:
        told = "does not say what it was made of"
        if vector.fingerprint is not None:
            told = f"was made of {vector.concept!r}, and not of {concept.name!r} as it is here"
        warnings.warn(
            f"This vector {told}, so that nothing is left out. Make sure that it has seen none of "
            f"the {len(concept)} statements that it is tried on.",
            stacklevel=3,
        )
        return np.ones(len(concept), dtype=bool)
    held = vector.held_out(concept)
    left = concept.labels[held]
    if len(set(left.tolist())) < 2:
        raise ValueError(
            f"This vector was made of {int((~held).sum())} of the {len(concept)} statements of "
            f"{concept.name!r} or their groups, and what is left does not hold both labels. "
            "Nothing is tried on what it was made of: extract it with "
            "`rows=training_rows(concept)`."
        )
    return held
