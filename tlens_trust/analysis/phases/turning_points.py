"""Turning points of a curve along training, by broken lines through few, uneven checkpoints."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import comb, inf, log
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Int

# Sets of turning points that are looked through; of more, candidates are thinned out.
_MOST_SETS = 20_000

# Values along positions, how many turning points: their numbers.
Search: TypeAlias = Callable[[np.ndarray, np.ndarray, int, int], tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class BrokenLines:
    """Every broken line with so many turning points at so many candidates, ready to be fitted.

    A broken line is linear between neighbouring turning points and does not jump. For each set of
    turning points an orthonormal basis of such lines is held, so that fitting another curve at the
    same checkpoints is one product.

    Attributes:
        turning: The turning points of each set, as numbers of checkpoints.
        bases: Of each set.
    """

    turning: tuple[tuple[int, ...], ...]
    bases: Float[np.ndarray, "set checkpoint coefficient"]

    @classmethod
    def of(
        cls, position: Float[np.ndarray, " checkpoint"], count: int, *, shortest: int
    ) -> "BrokenLines":
        """All of them.

        Args:
            position: Of the checkpoints, ascending.
            count: How many turning points.
            shortest: How many steps from checkpoint to checkpoint a segment takes at least.
        """
        candidates = _candidates(len(position), count, shortest)
        sets = [
            each
            for each in combinations(candidates, count)
            if all(b - a >= shortest for a, b in pairwise(each))
        ]
        bases = np.empty((len(sets), len(position), count + 2))
        for number, each in enumerate(sets):
            bends = [np.clip(position - position[turn], 0, None) for turn in each]
            bases[number] = np.linalg.qr(
                np.column_stack([np.ones_like(position), position, *bends])
            )[0]
        return cls(tuple(sets), bases)

    def best(
        self, curves: Float[np.ndarray, "curve checkpoint"]
    ) -> tuple[Int[np.ndarray, " curve"], Float[np.ndarray, " curve"]]:
        """The set with the least sum of squares for each curve, and that sum."""
        about = curves - curves.mean(axis=1, keepdims=True)
        whole = np.square(about).sum(axis=1)
        least = np.full(len(curves), inf)
        best = np.zeros(len(curves), dtype=np.int64)
        for number, basis in enumerate(self.bases):
            left = whole - np.square(about @ basis).sum(axis=1)
            better = left < least
            best[better], least[better] = number, left[better]
        return best, least.clip(0)


def _candidates(checkpoints: int, count: int, shortest: int) -> list[int]:
    """Checkpoints that a curve may turn at, thinned out evenly where there are too many."""
    inner = list(range(shortest, checkpoints - shortest))
    most = len(inner)
    while most > count and comb(most, count) > _MOST_SETS:
        most -= 1
    if most == len(inner):
        return inner
    return sorted({inner[round(i)] for i in np.linspace(0, len(inner) - 1, most)})


def find_turning_points(
    position: Float[np.ndarray, " checkpoint"],
    values: Float[np.ndarray, " checkpoint"],
    *,
    most: int = 2,
    shortest: int = 2,
    noise: float = 0.0,
    search: Search | None = None,
) -> tuple[int, ...]:
    """Find the checkpoints at which a curve turns, by the best broken line.

    For each number `k` of turning points up to `most`, every broken line is tried, and the one with
    the smallest sum of squares `RSS` is kept. Of these lines, the smallest `T ln(RSS / T + s²) + 2
    k ln T` over `T` checkpoints is chosen. A turning point takes two numbers, its place and its
    bend. `s²` is the variance of the values' error, so that no turn is fitted to noise. Whether the
    change between the turns is real is another question.

    Args:
        position: Positions of the checkpoints, ascending. Their distances count, so pass the
            logarithm of the step.
        values: The curve at the checkpoints.
        most: Largest number of turning points.
        shortest: Smallest number of steps from checkpoint to checkpoint in a segment.
        noise: Variance of the values' error, `s²`.
        search: Gives the turning points for a number of them in place of the exact search.

    Returns:
        Numbers of checkpoints, ascending; none where one straight line fits best.

    Examples:
        >>> position = np.arange(9.0)
        >>> find_turning_points(position, np.abs(position - 4))
        (4,)
        >>> find_turning_points(position, 0.5 * position)
        ()
    """
    checkpoints = len(position)
    chosen: tuple[int, ...] = ()
    least = inf
    # Of a perfect fit the logarithm would know no bounds.
    floor = noise + 1e-12 * float(np.square(values).max(initial=0.0)) + 1e-300
    for count in range(most + 1):
        if checkpoints < (count + 1) * shortest + 1:
            break
        found, left = _search_exactly(position, values, count, shortest)
        if search is not None and count:
            found = search(position, values, count, shortest)
            left = _squares_left(position, values, found)
        score = checkpoints * log(left / checkpoints + floor) + 2 * count * log(checkpoints)
        if score < least:
            chosen, least = found, score
    return chosen


def _search_exactly(
    position: np.ndarray, values: np.ndarray, count: int, shortest: int
) -> tuple[tuple[int, ...], float]:
    lines = BrokenLines.of(position, count, shortest=shortest)
    best, left = lines.best(values[None])
    return lines.turning[int(best[0])], float(left[0])


def _squares_left(position: np.ndarray, values: np.ndarray, turning: Sequence[int]) -> float:
    bends = [np.clip(position - position[turn], 0, None) for turn in turning]
    basis = np.linalg.qr(np.column_stack([np.ones_like(position), position, *bends]))[0]
    about = values - values.mean()
    return max(float(about @ about - np.square(about @ basis).sum()), 0.0)


def search_with_ruptures(
    position: np.ndarray, values: np.ndarray, count: int, shortest: int
) -> tuple[int, ...]:
    """Find turning points with ruptures: straight lines that may jump, by dynamic programming.

    A segment begins with the checkpoint that ruptures calls a break point.

    Raises:
        ImportError: ruptures is not installed.
    """
    try:
        import ruptures
    except ImportError as error:
        raise ImportError(
            "`search='ruptures'` takes ruptures, which is not installed. Install it with "
            "`pip install 'tlens-trust[phases]'`, or leave `search='exact'`."
        ) from error
    signal = np.column_stack([values, position, np.ones_like(position)])
    dynamic = ruptures.Dynp(model="linear", min_size=max(2, shortest), jump=1).fit(signal)
    *breaks, _ = dynamic.predict(n_bkps=count)
    return tuple(int(each) for each in breaks)
