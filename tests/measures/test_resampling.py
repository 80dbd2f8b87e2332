"""Halves of the groups show the sampling error of an estimate."""

import numpy as np
import pytest

from tlens_trust.measures.resampling import HalfSamples


def names_of(sizes: np.ndarray) -> list[str]:
    return [f"g{number:03d}" for number, size in enumerate(sizes) for _ in range(size)]


def test_a_half_holds_whole_groups_and_half_of_them():
    groups = names_of(np.random.default_rng(0).integers(1, 5, size=41))
    halves = HalfSamples.draw(groups, resamples=30, seed=1)
    for half in halves.members:
        inside = {g for g, member in zip(groups, half, strict=True) if member}
        outside = {g for g, member in zip(groups, half, strict=True) if not member}
        assert not inside & outside
        assert len(inside) == 20
    assert len({half.tobytes() for half in halves.members}) == 30


def test_halves_depend_on_names_and_seed_and_not_on_the_order_of_rows():
    groups = names_of(np.full(20, 2))
    order = np.random.default_rng(0).permutation(len(groups))
    halves = HalfSamples.draw(groups, resamples=5, seed=3)
    shuffled = HalfSamples.draw([groups[row] for row in order], resamples=5, seed=3)
    np.testing.assert_array_equal(shuffled.members, halves.members[:, order])
    assert (HalfSamples.draw(groups, resamples=5, seed=4).members != halves.members).any()


def test_every_half_holds_both_labels_where_one_is_rare():
    groups = names_of(np.ones(12, dtype=int))
    labels = np.array([1, 1, *[0] * 10])
    bare = HalfSamples.draw(groups, resamples=40, seed=0)
    assert not bare.members[:, labels == 1].any(axis=1).all()  # Without being told, some lack one.
    halves = HalfSamples.draw(groups, resamples=40, seed=0, labels=labels)
    assert halves.members[:, labels == 1].any(axis=1).all()


def test_labels_that_no_half_can_both_hold_are_refused():
    groups = names_of(np.full(8, 2))
    with pytest.raises(ValueError, match="both labels"):
        HalfSamples.draw(groups, resamples=4, seed=0, labels=np.zeros(16, dtype=np.int64))


def test_too_few_groups_are_refused():
    with pytest.raises(ValueError, match="at least 4 groups, got 3"):
        HalfSamples.draw(list("abc"), resamples=4, seed=0)


@pytest.mark.parametrize("count", [40, 41])
def test_the_spread_on_halves_is_the_sampling_error_of_a_mean_over_groups(count):
    generator = np.random.default_rng(count)
    groups = names_of(np.full(count, 3))
    halves = HalfSamples.draw(groups, resamples=2000, seed=0)
    shared = np.repeat(generator.standard_normal(count), 3)
    on_halves = halves.members @ shared / halves.members.sum(axis=1)
    replicates = halves.replicates_about(shared.mean(), on_halves)
    assert replicates.mean() == pytest.approx(shared.mean())
    expected = shared[::3].std(ddof=1) / np.sqrt(count)
    assert replicates.std() == pytest.approx(expected, rel=0.06)
    # Rows do not count as groups.
    assert replicates.std() > 1.4 * shared.std(ddof=1) / np.sqrt(3 * count)


def test_an_interval_from_halves_covers_a_mean_as_often_as_it_says():
    groups = names_of(np.full(30, 2))
    halves = HalfSamples.draw(groups, resamples=32, seed=0)
    generator = np.random.default_rng(5)
    covered = 0
    for _ in range(400):
        rows = np.repeat(generator.standard_normal(30), 2) + generator.standard_normal(60)
        value = np.array(rows.mean())
        on_halves = halves.members @ rows / halves.members.sum(axis=1)
        low, high = halves.interval(value, halves.replicates_about(value, on_halves))
        covered += low < 0 < high
    assert 365 <= covered <= 395
