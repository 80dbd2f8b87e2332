import sys
from itertools import combinations

import numpy as np
import pytest

from tlens_trust.analysis.phases.turning_points import (
    BrokenLines,
    find_turning_points,
    search_with_ruptures,
)

UNEVEN = np.array([0.0, 0.2, 0.5, 2.0, 2.3, 3.0, 5.0, 5.5, 7.0, 7.2, 9.0])


def broken(position, *corners, slopes):
    """A line that starts at 0 and changes its slope at the corners."""
    bends = np.diff([0.0, *slopes])
    starts = [position[0], *(position[corner] for corner in corners)]
    return sum(
        bend * np.clip(position - start, 0, None) for bend, start in zip(bends, starts, strict=True)
    )


@pytest.mark.parametrize("corners", [(), (4,), (2, 7), (3, 5)])
def test_planted_corners_are_found_on_an_uneven_axis(corners):
    values = broken(UNEVEN, *corners, slopes=[1.0, -2.0, 0.5][: len(corners) + 1])
    assert find_turning_points(UNEVEN, values) == corners


def test_distances_between_checkpoints_count():
    steps = 2.0 ** np.arange(11)
    assert find_turning_points(np.log(steps), np.log(steps)) == ()
    assert find_turning_points(steps, np.log(steps)) != ()


def test_no_turn_is_put_into_noise_of_which_the_search_knows():
    generator = np.random.default_rng(0)
    told, untold = 0, 0
    for _ in range(60):
        values = 0.3 * UNEVEN + generator.normal(0, 0.1, len(UNEVEN))
        told += bool(find_turning_points(UNEVEN, values, noise=0.01))
        untold += bool(find_turning_points(UNEVEN, values))
    assert told < 0.2 * 60 < untold


def test_the_search_is_exact():
    generator = np.random.default_rng(1)
    values = generator.normal(size=len(UNEVEN)).cumsum()
    best, left = BrokenLines.of(UNEVEN, 2, min_steps=2).best(values[None])

    def squares(turns):
        bends = [np.clip(UNEVEN - UNEVEN[turn], 0, None) for turn in turns]
        design = np.column_stack([np.ones_like(UNEVEN), UNEVEN, *bends])
        return float(np.square(values - design @ np.linalg.lstsq(design, values)[0]).sum())

    every = {
        turns: squares(turns)
        for turns in combinations(range(2, len(UNEVEN) - 2), 2)
        if turns[1] - turns[0] >= 2
    }
    lines = BrokenLines.of(UNEVEN, 2, min_steps=2)
    assert lines.turning[int(best[0])] == min(every, key=every.get)
    assert float(left[0]) == pytest.approx(min(every.values()))


@pytest.mark.parametrize("min_steps", [1, 2, 3])
def test_segments_are_never_shorter_than_asked(min_steps):
    generator = np.random.default_rng(2)
    for _ in range(20):
        values = generator.normal(size=len(UNEVEN))
        turns = find_turning_points(UNEVEN, values, min_steps=min_steps)
        assert min(np.diff([0, *turns, len(UNEVEN) - 1])) >= min_steps


def test_too_few_checkpoints_are_one_segment():
    assert find_turning_points(np.arange(4.0), np.array([0.0, 5.0, 5.0, 0.0])) == ()
    assert find_turning_points(np.arange(5.0), np.array([0.0, 2.0, 4.0, 2.0, 0.0])) == (2,)


def test_many_checkpoints_are_thinned_and_the_turns_found_nearby():
    position = np.log1p(np.arange(400.0))
    values = broken(position, 90, 300, slopes=[1.0, -1.0, 2.0])
    found = find_turning_points(position, values)
    assert np.abs(position[list(found)] - position[[90, 300]]).max() < 0.05


def test_ruptures_finds_the_same_corner():
    pytest.importorskip("ruptures")
    position = np.linspace(0, 10, 21)
    values = broken(position, 8, slopes=[1.0, -2.0])
    (turn,) = search_with_ruptures(position, values, 1, 2)
    assert abs(turn - 8) <= 1
    assert find_turning_points(position, values, search=search_with_ruptures)[0] == turn


def test_without_ruptures_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ruptures", None)
    with pytest.raises(ImportError, match=r"tlens-trust\[phases\]"):
        search_with_ruptures(UNEVEN, UNEVEN, 1, 2)
