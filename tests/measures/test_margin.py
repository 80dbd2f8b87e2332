"""Margins are distances, and the noise at collapse is what sampling it would give."""

import numpy as np
import pytest
import torch
from scipy.stats import binom, norm

from tlens_trust.activations import Activations
from tlens_trust.concepts import Concept
from tlens_trust.measures import (
    Measure,
    ProbeMeasure,
    lda_probe,
    logistic_probe,
    mass_mean_probe,
    probe_margin,
)
from tlens_trust.measures.cross_fitters import HeldOut
from tlens_trust.measures.intervals import percentile_interval
from tlens_trust.measures.margin import accuracy_under_noise, collapse_noise
from tlens_trust.measures.probe import fit_mass_mean_probe
from tlens_trust.measures.resampling import GroupBootstrap


def pairs(count: int) -> Concept:
    return Concept(
        name="pairs",
        dimension="reliability",
        statements=tuple(f"statement {row}" for row in range(2 * count)),
        labels=np.tile([0, 1], count),
        groups=tuple(f"pair {row // 2}" for row in range(2 * count)),
    )


def readings(concept: Concept, strengths: list[float], *, width: int = 16, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(len(concept), len(strengths), width, generator=generator)
    signs = torch.from_numpy(2 * concept.labels - 1).unsqueeze(1)
    values[:, :, 0] += signs * torch.tensor(strengths)
    return Activations(
        values, tuple(f"blocks.{layer}.hook_resid_post" for layer in range(len(strengths)))
    )


def test_noise_wears_accuracy_down_as_sampling_says():
    generator = np.random.default_rng(0)
    direction, bias = generator.standard_normal(12), 0.4
    activations = generator.standard_normal((300, 12))
    signs = np.where(generator.random(300) < 0.5, 1.0, -1.0)
    activations += 1.2 * signs[:, None] * direction / np.linalg.norm(direction)
    margins = signs * (activations @ direction + bias) / np.linalg.norm(direction)
    levels = np.array([0.0, 0.3, 1.0, 3.0])
    expected = accuracy_under_noise(margins, levels)
    for level, accuracy in zip(levels, expected, strict=True):
        noisy = activations + level * generator.standard_normal((400, 300, 12))
        sampled = (signs * (noisy @ direction + bias) > 0).mean()
        assert sampled == pytest.approx(accuracy, abs=5 / np.sqrt(400 * 300))
    assert (np.diff(expected) < -0.01).all()


def test_the_noise_at_collapse_is_the_upper_quartile_s_where_all_margins_are_one():
    assert collapse_noise(np.full(50, 2.0)) == pytest.approx(2 / norm.ppf(0.75), rel=1e-3)
    # With a tenth on the wrong side by as much: .9Φ + .1(1 - Φ) = .7 at Φ = .75.
    mixed = np.repeat([2.0, -2.0], [90, 10])
    assert collapse_noise(mixed) == pytest.approx(2 / norm.ppf(0.75), rel=1e-3)


def test_the_noise_at_collapse_takes_accuracy_half_way():
    margins = np.random.default_rng(1).standard_normal(500) + 1.5
    start, at = accuracy_under_noise(margins, np.array([0.0, collapse_noise(margins)]))
    assert at == pytest.approx((start + 0.5) / 2, abs=1e-3)
    assert start > 0.9


def test_a_probe_at_chance_has_nothing_to_lose():
    assert np.isnan(collapse_noise(np.array([1.0, -1.0])))
    assert np.isnan(collapse_noise(np.array([1.0, -1.0, -1.0])))
    assert np.isnan(collapse_noise(np.zeros(4)))


def test_the_planted_margin_is_found_in_units_of_the_site():
    concept = pairs(400)
    data = probe_margin(mass_mean_probe())(readings(concept, [0.0, 3.0]), concept, seed=0)
    # The planted coordinate adds its square to one of sixteen.
    rms = np.sqrt(1 + 9 / 16)
    assert float(data.rms[1]) == pytest.approx(rms, rel=0.03)
    assert float(data.margin[1]) == pytest.approx(3 / rms, rel=0.05)
    low, high = data.margin_ci.values[1]
    assert low < data.margin.values[1] < high
    assert float(data.collapse_noise[1]) > 2
    assert np.isnan(data.collapse_noise[0]) or float(data.collapse_noise_ci[0, 0]) < 0.5
    assert float(data.margin[0]) < 0.3


def test_more_signal_stands_more_noise():
    concept = pairs(200)
    data = probe_margin()(readings(concept, [0.7, 1.5, 3.0]), concept, seed=0)
    assert (np.diff(data.margin) > 0.2).all()
    assert (np.diff(data.collapse_noise) > 0.2).all()


def test_margins_do_not_change_with_the_size_of_activations_but_with_an_offset():
    concept = pairs(100)
    activations = readings(concept, [1.5], seed=2)
    measure = probe_margin(mass_mean_probe())
    straight = measure(activations, concept, seed=0)
    larger = measure(Activations(100 * activations.values, activations.sites), concept, seed=0)
    np.testing.assert_allclose(larger.margin, straight.margin, rtol=1e-2)
    np.testing.assert_allclose(larger.collapse_noise, straight.collapse_noise, rtol=1e-2)
    # An offset makes the residual stream longer, and the same room less of it.
    values = activations.values.clone()
    values[:, :, 5] += 20
    offset = measure(Activations(values, activations.sites), concept, seed=0)
    assert float(offset.margin[0]) < 0.3 * float(straight.margin[0])


def test_it_is_a_measure_with_labelled_results_and_one_answer():
    concept = pairs(60)
    activations = readings(concept, [0.0, 2.0])
    measure = probe_margin()
    assert isinstance(measure, Measure)
    data = measure(activations, concept, seed=0)
    assert data.identical(measure(activations, concept, seed=0))
    assert tuple(data.site.values) == activations.sites
    for name, variable in data.data_vars.items():
        assert {"units", "long_name"} <= variable.attrs.keys(), name
        assert "site" in variable.dims, name
    assert probe_margin().identity != probe_margin(mass_mean_probe()).identity
    assert probe_margin().identity != probe_margin(logistic_probe(folds=4)).identity


def test_a_probe_that_is_not_linear_is_refused():
    class Constant:
        identity = "constant"
        least_folds = 2

        def __call__(self, activations, labels, groups, fold):
            return HeldOut(np.zeros(tuple(activations.shape[:2])))

    concept = pairs(20)
    with pytest.raises(ValueError, match="'constant' probe is not linear"):
        probe_margin(ProbeMeasure("constant", Constant()))(
            readings(concept, [1.0]), concept, seed=0
        )


def test_the_interval_of_the_noise_at_collapse_holds_the_truth():
    # Scores of known margin, so that nothing but the sampling of statements varies.
    truth = collapse_noise(norm.ppf((np.arange(20000) + 0.5) / 20000) + 1.0)

    class Known:
        identity = "known"
        least_folds = 2

        def __call__(self, activations, labels, groups, fold):
            scores = activations[:, :, 0].double().numpy()
            directions = np.zeros((1, 5, 2))
            directions[..., 0] = 1
            return HeldOut(scores, directions=directions)

    concept = pairs(150)
    held = 0
    for seed in range(40):
        values = torch.randn(300, 1, 2, generator=torch.Generator().manual_seed(seed))
        values[:, 0, 0] += 1.0
        values[:, 0, 0] *= torch.from_numpy(2.0 * concept.labels - 1)
        values /= values.square().mean().sqrt()
        measure = probe_margin(ProbeMeasure("known", Known(), resamples=300))
        data = measure(Activations(values, ("blocks.0.hook_resid_post",)), concept, seed=seed)
        scale = np.sqrt(1.5)
        low, high = data.collapse_noise_ci.values[0] * scale
        held += low <= truth <= high
    assert held >= 34


def plain(values, groups):
    """Percentiles of resampled groups, which know nothing of training rows in common."""
    return percentile_interval(GroupBootstrap.draw(groups, seed=0, resamples=1000).means(values))


def test_the_interval_knows_that_folds_share_training_rows():
    concept = pairs(80)
    activations = readings(concept, [0.0, 4.0])
    probe = mass_mean_probe()
    data = probe_margin(probe)(activations, concept, seed=0)
    held_out, fold = probe.held_out(activations, concept, seed=0)
    signs = np.where(concept.labels == 1, 1.0, -1.0)[:, None]
    norms = np.linalg.norm(held_out.directions, axis=2)[:, fold].T
    margins = signs * held_out.scores / norms / data.rms.values
    np.testing.assert_allclose(data.margin, margins.mean(axis=0))
    width = np.diff(data.margin_ci.values)[:, 0]
    before = np.diff(plain(margins, concept.groups))[:, 0]
    # Near chance the folds' probes hang together; where there is much to read they hardly move.
    assert width[0] > 1.15 * before[0]
    assert width[1] < 1.1 * before[1]
    np.testing.assert_allclose(data.rms, (data.rms_ci[:, 0] + data.rms_ci[:, 1]) / 2, rtol=0.02)


def test_norms_of_probes_without_one_more_fold_are_those_of_their_fits():
    concept = pairs(60)
    activations = readings(concept, [1.0])
    labels = torch.from_numpy(concept.labels.copy())
    for probe in (mass_mean_probe(folds=3), lda_probe(folds=3), logistic_probe(C=(0.1,), folds=3)):
        held_out, fold = probe.held_out(activations, concept, seed=0)
        norms = held_out.fewer_norms[0]
        assert np.isnan(np.diag(norms)).all()
        np.testing.assert_allclose(norms, norms.T)  # one C: the same fit serves both folds
        kept = torch.from_numpy(fold == 2)
        if probe.name == "mass_mean":
            fit = fit_mass_mean_probe(
                activations.values[kept, 0],
                labels[kept],
                groups=[g for g, k in zip(concept.groups, kept.tolist(), strict=True) if k],
            )
            assert norms[0, 1] == pytest.approx(float(fit.direction.norm()), rel=1e-6)
    # Scores over norms are distances: whatever the scale of the log-odds, none is far out.
    assert np.nanmax(np.abs(held_out.fewer / norms[fold][:, :, None].transpose(1, 0, 2))) < 20


@pytest.mark.slow
def test_the_margin_s_interval_covers_nought_where_there_is_nothing_to_read():
    """Labels that mean nothing: on fresh statements any plane's mean signed distance is 0."""
    concept, runs = pairs(60), 400
    covered = narrow = 0
    probe = mass_mean_probe(permutations=1, floor=False)
    for seed in range(runs):
        activations = readings(concept, [0.0], seed=seed)
        data = probe_margin(probe)(activations, concept, seed=seed)
        low, high = data.margin_ci.values[0]
        covered += low <= 0 <= high
        held_out, fold = probe.held_out(activations, concept, seed=seed)
        signs = np.where(concept.labels == 1, 1.0, -1.0)[:, None]
        norms = np.linalg.norm(held_out.directions, axis=2)[:, fold].T
        low, high = plain(signs * held_out.scores / norms, concept.groups)[0]
        narrow += low <= 0 <= high
    assert binom.ppf(0.001, runs, 0.93) <= covered
    assert narrow < binom.ppf(0.001, runs, 0.93)
