import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlens_trust.checkpoints.families import find_family
from tlens_trust.checkpoints.steps import choose_steps, log_spaced

STEPS = st.lists(st.integers(0, 10**6), min_size=1, max_size=60)


@given(STEPS)
def test_log_keeps_the_ends_and_takes_only_what_is_there(steps):
    chosen = log_spaced(steps)
    assert set(chosen) <= set(steps)
    assert chosen[0] == min(steps)
    assert chosen[-1] == max(steps)
    assert list(chosen) == sorted(set(chosen))


@given(STEPS, st.integers(0, 19))
def test_log_takes_a_step_nearest_to_every_power_of_two_in_between(steps, power):
    positive = [step for step in steps if step > 0]
    if not positive or not min(positive) <= 2**power <= max(positive):
        return

    def distance(step):
        return max(step / 2**power, 2**power / step)

    nearest = min(distance(step) for step in positive)
    assert any(distance(step) == nearest for step in log_spaced(steps) if step > 0)


def test_log_thins_pythia_out_to_a_handful():
    chosen = log_spaced(find_family("EleutherAI/pythia-160m").schedule)
    assert chosen[:12] == (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
    assert chosen[-3:] == (66_000, 131_000, 143_000)
    assert len(chosen) == 20


def test_a_range_takes_the_steps_that_lie_in_it_and_a_list_every_one_of_its_own():
    there = [0, 1, 2, 512, 1000, 2000, 3000]
    assert choose_steps(there, range(1, 2001), "run") == (1, 2, 512, 1000, 2000)
    assert choose_steps(there, range(0, 3001, 1000), "run") == (0, 1000, 2000, 3000)
    assert choose_steps(there, [2000, 0, 2000], "run") == (0, 2000)
    assert choose_steps(there, np.array([512, 1]), "run") == (1, 512)
    assert choose_steps(there, "all", "run") == tuple(there)


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ([1500], "its nearest are 1000 and 2000"),
        ([5000], "its nearest is 2000"),
        ([-4], "its nearest is 0"),
        (range(10, 20), "its nearest are 0 and 1000"),
        ([], "got an empty list"),
        ("every", "'log', 'all'"),
        ([True], "whole number"),
    ],
)
def test_steps_that_are_not_there_name_their_neighbours(steps, says):
    with pytest.raises(ValueError, match=says):
        choose_steps([0, 1000, 2000], steps, "run")
