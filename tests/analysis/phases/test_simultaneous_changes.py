import numpy as np
import pytest
from scipy.stats import binom
from scipy.stats import t as student

from tlens_trust.analysis.phases.simultaneous_changes import Changes, draw_noise

CHECKPOINTS, RESAMPLES, RUNS = 9, 32, 300


def still(generator, shared):
    """A curve that does not change, read with noise that neighbours share a part of."""

    def noise(count):
        own = generator.standard_normal((count, CHECKPOINTS))
        return shared * generator.standard_normal((count, 1)) + own

    return noise(1)[0], noise(RESAMPLES)


def changes_of(values, replicates, generator, draws=400):
    noise = draw_noise(RESAMPLES, draws=draws, freedom=RESAMPLES - 1, generator=generator)
    return Changes.of(values, replicates, noise, min_steps=1)


@pytest.mark.parametrize("shared", [0.0, 3.0])
def test_the_largest_of_all_changes_is_claimed_at_the_nominal_rate(shared):
    generator = np.random.default_rng(0)
    claimed, naive = 0, 0
    for _ in range(RUNS):
        values, replicates = still(generator, shared)
        changes = changes_of(values, replicates, generator)
        first, last = int(values.argmin()), int(values.argmax())
        claimed += changes.p_value(first, last) <= 0.05
        apart = replicates[:, last] - replicates[:, first]
        told = abs(values[last] - values[first]) / apart.std(ddof=1)
        naive += 2 * student.sf(told, RESAMPLES - 1) <= 0.05
    assert claimed <= binom.ppf(0.999, RUNS, 0.05)
    # Each change by itself, as if it had not been chosen by looking.
    assert naive > 0.3 * RUNS


def test_all_intervals_hold_at_once():
    generator = np.random.default_rng(1)
    held = 0
    truth = np.linspace(0, 5, CHECKPOINTS)
    for _ in range(RUNS):
        values, replicates = still(generator, 1.0)
        changes = changes_of(values + truth, replicates + truth, generator)
        held += all(
            low <= truth[j] - truth[i] <= high
            for i in range(CHECKPOINTS)
            for j in range(i + 1, CHECKPOINTS)
            for low, high in [changes.interval(i, j, 0.95)]
        )
    assert held >= binom.ppf(0.001, RUNS, 0.95)


def test_a_change_far_beyond_noise_is_found():
    generator = np.random.default_rng(2)
    values, replicates = still(generator, 1.0)
    values[5:] += 12
    changes = changes_of(values, replicates, generator, draws=2000)
    assert changes.p_value(0, 8) < 0.005
    low, high = changes.interval(0, 8, 0.95)
    assert 0 < low < 12 < high


def test_what_neighbouring_checkpoints_share_does_not_widen_their_difference():
    generator = np.random.default_rng(3)
    widths = []
    for shared in (0.0, 50.0):
        values, replicates = still(generator, shared)
        low, high = changes_of(values, replicates, generator).interval(0, 8, 0.95)
        widths.append(high - low)
    assert widths[1] < 2 * widths[0]


def test_what_is_the_same_has_not_changed():
    generator = np.random.default_rng(4)
    values = np.full(CHECKPOINTS, 3.0)
    changes = changes_of(values, np.full((RESAMPLES, CHECKPOINTS), 3.0), generator)
    assert changes.p_value(0, 8) == 1
