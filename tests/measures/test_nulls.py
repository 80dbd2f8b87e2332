"""Where labels mean nothing, p-values are as rare as they say, and levels are where they say."""

from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import binom, chisquare
from sklearn.metrics import roc_auc_score

from tlens_trust.activations import Activations
from tlens_trust.concepts import Concept
from tlens_trust.measures import ProbeMeasure, logistic_probe, mass_mean_probe
from tlens_trust.measures.cross_fitters import LogisticCrossFitter
from tlens_trust.measures.folds import assign_folds
from tlens_trust.measures.nulls import _area, held_out_null, refit_null
from tlens_trust.measures.permutations import permute_labels

# How labels lie in groups: both in each, one in each, some of either, each statement alone.
LAYOUTS = ["twins", "whole groups", "mixed", "alone"]


def layout(kind: str, *, seed: int, count: int = 20) -> tuple[np.ndarray, list[str]]:
    generator = np.random.default_rng(seed)
    if kind == "twins":
        labels, size = np.tile([0, 1], 2 * count), np.full(2 * count, 2)
    elif kind == "whole groups":
        size = np.full(count, 3)
        labels = np.repeat(generator.permutation(np.arange(count) % 2), size)
    elif kind == "mixed":
        size = generator.integers(1, 5, size=count)
        labels = (np.arange(size.sum()) % 3 == 0).astype(np.int64)
    else:
        size = np.ones(3 * count, dtype=np.int64)
        labels = (generator.permutation(3 * count) < 1.2 * count).astype(np.int64)
    names = [f"{seed}/{group}" for group, rows in enumerate(size) for _ in range(rows)]
    return labels, names


def readings(
    labels: np.ndarray, groups: list[str], *, sites: int, seed: int, distance=0.0, width=6
) -> torch.Tensor:
    """Noise that a group and the sites share in part, with the labels apart along one axis."""
    generator = np.random.default_rng([seed, 99])
    _, group = np.unique(groups, return_inverse=True)
    values = generator.standard_normal((len(labels), sites, width))
    values += generator.standard_normal((group.max() + 1, 1, width))[group]
    values[:, -1, 0] += distance * (2 * labels - 1)
    return torch.from_numpy(values).float()


def as_concept(labels: np.ndarray, groups: list[str]) -> Concept:
    texts = tuple(f"statement {row}" for row in range(len(labels)))
    return Concept("drawn", "reliability", texts, labels, tuple(groups))


def as_activations(values: torch.Tensor) -> Activations:
    return Activations(values, tuple(f"blocks.{i}.hook_resid_post" for i in range(values.shape[1])))


def few_enough(count: int, runs: int, level: float) -> bool:
    """Whether a test of this level rejects oftener than that once in a thousand times."""
    return count <= binom.ppf(0.999, runs, level)


# Permutations.


@pytest.mark.parametrize("kind", LAYOUTS)
def test_a_permutation_keeps_what_groups_and_folds_hold(kind):
    labels, groups = layout(kind, seed=0)
    fold = assign_folds(labels, groups, folds=4, seed=0)
    permuted = permute_labels(labels, groups, fold, permutations=50, seed=0)
    np.testing.assert_array_equal(permuted.labels, labels)
    assert (permuted.draws[1:] != labels).any()
    names = np.array(groups)
    for draw in permuted.draws:
        for name in set(groups):
            own = names == name
            if 0 < labels[own].sum() < own.sum():
                assert draw[own].sum() == labels[own].sum()
            else:
                assert len(set(draw[own].tolist())) == 1
        for k in range(4):
            size = Counter(groups)
            for label in (0, 1):
                sizes, before = (
                    sorted(size[g] for g in names[(fold == k) & (drawn == label)])
                    for drawn in (draw, labels)
                )
                assert sizes == before


def test_every_arrangement_is_drawn_equally_often():
    labels, groups = np.array([0, 1, 0, 1, 1, 1, 0]), ["a", "a", "b", "c", "d", "e", "e"]
    fold = np.zeros(7, dtype=np.int64)
    permuted = permute_labels(labels, groups, fold, permutations=12_000, seed=0)
    found = Counter(map(bytes, permuted.draws[1:]))
    # Two ways in each of the groups a and e, three for which of b, c, d holds the 0.
    assert len(found) == 12
    assert chisquare(list(found.values())).pvalue > 1e-3


