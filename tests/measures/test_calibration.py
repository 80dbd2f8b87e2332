"""Calibration is zero where probabilities are frequencies, and thresholds keep their word."""

import numpy as np
import pytest
import torch
from scipy.special import expit
from scipy.stats import binom

from tlens_trust.activations import Activations
from tlens_trust.concepts import Concept
from tlens_trust.measures import (
    Measure,
    calibration_error,
    lda_probe,
    logistic_probe,
    mass_mean_probe,
    probe_calibration,
)
from tlens_trust.measures.calibration import choose_threshold, reliability_curve


def calibrated(rows: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds, and labels drawn as they say."""
    generator = np.random.default_rng(seed)
    scores = 1.5 * generator.standard_normal(rows)
    return scores, (generator.random(rows) < expit(scores)).astype(np.int64)


def test_calibrated_scores_have_no_error_within_its_interval_and_doubled_ones_do():
    held = 0
    for seed in range(60):
        scores, labels = calibrated(1000, seed=seed)
        good = calibration_error(scores, labels)
        held += good.low <= 0 <= good.high
        bad = calibration_error(2 * scores, labels)
        assert bad.low > 0.03
        assert bad.ece > 2 * bad.ece_null
    assert held >= binom.ppf(0.001, 60, 0.95)


def test_chance_makes_an_ece_of_calibrated_scores_and_says_how_large():
    found = [calibration_error(*calibrated(500, seed=seed)) for seed in range(100)]
    assert np.mean([error.ece for error in found]) == pytest.approx(
        np.mean([error.ece_null for error in found]), rel=0.1
    )
    assert np.mean([error.ece for error in found]) > 0.02
    squares = [np.sign(error.rms) * error.rms**2 for error in found]
    assert abs(np.mean(squares)) < 4 * np.std(squares) / np.sqrt(100)


def test_the_error_is_the_one_that_was_built_in():
    generator = np.random.default_rng(0)
    scores = np.repeat([-1.0, 0.5, 2.0], 40_000)
    stated = expit(scores)
    labels = (generator.random(120_000) < stated + np.repeat([0.1, 0.0, -0.2], 40_000)).astype(int)
    found = calibration_error(scores, labels, bins=3)
    assert found.ece == pytest.approx(0.1, abs=0.01)
    assert found.rms == pytest.approx(np.sqrt(0.05 / 3), abs=0.01)
    assert found.low < np.sqrt(0.05 / 3) < found.high


def covered(runs: int, factor: float) -> int:
    """In how many runs the interval holds the error of scores times a factor."""
    scores, labels = calibrated(400_000, seed=10**6)
    truth = calibration_error(factor * scores, labels).rms
    held = 0
    for seed in range(runs):
        # Pairs of copies: half as many independent statements as there seem to be.
        scores, labels = (np.repeat(part, 2) for part in calibrated(400, seed=seed))
        found = calibration_error(factor * scores, labels, [str(row // 2) for row in range(800)])
        held += found.low <= truth <= found.high
    return held


def test_the_interval_knows_that_statements_of_a_group_go_together():
    assert covered(150, 2.0) >= binom.ppf(0.001, 150, 0.92)
    scores, labels = (np.repeat(part, 2) for part in calibrated(400, seed=0))
    together = calibration_error(2 * scores, labels, [str(row // 2) for row in range(800)])
    apart = calibration_error(2 * scores, labels)
    assert together.high**2 - together.low**2 > 1.3 * (apart.high**2 - apart.low**2)


@pytest.mark.slow
@pytest.mark.parametrize("factor", [1.3, 2.0, 4.0])
def test_coverage_of_the_calibration_error(factor):
    assert covered(2000, factor) / 2000 >= 0.91


def test_the_reliability_curve_lies_on_the_diagonal_for_calibrated_scores_alone():
    scores, labels = calibrated(5000, seed=1)
    curve = reliability_curve(scores, labels)
    assert curve.frequency_n.values.tolist() == [500] * 10
    assert np.abs(curve.frequency - curve.confidence).max() < 0.09
    low, high = curve.frequency_ci.values.T
    assert ((low <= curve.confidence) & (curve.confidence <= high)).sum() >= 8
    steep = reliability_curve(3 * scores, labels)
    low, high = steep.frequency_ci.values.T
    assert ((low <= steep.confidence) & (steep.confidence <= high)).sum() <= 3
    for name, variable in curve.data_vars.items():
        assert {"units", "long_name"} <= variable.attrs.keys(), name


def test_ties_stay_in_one_bin():
    curve = reliability_curve(np.repeat([0.0, 1.0], 10), np.tile([0, 1], 10), bins=5)
    assert curve.frequency_n.values.tolist() == [10, 10, 0, 0, 0]
    assert curve.confidence.isnull().values.tolist() == [False, False, True, True, True]
    assert curve.frequency.values[:2].tolist() == [0.5, 0.5]


@pytest.mark.parametrize("positive", [0, 1])
def test_the_threshold_keeps_the_false_positive_rate_of_fresh_statements(positive):
    rates = []
    side = 1 if positive else -1
    for seed in range(300):
        scores, labels = calibrated(200, seed=seed)
        threshold = choose_threshold(scores, labels, false_positive_rate=0.1, positive=positive)
        fresh, fresh_labels = calibrated(2000, seed=seed + 10**6)
        others = fresh[fresh_labels != positive]
        rates.append((side * others > side * threshold).mean())
    assert np.mean(rates) <= 0.1 + 3 * np.std(rates) / np.sqrt(300)
    assert np.mean(rates) > 0.08


def test_too_few_statements_vouch_for_no_threshold():
    scores, labels = np.array([0.0, 1.0, 5.0]), np.array([0, 0, 1])
    assert choose_threshold(scores, labels, false_positive_rate=0.05) == np.inf
    assert choose_threshold(scores, labels, false_positive_rate=0.05, positive=0) == -np.inf
    assert choose_threshold(scores, labels, false_positive_rate=0.4) == 1.0


def pairs(count: int) -> Concept:
    return Concept(
        name="pairs",
        dimension="reliability",
        statements=tuple(f"statement {row}" for row in range(2 * count)),
        labels=np.tile([0, 1], count),
        groups=tuple(f"pair {row // 2}" for row in range(2 * count)),
    )


def readings(concept: Concept, strengths: list[float], *, seed: int = 0) -> Activations:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(len(concept), len(strengths), 8, generator=generator)
    signs = torch.from_numpy(2 * concept.labels - 1).unsqueeze(1)
    values[:, :, 0] += signs * torch.tensor(strengths)
    return Activations(
        values, tuple(f"blocks.{layer}.hook_resid_post" for layer in range(len(strengths)))
    )


def test_a_probe_s_threshold_keeps_its_rate_on_folds_it_has_not_seen():
    concept = pairs(400)
    measure = probe_calibration(mass_mean_probe(), false_positive_rate=0.1)
    data = measure(readings(concept, [0.0, 1.5]), concept, seed=0)
    low, high = data.false_positive_rate_ci.values[1]
    assert low <= 0.1 <= high
    assert low <= data.false_positive_rate.values[1] <= high
    # The normal distribution function at 2·1.5 less its 90% quantile: 95.7%.
    assert float(data.true_positive_rate[1]) == pytest.approx(0.957, abs=0.04)
    assert float(data.true_positive_rate[0]) < 0.2
    assert data.true_positive_rate_n.values.tolist() == [400, 400]
    # At even odds 6.7% would be called positive, so there is room below.
    assert float(data.threshold[1]) < 0


def test_an_alarm_goes_off_on_the_other_side():
    concept = pairs(200)
    activations = readings(concept, [1.5])
    alarm = probe_calibration(mass_mean_probe(), positive=0)(activations, concept, seed=0)
    assert alarm.threshold.item() < 0
    assert alarm.true_positive_rate.item() > 0.85
    assert alarm.false_positive_rate.item() < 0.12


def test_the_threshold_of_a_fold_is_chosen_without_its_statements():
    concept = pairs(60)
    activations = readings(concept, [1.0])
    measure = probe_calibration(mass_mean_probe())
    _, fold = measure.probe.held_out(activations, concept, seed=0)
    seen: list[np.ndarray] = []
    fitter = measure.probe.cross_fitter

    class Watched:
        identity = "watched"
        least_folds = 2

        def __call__(self, values, labels, groups, inner):
            seen.append(values[:, 0, 0].numpy())
            return fitter(values, labels, groups, inner)

    watched = probe_calibration(type(measure.probe)("watched", Watched()))
    watched(activations, concept, seed=0)
    values = activations.values[:, 0, 0].numpy()
    assert len(seen) == 6
    for k, inside in enumerate(seen[1:]):
        assert not set(inside.tolist()) & set(values[fold == k].tolist())


def test_probes_that_calibrate_themselves_are_calibrated_and_the_measure_sees_who_is_not():
    concept = pairs(300)
    activations = readings(concept, [1.0], seed=2)
    for probe in (logistic_probe(), lda_probe(), mass_mean_probe()):
        data = probe_calibration(probe)(activations, concept, seed=0)
        assert data.calibration_error_ci.values[0, 0] < 0.03

    class Loud:
        identity = "loud"
        least_folds = 2

        def __call__(self, values, labels, groups, fold):
            held_out = mass_mean_probe().cross_fitter(values, labels, groups, fold)
            return type(held_out)(4 * held_out.scores)

    loud = probe_calibration(type(logistic_probe())("loud", Loud()))(activations, concept, seed=0)
    assert loud.calibration_error_ci.values[0, 0] > 0.05
    assert loud.ece.item() > 3 * loud.ece_null.item()


def test_it_is_a_measure_with_labelled_results_and_one_answer():
    concept = pairs(40)
    activations = readings(concept, [0.5, 1.0])
    measure = probe_calibration(mass_mean_probe(), bins=4)
    assert isinstance(measure, Measure)
    data = measure(activations, concept, seed=0)
    assert data.identical(measure(activations, concept, seed=0))
    assert tuple(data.site.values) == activations.sites
    assert data.reliability_frequency.dims == ("site", "bin")
    for name, variable in data.data_vars.items():
        assert {"units", "long_name"} <= variable.attrs.keys(), name
        assert variable.dims[0] == "site", name
        assert variable.notnull().all(), name
    variants = [
        measure,
        probe_calibration(),
        probe_calibration(bins=5),
        probe_calibration(positive=0),
        probe_calibration(false_positive_rate=0.1),
    ]
    assert len({variant.identity for variant in variants}) == len(variants)


def test_what_cannot_be_asked_for_is_an_error():
    with pytest.raises(ValueError, match="`bins` must be a whole number from 1, got 0"):
        probe_calibration(bins=0)
    with pytest.raises(ValueError, match="between 0 and 1, got 5"):
        probe_calibration(false_positive_rate=5.0)
    with pytest.raises(ValueError, match="must be a label, 0 or 1, got 2"):
        probe_calibration(positive=2)
    with pytest.raises(ValueError, match="at least two groups"):
        calibration_error(np.zeros(3), np.array([0, 1, 0]), ["a", "a", "a"])


def concept_of(rows: int) -> Concept:
    texts = tuple(f"statement {row}" for row in range(rows))
    groups = tuple(f"pair {row // 2}" for row in range(rows))
    return Concept("x", "reliability", texts, np.arange(rows) % 2, groups)


def test_intervals_know_of_training_rows_that_folds_share():
    concept = concept_of(160)
    values = torch.randn(160, 1, 8, generator=torch.Generator().manual_seed(0))
    probe = logistic_probe(floor=False)
    held_out, fold = probe.held_out(
        Activations(values, ("blocks.0.hook_resid_post",)), concept, seed=0
    )
    scores, fewer = held_out.scores[:, 0], held_out.fewer[:, :, 0]
    bare = calibration_error(scores, concept.labels, concept.groups)
    found = calibration_error(scores, concept.labels, concept.groups, fold=fold, fewer=fewer)
    assert (found.rms, found.ece, found.ece_null) == (bare.rms, bare.ece, bare.ece_null)
    assert found.low < bare.low
    assert found.high > bare.high
    # The control: folds that have nothing in common, since the probes are the same.
    apart = np.broadcast_to(scores, fewer.shape).copy()
    same = calibration_error(scores, concept.labels, concept.groups, fold=fold, fewer=apart)
    assert (same.low, same.high) == pytest.approx((bare.low, bare.high), abs=1e-9)


def test_errors_and_rates_lie_within_their_intervals():
    concept = concept_of(120)
    values = torch.randn(120, 2, 4, generator=torch.Generator().manual_seed(0))
    values[:, 1, 0] += torch.from_numpy(2.0 * concept.labels)
    sites = ("blocks.0.hook_resid_post", "blocks.1.hook_resid_post")
    data = probe_calibration(mass_mean_probe(folds=4, floor=False))(
        Activations(values, sites), concept, seed=0
    )
    for name in ("calibration_error", "false_positive_rate", "true_positive_rate"):
        low, high = data[f"{name}_ci"].values.T
        assert (low <= high).all(), name
        assert data[f"{name}_ci"].attrs["long_name"]
    for name in ("false_positive_rate", "true_positive_rate"):
        low, high = data[f"{name}_ci"].values.T
        assert ((low <= data[name]) & (data[name] <= high)).all()


def test_a_probe_of_too_few_folds_is_told_of_before_anything_is_fitted():
    with pytest.raises(ValueError, match=r"'logistic' probe needs at least 4 folds, got 3\. Make"):
        probe_calibration(logistic_probe(folds=3))
    with pytest.raises(ValueError, match=r"'mass_mean' probe needs at least 3 folds, got 2"):
        probe_calibration(mass_mean_probe(folds=2))
    assert probe_calibration(logistic_probe(folds=4)).name == "calibration_logistic"


def test_a_bin_of_one_group_has_an_interval_though_its_labels_differ():
    scores, labels = np.array([-0.1, 0.1, 3.0, 3.0]), np.array([0, 1, 1, 1])
    curve = reliability_curve(scores, labels, bins=2, groups=["a", "a", "b", "c"])
    assert curve.frequency.values.tolist() == [0.5, 1.0]
    low, high = curve.frequency_ci.values[0]
    assert low < 0.1
    assert high > 0.9
