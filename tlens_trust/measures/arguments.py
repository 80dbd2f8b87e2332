"""Numbers that a user gives to whatever counts, draws or judges, checked before work begins."""

import operator
from numbers import Real


def checked_seed(seed: object) -> int:
    """A seed, if it is one.

    Raises:
        ValueError: It is no whole number, or negative.

    Examples:
        >>> checked_seed(-1)
        Traceback (most recent call last):
        ValueError: `seed` must be a whole number from 0, got -1. One seed gives one answer.
    """
    found = _whole(seed)
    if found is None or found < 0:
        raise ValueError(
            f"`seed` must be a whole number from 0, got {seed!r}. One seed gives one answer."
        )
    return found


def checked_count(name: str, count: object, *, least: int = 1) -> int:
    """How many of something, if it is a number of things.

    Args:
        name: What the argument is called.
        count: What was given.
        least: The smallest that is allowed.

    Raises:
        ValueError: It is no whole number, or below the least.

    Examples:
        >>> checked_count("resamples", 0)
        Traceback (most recent call last):
        ValueError: `resamples` must be a whole number from 1, got 0. Leave it out for the default.
    """
    found = _whole(count)
    if found is None or found < least:
        raise ValueError(
            f"`{name}` must be a whole number from {least}, got {count!r}. Leave it out for the "
            "default."
        )
    return found


def checked_share(name: str, share: object, *, told: str) -> float:
    """A number strictly between 0 and 1, if it is one.

    Args:
        name: What the argument is called.
        share: What was given.
        told: A sentence that says what it is.

    Raises:
        ValueError: It is no number, or not between them.

    Examples:
        >>> checked_share("confidence", 95, told="0.95 is 95 in a hundred.")
        Traceback (most recent call last):
        ValueError: `confidence` must lie between 0 and 1, got 95. 0.95 is 95 in a hundred.
    """
    if isinstance(share, bool) or not isinstance(share, Real) or not 0 < float(share) < 1:
        raise ValueError(f"`{name}` must lie between 0 and 1, got {share!r}. {told}")
    return float(share)


def _whole(number: object) -> int | None:
    if isinstance(number, bool):
        return None
    try:
        return operator.index(number)  # type: ignore[arg-type]
    except TypeError:
        return None
