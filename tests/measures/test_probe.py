"""Probes are directions with a bias, and good citizens of scikit-learn."""

import math

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import Tensor

from tlens_trust.measures import fit_logistic_probe
from tlens_trust.measures.probe import LogisticProbe, MassMeanProbe, fit_mass_mean_probe


@parametrize_with_checks([LogisticProbe(), LogisticProbe(standardise=False), MassMeanProbe()])
def test_scikit_learn_accepts_the_estimator(estimator, check):
    check(estimator)


def planted(rows: int, width: int, *, strength: float, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Correlated activations, labels, and the unit direction along which the labels differ."""
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(width, generator=generator)
    direction /= direction.norm()
    labels = torch.arange(rows) % 2
    noise = torch.randn(rows, width, generator=generator)
    return noise + strength * (2 * labels - 1).unsqueeze(1) * direction, labels, direction


def rotation(width: int, *, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(width, width, generator=generator)).Q


FITTERS = [fit_logistic_probe, fit_mass_mean_probe]


@pytest.mark.parametrize("fit", FITTERS)
def test_a_planted_direction_is_found_and_not_without_labels_that_follow_it(fit):
    activations, labels, direction = planted(2000, 16, strength=1.5, seed=0)
    found = fit(activations, labels).direction.float()
    assert torch.cosine_similarity(found, direction, dim=0) > 0.95
    shuffled = labels[torch.randperm(2000, generator=torch.Generator().manual_seed(1))]
    lost = fit(activations, shuffled).direction.float()
    assert abs(torch.cosine_similarity(lost, direction, dim=0)) < 0.8
    assert fit(activations, shuffled).log_odds(activations).abs().mean() < 0.5


@pytest.mark.parametrize("fit", FITTERS)
def test_log_odds_negate_when_the_labels_are_swapped(fit):
    activations, labels, _ = planted(300, 10, strength=0.5, seed=2)
    straight = fit(activations, labels).log_odds(activations)
    swapped = fit(activations, 1 - labels).log_odds(activations)
    torch.testing.assert_close(swapped, -straight, atol=1e-2, rtol=0)
    assert straight.abs().mean() > 0.3


@pytest.mark.parametrize("fit", FITTERS)
def test_log_odds_ignore_the_order_of_rows(fit):
    activations, labels, _ = planted(300, 10, strength=0.5, seed=3)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    straight = fit(activations, labels).log_odds(activations)
    shuffled = fit(activations[order], labels[order]).log_odds(activations)
    torch.testing.assert_close(shuffled, straight, atol=1e-2, rtol=0)
    mismatched = fit(activations[order], labels).log_odds(activations)
    assert (mismatched - straight).abs().max() > 0.5


@pytest.mark.parametrize("fit", FITTERS)
def test_log_odds_survive_a_shift_of_activation_space(fit):
    activations, labels, _ = planted(300, 10, strength=0.5, seed=4)
    offset = 100 * torch.randn(10, generator=torch.Generator().manual_seed(0))
    straight = fit(activations, labels).log_odds(activations)
    shifted = fit(activations + offset, labels).log_odds(activations + offset)
    torch.testing.assert_close(shifted, straight, atol=2e-2, rtol=0)


def test_the_standardised_logistic_probe_survives_scaling_by_feature_but_no_rotation():
    activations, labels, _ = planted(60, 30, strength=0.3, seed=5)
    activations = activations * torch.linspace(0.1, 10, 30)
    scales = torch.exp(2 * torch.randn(30, generator=torch.Generator().manual_seed(0)))
    turn = rotation(30, seed=1)
    straight = fit_logistic_probe(activations, labels).log_odds(activations)
    scaled = fit_logistic_probe(activations * scales, labels).log_odds(activations * scales)
    torch.testing.assert_close(scaled, straight, atol=2e-2, rtol=0)
    turned = fit_logistic_probe(activations @ turn, labels).log_odds(activations @ turn)
    assert (turned - straight).abs().max() > 0.3


@pytest.mark.parametrize(
    "fit",
    [lambda x, y: fit_logistic_probe(x, y, standardise=False), fit_mass_mean_probe],
    ids=["logistic without standardising", "mass mean"],
)
def test_an_unscaled_probe_survives_a_rotation_but_no_scaling_by_feature(fit):
    activations, labels, _ = planted(60, 30, strength=0.3, seed=6)
    turn = rotation(30, seed=1)
    straight = fit(activations, labels).log_odds(activations)
    turned = fit(activations @ turn, labels).log_odds(activations @ turn)
    torch.testing.assert_close(turned, straight, atol=2e-2, rtol=0)
    scales = torch.exp(2 * torch.randn(30, generator=torch.Generator().manual_seed(0)))
    scaled = fit(activations * scales, labels).log_odds(activations * scales)
    assert (scaled - straight).abs().max() > 0.3


def test_the_logistic_probe_is_scikit_learns_pipeline_in_the_units_of_the_activations():
    activations, labels, _ = planted(250, 20, strength=0.4, seed=7)
    activations = activations * torch.linspace(0.1, 5, 20) + 30
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, tol=1e-10))
    expected = pipeline.fit(activations.double().numpy(), labels.numpy()).decision_function(
        activations.double().numpy()
    )
    probe = LogisticProbe(C=0.3).fit(activations, labels)
    np.testing.assert_allclose(probe.decision_function(activations).numpy(), expected, atol=5e-3)


def test_a_tensor_gives_a_tensor_and_an_array_the_same_numbers():
    activations, labels, _ = planted(80, 6, strength=1.0, seed=8)
    for probe in (LogisticProbe(), MassMeanProbe()):
        of_tensor = probe.fit(activations, labels).decision_function(activations)
        assert isinstance(of_tensor, Tensor)
        assert isinstance(probe.predict(activations), Tensor)
        of_array = probe.fit(activations.numpy(), labels.numpy()).decision_function(
            activations.numpy()
        )
        assert isinstance(of_array, np.ndarray)
        np.testing.assert_array_equal(of_tensor.numpy(), of_array)
        chances = probe.predict_proba(activations)
        torch.testing.assert_close(chances[:, 1].logit(), of_tensor, atol=1e-6, rtol=1e-6)


def test_half_precision_activations_are_read():
    activations, labels, _ = planted(80, 6, strength=1.0, seed=8)
    rounded = activations.bfloat16()
    same = LogisticProbe().fit(rounded.float(), labels).decision_function(rounded.float())
    assert torch.equal(LogisticProbe().fit(rounded, labels).decision_function(rounded), same)


def test_direction_and_bias_give_the_log_odds():
    activations, labels, _ = planted(80, 6, strength=1.0, seed=9)
    for probe in (LogisticProbe(), MassMeanProbe()):
        probe.fit(activations, labels)
        by_hand = activations.double() @ probe.direction + probe.bias
        torch.testing.assert_close(by_hand, probe.decision_function(activations))
    with pytest.raises(NotFittedError):
        _ = LogisticProbe().direction


def test_named_classes_come_back_as_names():
    activations, labels, _ = planted(80, 6, strength=2.0, seed=10)
    names = np.array(["harm", "kind"])[labels.numpy()]
    probe = LogisticProbe().fit(activations.numpy(), names)
    assert list(probe.classes_) == ["harm", "kind"]
    assert (probe.predict(activations.numpy()) == names).mean() > 0.9


def test_the_mass_mean_direction_is_the_difference_of_the_means():
    activations, labels, _ = planted(200, 12, strength=0.5, seed=11)
    difference = activations[labels == 1].mean(0) - activations[labels == 0].mean(0)
    direction = fit_mass_mean_probe(activations, labels).direction.float()
    assert torch.cosine_similarity(direction, difference, dim=0) == pytest.approx(1, abs=1e-6)
    # Even where the labels say nothing, it points from label 0 to label 1.
    for seed in range(5):
        noise, _, _ = planted(60, 40, strength=0.0, seed=seed)
        difference = noise[1::2].mean(0) - noise[::2].mean(0)
        assert fit_mass_mean_probe(noise, torch.arange(60) % 2).direction.float() @ difference > 0


def cross_entropy(log_odds: Tensor, labels: Tensor) -> float:
    return float(torch.nn.functional.binary_cross_entropy_with_logits(log_odds, labels.double()))


def test_mass_mean_log_odds_are_calibrated_on_fresh_rows_even_with_more_features_than_rows():
    activations, labels, _ = planted(3000, 400, strength=1.0, seed=12)
    probe = fit_mass_mean_probe(activations[:200], labels[:200])
    fresh, fresh_labels = activations[200:], labels[200:]
    log_odds = probe.log_odds(fresh)
    best = min(cross_entropy(log_odds * factor, fresh_labels) for factor in (0.3, 0.5, 0.8, 1, 1.5))
    assert cross_entropy(log_odds, fresh_labels) < best + 0.03
    assert best < math.log(2) - 0.1
    # Calibrated on the rows' own projections it would be so sure as to be worse than silent.
    along = activations[:200].double() @ probe.direction
    naive = LogisticRegression(C=100).fit(along.reshape(-1, 1).numpy(), labels[:200].numpy())
    naive_log_odds = torch.from_numpy(
        naive.decision_function((fresh.double() @ probe.direction).reshape(-1, 1).numpy())
    )
    assert cross_entropy(naive_log_odds, fresh_labels) > math.log(2)


def test_mass_mean_leaves_twins_out_together():
    generator = torch.Generator().manual_seed(13)
    # Twins: nearly the same activations, one label each; the labels say nothing.
    base = torch.randn(100, 300, generator=generator).repeat_interleave(2, dim=0)
    activations = base + 0.3 * torch.randn(200, 300, generator=generator)
    shift = torch.zeros(300)
    shift[0] = 2.0
    labels = torch.arange(200) % 2
    activations = activations + shift * labels.unsqueeze(1)
    groups = [str(row // 2) for row in range(200)]
    together = fit_mass_mean_probe(activations, labels, groups=groups)
    alone = fit_mass_mean_probe(activations, labels)
    # Apart, each twin drags the other label's mean towards its sibling.
    assert together.direction.norm() > 1.05 * alone.direction.norm()


def test_equal_class_means_give_the_prior_and_no_direction():
    activations = torch.tensor([[1.0, 2.0], [3.0, -1.0]]).repeat(3, 1)[[0, 1, 2, 3, 4, 5]]
    labels = torch.tensor([0, 0, 1, 1, 1, 1])
    probe = fit_mass_mean_probe(activations, labels)
    assert probe.direction.abs().max() < 1e-6
    assert probe.bias == pytest.approx(math.log(2), abs=0.05)


@pytest.mark.parametrize("fit", FITTERS)
def test_what_cannot_be_fitted_is_an_error_that_says_why(fit):
    activations, labels, _ = planted(20, 3, strength=1.0, seed=14)
    with pytest.raises(ValueError, match=r"both 0 and 1.*\{0: 20, 1: 0\}"):
        fit(activations, torch.zeros(20, dtype=torch.long))
    activations[2, 1] = float("nan")
    with pytest.raises(ValueError, match="finite"):
        fit(activations, labels)


def test_a_fit_that_stops_early_warns():
    activations, labels, _ = planted(100, 30, strength=1.0, seed=15)
    with pytest.warns(ConvergenceWarning, match="max_passes"):
        LogisticProbe(C=100.0, max_passes=2).fit(activations, labels)


def test_three_classes_and_one_class_are_refused():
    activations, _, _ = planted(30, 3, strength=1.0, seed=16)
    with pytest.raises(ValueError, match=r"one class .*0"):
        LogisticProbe().fit(activations, torch.zeros(30, dtype=torch.long))
    with pytest.raises(ValueError, match="Only binary classification"):
        LogisticProbe().fit(activations, torch.arange(30) % 3)
