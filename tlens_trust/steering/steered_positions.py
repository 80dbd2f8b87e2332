"""Which tokens are steered.

A position is the place of a token in its own row, counted from 0 without padding, as the model
counts. A beginning-of-sequence token counts. Padding never does, and is never steered.

Positions are absolute, and the end of the prompt is fixed once the prompt has been processed. The
number of a token, and whether it belongs to the prompt, are the same with and without a key-value
cache. So text and logits do not depend on the cache.
"""

import operator
from collections.abc import Set
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import Any, TypeAlias

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from tlens_trust.arguments import is_whole

Positions: TypeAlias = str | int | tuple[int, int | None] | Set[int | str]

# Infinite where a position depends on the mask.
_Range: TypeAlias = tuple[int | float, int | float]

_NAMED = ("all", "prompt", "generated", "last")


@dataclass(frozen=True, eq=False)
class Layout:
    """The tokens of one forward pass, and their place in each row.

    Attributes:
        shape: Rows and columns of the input of this pass.
        full: False where a token is padding, over the columns in the cache and of the input. None
            where there is no padding.
        past: Columns in the cache.
        prompt_columns: Columns of the prompt.
        stated_lengths: Length of each row's prompt, if the user stated it.
        tokens: Ids of the input; None where only embeddings are known.
        device: Device of the tokens.
    """

    shape: tuple[int, int]
    full: Bool[Tensor, "batch total"] | None
    past: int
    prompt_columns: int
    stated_lengths: Int[Tensor, " batch"] | None
    tokens: Int[Tensor, "batch pos"] | None
    device: torch.device

    @cached_property
    def is_token(self) -> Bool[Tensor, "batch pos"]:
        """False where a token is padding."""
        return self._full[:, self.past :]

    @cached_property
    def position(self) -> Int[Tensor, "batch pos"]:
        """The place of each token in its own row."""
        return (self._full.long().cumsum(dim=1) - 1)[:, self.past :]

    @cached_property
    def prompt_length(self) -> Int[Tensor, " batch"]:
        """Tokens of each row's prompt."""
        if self.stated_lengths is not None:
            return self.stated_lengths.to(self.device).expand(self.shape[0])
        return self._full[:, : self.prompt_columns].long().sum(dim=1)

    @cached_property
    def every_token(self) -> Bool[Tensor, "batch pos"] | bool:
        """Where there is no padding; True for everywhere.

        A mask on another device is not tested for being all true, since the processor would have
        to wait for that device in the middle of a forward pass.
        """
        if self.full is None or (self.full.device.type == "cpu" and bool(self.is_token.all())):
            return True
        return self.is_token

    @cached_property
    def position_range(self) -> _Range:
        """The lowest and highest position that a token of the input can have."""
        return (self.past if self.full is None else 0), self._last_column

    @cached_property
    def range_after_prompt(self) -> _Range:
        """The same, counted from the end of the token's own prompt; negative inside it."""
        if self.stated_lengths is not None:
            return -inf, inf
        # A prompt cannot end later than the columns of it that were processed.
        end = min(self.prompt_columns, self._last_column + 1)
        lowest, highest = self.past - end, self._last_column - end
        if self.full is None:
            return lowest, highest
        # Padding shifts a row's tokens and its prompt's end alike, never a token across that end.
        return (0 if lowest >= 0 else -inf), (-1 if highest < 0 else highest)

    @property
    def _last_column(self) -> int:
        return self.past + self.shape[1] - 1

    @cached_property
    def _full(self) -> Bool[Tensor, "batch total"]:
        if self.full is not None:
            return self.full
        rows, columns = self.shape
        return torch.ones(rows, self.past + columns, dtype=torch.bool, device=self.device)


@dataclass(frozen=True)
class _Bound:
    """A position, counted from the start of a row or from the end of its prompt."""

    number: int
    after_prompt: bool = False

    def in_rows(self, layout: Layout) -> Int[Tensor, "batch 1"] | int:
        """The position in each row."""
        if not self.after_prompt:
            return self.number
        return layout.prompt_length[:, None] + self.number

    def compare(self, layout: Layout) -> tuple[bool, bool]:
        """Whether all tokens of a pass are surely at it or after it, and whether none is."""
        lowest, highest = layout.range_after_prompt if self.after_prompt else layout.position_range
        return lowest >= self.number, highest < self.number


_FIRST, _PROMPT_END = _Bound(0), _Bound(0, after_prompt=True)


