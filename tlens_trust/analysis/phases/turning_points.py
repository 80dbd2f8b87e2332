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
        cls, position: Float[np.ndarray, " checkpoint"], count: int, *, min_steps: int
    ) -> "BrokenLines":
        """Make every broken line with some number of turning points.

        Args:
            position: Positions of the checkpoints, ascending.
            count: Number of turning points.
            min_steps: Smallest number of steps from checkpoint to checkpoint in a segment.
        """
        candidates = _candidates(len(position), count, min_steps)
        sets = [
            turning
            for turning in combinations(candidates, count)
            if all(b - a >= min_steps for a, b in pairwise(turning))
        ]
        bases = np.empty((len(sets), len(position), count + 2))
        for number, turning in enumerate(sets):
            bends = [np.clip(position - position[turn], 0, None) for turn in turning]
            bases[number] = np.linalg.qr(
                np.column_stack([np.ones_like(position), position, *bends])
            )[0]
        return cls(tuple(sets), bases)

    def best(
        self, curves: Float[np.ndarray, "curve checkpoint"]
    ) -> tuple[Int[np.ndarray, " curve"], Float[np.ndarray, " curve"]]:
        """The set with the least sum of squares for each curve, and that sum."""
        centred = curves - curves.mean(axis=1, keepdims=True)
        total_squares = np.square(centred).sum(axis=1)
        smallest_residual = np.full(len(curves), inf)
        best = np.zeros(len(curves), dtype=np.int64)
        for number, basis in enumerate(self.bases):
            residual = total_squares - np.square(centred @ basis).sum(axis=1)
            better = residual < smallest_residual
            best[better], smallest_residual[better] = number, residual[better]
        return best, smallest_residual.clip(0)


def _candidates(checkpoints: int, count: int, min_steps: int) -> list[int]:
    """Checkpoints that a curve may turn at, thinned out evenly where there are too many."""
    candidates = list(range(min_steps, checkpoints - min_steps))
    count_kept = len(candidates)
    while count_kept > count and comb(count_kept, count) > _MOST_SETS:
        count_kept -= 1
    if count_kept == len(candidates):
        return candidates
    return sorted({candidates[round(i)] for i in np.linspace(0, len(candidates) - 1, count_kept)})


def find_turning_points(
    position: Float[np.ndarray, " checkpoint"],
    values: Float[np.ndarray, " checkpoint"],
    *,
    max_turning_points: int = 2,
    min_steps: int = 2,
    noise: float = 0.0,
    search: Search | None = None,
) -> tuple[int, ...]:
    """Find the checkpoints at which a curve turns, by the best broken line.

    For each number `k` of turning points up to `max_turning_points`, every broken line is tried,
    and the one with the smallest sum of squares `RSS` is kept. Of these lines, the smallest
    `T ln(RSS / T + s²) + 2 k ln T` over `T` checkpoints is chosen. A turning point takes two
    numbers, its place and its bend. `s²` is the variance of the values' error, so that no turn is
    fitted to noise. Whether the change between the turns is real is another question.

    Args:
        position: Positions of the checkpoints, ascending. Their distances count, so pass the
            logarithm of the step.
        values: The curve at the checkpoints.
        max_turning_points: Largest number of turning points.
        min_steps: Smallest number of steps from checkpoint to checkpoint in a segment.
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
    best_turning_points: tuple[int, ...] = ()
    best_score = inf
    # The logarithm of a perfect fit would be unbounded.
    floor = noise + 1e-12 * float(np.square(values).max(initial=0.0)) + 1e-300
    for count in range(max_turning_points + 1):
        if checkpoints < (count + 1) * min_steps + 1:
            break
        turning_points, residual = _search_exactly(position, values, count, min_steps)
        if search is not None and count:
            turning_points = search(position, values, count, min_steps)
            residual = _squares_left(position, values, turning_points)
        score = checkpoints * log(residual / checkpoints + floor) + 2 * count * log(checkpoints)
        if score < best_score:
            best_turning_points, best_score = turning_points, score
    return best_turning_points


def _search_exactly(
    position: np.ndarray, values: np.ndarray, count: int, min_steps: int
) -> tuple[tuple[int, ...], float]:
    lines = BrokenLines.of(position, count, min_steps=min_steps)
    best, residuals = lines.best(values[None])
    return lines.turning[int(best[0])], float(residuals[0])


def _squares_left(position: np.ndarray, values: np.ndarray, turning: Sequence[int]) -> float:
    bends = [np.clip(position - position[turn], 0, None) for turn in turning]
    basis = np.linalg.qr(np.column_stack([np.ones_like(position), position, *bends]))[0]
    centred = values - values.mean()
    return max(float(centred @ centred - np.square(centred @ basis).sum()), 0.0)


def search_with_ruptures(
    position: np.ndarray, values: np.ndarray, count: int, min_steps: int
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
    dynamic = ruptures.Dynp(model="linear", min_size=max(2, min_steps), jump=1).fit(signal)
    *breaks, _ = dynamic.predict(n_bkps=count)
    return tuple(int(number) for number in breaks)
