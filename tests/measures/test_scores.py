"""Held-out scores are summed up as scikit-learn would, with intervals that hold the truth."""

import numpy as np
import pytest
import xarray as xr
from scipy.stats import beta, binom
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss, roc_auc_score

from tlens_trust.measures.scores import score_dataset


def graded(
    groups: int, size: int, *, strength: float, shared: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Scores that agree with their labels as far as `strength`, with noise shared in a group."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(2, size=groups * size)
    noise = np.sqrt(shared) * np.repeat(generator.standard_normal(groups), size)
    noise += np.sqrt(1 - shared) * generator.standard_normal(groups * size)
    scores = strength * (2 * labels - 1) + noise * (2 * labels - 1)
    fold = np.repeat(np.arange(groups) % 5, size)
    return scores[:, None], labels, fold, [f"g{row // size}" for row in range(groups * size)]


def scored(scores, labels, fold, groups, *, seed=0, resamples=1000) -> xr.Dataset:
    sites = [f"site {column}" for column in range(scores.shape[1])]
    return score_dataset(scores, labels, fold, groups, sites=sites, seed=seed, resamples=resamples)


def test_the_values_are_those_of_scikit_learn():
    generator = np.random.default_rng(0)
    labels = (generator.random(500) < 0.3).astype(int)
    scores = labels[:, None] * [0.0, 1.0, 3.0] + generator.standard_normal((500, 3)) - 1
    scores[:50] = scores[:50].round()
    fold = generator.integers(5, size=500)
    data = scored(scores, labels, fold, [str(row) for row in range(500)])
    for column in range(3):
        guess = (scores[:, column] > 0).astype(int)
        chance = 1 / (1 + np.exp(-scores[:, column]))
        values = data.isel(site=column)
        assert float(values.accuracy) == pytest.approx(accuracy_score(labels, guess))
        assert float(values.balanced_accuracy) == pytest.approx(
            balanced_accuracy_score(labels, guess)
        )
        assert float(values.cross_entropy) == pytest.approx(log_loss(labels, chance))
        areas = [
            roc_auc_score(labels[fold == number], scores[fold == number, column])
            for number in range(5)
        ]
        assert float(values.auroc) == pytest.approx(np.mean(areas))


def test_every_value_lies_in_its_interval_and_says_its_unit_and_number():
    data = scored(*graded(80, 3, strength=0.7, shared=0.3, seed=1))
    for name in ("accuracy", "balanced_accuracy", "auroc", "cross_entropy"):
        interval = data[f"{name}_ci"]
        low, high = interval.values[0]
        assert low < data[name].item() < high
        assert data[f"{name}_n"].item() == 240
        assert interval.attrs["groups"] == 80
    for variable in data.data_vars.values():
        assert variable.attrs["units"]
        assert variable.attrs["long_name"]


def test_the_interval_knows_that_statements_of_a_group_go_together():
    together = scored(*graded(100, 8, strength=0.7, shared=1.0, seed=2))
    scores, labels, fold, _ = graded(100, 8, strength=0.7, shared=1.0, seed=2)
    apart = scored(scores, labels, fold, [str(row) for row in range(800)])
    for name in ("accuracy_ci", "cross_entropy_ci", "auroc_ci"):
        width, naive = (data[name].diff("bound").item() for data in (together, apart))
        assert width > 1.8 * naive


def test_the_interval_ignores_row_order_and_follows_the_seed():
    scores, labels, fold, groups = graded(50, 4, strength=0.5, shared=0.5, seed=3)
    order = np.random.default_rng(0).permutation(len(labels))
    data = scored(scores, labels, fold, groups)
    moved = scored(scores[order], labels[order], fold[order], [groups[row] for row in order])
    np.testing.assert_allclose(moved.accuracy_ci, data.accuracy_ci)
    np.testing.assert_allclose(moved.auroc_ci, data.auroc_ci)
    assert scored(scores, labels, fold, groups).identical(data)
    assert not np.array_equal(scored(scores, labels, fold, groups, seed=1).auroc_ci, data.auroc_ci)


def test_the_linearised_interval_of_auroc_is_that_of_ranking_anew():
    scores, labels, fold, groups = graded(60, 4, strength=0.6, shared=0.5, seed=4)
    generator = np.random.default_rng(0)
    group = np.repeat(np.arange(60), 4)
    areas = []
    for _ in range(200):
        counts = np.bincount(generator.integers(60, size=60), minlength=60)[group]
        areas.append(
            np.mean(
                [
                    roc_auc_score(
                        labels[fold == k], scores[fold == k, 0], sample_weight=counts[fold == k]
                    )
                    for k in range(5)
                ]
            )
        )
    expected = np.diff(np.quantile(areas, [0.025, 0.975]))
    found = scored(scores, labels, fold, groups).auroc_ci.diff("bound").values[0]
    np.testing.assert_allclose(found, expected, rtol=0.25)


def test_a_perfect_score_is_not_perfectly_known():
    _, labels, fold, groups = graded(40, 2, strength=0.0, shared=0.0, seed=5)
    data = scored(20.0 * (2 * labels[:, None] - 1), labels, fold, groups)
    low, high = data.accuracy_ci.values[0]
    assert high == 1
    assert low == pytest.approx(beta.ppf(0.025, 40, 1))
    assert data.auroc_ci.values[0, 0] == pytest.approx(beta.ppf(0.025, 20, 1))
    half = scored(np.full((80, 1), -1.0), np.tile([0, 1], 40), fold, groups)
    assert half.balanced_accuracy.item() == 0.5


def coverage(runs: int) -> int:
    """In how many runs the interval of accuracy holds the accuracy that was built in."""
    held = 0
    for run in range(runs):
        scores, labels, fold, groups = graded(120, 3, strength=0.8, shared=0.4, seed=run)
        low, high = scored(scores, labels, fold, groups, resamples=400).accuracy_ci.values[0]
        truth = 0.7881446014166034  # The normal distribution function at 0.8.
        held += low <= truth <= high
    return held


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    # Between the 0.1% and 99.9% quantiles of 93% and 97% coverage.
    assert binom.ppf(0.001, 150, 0.93) <= coverage(150) <= binom.ppf(0.999, 150, 0.97)


@pytest.mark.slow
def test_coverage_is_between_93_and_97_percent():
    assert 0.93 <= coverage(2000) / 2000 <= 0.97


def test_scores_by_probes_without_one_more_fold_are_kept_with_the_others():
    generator = np.random.default_rng(0)
    labels, fold = np.arange(30) % 2, np.arange(30) // 2 % 3
    scores, fewer = generator.standard_normal((30, 2)), generator.standard_normal((3, 30, 2))
    names = [f"{row // 2}" for row in range(30)]
    data = score_dataset(scores, labels, fold, names, sites=["a", "b"], seed=0, fewer=fewer)
    kept = data.score_fewer.transpose("left_out", "example", "site")
    np.testing.assert_allclose(kept, fewer, rtol=1e-6)
    assert "score_fewer" not in score_dataset(scores, labels, fold, names, sites=["a", "b"], seed=0)


def test_a_resample_without_one_label_does_not_make_a_perfect_score_certain():
    """Of four groups of one label each, one resample in eight draws one label alone."""
    labels = np.array([0, 0, 1, 1])
    scores = np.where(labels == 1, 2.0, -2.0)[:, None]
    data = score_dataset(
        scores,
        labels,
        fold=np.zeros(4, dtype=np.int64),
        groups=list("abcd"),
        sites=["site"],
        seed=0,
    )
    exact = beta.ppf(0.025, 4, 1)
    np.testing.assert_allclose(data.balanced_accuracy_ci.values, [[exact, 1.0]])
    np.testing.assert_array_equal(data.balanced_accuracy_ci, data.accuracy_ci)
