"""Every direction is fitted in one way, and comes back as a direction with a bias."""

import inspect
from functools import partial

import numpy as np
import pytest
import torch

from tlens_trust.measures import LinearProbe, fit_logistic_probe
from tlens_trust.measures.directions.contrast_consistent import (
    ContrastConsistentFitter,
    fit_contrast_consistent_probe,
)
from tlens_trust.measures.directions.fitter import DirectionProbe
from tlens_trust.measures.directions.lda import LDAFitter, fit_lda_probe
from tlens_trust.measures.directions.pair_differences import (
    PairDifferenceFitter,
    fit_pair_difference_probe,
)
from tlens_trust.measures.directions.ridge import RidgeFitter, fit_ridge_probe
from tlens_trust.measures.directions.sparse import SparseFitter, fit_sparse_probe
from tlens_trust.measures.probe import LogisticProbe, MassMeanProbe, fit_mass_mean_probe

FITS = [
    fit_logistic_probe,
    fit_mass_mean_probe,
    fit_lda_probe,
    fit_ridge_probe,
    fit_sparse_probe,
    fit_pair_difference_probe,
    fit_contrast_consistent_probe,
]
PROBES = [
    LogisticProbe(),
    MassMeanProbe(),
    DirectionProbe(LDAFitter()),
    DirectionProbe(RidgeFitter()),
    DirectionProbe(SparseFitter()),
    DirectionProbe(PairDifferenceFitter()),
    DirectionProbe(ContrastConsistentFitter()),
]


def pairs(groups=60, width=6, *, strength=4.0, seed=0):
    """Contrast pairs that differ along the third feature, far from the origin."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(2 * groups) % 2
    activations = 10 + torch.randn(2 * groups, width, generator=generator)
    activations[:, 2] += strength * labels
    return activations, labels, [f"pair {row // 2}" for row in range(2 * groups)]


@pytest.mark.parametrize("fit", FITS)
def test_a_fit_takes_activations_and_labels_and_all_else_by_name(fit):
    parameters = inspect.signature(fit).parameters
    kinds = [parameter.kind for parameter in parameters.values()]
    assert list(parameters)[:2] == ["activations", "labels"]
    assert "groups" in parameters
    assert set(kinds[:2]) == {inspect.Parameter.POSITIONAL_OR_KEYWORD}
    assert set(kinds[2:]) == {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize("fit", FITS)
def test_a_fit_is_a_direction_towards_label_1_with_a_bias_of_its_own(fit):
    activations, labels, groups = pairs()
    probe = fit(activations, labels, groups=groups)
    assert isinstance(probe, LinearProbe)
    assert probe.direction.shape == (6,)
    assert int(probe.direction.argmax()) == 2
    fresh, truth, _ = pairs(seed=1)
    log_odds = probe.log_odds(fresh)
    assert float(((log_odds > 0) == (truth == 1)).float().mean()) > 0.9
    by_hand = fresh.double() @ probe.direction.double() + probe.bias
    torch.testing.assert_close(log_odds, by_hand)
    # Steering asks of a direction what a step along it does: so many nats, wherever it begins.
    step = probe.direction.float() / probe.direction.float().norm() ** 2
    torch.testing.assert_close(
        probe.log_odds(fresh + step) - log_odds, torch.ones_like(log_odds), atol=1e-3, rtol=0
    )


@pytest.mark.parametrize("fit", FITS)
def test_a_fit_knows_the_labels_only_by_what_they_mean(fit):
    activations, labels, groups = pairs(strength=2.0)
    probe, other = (fit(activations, each, groups=groups) for each in (labels, 1 - labels))
    cosine = torch.cosine_similarity(probe.direction, other.direction, dim=0)
    assert float(cosine) < -0.99
    assert float((probe.log_odds(activations) + other.log_odds(activations)).abs().max()) < 0.2


@pytest.mark.parametrize("fit", FITS)
def test_a_fit_refuses_what_does_not_go_together(fit):
    activations, labels, groups = pairs(groups=10)
    with pytest.raises(ValueError, match=r"20 activations, 20 labels, 15 groups"):
        fit(activations, labels, groups=groups[:15])
    with pytest.raises(ValueError, match=r"both 0 and 1.*\{0: 0, 1: 10, -1: 10\}"):
        fit(activations, 2 * labels - 1, groups=groups)


@pytest.mark.parametrize("probe", PROBES)
def test_the_estimators_are_fitted_in_one_way_too(probe):
    activations, labels, groups = pairs()
    fitted = probe.fit(activations, labels, groups=groups)
    assert int(fitted.direction.argmax()) == 2
    found = fitted.decision_function(activations)
    by_hand = activations.double() @ fitted.direction.double() + fitted.bias
    torch.testing.assert_close(found, by_hand)


def test_a_penalty_is_chosen_where_groups_are_left_out():
    # Noise that twins share: with them on both sides of a split a weak penalty would look best.
    generator = torch.Generator().manual_seed(3)
    base = torch.randn(60, 40, generator=generator).repeat_interleave(4, dim=0)
    activations = base + 0.05 * torch.randn(240, 40, generator=generator)
    labels = torch.randint(2, (60,), generator=generator).repeat_interleave(4)
    groups = [str(row // 4) for row in range(240)]
    fit = partial(fit_logistic_probe, activations, labels)
    grid = [0.001, 1.0, 100.0]
    by_group, by_row = fit(groups=groups, C=grid), fit(C=grid)
    assert torch.equal(by_group.direction, fit(C=0.001).direction)
    assert torch.equal(by_row.direction, fit(C=100.0).direction)
    assert by_group.direction.norm() < 0.1 * by_row.direction.norm()


def test_one_penalty_needs_no_groups_and_a_choice_needs_enough():
    activations, labels, groups = pairs()
    alone = fit_logistic_probe(activations, labels, C=0.5)
    grouped = fit_logistic_probe(activations, labels, C=0.5, groups=groups)
    assert torch.equal(alone.direction, grouped.direction)
    assert alone.bias == grouped.bias
    with pytest.raises(ValueError, match=r"2 groups must form two parts.*Give one `C`"):
        fit_logistic_probe(
            activations, labels, groups=np.array(["a", "b"])[labels].tolist(), C=[0.1, 1.0]
        )
    with pytest.raises(ValueError, match=r"`C` must be a positive number, .* got \[\]"):
        fit_logistic_probe(activations, labels, C=[])
