import numpy as np
import pytest

from tlens_trust.checkpoints.plain_model import PlainModel
from tlens_trust.concepts import Concept
from tlens_trust.steering.contrasts import CandidateTask, StatementTask, contrast_task
from tlens_trust.steering.likelihood import Continuation, Likelihoods


@pytest.fixture(scope="module")
def model(own_plains, tokenizer):
    return PlainModel(own_plains["llama"], tokenizer)


def scores(log_likelihood, tokens=None):
    values = np.array(log_likelihood, dtype=float)
    counts = np.ones(len(values), dtype=int) if tokens is None else np.array(tokens)
    return Likelihoods(values, counts, np.zeros(len(values), dtype=bool))


def task(labels, question, groups):
    rows = [Continuation((0, 1), 1)] * len(labels)
    return CandidateTask(rows, np.array(question), np.array(labels), groups)


def by_name(quantities):
    return {quantity.name: quantity for quantity in quantities}


def test_log_odds_of_twins_are_the_difference_of_their_log_likelihoods():
    twins = task([1, 0, 0, 1], [0, 0, 1, 1], ("a", "b"))
    found = by_name(twins.quantities(scores([-3.0, -5.0, -1.0, -4.0], [2, 4, 1, 2])))
    assert found["log_odds"].values == pytest.approx([2.0, -3.0])
    assert found["log_odds_per_token"].values == pytest.approx([-1.5 + 1.25, -2.0 + 1.0])
    assert found["mc1"].values.tolist() == [1.0, 0.0]
    assert found["mc2"].values == pytest.approx([1 / (1 + np.exp(-2.0)), 1 / (1 + np.exp(3.0))])


def test_mc1_and_mc2_of_several_candidates_are_as_truthfulqa_has_them():
    p = np.array([0.2, 0.1, 0.3, 0.05])
    found = by_name(task([1, 1, 0, 0], [0] * 4, ("q",)).quantities(scores(np.log(p))))
    assert found["mc2"].values == pytest.approx([(0.2 + 0.1) / p.sum()])
    assert found["mc1"].values.tolist() == [0.0]
    assert found["log_odds"].values == pytest.approx([np.log(0.3 / 0.35)])


def test_exchanging_the_sides_negates_log_odds():
    drawn = np.random.default_rng(0).normal(size=12) * 4
    labels = np.array([1, 0, 0, 1, 1, 0] * 2)
    question = np.repeat(np.arange(4), 3)
    groups = ("a", "b", "c", "d")
    one = by_name(task(labels, question, groups).quantities(scores(drawn)))
    other = by_name(task(1 - labels, question, groups).quantities(scores(drawn)))
    for name in ("log_odds", "log_odds_per_token"):
        assert one[name].values == pytest.approx(-other[name].values)
    for name in ("mc1", "mc2"):
        assert one[name].values == pytest.approx(1 - other[name].values)


def test_the_gap_of_lone_statements_is_that_of_their_means():
    labels = np.array([1, 1, 1, 0])
    lone = StatementTask([Continuation((0, 1), 1)] * 4, labels, ("a", "b", "c", "d"))
    (gap,) = lone.quantities(scores([-1.0, -2.0, -6.0, -4.5]))
    assert gap.mean == pytest.approx(-3.0 + 4.5)


def test_lone_statements_that_all_become_less_likely_move_nowhere():
    labels = np.array([1, 0, 1, 0, 0])
    lone = StatementTask([Continuation((0, 1), 1)] * 5, labels, tuple("abcde"))
    before = np.array([-1.0, -3.0, -2.0, -5.0, -1.0])
    (one,) = lone.quantities(scores(before))
    (two,) = lone.quantities(scores(before - 4.0))
    assert two.values == pytest.approx(one.values)


def concept(statements, labels, groups):
    return Concept("c", "c", tuple(statements), np.array(labels), tuple(groups))


def test_groups_with_both_labels_are_asked_about(model):
    said = ["w1 w2 w3", "w1 w2 w4", "w5 w6", "w5 w7", "w8 w9"]
    found = contrast_task(model, concept(said, [1, 0, 0, 1, 1], ["a", "a", "b", "b", "c"]))
    assert isinstance(found, CandidateTask)
    assert found.groups == ("a", "b")
    assert found.labels.tolist() == [1, 0, 0, 1]
    assert [each.start for each in found.continuations] == [2, 2, 1, 1]


def test_statements_with_nothing_to_compare_them_with_stand_alone(model):
    said = ["w1 w2 w3", "w1 w2 w4", "w5 w6", "w5 w7", "w8 w9"]
    found = contrast_task(model, concept(said, [1, 0, 0, 1, 1], ["a", "b", "c", "d", "e"]))
    assert isinstance(found, StatementTask)
    assert len(found.continuations) == 5
