"""The paper's protocol gives the paper's numbers, and counts what leaks in them."""

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score

from tlens_trust.activations import Activations
from tlens_trust.concepts import Concept
from tlens_trust.measures import Measure, logistic_probe, tracingllm_probe
from tlens_trust.measures.tracingllm_protocol import find_split_leaks

SITES = ("blocks.0.hook_resid_post", "blocks.1.hook_resid_post")
QUICK = {"resamples": 100, "permutations": 200, "floor": False}


def pairs(count: int, *, scattered: bool = False, seed: int = 0) -> Concept:
    """Pairs of statements that share their words; in random order where `scattered`."""
    rows = np.arange(2 * count)
    if scattered:
        rows = np.random.default_rng(seed).permutation(rows)
    return Concept(
        name="pairs",
        dimension="reliability",
        statements=tuple(f"number {row // 2} is {'odd' if row % 2 else 'even'}" for row in rows),
        labels=rows % 2,
        groups=tuple(f"pair {row // 2}" for row in rows),
    )


def readings(
    concept: Concept, *, signal: float, shared: float = 0.0, width: int = 12, offset: float = 5.0
) -> Activations:
    """Noise with the label along its first feature, and what a group's statements share."""
    generator = torch.Generator().manual_seed(1)
    names, group = np.unique(np.asarray(concept.groups), return_inverse=True)
    own = torch.randn(len(names), width, generator=generator)[torch.from_numpy(group)]
    values = offset + torch.randn(len(concept), len(SITES), width, generator=generator)
    values += shared * own.unsqueeze(1)
    values[:, 1, 0] += signal * torch.from_numpy(2 * concept.labels - 1)
    return Activations(values * torch.linspace(0.1, 10, width), SITES, concept=concept)


def by_hand(activations: Activations, labels: np.ndarray) -> list[float]:
    """The reference's arithmetic, step by step: `load_acts`, the cut, the probe, the score."""
    found = []
    for site in range(len(activations.sites)):
        acts = activations.values[:, site]
        acts = acts - torch.mean(acts, dim=0)
        acts = acts / torch.std(acts, dim=0)
        count = int(acts.shape[0] * 0.8)
        probe = LogisticRegression()
        probe.fit(acts[:count].numpy(), labels[:count].astype(np.float32))
        found.append(accuracy_score(labels[count:], probe.predict(acts[count:].numpy())))
    return found


@pytest.mark.parametrize("count", [50, 63, 101])
def test_the_accuracy_is_that_of_the_reference_s_own_arithmetic(count):
    concept = pairs(count, scattered=True)
    activations = readings(concept, signal=1.5)
    data = tracingllm_probe(**QUICK)(activations, concept, seed=0)
    np.testing.assert_array_equal(data.accuracy, by_hand(activations, concept.labels))
    assert data.accuracy[1] > data.accuracy[0]
    assert (data.accuracy_n == 2 * count - int(2 * count * 0.8)).all()
    assert float(data.trained) == int(2 * count * 0.8)


