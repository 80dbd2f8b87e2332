"""Checks of the arguments that users give, made before any work begins."""

import operator
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from numbers import Real
from typing import SupportsIndex, TypeGuard

_DEFAULT = "Leave it out for the default."


def checked_seed(seed: object) -> int:
    """Return a seed as an integer.

    Raises:
        ValueError: It is not a whole number, or it is negative.

    Examples:
        >>> checked_seed(-1)
        Traceback (most recent call last):
        ValueError: `seed` must be a whole number from 0, got -1. One seed gives one answer.
    """
    return checked_count("seed", seed, least=0, hint="One seed gives one answer.")


def checked_count(name: str, count: object, *, least: int = 1, hint: str = _DEFAULT) -> int:
    """Return a number of things as an integer.

    Args:
        name: The argument's name.
        count: The value that was given.
        least: The smallest count that is allowed.
        hint: One sentence that says what to do instead.

    Raises:
        ValueError: It is not a whole number, or it is below `least`.

    Examples:
        >>> checked_count("resamples", 0)
        Traceback (most recent call last):
        ValueError: `resamples` must be a whole number from 1, got 0. Leave it out for the default.
    """
    if not is_whole(count) or (number := operator.index(count)) < least:
        raise ValueError(f"`{name}` must be a whole number from {least}, got {count!r}. {hint}")
    return number


def is_whole(number: object) -> TypeGuard[SupportsIndex]:
    """Whether something is a whole number, of Python or of numpy; True and False are not.

    Examples:
        >>> [is_whole(number) for number in (3, 3.0, True, "3")]
        [True, False, False, False]
    """
    # `bool` is a subclass of `int`, but a flag in place of a count is a mistake.
    if isinstance(number, bool):
        return False
    try:
        # Numpy's integers are no subclass of `int`. All whole numbers have `__index__`, and floats
        # lack it.
        operator.index(number)  # type: ignore[arg-type]
    except TypeError:
        return False
    return True


def check_counts(settings: object, least: Mapping[str, int]) -> None:
    """Check the counts among a frozen dataclass's fields, and store them as integers.

    Args:
        settings: The dataclass instance, while it is constructed.
        least: The smallest count that is allowed, by the field's name.

    Raises:
        ValueError: A field is not a whole number, or it is below its smallest count.
    """
    for name, smallest in least.items():
        number = checked_count(name, getattr(settings, name), least=smallest)
        # A frozen dataclass refuses an ordinary assignment, in its own `__post_init__` too.
        object.__setattr__(settings, name, number)


def checked_share(name: str, share: object, *, hint: str) -> float:
    """Return a number that lies strictly between 0 and 1.

    Args:
        name: The argument's name.
        share: The value that was given.
        hint: One sentence that says what the number means.

    Raises:
        ValueError: It is not a number, or not between 0 and 1.

    Examples:
        >>> checked_share("confidence", 95, hint="0.95 is 95 in a hundred.")
        Traceback (most recent call last):
        ValueError: `confidence` must lie between 0 and 1, got 95. 0.95 is 95 in a hundred.
    """
    # NaN fails the comparisons, so it is refused too.
    if not _is_real(share) or not 0 < float(share) < 1:  # type: ignore[arg-type]
        raise ValueError(f"`{name}` must lie between 0 and 1, got {share!r}. {hint}")
    return float(share)  # type: ignore[arg-type]


def checked_fraction(name: str, fraction: object, *, below_one: bool = False, hint: str) -> float:
    """Return a number from 0 to 1, both of which are allowed.

    Args:
        name: The argument's name.
        fraction: The value that was given.
        below_one: Whether to refuse 1 itself.
        hint: One sentence that says what the number means.

    Raises:
        ValueError: It is not a number, or it is out of this range.

    Examples:
        >>> checked_fraction("dropout", 1.5, below_one=True, hint="Take 0.3.")
        Traceback (most recent call last):
        ValueError: `dropout` must be a number from 0 to below 1, got 1.5. Take 0.3.
    """
    is_in_range = _is_real(fraction) and 0 <= float(fraction) <= 1  # type: ignore[arg-type]
    if not is_in_range or (below_one and fraction == 1):
        upper = "below 1" if below_one else "1"
        raise ValueError(f"`{name}` must be a number from 0 to {upper}, got {fraction!r}. {hint}")
    return float(fraction)  # type: ignore[arg-type]


def checked_positive(name: str, number: object, *, hint: str = _DEFAULT) -> float:
    """Return a positive, finite number.

    Args:
        name: The argument's name.
        number: The value that was given.
        hint: One sentence that says what the number means or what to do instead.

    Raises:
        ValueError: It is not a number, not positive, or infinite.

    Examples:
        >>> checked_positive("ridge", 0)
        Traceback (most recent call last):
        ValueError: `ridge` must be a positive number, got 0. Leave it out for the default.
    """
    if not _is_positive(number):
        raise ValueError(f"`{name}` must be a positive number, got {number!r}. {hint}")
    return float(number)  # type: ignore[arg-type]


def checked_grid(
    name: str, numbers: object, *, single: bool = False, empty: bool = False, hint: str
) -> tuple[float, ...]:
    """Return positive numbers in ascending order, each once.

    Args:
        name: The argument's name.
        numbers: The value that was given.
        single: Whether one number may be given without a list around it.
        empty: Whether an empty list is allowed.
        hint: One sentence that says what the numbers mean.

    Raises:
        ValueError: It is not a list of positive, finite numbers, or it is empty.

    Examples:
        >>> checked_grid("C", [10, 1, 1], hint="They are inverse penalty strengths.")
        (1.0, 10.0)
    """
    values = [numbers] if single and _is_real(numbers) else numbers
    # A text is iterable too, but its letters are no numbers.
    is_list = isinstance(values, Iterable) and not isinstance(values, str | bytes)
    members = list(values) if is_list else None  # type: ignore[call-overload]
    if members is None or not (members or empty) or not all(map(_is_positive, members)):
        kind = "a positive number, or a list of them" if single else "a list of positive numbers"
        raise ValueError(f"`{name}` must be {kind}, got {numbers!r}. {hint}")
    # A grid has one form, since it is a part of a measure's identity, and so of a cell's key.
    return tuple(sorted({float(member) for member in members}))


def checked_choice(name: str, choice: object, allowed: Sequence[str]) -> str:
    """Return one of a few names.

    Args:
        name: The argument's name.
        choice: The value that was given.
        allowed: The names to choose from.

    Raises:
        ValueError: It is none of them.

    Examples:
        >>> checked_choice("probe", "deep", ("linear", "mlp"))
        Traceback (most recent call last):
        ValueError: `probe` must be 'linear' or 'mlp', got 'deep'.
    """
    if not isinstance(choice, str) or choice not in allowed:
        raise ValueError(f"`{name}` must be {' or '.join(map(repr, allowed))}, got {choice!r}.")
    return choice


def _is_real(number: object) -> bool:
    # `bool` counts as a `Real`, since it is a subclass of `int`.
    return isinstance(number, Real) and not isinstance(number, bool)


def _is_positive(number: object) -> bool:
    # NaN fails the first comparison; infinity passes it and needs the second check.
    return _is_real(number) and float(number) > 0 and isfinite(number)  # type: ignore[arg-type]
