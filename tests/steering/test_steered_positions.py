"""Which positions a rule means in a pass, against a count by hand over each row's tokens."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tlens_trust.steering.steered_positions import Layout, checked_positions

RULES = [
    "all", "prompt", "generated", "last", 0, 2, -1, -2,
    (0, None), (2, None), (1, 4), (-2, None), (-1, None), (-3, -1), (1, -1), (-2, 6), {3, 5},
]  # fmt: skip


def is_meant(rule, position, length, token):
    """Whether a rule means one token, by the words of `steer`'s documentation."""
    if isinstance(rule, set):
        return token in rule
    first, end = (
        {
            "all": (0, None),
            "prompt": (0, length),
            "generated": (length, None),
            "last": (length - 1, length),
        }.get(rule, (None, None))
        if isinstance(rule, str)
        else (None, None)
    )
    if isinstance(rule, int):
        first = length + rule if rule < 0 else rule
        end = first + 1
    elif isinstance(rule, tuple):
        first, end = (
            length + number if number is not None and number < 0 else number for number in rule
        )
    return first <= position and (end is None or position < end)


@st.composite
def layouts(draw):
    """A pass over a few rows, padded at either side or not at all, and the ids of its tokens."""
    rows = draw(st.integers(1, 3))
    past = draw(st.integers(0, 5))
    columns = draw(st.integers(1, 5))
    total = past + columns
    prompt_columns = draw(st.integers(1, 8))
    full = torch.ones(rows, total, dtype=torch.bool)
    if draw(st.booleans()):
        for row in range(rows):
            # As models are given it: before the prompt, or between its end and what is generated.
            padding = draw(st.integers(0, min(prompt_columns, total) - 1))
            if draw(st.booleans()):
                full[row, :padding] = False
            else:
                end = min(prompt_columns, total)
                full[row, end - padding : end] = False
    stated_lengths = draw(st.none() | st.lists(st.integers(0, 8), min_size=rows, max_size=rows))
    ids = torch.tensor(
        draw(st.lists(st.integers(0, 6), min_size=rows * columns, max_size=rows * columns))
    ).reshape(rows, columns)
    return Layout(
        shape=(rows, columns),
        full=None if bool(full.all()) and draw(st.booleans()) else full,
        past=past,
        prompt_columns=prompt_columns,
        stated_lengths=None if stated_lengths is None else torch.tensor(stated_lengths),
        tokens=ids,
        device=torch.device("cpu"),
    )


@settings(max_examples=150, deadline=None)
@given(layout=layouts(), rule=st.sampled_from(RULES))
def test_a_rule_means_the_tokens_that_a_count_by_hand_finds(layout, rule):
    rows, columns = layout.shape
    kept = layout.full
    if kept is None:
        kept = torch.ones(rows, layout.past + columns, dtype=torch.bool)
    expected = torch.zeros(rows, columns, dtype=torch.bool)
    for row in range(rows):
        length = int(kept[row, : layout.prompt_columns].sum())
        if layout.stated_lengths is not None:
            length = int(layout.stated_lengths[row])
        for column in range(columns):
            place = layout.past + column
            position = int(kept[row, :place].sum())
            expected[row, column] = bool(kept[row, place]) and is_meant(
                rule, position, length, int(layout.tokens[row, column])
            )
    chosen = checked_positions(rule).mask(layout)
    if isinstance(chosen, bool):
        chosen = torch.full((rows, columns), chosen)
    assert chosen.tolist() == expected.tolist()


def step(full=None, past=7, columns=1):
    return Layout((2, columns), full, past, 7, None, None, torch.device("cpu"))


@pytest.mark.parametrize("rule", ["all", "generated", (-1, None), (3, None)])
def test_a_step_after_the_prompt_is_steered_whole_without_a_mask(rule):
    assert checked_positions(rule).mask(step()) is True


@pytest.mark.parametrize("rule", ["prompt", "last", (-3, -1), (1, -1), (2, 5)])
def test_a_step_after_the_prompt_is_left_alone_without_a_mask(rule):
    assert checked_positions(rule).mask(step()) is False


def test_padding_before_the_prompt_leaves_a_step_whole():
    full = torch.ones(2, 8, dtype=torch.bool)
    full[0, :3] = False
    assert checked_positions("generated").mask(step(full)) is True
    assert checked_positions("last").mask(step(full)) is False


def test_padding_in_the_step_itself_is_not_steered():
    full = torch.ones(2, 8, dtype=torch.bool)
    full[0, 7] = False
    assert checked_positions("generated").mask(step(full)).tolist() == [[False], [True]]


def test_the_prompt_holds_nothing_that_is_generated():
    assert checked_positions("generated").mask(step(past=0, columns=7)) is False
    mixed = checked_positions("generated").mask(step(past=0, columns=8))
    assert mixed.tolist() == [[False] * 7 + [True]] * 2
