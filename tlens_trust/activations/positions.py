"""Which tokens of a statement are read, and how a hook takes them out of a batch.

Every position comes down to one span of the statement's own tokens, whose mean is read. A span
of one token is copied, so that it is the model's own number to the last bit.
"""

import operator
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

Position: TypeAlias = str | int | tuple[int, int | None]


def checked_position(position: Any) -> Position:
    """A position as `Activations` and the store hold it.

    Raises:
        ValueError: It is neither `"last"`, `"mean"`, a whole number nor a span of two.

    Examples:
        >>> checked_position([0, 4])
        (0, 4)
    """
    if isinstance(position, str):
        if position in ("last", "mean"):
            return position
    elif isinstance(position, Sequence) and len(position) == 2:
        start, stop = position
        if _is_whole(start) and (stop is None or _is_whole(stop)):
            return operator.index(start), None if stop is None else operator.index(stop)
    elif _is_whole(position):
        return operator.index(position)
    raise ValueError(
        f"`position` says which tokens to read, got {position!r}. Allowed are 'last', 'mean' "
        "(over the statement's own tokens), a token's number (negative from the end) and a span "
        "(start, stop), whose mean is read; stop may be None."
    )


def span_of(position: Position, n_tokens: int) -> tuple[int, int]:
    """The span `[start, stop)` of a statement's own tokens that a position stands for.

    Args:
        position: As `checked_position` gives it.
        n_tokens: How many tokens the statement has of its own.

    Raises:
        ValueError: The span is empty, or the statement has no such token.

    Examples:
        >>> span_of("last", 7), span_of((-3, None), 7)
        ((6, 7), (4, 7))
    """
    if position == "last":
        return n_tokens - 1, n_tokens
    if position == "mean":
        return 0, n_tokens
    if isinstance(position, tuple):
        first, last = position
        start = first + n_tokens if first < 0 else first
        stop = n_tokens if last is None else last + n_tokens if last < 0 else last
    else:
        start = int(position)
        start = start + n_tokens if start < 0 else start
        stop = start + 1
    if not 0 <= start < stop <= n_tokens:
        raise ValueError(
            f"`position` {position!r} stands for no token of a statement of {n_tokens} "
            f"{'token' if n_tokens == 1 else 'tokens'}. Nothing is cut to fit: choose a position "
            "that every statement has, or leave the short ones out."
        )
    return start, stop


def read_span(
    x: Float[Tensor, "batch pos ..."],
    starts: Int[Tensor, " batch"],
    stops: Int[Tensor, " batch"],
    *,
    single: bool,
) -> Float[Tensor, "batch ..."]:
    """Mean of a span of positions in each row, as a tensor of its own.

    Args:
        x: What a hook point holds.
        starts: First position of each row's span.
        stops: One past the last.
        single: Every span is one position wide.

    Returns:
        A copy that keeps nothing of `x` alive: in its dtype for single positions, else float32.
    """
    if single:
        return x[torch.arange(len(x), device=x.device), starts]
    positions = torch.arange(x.shape[1], device=x.device)
    outside = (positions < starts[:, None]) | (positions >= stops[:, None])
    # Zeroing, and not multiplying by zero, keeps whatever stands in the padding out of the sum.
    kept = x.masked_fill(outside.view(*outside.shape, *[1] * (x.ndim - 2)), 0.0)
    total = kept.sum(dim=1, dtype=torch.float32)
    return total / (stops - starts).view(-1, *[1] * (x.ndim - 2))


def _is_whole(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    try:
        operator.index(value)
    except TypeError:
        return False
    return True
