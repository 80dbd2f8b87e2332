"""Chooses the steps of a run."""

import operator
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import SupportsIndex


def choose_steps(
    available: Iterable[int], steps: str | Iterable[SupportsIndex], series_name: str
) -> tuple[int, ...]:
    """Choose steps among those that are available, in training order.

    Args:
        available: The steps of the series.
        steps: `"all"`; `"log"` for `log_spaced`; a range, whose available steps are used; or a
            list, all of which must be available.
        series_name: Name of the series in errors.

    Raises:
        ValueError: A step is not available, or `steps` is empty.

    Examples:
        >>> choose_steps([0, 1, 2, 4, 1000, 2000], range(1, 1001), "run")
        (1, 2, 4, 1000)
        >>> choose_steps([0, 1000, 2000], [1500], "run")
        Traceback (most recent call last):
        ValueError: No step 1500 in 'run'; its nearest are 1000 and 2000. ...
    """
    published_steps = sorted(set(available))
    if isinstance(steps, str):
        if steps == "all":
            return tuple(published_steps)
        if steps == "log":
            return log_spaced(published_steps)
        raise ValueError(
            f"`steps` got {steps!r}. Give 'log', 'all', a list of steps or a range of them."
        )
    if isinstance(steps, range):
        steps_in_range = [step for step in published_steps if step in steps]
        if not steps_in_range:
            raise ValueError(
                f"No checkpoint of {series_name!r} lies in {steps}; "
                f"{_nearest(published_steps, steps.start)}. {_LIST_THEM}"
            )
        return tuple(steps_in_range)
    requested = sorted({_whole(step) for step in steps})
    if not requested:
        raise ValueError("`steps` got an empty list. Give 'all' for every step.")
    for step in requested:
        if step not in published_steps:
            nearest = _nearest(published_steps, step)
            raise ValueError(f"No step {step} in {series_name!r}; {nearest}. {_LIST_THEM}")
    return tuple(requested)


def log_spaced(steps: Sequence[int]) -> tuple[int, ...]:
    """Select steps that are evenly spaced on a logarithmic axis.

    These are the first step, the last step, and for every power of two between them the step with
    the nearest ratio to it. Of two equally near steps, the earlier is selected.

    Examples:
        >>> log_spaced([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
        (0, 1, 2, 4, 8, 10)
    """
    positive = sorted(step for step in set(steps) if step > 0)
    spaced = {min(steps), max(steps)}
    power = 1
    while positive and power <= positive[-1]:
        if power >= positive[0]:
            spaced.add(min(positive, key=lambda s: (max(s / power, power / s), s)))
        power *= 2
    return tuple(sorted(spaced))


_LIST_THEM = "List them with `tlens-trust checkpoints`, or give 'all'."


def _whole(step: SupportsIndex) -> int:
    # For Python, True is the whole number 1.
    if isinstance(step, bool) or not hasattr(step, "__index__"):
        raise ValueError(f"A step is a whole number, got {step!r} of type {type(step).__name__}.")
    return operator.index(step)


def _nearest(published_steps: Sequence[int], step: int) -> str:
    place = bisect_left(published_steps, step)
    near = published_steps[max(place - 1, 0) : place + 1]
    if len(near) == 1:
        return f"its nearest is {near[0]}"
    return f"its nearest are {near[0]} and {near[1]}"
