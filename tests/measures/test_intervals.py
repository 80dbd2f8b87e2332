"""Intervals of fractions and differences keep their width where all resamples agree."""

import warnings

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from tlens_trust.measures.intervals import (
    clopper_pearson,
    difference_interval,
    fraction_interval,
    has_no_spread,
    percentile_interval,
    unseen_share,
)
from tlens_trust.measures.resampling import GroupBootstrap


def exact(successes: int, trials: int, confidence: float) -> tuple[float, float]:
    interval = binomtest(successes, trials).proportion_ci(confidence, method="exact")
    return float(interval.low), float(interval.high)


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
@pytest.mark.parametrize(
    ("successes", "trials"), [(0, 1), (1, 1), (0, 40), (40, 40), (13, 40), (1, 300)]
)
def test_clopper_and_pearson_s_interval_is_scipy_s(successes, trials, confidence):
    interval = clopper_pearson(successes / trials, trials, confidence)
    assert interval == pytest.approx(exact(successes, trials, confidence), rel=1e-9)


def test_an_interval_at_another_confidence_is_another():
    """A negative control for the comparison with SciPy."""
    assert clopper_pearson(0.0, 40, 0.9) != pytest.approx(exact(0, 40, 0.95), rel=1e-3)


def test_without_any_trial_nothing_is_known_of_a_fraction():
    assert clopper_pearson(1.0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("groups", [1, 2, 15, 400])
def test_the_unseen_share_is_the_upper_end_of_no_success(groups):
    assert unseen_share(groups) == pytest.approx(exact(0, groups, 0.95)[1], rel=1e-9)
    assert unseen_share(groups, 0.05) < unseen_share(groups)


def intervals_of(rows: np.ndarray, groups: list[str]) -> tuple[np.ndarray, ...]:
    bootstrap = GroupBootstrap.draw(groups, seed=0, resamples=200)
    resampled = bootstrap.means(rows)
    return rows.mean(axis=0), percentile_interval(resampled), resampled


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_fraction_without_spread_gets_the_exact_interval(value):
    fraction, interval, resampled = intervals_of(np.full((30, 1), value), list(map(str, range(30))))
    assert np.ptp(interval) == 0
    bounds = fraction_interval(fraction, interval, resampled, 30)
    assert bounds[0] == pytest.approx(exact(int(30 * value), 30, 0.95), rel=1e-9)


def test_a_fraction_that_misses_one_by_rounding_counts_as_one():
    almost = sum([0.1] * 10)
    assert almost != 1
    rows = np.full((30, 1), almost)
    bounds = fraction_interval(*intervals_of(rows, list(map(str, range(30)))), 30)
    assert bounds[0] == pytest.approx(exact(30, 30, 0.95), rel=1e-9)


def test_a_fraction_that_is_a_half_in_every_group_has_an_interval_too():
    rows = np.tile([[0.0], [1.0]], (20, 1))
    groups = [str(row // 2) for row in range(40)]
    bounds = fraction_interval(*intervals_of(rows, groups), 20)
    assert bounds[0] == pytest.approx(exact(10, 20, 0.95), rel=1e-9)


def test_an_interval_with_spread_is_left_alone():
    """A negative control: the rule is for agreement of resamples, not for high fractions."""
    rows = np.ones((30, 1))
    rows[0] = 0
    fraction, interval, resampled = intervals_of(rows, list(map(str, range(30))))
    np.testing.assert_array_equal(
        fraction_interval(fraction, interval, resampled, 30), interval.clip(0, 1)
    )
    np.testing.assert_array_equal(difference_interval(fraction, interval, resampled, 30), interval)


def test_resamples_without_a_value_do_not_hide_that_the_others_agree():
    resampled = np.array([[1.0, np.nan], [np.nan, np.nan], [1.0, np.nan]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert has_no_spread(resampled).tolist() == [True, False]


def test_each_fraction_rests_on_its_own_number_of_groups():
    bounds = fraction_interval(np.ones(2), np.ones((2, 2)), np.ones((9, 2)), np.array([5, 50]))
    for found, groups in zip(bounds, (5, 50), strict=True):
        assert tuple(found) == pytest.approx(exact(groups, groups, 0.95), rel=1e-9)


@pytest.mark.parametrize("value", [-1.0, -0.5, 0.0, 0.5, 1.0])
def test_a_difference_without_spread_reaches_as_far_as_unseen_groups_allow(value):
    bounds = difference_interval(
        np.full(1, value), np.full((1, 2), value), np.full((9, 1), value), 20
    )
    most = exact(0, 20, 0.95)[1]
    low, high = (1 - most) * value - most, (1 - most) * value + most
    assert bounds[0] == pytest.approx((low, high), abs=1e-12)
    assert bounds.min() >= -1
    assert bounds.max() <= 1


def test_the_interval_of_a_rare_difference_covers_it():
    """Of 20 groups, one in twenty differs; most samples show at most a few of them."""
    share, covered = 0.05, 0
    generator = np.random.default_rng(0)
    for _ in range(300):
        rows = (generator.random((20, 1)) < share).astype(float)
        if rows.any():
            continue
        low, high = difference_interval(*intervals_of(rows, list(map(str, range(20)))), 20)[0]
        covered += low <= share <= high
    none_seen = binom.pmf(0, 20, share)
    assert covered > 300 * none_seen / 2
