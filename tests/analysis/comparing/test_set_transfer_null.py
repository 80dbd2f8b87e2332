"""What transfer to another set is held against."""

import numpy as np
import torch
from scipy.stats import binom

from tlens_trust.analysis.comparing.set_transfer_null import (
    TargetStatements,
    target_null,
    target_refit_bands,
    target_text_scores,
)
from tlens_trust.concepts import Concept
from tlens_trust.measures.folds import assign_folds
from tlens_trust.measures.permutations import permute_labels


def pairs(count):
    return np.tile([0, 1], count), [f"pair {row // 2}" for row in range(2 * count)]


def everything_alike(labels):
    return TargetStatements(labels, np.full(len(labels), -1), np.zeros(len(labels), dtype=np.int64))


def test_p_values_of_scores_that_know_nothing_are_small_as_seldom_as_they_say():
    generator = np.random.default_rng(0)
    labels, groups = pairs(20)
    runs, alone, best = 400, 0, 0
    for run in range(runs):
        # What the two of a pair share is far more than what differs, and no label is in it.
        shared = np.repeat(generator.normal(size=(20, 3)), 2, axis=0)
        scores = shared + 0.3 * generator.normal(size=(40, 3))
        p, p_best = target_null(scores, groups, everything_alike(labels), permutations=99, seed=run)
        alone += p[0] <= 0.05
        best += p_best.min() <= 0.05
    for rejected in (alone, best):
        assert binom.sf(rejected - 1, runs, 0.05) > 0.001
    assert alone > 5


def test_p_values_of_scores_that_know_are_small_and_of_those_that_err_are_not():
    labels, groups = pairs(20)
    noise = np.random.default_rng(1).normal(size=(40, 2))
    scores = noise + np.array([2.0, -2.0]) * (2 * labels[:, None] - 1)
    p, p_best = target_null(scores, groups, everything_alike(labels), permutations=199, seed=0)
    assert p[0] == p_best[0] == 1 / 200
    assert p[1] == p_best[1] == 1.0


def bands(source_axis, target_axis, *, C=(0.1, 10.0), shift=0.0):
    generator = torch.Generator().manual_seed(0)
    labels, groups = pairs(200)
    fold = assign_folds(labels, groups, folds=3, seed=0)
    both = []
    for axis in (source_axis, target_axis):
        values = torch.randn(400, 1, 5, generator=generator)
        values[:, 0] += torch.from_numpy(2 * labels - 1)[:, None] * torch.tensor(axis)
        both.append(values)
    how = TargetStatements(labels, fold, fold)
    permuted = permute_labels(labels, groups, fold, permutations=200, seed=0)
    return target_refit_bands(both[0], both[1] + shift, permuted, fold, how, C=C)


def test_directions_without_labels_read_a_set_that_varies_along_one_axis_and_no_other():
    strong, none = [6.0, 0.0, 0.0, 0.0, 0.0], [0.0] * 5
    for C in ((0.1, 10.0), ()):
        for name in ("accuracy", "auroc"):
            wide, narrow = (bands(strong, axis, C=C)[name][0] for axis in (strong, none))
            assert wide[0] < 0.2
            assert wide[1] > 0.8
            assert 0.4 < narrow[0] < 0.5 < narrow[1] < 0.6


def test_a_shift_of_the_target_moves_the_band_of_the_accuracy_alone():
    axis = [1.0, 0.0, 0.0, 0.0, 0.0]
    straight, moved = bands(axis, axis), bands(axis, axis, shift=50.0)
    np.testing.assert_allclose(straight["auroc"], moved["auroc"], atol=1e-3)
    assert np.ptp(moved["accuracy"]) < 0.05 < np.ptp(straight["accuracy"])


def words(name, cue, count=40):
    labels, groups = pairs(count)
    said = tuple(
        f"{cue[label]} the {name} of number {row // 2}" for row, label in enumerate(labels.tolist())
    )
    return Concept(name, "truth", said, labels, tuple(f"{name} {group}" for group in groups))


def test_the_text_of_one_set_tells_that_of_another_by_a_cue_that_both_have():
    source = words("report", ("perhaps", "indeed"))
    fold = assign_folds(source.labels, source.groups, folds=3, seed=0)
    same, turned, other = (
        words("letter", cue) for cue in (("perhaps", "indeed"), ("indeed", "perhaps"), ("a", "a"))
    )
    right = [
        np.mean(
            (target_text_scores(source, each, fold, np.full(len(each), -1), seed=0) > 0)
            == (each.labels == 1)
        )
        for each in (same, turned, other)
    ]
    assert right == [1.0, 0.0, 0.5]


def test_the_text_of_a_group_is_never_trained_on_before_it_is_scored():
    """One word a group, which tells its label, and nothing else does."""
    names = [f"{one}{two}" for one in "abcdefgh" for two in "klmnop"]
    labels = np.random.default_rng(0).integers(2, size=48)
    source = Concept("a", "truth", tuple(f"about {n} we know" for n in names), labels, tuple(names))
    target = Concept("b", "truth", tuple(f"now {n} again {n}" for n in names), labels, tuple(names))
    fold = assign_folds(labels, names, folds=3, seed=0)
    scores = target_text_scores(source, target, fold, fold, seed=0)
    # With the folds mixed up, each is scored by classifiers that knew its group.
    leaked = target_text_scores(source, target, fold, (fold + 1) % 3, seed=0)
    correct, leaking = (((each > 0) == (labels == 1)).mean() for each in (scores, leaked))
    assert correct < 0.7
    assert leaking >= correct


def test_there_is_no_floor_where_groups_are_too_few_to_choose_on():
    source = words("report", ("perhaps", "indeed"), count=3)
    fold = np.repeat(np.arange(3), 2)
    assert target_text_scores(source, source, fold, fold, seed=0) is None
