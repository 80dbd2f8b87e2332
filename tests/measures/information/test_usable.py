"""What activations add to the text: nothing where they repeat it, more where they know more."""

import numpy as np
import pytest
import torch

from tlens_trust.measures import UsableInformation
from tlens_trust.measures.folds import assign_folds
from tlens_trust.measures.information.label_bounds import HeldOutScores
from tlens_trust.measures.information.refits import refit_scores
from tlens_trust.measures.information.usable import combine_scores, usable_beyond_text
from tlens_trust.measures.permutations import permute_labels


def situation(*, text: float, own: float, n: int = 400, seed: int = 0):
    """Scores that are the true log-odds of two independent hints, one of them the text's."""
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    hints = generator.standard_normal((n, 2)) + labels[:, None] * np.array([text, own])
    odds = hints * [text, own] - np.array([text, own]) ** 2 / 2
    names = [str(row) for row in range(n)]
    fold = assign_folds(labels, names, folds=4, seed=0)
    return odds[:, 0], odds[:, 1], labels, fold, names


def gain(by_text: np.ndarray, scores: np.ndarray, labels, fold, names):
    fewer = np.stack([np.where(fold == k, np.nan, scores) for k in range(4)])
    held_out = HeldOutScores.of(
        scores[:, None], labels, fold, names, fewer=fewer[..., None], seed=0
    )
    text_fewer = np.stack([np.where(fold == k, np.nan, by_text) for k in range(4)])
    return usable_beyond_text(held_out, by_text, text_fewer)


def test_a_probe_that_repeats_the_text_adds_nothing():
    text, _, *arguments = situation(text=1.5, own=0.0)
    result = gain(text, 3 * text + 1, *arguments)
    assert result.value[0] == pytest.approx(0, abs=2e-3)
    assert result.interval[0, 0] < 0.001


def test_a_probe_that_knows_more_adds_what_it_knows_beyond_the_text():
    text, own, *arguments = situation(text=1.0, own=1.5, n=2000)
    result = gain(text, text + own, *arguments)
    labels = arguments[0]
    signs = 2 * labels - 1
    truth = np.logaddexp(0, -signs * text).mean() - np.logaddexp(0, -signs * (text + own)).mean()
    assert result.value[0] == pytest.approx(truth, abs=0.01)
    assert result.interval[0, 0] > 0


def test_calibration_of_either_score_is_no_gain():
    text, own, *arguments = situation(text=1.0, own=1.0, n=1000)
    plain = gain(text, own, *arguments).value[0]
    assert gain(5 * text - 2, 0.1 * own + 3, *arguments).value[0] == pytest.approx(plain, abs=2e-3)


def test_noise_adds_nothing_and_costs_a_little():
    values = []
    for seed in range(20):
        text, _, *arguments = situation(text=1.0, own=0.0, n=200, seed=seed)
        noise = np.random.default_rng([seed, 9]).standard_normal(200)
        values.append(gain(text, noise, *arguments).value[0])
    assert -0.02 < np.mean(values) < 0.001


def test_one_far_outlier_of_the_text_is_not_taken_for_what_the_probe_knows():
    text, own, *arguments = situation(text=1.0, own=0.0)
    plain = gain(text, own, *arguments).value[0]
    labels = arguments[0]
    # A held-out statement whose words are far from all others, on the wrong side.
    text[7] = 2000.0 * (1 - 2 * labels[7])
    assert gain(text, own, *arguments).value[0] == pytest.approx(plain, abs=0.01)


def test_scores_that_tell_labels_apart_have_finite_weights():
    labels = np.arange(40) % 2
    sure = (20.0 * labels - 10)[None, :, None]
    weights = combine_scores(sure, labels)
    assert np.isfinite(weights).all()
    assert weights[0, 0] > 0
    equal_weights = combine_scores(np.concatenate([sure, sure], axis=2), labels)
    assert equal_weights[0, 0] == pytest.approx(equal_weights[0, 1])


def test_refitted_scores_are_held_out():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(120, 5, generator=generator)
    labels = np.arange(120) % 2
    x[:, 0] += 2 * torch.from_numpy(labels)
    names = [str(row // 2) for row in range(120)]
    fold = assign_folds(labels, names, folds=4, seed=0)
    draws = permute_labels(labels, names, fold, permutations=40, seed=0).draws
    scores, fewer = refit_scores(x, draws, fold, C=1.0)
    right = ((scores > 0) == (draws.T == 1)).mean(axis=0)
    assert right[0] > 0.75
    assert np.mean(right[1:]) == pytest.approx(0.5, abs=0.04)
    assert np.isnan(fewer[fold, np.arange(120)]).all()
    assert np.isfinite(fewer[(fold + 1) % 4, np.arange(120)]).all()
    # A fold's own labels have no say in its scores.
    turned = draws.copy()
    turned[:, fold == 0] = 1 - turned[:, fold == 0]
    again, _ = refit_scores(x, turned, fold, C=1.0)
    np.testing.assert_allclose(again[fold == 0], scores[fold == 0], atol=1e-5)
    assert not np.allclose(again[fold == 1], scores[fold == 1])


def test_of_any_two_arrays_only_what_the_other_does_not_tell_is_counted():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(600) % 2
    hints = torch.randn(600, 3, generator=generator, dtype=torch.float64)
    hints[:, :2] += 1.5 * labels.unsqueeze(1)
    baseline, own, noise = hints.split(1, dim=1)
    estimator = UsableInformation()
    signs = 2 * labels - 1

    def surprise(odds):
        return float(torch.logaddexp(torch.zeros(()), -signs * odds.squeeze(1)).mean())

    by_known, by_own = (1.5 * hint - 1.5**2 / 2 for hint in (baseline, own))
    truth = surprise(by_known) - surprise(by_known + by_own)
    result = estimator(torch.cat([baseline, own], dim=1), labels, baseline)
    assert result.value == pytest.approx(truth, abs=0.02)
    assert result.interval[0] > 0
    assert result.bits == pytest.approx(result.value / np.log(2))
    assert UsableInformation()(own, labels, baseline).value == pytest.approx(truth, abs=0.02)
    for nothing in (-2 * baseline + 1, noise):
        estimate = estimator(nothing, labels, baseline)
        assert estimate.value < 0.005
        assert estimate.interval[0] < 0
        assert any("Not above zero" in hint for hint in estimate.warnings) == (estimate.value <= 0)
