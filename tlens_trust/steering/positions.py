"""Which tokens are steered.

A position is the place of a token in its own row, counted from 0 without padding, as the model
counts: a beginning-of-sequence token counts, padding never does and is never steered. Positions are
absolute, and where the prompt ends is fixed when it has been read: what a token is, prompt or
generated, and which number it has, is the same whether earlier tokens come out of a key-value cache
or are read again. So text and logits do not depend on the cache.
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

Positions: TypeAlias = str | int | tuple[int, int | None] | Set[int | str]

# Infinite where a position is not known without looking at the mask.
_Range: TypeAlias = tuple[int | float, int | float]

_NAMED = ("all", "prompt", "generated", "last")


@dataclass(frozen=True, eq=False)
class Layout:
    """What stands where in one forward pass.

    Attributes:
        shape: Rows and columns that are read in this pass.
        full: False where a token is padding, over all columns up to the last one that is read,
            those in the cache too; None where nothing is.
        past: Columns that are in the cache.
        prompt_columns: Columns of the prompt.
        stated: Length of each row's prompt where the user said so.
        tokens: Ids of what is read; None where only embeddings are known.
        device: Where the tokens are.
    """

    shape: tuple[int, int]
    full: Bool[Tensor, "batch total"] | None
    past: int
    prompt_columns: int
    stated: Int[Tensor, " batch"] | None
    tokens: Int[Tensor, "batch pos"] | None
    device: torch.device

    @cached_property
    def kept(self) -> Bool[Tensor, "batch pos"]:
        """False where a token is padding."""
        return self._full[:, self.past :]

    @cached_property
    def position(self) -> Int[Tensor, "batch pos"]:
        """The place of each token in its own row."""
        return (self._full.long().cumsum(dim=1) - 1)[:, self.past :]

    @cached_property
    def prompt_length(self) -> Int[Tensor, " batch"]:
        """Tokens of each row's prompt."""
        if self.stated is not None:
            return self.stated.to(self.device).expand(self.shape[0])
        return self._full[:, : self.prompt_columns].long().sum(dim=1)

    @cached_property
    def every_token(self) -> Bool[Tensor, "batch pos"] | bool:
        """Where no padding stands; True for everywhere.

        Whether a mask on another device is all true is not asked, since the processor would have
        to wait for that device in the middle of a forward pass.
        """
        if self.full is None or (self.full.device.type == "cpu" and bool(self.kept.all())):
            return True
        return self.kept

    @cached_property
    def positions_read(self) -> _Range:
        """The lowest and highest position that a token of this pass can have."""
        return (self.past if self.full is None else 0), self._last_column

    @cached_property
    def positions_after_prompt(self) -> _Range:
        """The same, counted from the end of the token's own prompt; negative inside it."""
        if self.stated is not None:
            return -inf, inf
        # A prompt cannot end later than what has been read of it.
        end = min(self.prompt_columns, self._last_column + 1)
        lowest, highest = self.past - end, self._last_column - end
        if self.full is None:
            return lowest, highest
        # Padding shifts a row's tokens and its prompt's end, but never a token across that end.
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

    def passed(self, layout: Layout) -> tuple[bool, bool]:
        """Whether all tokens of a pass surely stand at it or after it, and whether none does."""
        lowest, highest = (
            layout.positions_after_prompt if self.after_prompt else layout.positions_read
        )
        return lowest >= self.number, highest < self.number


_FIRST, _PROMPT_END = _Bound(0), _Bound(0, after_prompt=True)


