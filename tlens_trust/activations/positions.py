"""Finds the tokens of a statement that are read, and reads them from a batch.

Every position is one span of the statement's own tokens, whose mean is read. A span of one token is
copied, so that its numbers are exactly the model's.
"""

import operator
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tlens_trust.arguments import is_whole

Position: TypeAlias = str | int | tuple[int, int | None]


def checked_position(position: Any) -> Position:
    """Check a position, and return it in the form that `Activations` and the store hold.

    Raises:
        ValueError: It is none of `"last"`, `"mean"`, a whole number and a span of two.

    Examples:
        >>> checked_position([0, 4])
        (0, 4)
    """
    if isinstance(position, str):
        if position in ("last", "mean"):
            return position
    elif isinstance(position, Sequence) and len(position) == 2:
        start, stop = position
        if is_whole(start) and (stop is None or is_whole(stop)):
            return operator.index(start), None if stop is None else operator.index(stop)
    elif is_whole(position):
        return operator.index(position)
    raise ValueError(
        f"`position` says which tokens to read, got {position!r}. Allowed are 'last', 'mean' "
        "(over the statement's own tokens), a token's number (negative from the end) and a span "
        "(start, stop), whose mean is read; stop may be None."
    )


def span_of(position: Position, n_tokens: int) -> tuple[int, int]:
    """Return the span `[start, stop)` of a statement's own tokens that a position means.

    Args:
        position: A position from `checked_position`.
        n_tokens: Number of the statement's own tokens.

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
        span_start, span_stop = position
        start = span_start + n_tokens if span_start < 0 else span_start
        stop = (
            n_tokens if span_stop is None else span_stop + n_tokens if span_stop < 0 else span_stop
        )
    else:
        start = int(position)
        start = start + n_tokens if start < 0 else start
        stop = start + 1
    if not 0 <= start < stop <= n_tokens:
        raise ValueError(
            f"`position` {position!r} is no token of a statement of {n_tokens} "
            f"{'token' if n_tokens == 1 else 'tokens'}. Choose a position that every statement "
            "has, or leave the short statements out."
        )
    return start, stop


def read_span(
    x: Float[Tensor, "batch pos ..."],
    starts: Int[Tensor, " batch"],
    stops: Int[Tensor, " batch"],
    *,
    single: bool,
) -> Float[Tensor, "batch ..."]:
    """Compute the mean of a span of positions in each row, as a new tensor.

    Args:
        x: The activations at a hook point.
        starts: First position of each row's span.
        stops: One past the last.
        single: Whether every span is one position wide.

    Returns:
        A copy that shares no memory with `x`, in its dtype for single positions, else in float32.
    """
    if single:
        # An index by tensors makes a copy, so that the whole tensor can be freed.
        return x[torch.arange(len(x), device=x.device), starts]
    positions = torch.arange(x.shape[1], device=x.device)
    is_outside = (positions < starts[:, None]) | (positions >= stops[:, None])
    # Padding may hold NaN, and NaN times zero is NaN. So values are replaced by zero instead.
    span_values = x.masked_fill(is_outside.view(*is_outside.shape, *[1] * (x.ndim - 2)), 0.0)
    # In float32: a 16-bit sum of many positions would round away much of each.
    total = span_values.sum(dim=1, dtype=torch.float32)
    return total / (stops - starts).view(-1, *[1] * (x.ndim - 2))
