"""Group statements that belong together, where no column says so.

A statement and its near-copy on two sides of a split let a probe score by memory. Too large groups
cost a little precision; too small groups make the result invalid.
"""

import re
from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Int

# Rows compared at a time, so that memory grows with the number of statements, not its square.
_BLOCK = 512


def group_near_duplicates(
    statements: Sequence[str], *, similarity: float = 0.6
) -> Int[np.ndarray, " example"]:
    """Group statements whose sets of words are similar, directly or through others.

    Two statements are linked if `|A ∩ B| / |A ∪ B| ≥ similarity` (Jaccard), where `A` and `B` are
    their sets of case-folded words. A group is what is linked directly or through others. Order
    and repetition of words do not count.

    Args:
        statements: The texts. Time grows with the square of their number: a second for 6,000.
        similarity: Above 0, at most 1. At 0.6, wordings of one statement are put together, and
            statements that share a turn of phrase are not.

    Returns:
        For every statement the position of the first one of its group.

    Raises:
        ValueError: `similarity` is not above 0 and at most 1.

    Examples:
        >>> group_near_duplicates(["The sea is salt.", "the sea is SALT", "Milk is white."])
        array([0, 0, 2])
    """
    return _linked(near_duplicate_pairs(statements, similarity=similarity), len(statements))


def near_duplicate_pairs(
    statements: Sequence[str], *, similarity: float = 0.6
) -> Int[np.ndarray, "two link"]:
    """Find pairs of statements with similar sets of words, as `group_near_duplicates` does.

    Returns:
        Positions of the two, the smaller first, in two rows.

    Raises:
        ValueError: `similarity` is not above 0 and at most 1.

    Examples:
        >>> near_duplicate_pairs(["The sea is salt.", "the sea is SALT", "Milk is white."])
        array([[0],
               [1]])
    """
    if not 0 < similarity <= 1:
        raise ValueError(f"`similarity` must be above 0 and at most 1, got {similarity}.")
    # scipy takes a fifth of a second to import, which only a reader of a benchmark should pay.
    from scipy.sparse import csr_matrix

    if not statements:
        return np.zeros((2, 0), dtype=np.int64)
    vocabulary: dict[str, int] = {}
    indices: list[int] = []
    ends = [0]
    for statement in statements:
        # A statement without a word is similar to identical ones alone.
        words = set(re.findall(r"\w+", statement.casefold())) or {statement}
        indices += [vocabulary.setdefault(word, len(vocabulary)) for word in words]
        ends.append(len(indices))
    ones = np.ones(len(indices), dtype=np.float32)
    bags = csr_matrix((ones, indices, ends), shape=(len(statements), len(vocabulary)))
    sizes = np.diff(ends)
    links: list[Int[np.ndarray, "two link"]] = []
    for start in range(0, len(statements), _BLOCK):
        overlaps = (bags[start : start + _BLOCK] @ bags.T).tocoo()
        row, column = overlaps.row + start, overlaps.col
        # Compared without division, so that 3 of 5 reaches 0.6 whatever the rounding.
        unions = sizes[row] + sizes[column] - overlaps.data
        are_similar = overlaps.data >= similarity * unions - 1e-6
        links.append(np.stack([row, column])[:, are_similar & (row < column)])
    return np.concatenate(links, axis=1).astype(np.int64)


def join_groups(*groupings: Sequence[Hashable]) -> Int[np.ndarray, " example"]:
    """Put together whatever any of several groupings puts together.

    Returns:
        For every statement the position of the first one of its group.

    Examples:
        >>> join_groups(["a", "a", "b", "c"], ["x", "y", "y", "z"])
        array([0, 0, 0, 3])
    """
    links = []
    for grouping in groupings:
        first_position: dict[Hashable, int] = {}
        links += [(first_position.setdefault(name, i), i) for i, name in enumerate(grouping)]
    n = len(groupings[0]) if groupings else 0
    return _linked(np.array(links, dtype=np.int64).reshape(-1, 2).T, n)


def _linked(links: Int[np.ndarray, "two link"], n: int) -> Int[np.ndarray, " example"]:
    if n == 0:
        return np.zeros(0, dtype=np.int64)
    # Groupings are edges of a graph, and groups are its connected components.
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    graph = csr_matrix((np.ones(links.shape[1]), (links[0], links[1])), shape=(n, n))
    _, component = connected_components(graph, directed=False)
    _, first_position, member = np.unique(component, return_index=True, return_inverse=True)
    return np.asarray(first_position[member], dtype=np.int64)