@dataclass(frozen=True)
class PositionRule:
    """Which positions are meant, as `checked_positions` makes it.

    Attributes:
        name: `"all"`, `"prompt"`, `"generated"`, `"last"`, `"span"` or `"tokens"`.
        start: First position of a span; negative from the end of the prompt.
        stop: One past its last; None for no end, negative from the end of the prompt.
        tokens: Ids of tokens.
    """

    name: str
    start: int = 0
    stop: int | None = None
    tokens: frozenset[int] = frozenset()

    def chosen(self, layout: Layout) -> Bool[Tensor, "batch pos"] | bool:
        """Where to steer in a pass; True for everywhere, False for nowhere.

        Most passes are decided by their columns alone, so that a step of a generation, which is
        steered whole or not at all, costs no mask.

        Raises:
            ValueError: Tokens are asked for, and only embeddings are known.
        """
        if self.name == "tokens":
            return self._chosen_tokens(layout)
        start, stop = self._bounds
        all_past_start, none_past_start = start.passed(layout)
        all_past_stop, none_past_stop = (False, True) if stop is None else stop.passed(layout)
        if none_past_start or all_past_stop:
            return False
        if all_past_start and none_past_stop:
            return layout.every_token
        inside = layout.kept
        if not all_past_start:
            inside = inside & (layout.position >= start.in_rows(layout))
        if stop is not None and not none_past_stop:
            inside = inside & (layout.position < stop.in_rows(layout))
        return inside

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

    def _chosen_tokens(self, layout: Layout) -> Bool[Tensor, "batch pos"]:
        if layout.tokens is None:
            raise ValueError(
                "`positions` names tokens, but the model was given embeddings, so that nobody "
                "knows which tokens they are. Pass token ids to the model."
            )
        wanted = torch.tensor(sorted(self.tokens), device=layout.tokens.device)
        return layout.kept & torch.isin(layout.tokens, wanted).to(layout.device)


def checked_positions(positions: Any, tokenizer: Any = None) -> PositionRule:
    """A rule for what a user asks for.

    Args:
        positions: As `steer` takes it.
        tokenizer: Says which id a token has that is named by its text.

    Raises:
        ValueError: It is nothing of the kind, a span is empty, or a text is not one token.

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
        return PositionRule("tokens", tokens=_token_ids(positions, tokenizer))
    elif isinstance(positions, tuple | list) and len(positions) == 2:
        start, stop = positions
        if _is_whole(start) and (stop is None or _is_whole(stop)):
            start, stop = operator.index(start), None if stop is None else operator.index(stop)
            if stop == 0 or (stop is not None and start >= stop and (start < 0) == (stop < 0)):
                raise ValueError(
                    f"`positions` {positions!r} is an empty span. It begins at its first number "
                    "and ends before its second."
                )
            return PositionRule("span", start, stop)
    elif _is_whole(positions):
        return _single(operator.index(positions))
    raise ValueError(
        f"`positions` says which tokens to steer, got {positions!r}. Allowed are "
        f"{', '.join(map(repr, _NAMED))}, a token's number, a span (start, stop) whose stop may be "
        "None, and a set of tokens; negative numbers count from the end of the prompt."
    )


def _single(number: int) -> PositionRule:
    # One past -1 is where the prompt ends, which no negative number says.
    return PositionRule("last") if number == -1 else PositionRule("span", number, number + 1)


def _token_ids(tokens: Set[Any], tokenizer: Any) -> frozenset[int]:
    if not tokens:
        raise ValueError("`positions` is an empty set of tokens. Name at least one.")
    ids = set()
    for token in tokens:
        if _is_whole(token):
            ids.add(operator.index(token))
            continue
        if not isinstance(token, str):
            raise ValueError(
                f"A token is named by its id or its text, got {token!r} of type "
                f"{type(token).__name__}."
            )
        if tokenizer is None:
            raise ValueError(
                f"`positions` names the token {token!r}, and the model has no tokenizer to say "
                "which id that is. Name tokens by their ids."
            )
        split = tokenizer(token, add_special_tokens=False)["input_ids"]
        if len(split) != 1:
            raise ValueError(
                f"{token!r} is {len(split)} tokens, {split}. Name tokens that the tokenizer keeps "
                "whole (most begin with a space), or their ids."
            )
        ids.add(int(split[0]))
    return frozenset(ids)


def _is_whole(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    try:
        operator.index(value)
    except TypeError:
        return False
    return True