def test_the_seed_draws_the_permutations_and_their_number_is_at_least_one():
    labels, groups = layout("twins", seed=0)
    fold = assign_folds(labels, groups, seed=0)
    first, again, other = (
        permute_labels(labels, groups, fold, permutations=5, seed=seed).draws for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    with pytest.raises(ValueError, match="`permutations` must be a whole number from 1, got 0"):
        permute_labels(labels, groups, fold, permutations=0, seed=0)


# p-values.


def p_values(kind, *, runs, null=None, distance=0.0, sites=3, permutations=99, count=20):
    """p of the first and of the last site, and of the best site, for so many data sets."""
    found = []
    for seed in range(runs):
        labels, groups = layout(kind, seed=seed, count=count)
        values = readings(labels, groups, sites=sites, seed=seed, distance=distance)
        fold = assign_folds(labels, groups, folds=4, seed=seed)
        permuted = permute_labels(labels, groups, fold, permutations=permutations, seed=seed)
        result = (
            refit_null(values, permuted, fold, C=(0.01, 0.1, 1.0))
            if null is None
            else null(values, labels, groups, permuted, fold)
        )
        found.append((result.p[0], result.p[-1], result.p_best.min()))
    return np.array(found)


@pytest.mark.parametrize("kind", LAYOUTS)
def test_p_values_are_small_as_seldom_as_they_say(kind):
    found = p_values(kind, runs=200, sites=2)
    for level in (0.05, 0.2):
        for small in (found <= level).sum(axis=0):
            assert few_enough(small, 200, level)
            # Nor is it a test that never rejects.
            assert small >= binom.ppf(0.001, 200, level)


@pytest.mark.parametrize("kind", LAYOUTS)
def test_what_is_planted_is_found_where_it_is(kind):
    found = p_values(kind, runs=20, distance=2.0, sites=2)
    assert (found[:, 1] <= 0.05).mean() > 0.9
    assert (found[:, 2] <= 0.05).mean() > 0.9
    assert (found[:, 0] <= 0.05).mean() < 0.5


def test_permuting_against_pooled_predictions_would_reject_too_often():
    """The shortcut that is not taken, to show that the acceptance above can fail."""
    small = 0
    for seed in range(600):
        labels, groups = layout("twins", seed=seed)
        values = readings(labels, groups, sites=1, seed=seed)[:, 0]
        fold = assign_folds(labels, groups, folds=4, seed=seed)
        draws = permute_labels(labels, groups, fold, permutations=99, seed=seed).draws
        scores = np.empty(len(labels))
        for k in range(4):
            kept = fold != k
            means = [values[kept & (labels == label)].mean(dim=0) for label in (0, 1)]
            scores[~kept] = (values[~kept] - sum(means) / 2) @ (means[1] - means[0])
        apart = (2.0 * draws - 1) @ scores
        small += (1 + (apart[1:] >= apart[0]).sum()) / 100 <= 0.05
    assert not few_enough(small, 600, 0.05)


def test_the_best_site_pays_for_the_choice_and_a_single_site_does_not():
    labels, groups = layout("twins", seed=3)
    values = readings(labels, groups, sites=12, seed=3, distance=0.4)
    fold = assign_folds(labels, groups, seed=3)
    permuted = permute_labels(labels, groups, fold, permutations=499, seed=3)
    among = refit_null(values, permuted, fold, C=(0.1, 1.0))
    assert (among.p_best >= among.p).all()
    assert among.p_best.min() > among.p.min()
    alone = refit_null(values[:, -1:], permuted, fold, C=(0.1, 1.0))
    np.testing.assert_array_equal(alone.p, alone.p_best)
    assert alone.p[0] == pytest.approx(among.p[-1])


def test_p_ignores_units_of_features_and_which_label_is_called_one():
    labels, groups = layout("mixed", seed=4)
    values = readings(labels, groups, sites=2, seed=4, distance=0.5)
    fold = assign_folds(labels, groups, folds=4, seed=4)
    permuted = permute_labels(labels, groups, fold, permutations=199, seed=4)
    straight = refit_null(values, permuted, fold, C=(0.1, 1.0))
    scale = torch.logspace(-3, 3, values.shape[2])
    scaled = refit_null(values * scale + 10 * scale, permuted, fold, C=(0.1, 1.0))
    np.testing.assert_allclose(scaled.p, straight.p, atol=0.011)
    swapped = permute_labels(1 - labels, groups, fold, permutations=199, seed=4)
    np.testing.assert_array_equal(swapped.draws, 1 - permuted.draws)
    turned = refit_null(values, swapped, fold, C=(0.1, 1.0))
    np.testing.assert_allclose(turned.p, straight.p)


def test_more_features_than_statements_give_the_same_as_their_span():
    labels, groups = layout("twins", seed=5)
    values = readings(labels, groups, sites=1, seed=5, distance=0.8, width=60)
    fold = assign_folds(labels, groups, seed=5)
    permuted = permute_labels(labels, groups, fold, permutations=199, seed=5)
    padded = torch.cat([values, torch.zeros(*values.shape[:2], 200)], dim=2)
    # 80 statements: the second goes through the rows' own products.
    narrow, wide = (refit_null(v, permuted, fold, C=(0.01, 1.0)) for v in (values, padded))
    np.testing.assert_allclose(narrow.p, wide.p, atol=0.011)
    np.testing.assert_allclose(narrow.bands["accuracy"], wide.bands["accuracy"], atol=0.02)


def test_labels_that_nothing_can_take_the_place_of_prove_nothing():
    labels = np.repeat([0, 1, 0, 1, 0, 1], [1, 2, 3, 4, 5, 6])
    groups = [f"g{number}" for number in np.repeat(range(6), [1, 2, 3, 4, 5, 6])]
    fold = assign_folds(labels, groups, folds=3, seed=0)
    values = readings(labels, groups, sites=2, seed=0, distance=50.0)
    permuted = permute_labels(labels, groups, fold, permutations=99, seed=0)
    assert (permuted.draws == labels).all()
    assert (refit_null(values, permuted, fold, C=(1.0,)).p == 1).all()
    assert (held_out_null(values[:, :, 0].double().numpy(), permuted, fold).p == 1).all()


def test_a_fold_is_tested_where_other_rows_are_only_ever_trained_on():
    labels, groups = layout("twins", seed=6, count=40)
    fold = assign_folds(labels, groups, folds=5, seed=6) - 4
    values = readings(labels, groups, sites=1, seed=6, distance=1.5)
    permuted = permute_labels(labels, groups, fold, permutations=199, seed=6)
    assert refit_null(values, permuted, fold, C=(0.1,)).p[0] <= 0.05
    # The control: readings that hold nothing anywhere.
    generator = torch.Generator().manual_seed(0)
    found = 0
    for _ in range(40):
        noise = torch.randn(values.shape, generator=generator)
        found += int(refit_null(noise, permuted, fold, C=(0.1,)).p[0] <= 0.05)
    assert found <= binom.ppf(0.999, 40, 0.05)


# Any other probe.


def mean_difference(values, labels, groups, permuted, fold):
    """Held-out scores along the difference of means."""
    scores = np.empty(values.shape[:2])
    for k in np.unique(fold):
        kept = torch.from_numpy(fold != k)
        ones = torch.from_numpy(labels == 1)
        difference = values[kept & ones].mean(dim=0) - values[kept & ~ones].mean(dim=0)
        scores[fold == k] = (values[~kept] * difference).sum(dim=2)
    return held_out_null(scores, permuted, fold)


@pytest.mark.parametrize("kind", LAYOUTS)
def test_merged_p_values_of_held_out_scores_are_small_no_oftener_than_they_say(kind):
    found = p_values(kind, runs=300, null=mean_difference)
    for level in (0.05, 0.2):
        assert all(few_enough(small, 300, level) for small in (found <= level).sum(axis=0))


def test_merged_p_values_find_what_is_plain():
    found = p_values("twins", runs=10, null=mean_difference, distance=3.0, sites=1, count=60)
    assert (found <= 0.05).all()


def test_any_cross_fitter_has_a_null():
    class Constant:
        identity = "constant"
        least_folds = 2

        def __call__(self, activations, labels, groups, fold):
            from tlens_trust.measures.cross_fitters import HeldOut

            return HeldOut(np.zeros(tuple(activations.shape[:2])))

    labels, groups = layout("twins", seed=7)
    values = readings(labels, groups, sites=2, seed=7, distance=5.0)
    data = ProbeMeasure("constant", Constant(), permutations=50, floor=False)(
        as_activations(values), as_concept(labels, groups), seed=0
    )
    assert (data.accuracy_p == 1).all()
    np.testing.assert_allclose(data.accuracy_null, 0.5)
    np.testing.assert_allclose(data.auroc_null, 0.5)


# Levels.


def probes_at_chance(layout_of, *, runs, sites=20, width=8):
    """Scores of logistic probes on noise, and the bands that are said to hold 95% of them."""
    inside = Counter()
    centres, found = [], []
    for seed in range(runs // sites):
        labels, groups = layout_of(seed)
        values = readings(labels, groups, sites=sites, seed=seed, width=width)
        generator = torch.Generator().manual_seed(seed)
        values = torch.randn(values.shape, generator=generator)
        measure = logistic_probe(permutations=400, resamples=2, floor=False)
        data = measure(as_activations(values), as_concept(labels, groups), seed=seed)
        for name in ("accuracy", "balanced_accuracy", "auroc", "cross_entropy"):
            low, high = data[f"{name}_null"].transpose("bound", "site").values
            value = data[name].values
            inside[name] += int(((value >= low - 1e-6) & (value <= high + 1e-6)).sum())
        centres.append(data.accuracy_null.mean().item())
        found.append(data.accuracy.mean().item())
    return inside, float(np.mean(centres)), float(np.mean(found))


def test_null_bands_hold_probes_that_have_nothing_to_read():
    inside, centre, _ = probes_at_chance(
        lambda seed: layout("twins", seed=seed, count=50), runs=200
    )
    assert centre == pytest.approx(0.5, abs=0.01)
    for count in inside.values():
        assert count >= binom.ppf(0.001, 200, 0.93)


def test_the_band_of_unbalanced_labels_lies_where_probes_that_learn_nothing_go():
    def unbalanced(seed):
        labels = np.random.default_rng(seed).permutation(np.arange(200) < 140).astype(np.int64)
        return labels, [f"{seed}/{row}" for row in range(200)]

    inside, centre, found = probes_at_chance(unbalanced, runs=100)
    assert centre == pytest.approx(found, abs=0.01)
    assert centre == pytest.approx(0.7, abs=0.02)
    assert inside["accuracy"] >= binom.ppf(0.001, 100, 0.93)


@pytest.mark.parametrize("probe", [logistic_probe, mass_mean_probe])
def test_a_measure_reports_null_p_and_chance_with_the_number_of_permutations(probe):
    labels, groups = layout("alone", seed=8, count=40)
    values = readings(labels, groups, sites=3, seed=8, distance=3.0)
    measure = probe(permutations=199)
    data = measure(as_activations(values), as_concept(labels, groups), seed=0)
    assert data.accuracy_p.values[-1] == data.accuracy_p_best.values[-1] == 1 / 200
    assert data.accuracy_p.attrs["permutations"] == 199
    assert data.accuracy_null.dims == ("site", "bound")
    assert (data.accuracy > data.accuracy_null.sel(bound="high")).values[-1]
    assert (data.cross_entropy < data.cross_entropy_null.sel(bound="low")).values[-1]
    assert data.accuracy_chance.item() == pytest.approx(0.6)
    again = measure(as_activations(values), as_concept(labels, groups), seed=0)
    assert again.identical(data)
    assert probe(permutations=99).identity != measure.identity


def rejections(kind: str, *, runs: int, measure: ProbeMeasure) -> dict[str, np.ndarray]:
    """How often a whole measure's p-values are at most 1%, 5% and 20% on noise."""
    small = {"accuracy_p": np.zeros(3, int), "best": np.zeros(3, int)}
    levels = np.array([0.01, 0.05, 0.2])
    for seed in range(runs):
        labels, groups = layout(kind, seed=seed)
        values = readings(labels, groups, sites=3, seed=seed)
        data = measure(as_activations(values), as_concept(labels, groups), seed=seed)
        small["accuracy_p"] += data.accuracy_p.values[0] <= levels
        small["best"] += data.accuracy_p_best.values.min() <= levels
    return small


@pytest.mark.slow
@pytest.mark.parametrize("kind", LAYOUTS)
@pytest.mark.parametrize("probe", [logistic_probe, mass_mean_probe])
def test_a_measure_s_p_values_are_small_as_seldom_as_they_say(kind, probe, record_property):
    measure = probe(folds=4, permutations=199, resamples=2, floor=False)
    small = rejections(kind, runs=2000, measure=measure)
    for name, counts in small.items():
        record_property(name, counts.tolist())
        for level, count in zip((0.01, 0.05, 0.2), counts, strict=True):
            assert few_enough(count, 2000, level)


@pytest.mark.slow
def test_p_values_include_the_choice_of_penalty_in_wide_activations():
    small = 0
    fitter = LogisticCrossFitter()
    for seed in range(2000):
        labels, groups = layout("twins", seed=seed)
        values = readings(labels, groups, sites=2, seed=seed, width=120)
        fold = assign_folds(labels, groups, seed=seed)
        permuted = permute_labels(labels, groups, fold, permutations=99, seed=seed)
        null = fitter.null(values, np.zeros(tuple(values.shape[:2])), permuted, fold)
        small += null.p_best.min() <= 0.05
    assert few_enough(small, 2000, 0.05)


# Statements that read alike.


def read_by_lot(labels, groups, *, kinds, seed):
    """Every statement reads as one of a few vectors, drawn without regard to its label."""
    generator = np.random.default_rng([seed, 7])
    vectors = generator.standard_normal((kinds, 1, 6))
    return torch.from_numpy(vectors[generator.integers(kinds, size=len(labels))]).float()


@pytest.mark.parametrize("measure", [logistic_probe, mass_mean_probe])
def test_what_reads_alike_everywhere_is_read_by_no_probe_in_whatever_order_it_stands(measure):
    for labels in (np.arange(80) // 40, 1 - np.arange(80) // 40):
        groups = [str(row) for row in range(80)]
        found = measure(permutations=99, floor=False)(
            as_activations(torch.full((80, 1, 6), 0.3)), as_concept(labels, groups), seed=0
        )
        assert float(found.accuracy_p[0]) == 1
        assert found.auroc_null.values.tolist() == [[0.5, 0.5]]


def test_ties_give_no_small_p_values_to_a_file_that_lists_one_label_first():
    labels, groups = np.arange(80) // 40, [str(row) for row in range(80)]
    measure = logistic_probe(permutations=199, floor=False)
    runs = 24
    found = []
    for seed in range(runs):
        values = read_by_lot(labels, groups, kinds=2 + seed % 2, seed=seed)
        cell = measure(as_activations(values), as_concept(labels, groups), seed=seed)
        found.append(float(cell.accuracy_p[0]))
    assert few_enough(sum(p <= 0.05 for p in found), runs, 0.05)
    assert few_enough(sum(p <= 0.2 for p in found), runs, 0.2)
    assert 0.2 < np.mean(found) < 0.8


def test_areas_are_those_of_scikit_learn_with_and_without_ties():
    generator = np.random.default_rng(0)
    scores = generator.standard_normal((40, 3)).astype(np.float32)
    scores[:, 1] = generator.integers(3, size=40)
    scores[:, 2] = 0.25
    labels = np.stack([generator.permutation(np.arange(40) % 4 == 0) for _ in range(3)], axis=1)
    found = _area(torch.from_numpy(scores), torch.from_numpy(labels).float())
    wanted = [roc_auc_score(labels[:, column], scores[:, column]) for column in range(3)]
    assert found.numpy() == pytest.approx(wanted, abs=1e-6)