def test_the_order_of_rows_decides_and_the_seed_does_not():
    concept = pairs(60, scattered=True)
    activations = readings(concept, signal=0.5)
    measure = tracingllm_probe(**QUICK)
    one, other = (measure(activations, concept, seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(one.score, other.score)
    order = np.random.default_rng(3).permutation(len(concept))
    moved = Concept(
        concept.name,
        concept.dimension,
        tuple(concept.statements[row] for row in order),
        concept.labels[order],
        tuple(concept.groups[row] for row in order),
    )
    shuffled = Activations(activations.values[torch.from_numpy(order)], SITES, concept=moved)
    elsewhere = measure(shuffled, moved, seed=0)
    assert not np.array_equal(np.sort(elsewhere.score, 0), np.sort(one.score, 0), equal_nan=True)


def test_test_rows_move_the_scaling_as_in_the_reference():
    concept = pairs(60)
    activations = readings(concept, signal=1.0)
    measure = tracingllm_probe(**QUICK)
    straight = measure(activations, concept, seed=0)
    values = activations.values.clone()
    # One test row far out: with a scale of the training rows, no other row's score would move.
    values[-1] *= 1000
    moved = measure(Activations(values, SITES, concept=concept), concept, seed=0)
    before, after = straight.score.values[96:-1], moved.score.values[96:-1]
    assert np.abs(after - before).max() > 0.1
    assert float(straight.leak_scaling) == 24
    # The control: where features are scaled by training rows, the others of its fold stay.
    honest = logistic_probe(folds=3, resamples=20, permutations=20, floor=False)
    before = honest(activations, concept, seed=0)
    after = honest(Activations(values, SITES, concept=concept), concept, seed=0)
    fold = before.fold.values
    beside = (fold == fold[-1]) & (np.arange(len(fold)) < len(fold) - 1)
    change = np.abs(after.score - before.score)
    assert change[beside].max() < 0.03
    assert change[fold != fold[-1]].max() > 0.3


def test_scores_are_held_out_and_unknown_for_what_is_trained_on():
    concept = pairs(50)
    data = tracingllm_probe(**QUICK)(readings(concept, signal=1.0), concept, seed=0)
    assert np.isnan(data.score[:80]).all()
    assert np.isfinite(data.score[80:]).all()
    assert data.fold.values.tolist() == [-1] * 80 + [0] * 20
    right = (data.score[80:] > 0) == (concept.labels[80:] == 1)[:, None]
    np.testing.assert_allclose(data.accuracy, right.mean("example"))


def test_leaks_are_counted_by_kind():
    statements = ("a b c", "d e f", "g h i", "j k l", "m n o", "p q r", "s t u", "v w x")
    tested = ("A b, c!", "d e f")
    labels = np.array([0, 1, 0, 1, 0, 1, 0, 1, 1, 0])
    concept = Concept("x", "x", statements + tested, labels, tuple("abcdefghia"))
    leaks = find_split_leaks(concept)
    assert leaks.trained == 8
    assert leaks.group.tolist() == [False, True]
    assert leaks.twin.tolist() == [True, True]
    assert leaks.duplicate.tolist() == [False, True]
    assert leaks.conflict.tolist() == [False, True]
    assert leaks.near_duplicate.tolist() == [True, True]
    assert not leaks.unseen.any()
    clean = Concept("x", "x", (*statements, "y z 1", "2 3 4"), labels, tuple("abcdefghij"))
    none = find_split_leaks(clean)
    assert none.unseen.all()
    assert not (none.group | none.twin | none.duplicate | none.near_duplicate).any()


def test_a_repeat_with_the_same_label_is_no_conflict():
    said = ("a", "b", "c", "d", "a")
    labels = np.array([0, 1, 0, 1, 0])
    leaks = find_split_leaks(Concept("x", "x", said, labels, tuple("vwxyz")))
    assert leaks.duplicate.all()
    assert not leaks.conflict.any()


def test_what_groups_share_is_learnt_by_heart_and_the_unseen_statements_tell():
    """Labels of whole groups, which mean nothing, and activations that tell groups apart."""
    count, each = 60, 5
    rows = np.random.default_rng(2).permutation(count * each)
    group = rows // each
    drawn = np.random.default_rng(0).integers(2, size=count)
    concept = Concept(
        "by heart",
        "x",
        tuple(f"statement {row}" for row in rows),
        drawn[group],
        tuple(f"group {number}" for number in group),
    )
    activations = readings(concept, signal=0.0, shared=3.0, width=80)
    leaking = tracingllm_probe(**QUICK)(activations, concept, seed=0)
    assert (leaking.accuracy > 0.9).all()
    assert float(leaking.leak_group) == 60
    assert leaking.accuracy_unseen.isnull().all()
    assert leaking.accuracy_p.isnull().all()
    honest = logistic_probe(folds=3, resamples=20, permutations=20, floor=False)
    grouped = honest(activations, concept, seed=0)
    assert (grouped.accuracy < 0.7).all()


def test_without_leaks_all_test_statements_are_unseen_and_a_signal_has_a_small_p():
    concept = pairs(100)
    data = tracingllm_probe(**QUICK)(readings(concept, signal=1.5), concept, seed=0)
    np.testing.assert_array_equal(data.accuracy_unseen, data.accuracy)
    np.testing.assert_array_equal(data.accuracy_unseen_ci, data.accuracy_ci)
    assert (data.accuracy_unseen_n == 40).all()
    assert data.accuracy_p[1] < 0.05 < data.accuracy_p[0]
    low, high = data.accuracy_ci.values[1]
    assert low < data.accuracy[1] <= high
    assert "leak_group" in data.accuracy.attrs["leaks"]


def test_fits_that_stop_at_the_limit_of_iterations_are_counted_without_a_warning(monkeypatch):
    concept = pairs(100)
    activations = readings(concept, signal=1.0)
    measure = tracingllm_probe(**QUICK)
    assert (measure(activations, concept, seed=0).unconverged == 0).all()
    # Standardised features seldom take today's release to its hundredth iteration.
    hurried = partial(LogisticRegression, max_iter=2)
    monkeypatch.setattr("tlens_trust.measures.tracingllm_protocol.LogisticRegression", hurried)
    assert (measure(activations, concept, seed=0).unconverged == 1).all()


def test_a_feature_that_never_varies_is_left_out():
    concept = pairs(50)
    activations = readings(concept, signal=1.0)
    values = activations.values.clone()
    values[:, :, 5] = 3.0
    data = tracingllm_probe(**QUICK)(Activations(values, SITES), concept, seed=0)
    without = Activations(values[:, :, [i for i in range(12) if i != 5]], SITES)
    expected = tracingllm_probe(**QUICK)(without, concept, seed=0)
    np.testing.assert_allclose(data.score, expected.score, atol=1e-3)


def test_the_text_floor_stands_on_the_same_split():
    concept = pairs(60)
    data = tracingllm_probe(resamples=50, permutations=50)(
        readings(concept, signal=0.0), concept, seed=0
    )
    # "odd" and "even" stand in the text.
    assert float(data.accuracy_floor) == 1.0
    assert (data.accuracy_above_floor < 0).all()
    assert float(data.accuracy_chance) == 0.5
    without = tracingllm_probe(**QUICK)(readings(concept, signal=0.0), concept, seed=0)
    assert "accuracy_floor" not in without


def test_it_is_a_measure_with_labelled_results_and_one_answer():
    concept = pairs(40, scattered=True)
    activations = readings(concept, signal=1.0)
    measure = tracingllm_probe(resamples=50, permutations=50)
    assert isinstance(measure, Measure)
    data = measure(activations, concept, seed=0)
    assert data.identical(measure(activations, concept, seed=0))
    for name, variable in data.data_vars.items():
        assert {"units", "long_name"} <= variable.attrs.keys(), name
    assert len({tracingllm_probe(**QUICK).identity, measure.identity}) == 2
    assert "scikit-learn=" in measure.identity


def test_a_part_that_holds_one_label_alone_is_refused():
    labels = np.array([0] * 40 + [1] * 40)
    texts = tuple(f"statement {row}" for row in range(80))
    concept = Concept("sorted", "x", texts, labels, texts)
    with pytest.raises(ValueError, match=r"last 20% of 'sorted' hold label 1 alone.*grouped"):
        tracingllm_probe()(readings(concept, signal=1.0), concept, seed=0)
    with pytest.raises(ValueError, match="Collect them from this concept"):
        tracingllm_probe()(readings(pairs(20), signal=1.0), concept, seed=0)
    with pytest.raises(ValueError, match=r"`train` must lie between 0 and 1, got 1\.02"):
        find_split_leaks(concept, train=1.02)
    with pytest.raises(ValueError, match=r"got 0\.01 of 80"):
        find_split_leaks(concept, train=0.01)
