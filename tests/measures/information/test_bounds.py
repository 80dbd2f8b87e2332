"""Bounds of I(T;Y) lie where theory says, below the truth, and at nothing for noise."""

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import binom

from tlens_trust.measures import AnswerInformation, BarberAgakov, Fano, InformationEstimate
from tlens_trust.measures.information.label_bounds import (
    HeldOutScores,
    answer_information,
    barber_agakov,
    confusion_information,
    fano,
    fano_information,
    fano_interval,
    label_entropy,
)
from tlens_trust.measures.information.probe_bounds import cross_fitter_of

BOUNDS = [barber_agakov, fano, answer_information]


def two_gaussians(distance: float) -> float:
    """I(T;Y) in nats for balanced labels and unit variance, by quadrature."""

    def density(t: float) -> float:
        return (
            0.5
            * float(np.exp(-t * t / 2) + np.exp(-((t - distance) ** 2) / 2))
            / np.sqrt(2 * np.pi)
        )

    entropy = quad(lambda t: -density(t) * np.log(density(t)), -8, 8 + distance, limit=200)[0]
    return float(entropy - 0.5 * np.log(2 * np.pi * np.e))


def sample(distance: float, *, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    return generator.standard_normal(n) + distance * labels, labels


def held_of(scores: np.ndarray, labels: np.ndarray, *, groups=None, seed: int = 0):
    names = [str(row) for row in range(len(labels))] if groups is None else groups
    fold = np.zeros(len(labels), dtype=np.int64)
    return HeldOutScores.of(scores[:, None], labels, fold, names, seed=seed, resamples=200)


@pytest.mark.parametrize(
    ("accuracy", "bits"), [(0.7, 0.119), (0.8, 0.278), (0.9, 0.531), (0.95, 0.714)]
)
def test_fano_gives_the_known_bits_of_an_accuracy(accuracy, bits):
    result = float(fano_information(1 - accuracy, np.log(2))) / np.log(2)
    assert result == pytest.approx(bits, abs=5e-4)


def test_fano_of_unbalanced_labels_goes_below_zero_and_is_not_clipped():
    labels = np.array([0] * 9 + [1])
    assert float(fano_information(0.4, label_entropy(labels))) < 0
    assert float(fano_information(0.0, label_entropy(labels))) == pytest.approx(
        label_entropy(labels)
    )


def test_fano_claims_least_where_the_error_may_be_one_half():
    low, high = fano_interval(np.array([0.4, 0.6]), np.log(2))
    assert low == pytest.approx(0)
    assert high == pytest.approx(float(fano_information(0.4, np.log(2))))
    assert fano_interval(np.array([0.1, 0.2]), np.log(2))[0] == pytest.approx(
        float(fano_information(0.2, np.log(2)))
    )


def test_fano_of_many_classes_at_chance_tells_nothing():
    assert float(fano_information(0.9, np.log(10), classes=10)) == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="from 0 to 1"):
        fano_information(1.2, 0.5)