@dataclass(frozen=True)
class PositionRule:
    """A rule for which positions to steer, made by `checked_positions`.

    Attributes:
        name: `"all"`, `"prompt"`, `"generated"`, `"last"`, `"span"` or `"tokens"`.
        start: First position of a span. A negative number counts from the end of the prompt.
        stop: One past the last position; None for no end. A negative number counts likewise.
        tokens: Ids of tokens.
    """

    name: str
    start: int = 0
    stop: int | None = None
    tokens: frozenset[int] = frozenset()

    def mask(self, layout: Layout) -> Bool[Tensor, "batch pos"] | bool:
        """Where to steer in a pass; True for everywhere, False for nowhere.

        The columns alone decide most passes. A step of a generation, which is steered as a whole or
        not at all, needs no mask.

        Raises:
            ValueError: The rule names tokens, and only embeddings are known.
        """
        if self.name == "tokens":
            return self._token_mask(layout)
        start, stop = self._bounds
        all_past_start, none_past_start = start.compare(layout)
        all_past_stop, none_past_stop = (False, True) if stop is None else stop.compare(layout)
        if none_past_start or all_past_stop:
            return False
        if all_past_start and none_past_stop:
            return layout.every_token
        mask = layout.is_token
        if not all_past_start:
            mask = mask & (layout.position >= start.in_rows(layout))
        if stop is not None and not none_past_stop:
            mask = mask & (layout.position < stop.in_rows(layout))
        return mask

    @cached_property
    def _bounds(self) -> tuple[_Bound, _Bound | None]:
        """The first position and one past the last."""
        if self.name == "all":
            return _FIRST, None
        if self.name == "prompt":
            return _FIRST, _PROMPT_END
        if self.name == "generated":
            return _PROMPT_END, None
        if self.name == "last":
            return _Bound(-1, after_prompt=True), _PROMPT_END
        stop = None if self.stop is None else _Bound(self.stop, after_prompt=self.stop < 0)
        return _Bound(self.start, after_prompt=self.start < 0), stop

    def _token_mask(self, layout: Layout) -> Bool[Tensor, "batch pos"]:
        if layout.tokens is None:
            raise ValueError(
                "`positions` names tokens, but the model was given embeddings, whose token ids are "
                "unknown. Pass token ids to the model."
            )
        tokens = torch.tensor(sorted(self.tokens), device=layout.tokens.device)
        return layout.is_token & torch.isin(layout.tokens, tokens).to(layout.device)


def checked_positions(
    positions: Any, tokenizer: Any = None, *, check_texts: bool = True
) -> PositionRule:
    """Make a rule from the `positions` that a user gives.

    Args:
        positions: As `steer` takes it.
        tokenizer: Gives the id of a token that is named by its text.
        check_texts: Whether tokens named by their texts are looked up. False before there is a
            tokenizer: the rule then leaves them out.

    Raises:
        ValueError: `positions` is none of the allowed values, a span is empty, or a text is not
            one token.

    Examples:
        >>> checked_positions((4, None))
        PositionRule(name='span', start=4, stop=None, tokens=frozenset())
    """
    if isinstance(positions, str):
        if positions == "last":
            return _single(-1)
        if positions in _NAMED:
            return PositionRule(positions)
    elif isinstance(positions, Set):
        return PositionRule("tokens", tokens=_token_ids(positions, tokenizer, check_texts))
    elif isinstance(positions, tuple | list) and len(positions) == 2:
        start, stop = positions
        if is_whole(start) and (stop is None or is_whole(stop)):
            start, stop = operator.index(start), None if stop is None else operator.index(stop)
            # Ends that count from different sides cannot be compared without a text.
            if stop == 0 or (stop is not None and start >= stop and (start < 0) == (stop < 0)):
                raise ValueError(
                    f"`positions` {positions!r} is an empty span. It begins at its first number "
                    "and ends before its second."
                )
            return PositionRule("span", start, stop)
    elif is_whole(positions):
        return _single(operator.index(positions))
    raise ValueError(
        f"`positions` says which tokens to steer, got {positions!r}. Allowed are "
        f"{', '.join(map(repr, _NAMED))}, a token's number, a span (start, stop) whose stop may be "
        "None, and a set of tokens; negative numbers count from the end of the prompt."
    )


def _single(number: int) -> PositionRule:
    # One past -1 is the end of the prompt, for which there is no negative number.
    return PositionRule("last") if number == -1 else PositionRule("span", number, number + 1)


def _token_ids(tokens: Set[Any], tokenizer: Any, check_texts: bool) -> frozenset[int]:
    if not tokens:
        raise ValueError("`positions` is an empty set of tokens. Name at least one.")
    ids = set()
    for token in tokens:
        if is_whole(token):
            ids.add(operator.index(token))
            continue
        if not isinstance(token, str):
            raise ValueError(
                f"A token is named by its id or its text, got {token!r} of type "
                f"{type(token).__name__}."
            )
        if not check_texts:
            continue
        if tokenizer is None:
            raise ValueError(
                f"`positions` names the token {token!r}, and the model has no tokenizer to look up "
                "its id. Name tokens by their ids."
            )
        split = tokenizer(token, add_special_tokens=False)["input_ids"]
        if len(split) != 1:
            raise ValueError(
                f"{token!r} is {len(split)} tokens, {split}. Name tokens that the tokenizer keeps "
                "whole (most begin with a space), or their ids."
            )
        ids.add(int(split[0]))
    return frozenset(ids)
