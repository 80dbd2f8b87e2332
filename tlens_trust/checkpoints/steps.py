"""Which checkpoints of a run are wanted."""

import operator
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import SupportsIndex


def choose_steps(
    available: Iterable[int], steps: str | Iterable[SupportsIndex], where: str
) -> tuple[int, ...]:
    """The steps that a user asks for, among those that there are, in training order.

    Args:
        available: Steps that there are.
        steps: `"all"`; `"log"` for `log_spaced`; a range, of which those that there are are taken;
            or a list, all of which must be there.
        where: What holds the checkpoints, for an error.

    Raises:
        ValueError: A step is not there, or nothing is asked for.

    Examples:
        >>> choose_steps([0, 1, 2, 4, 1000, 2000], range(1, 1001), "run")
        (1, 2, 4, 1000)
        >>> choose_steps([0, 1000, 2000], [1500], "run")
        Traceback (most recent call last):
        ValueError: No step 1500 in 'run'; its nearest are 1000 and 2000. ...
    """
    there = sorted(set(available))
    if isinstance(steps, str):
        if steps == "all":
            return tuple(there)
        if steps == "log":
            return log_spaced(there)
        raise ValueError(
            f"`steps` got {steps!r}. Give 'log', 'all', a list of steps or a range of them."
        )
    if isinstance(steps, range):
        chosen = [step for step in there if step in steps]
        if not chosen:
            raise ValueError(
                f"No checkpoint of {where!r} lies in {steps}; "
                f"{_nearest(there, steps.start)}. {_LIST_THEM}"
            )
        return tuple(chosen)
    wanted = sorted({_whole(step) for step in steps})
    if not wanted:
        raise ValueError("`steps` asks for nothing, got an empty list. Give 'all' for every step.")
    for step in wanted:
        if step not in there:
            raise ValueError(f"No step {step} in {where!r}; {_nearest(there, step)}. {_LIST_THEM}")
    return tuple(wanted)


def log_spaced(steps: Sequence[int]) -> tuple[int, ...]:
    """Thin steps out evenly on a logarithmic axis.

    The first and the last stay, and for every power of two between them the step that is nearest
    to it by ratio; of two that are equally near, the earlier.

    Examples:
        >>> log_spaced([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
        (0, 1, 2, 4, 8, 10)
    """
    positive = sorted(step for step in set(steps) if step > 0)
    chosen = {min(steps), max(steps)}
    power = 1
    while positive and power <= positive[-1]:
        if power >= positive[0]:
            chosen.add(min(positive, key=lambda s: (max(s / power, power / s), s)))
        power *= 2
    return tuple(sorted(chosen))


_LIST_THEM = "List them with `tlens-trust checkpoints`, or ask for 'all'."


def _whole(step: SupportsIndex) -> int:
    if isinstance(step, bool) or not hasattr(step, "__index__"):
        raise ValueError(f"A step is a whole number, got {step!r} of type {type(step).__name__}.")
    return operator.index(step)


def _nearest(there: Sequence[int], step: int) -> str:
    place = bisect_left(there, step)
    near = there[max(place - 1, 0) : place + 1]
    if len(near) == 1:
        return f"its nearest is {near[0]}"
    return f"its nearest are {near[0]} and {near[1]}"