def test_groups_widen_what_rows_alone_would_claim():
    generator = np.random.default_rng(0)
    right = np.repeat(generator.random(40) < 0.8, 10)
    labels = np.arange(400) % 2
    scores = np.where(right, 1.0, -1.0) * (2 * labels - 1)
    together = [str(row // 10) for row in range(400)]
    alone = fano(held_of(scores, labels)).interval[0]
    grouped = fano(held_of(scores, labels, groups=together)).interval[0]
    assert grouped[0] < alone[0] < alone[1] < grouped[1]


def test_where_every_answer_is_right_the_groups_say_how_sure_that_is():
    labels = np.arange(40) % 2
    scores = 5.0 * (2 * labels - 1)
    pairs = [str(row // 2) for row in range(40)]
    result = fano(held_of(scores, labels, groups=pairs))
    assert result.value[0] == pytest.approx(np.log(2))
    upper = 1 - 0.025 ** (1 / 20)  # Clopper and Pearson on 20 groups.
    assert result.interval[0, 0] == pytest.approx(float(fano_information(upper, np.log(2))))


def test_a_table_of_independent_answers_tells_nothing_and_of_right_ones_all():
    table = np.outer([30.0, 70.0], [0.4, 0.6])
    assert float(confusion_information(table, corrected=False)) == pytest.approx(0, abs=1e-12)
    assert float(confusion_information(table)) == pytest.approx(-1 / 200)
    sure = np.diag([30.0, 70.0])
    entropy = label_entropy(np.array([0] * 30 + [1] * 70))
    assert float(confusion_information(sure, corrected=False)) == pytest.approx(entropy)


def test_the_correction_takes_the_bias_of_independent_answers_off():
    generator = np.random.default_rng(0)
    answers = generator.integers(2, size=(4000, 100))
    labels = np.arange(100) % 2
    cells = (2 * labels + answers)[..., None] == np.arange(4)
    tables = cells.sum(axis=1).astype(float).reshape(-1, 2, 2)
    plain = confusion_information(tables, corrected=False).mean()
    assert plain == pytest.approx(1 / 200, rel=0.1)
    assert abs(confusion_information(tables).mean()) < 0.1 * plain


def test_the_true_odds_make_barber_and_agakov_tight():
    t, labels = sample(2.0, n=20_000, seed=0)
    result = barber_agakov(held_of(2.0 * t - 2.0, labels))
    assert result.value[0] == pytest.approx(two_gaussians(2.0), abs=0.01)
    # Scores that are too sure say less, though their answers are the same.
    sure = held_of(3 * (2.0 * t - 2.0), labels)
    assert barber_agakov(sure).value[0] < result.value[0] - 0.05
    assert fano(sure).value[0] == pytest.approx(fano(held_of(2.0 * t - 2.0, labels)).value[0])


@pytest.mark.parametrize("distance", [0.0, 1.0, 3.0])
def test_the_bounds_stand_in_the_order_of_theory(distance):
    t, labels = sample(distance, n=20_000, seed=1)
    held_out = held_of(distance * t - distance**2 / 2 + 1e-9 * t, labels)
    truth = two_gaussians(distance)
    answer, by_fano = answer_information(held_out).value[0], fano(held_out).value[0]
    assert by_fano <= answer + 1e-3 <= barber_agakov(held_out).value[0] + 0.01 <= truth + 0.02


@pytest.mark.parametrize("bound", BOUNDS)
def test_a_bound_exceeds_the_truth_beyond_its_interval_in_no_more_than_a_twentieth_of_runs(bound):
    distance, runs = 1.0, 100
    truth = two_gaussians(distance)
    beyond = 0
    for seed in range(runs):
        t, labels = sample(distance, n=300, seed=seed)
        beyond += bound(held_of(distance * t - distance**2 / 2, labels)).interval[0, 0] > truth
    assert beyond <= binom.ppf(0.999, runs, 0.05)
    # Against a wrong truth, a tenth of it, they nearly all would.
    t, labels = sample(distance, n=300, seed=0)
    assert bound(held_of(distance * t - distance**2 / 2, labels)).value[0] > 0.1 * truth


@pytest.mark.parametrize("bound", BOUNDS)
def test_replicates_have_the_spread_of_the_estimate(bound):
    values, spreads = [], []
    for seed in range(60):
        t, labels = sample(1.5, n=200, seed=seed)
        result = bound(held_of(1.5 * t - 1.5**2 / 2, labels))
        values.append(result.value[0])
        spreads.append(result.draws[0].std(ddof=1))
    assert np.mean(spreads) == pytest.approx(np.std(values), rel=0.35)


@pytest.mark.parametrize("estimator", [BarberAgakov(), Fano(), AnswerInformation()])
def test_rotation_shift_and_scale_leave_the_bounds_of_a_linear_probe(estimator):
    t, labels = sample(2.0, n=120, seed=3)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(120, 4, generator=generator, dtype=torch.float64)
    x[:, 0] = torch.from_numpy(t)
    targets = torch.from_numpy(labels)
    original = estimator(x, targets)
    assert isinstance(original, InformationEstimate)
    assert original.bits == pytest.approx(original.value / np.log(2))
    rescaled = estimator(7.0 * x - 3.0, targets)
    assert rescaled.value == pytest.approx(original.value, abs=1e-4)
    assert original.interval[0] < original.value < original.interval[1]
    turned = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64))[0]
    # Features are brought to unit variance one by one, so a turn moves it a little.
    assert estimator(x @ turned, targets).value == pytest.approx(original.value, abs=0.05)


def test_few_groups_are_told():
    t, labels = sample(2.0, n=40, seed=3)
    names = [str(row // 4) for row in range(40)]
    result = BarberAgakov(folds=3)(
        torch.from_numpy(t)[:, None], torch.from_numpy(labels), groups=names
    )
    assert any("10 groups" in warning for warning in result.warnings)


def test_a_network_reads_what_no_line_does():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 2, generator=generator)
    labels = (x[:, 0] * x[:, 1] > 0).long()
    assert BarberAgakov(probe="mlp", folds=3)(x, labels).bits > 0.2
    assert BarberAgakov(folds=3)(x, labels).bits < 0.05
    with pytest.raises(ValueError, match="'linear' or 'mlp'"):
        cross_fitter_of("forest", seed=0)
