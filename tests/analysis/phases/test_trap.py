"""The trap: a spectrum that moves while information does not, and the other way round.

The slow tests take 100 series each, by two estimators. Found when they were written: nothing
claimed of 100 that are rescaled, reordered or still, and the fall claimed in 100 of 100 that noise
destroys, so that the error rates lie below 3.6% (Clopper and Pearson); the tests allow 5, and 10 of
falls that are missed. By `hsic` the fall was claimed in 89, by `nats` in none: noise that stays
with its statement tells it from others as well as content does. Of the label they saw 97 fall.
"""

import numpy as np
import pytest
from scipy.stats import binom

from tlens_trust.analysis import find_phases, information_plane
from tlens_trust.measures import probe_information

RUNS = 100
# Of the nats: neither a text floor nor a null of the labels has a say in what is said of X.
MEASURES = {"nats": probe_information(permutations=60, beyond_text=False)}
MIDDLE = 32  # the step of the flattest spectrum, from which on `destroyed` loses information


def verdicts(series, estimator="nhsic"):
    """What is claimed of a planted series, and whether the curve alone would have told as much."""
    plane = information_plane(series.trace(MEASURES.get(estimator)), estimator=estimator)
    phases = find_phases(plane)
    on_x = [phase for phase in phases if phase.quantity == "I(T;X)"]
    curve = plane.x.values.ravel()
    turn = int(curve.argmax())
    large = 0.1 * np.abs(curve).max()
    return {
        "claims": {phase.verdict for phase in phases} - {"no claim"},
        "first": {p.verdict for p in on_x if p.last_step <= MIDDLE} - {"no claim"},
        "second": {p.verdict for p in on_x if p.last_step > MIDDLE} - {"no claim"},
        "label": {p.verdict for p in phases if p.quantity == "I(T;Y)"} - {"no claim"},
        "reasons": " ".join(phase.reason for phase in on_x),
        # Up, and then down, by a tenth of its height or more.
        "naive": curve[turn] - curve[0] > large and curve[turn] - curve[-1] > large,
    }


@pytest.fixture(scope="module")
def small(make_series):
    return make_series(0, n=160, d=16)


def test_a_map_that_is_only_rescaled_makes_no_phase_and_would_fool_the_eye(small):
    found = verdicts(small.rescaled())
    assert found["claims"] == set()
    assert found["naive"]
    assert "a change of spectrum, not compression" in found["reasons"]


def test_information_that_noise_destroys_is_missed_and_the_rescaling_before_it_is_not_taken_for_it(
    small,
):
    found = verdicts(small.destroyed(most=0.8))
    assert found["first"] == set()
    assert found["second"] == {"falls"}
    assert found["naive"]


def test_two_series_of_the_trap_have_the_same_spectra(small):
    one, other = small.rescaled(), small.destroyed()
    for x, y in zip(one.readings, other.readings, strict=True):
        lengths = [np.linalg.svd(r.numpy() - r.numpy().mean(0), compute_uv=False) for r in (x, y)]
        assert np.allclose(*lengths)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["nhsic", "cka"])
def test_rescaling_is_not_claimed_in_95_of_100_series(make_series, estimator):
    found = [verdicts(make_series(seed).rescaled(), estimator) for seed in range(RUNS)]
    assert sum(not each["claims"] for each in found) >= 95
    assert sum(each["naive"] for each in found) >= 95


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["nhsic", "cka"])
def test_directions_that_trade_places_are_not_claimed_in_95_of_100_series(make_series, estimator):
    found = [verdicts(make_series(seed).reordered(), estimator) for seed in range(RUNS)]
    assert sum(not each["claims"] for each in found) >= 95


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["nhsic", "cka"])
def test_destroyed_information_is_claimed_to_fall_in_90_of_100_series(make_series, estimator):
    found = [verdicts(make_series(seed).destroyed(), estimator) for seed in range(RUNS)]
    assert sum(each["second"] == {"falls"} for each in found) >= 90
    assert sum(not each["first"] for each in found) >= 95
    assert sum(each["naive"] for each in found) >= 95


@pytest.mark.slow
def test_by_hsic_destroyed_information_is_claimed_to_fall_in_80_of_100_series(make_series):
    found = [verdicts(make_series(seed).destroyed(), "hsic") for seed in range(RUNS)]
    assert sum(each["second"] == {"falls"} for each in found) >= 80
    assert sum(not each["first"] for each in found) >= 95


@pytest.mark.slow
def test_nats_tell_of_the_label_that_it_is_lost_and_not_of_what_noise_replaces(make_series):
    found = [verdicts(make_series(seed).destroyed(), "nats") for seed in range(RUNS)]
    assert not any(each["first"] | each["second"] for each in found)
    assert sum(each["label"] == {"falls"} for each in found) >= 90


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["hsic", "nats"])
@pytest.mark.parametrize("kind", ["rescaled", "reordered", "still"])
def test_by_hsic_and_nats_no_more_is_claimed_than_by_the_others(make_series, estimator, kind):
    found = [verdicts(getattr(make_series(seed), kind)(), estimator) for seed in range(RUNS)]
    assert sum(bool(each["claims"]) for each in found) <= binom.ppf(0.99, RUNS, 0.05)
    assert not any(each["first"] | each["second"] for each in found)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["nhsic", "cka"])
def test_where_nothing_changes_at_most_5_of_100_series_are_claimed(make_series, estimator):
    found = [verdicts(make_series(seed).still(), estimator) for seed in range(RUNS)]
    assert sum(bool(each["claims"]) for each in found) <= binom.ppf(0.99, RUNS, 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["nhsic", "cka"])
def test_a_label_that_is_learnt_is_claimed_to_rise(make_series, estimator):
    found = [verdicts(make_series(seed).learnt(), estimator) for seed in range(30)]
    assert sum("rises" in each["label"] for each in found) >= 27
    assert not any("falls" in each["label"] for each in found)
