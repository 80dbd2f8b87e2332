import numpy as np
import pytest
import torch

from tlens_trust.checkpoints.plain_model import PlainModel
from tlens_trust.steering import SteeringVector, steer
from tlens_trust.steering.likelihood import (
    Continuation,
    score_continuations,
    tokenise_candidates,
    tokenise_texts,
)


@pytest.fixture(scope="module")
def model(own_plains, tokenizer):
    return PlainModel(own_plains["llama"], tokenizer)


def by_hand(model, ids, start):
    with torch.no_grad():
        log_p = model.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return float(sum(log_p[place - 1, ids[place]] for place in range(start, len(ids))))


ROWS = [
    Continuation((1, 2, 3), 1),
    Continuation((1, 2, 3), 2),
    Continuation((7, 8, 9, 10, 11, 12), 4),
    Continuation((7, 8), 1),
    Continuation((7, 9), 1),
]


@pytest.mark.parametrize("batch_tokens", [1, 7, 4096])
def test_a_log_likelihood_is_that_of_the_row_read_alone(model, batch_tokens):
    found = score_continuations(model, ROWS, batch_tokens=batch_tokens)
    expected = [by_hand(model, row.ids, row.start) for row in ROWS]
    assert found.log_likelihood == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert found.tokens.tolist() == [2, 1, 2, 1, 1]
    assert found.per_token == pytest.approx(np.array(expected) / [2, 1, 2, 1, 1], rel=1e-4)


def test_likelihoods_under_a_bridge_are_those_of_the_plain_model(bridges, own_plains, tokenizer):
    plain = score_continuations(PlainModel(own_plains["llama"], tokenizer), ROWS)
    bridged = score_continuations(bridges["llama"], ROWS)
    assert bridged.log_likelihood == pytest.approx(plain.log_likelihood, rel=1e-4)


def test_all_next_tokens_together_are_certain(model):
    rows = [Continuation((4, 5, token), 2) for token in range(100)]
    found = score_continuations(model, rows)
    assert np.exp(found.log_likelihood).sum() == pytest.approx(1, abs=1e-5)
    # One of them is the likeliest, and it is the one that is said to be.
    assert found.greedy.sum() == 1
    assert found.greedy.argmax() == found.log_likelihood.argmax()


def test_candidates_are_scored_from_where_they_part(model):
    one, two = tokenise_candidates(model, ["w1 w2 w3 w4", "w1 w2 w5"])
    assert (one.start, two.start) == (2, 2)
    assert one.ids == (1, 2, 3, 4)


def test_of_a_candidate_that_begins_the_other_the_last_token_is_scored(model):
    one, two = tokenise_candidates(model, ["w1 w2", "w1 w2 w5"])
    assert (one.start, two.start) == (1, 1)


def test_answers_are_scored_from_the_end_of_their_prompt(model):
    found = tokenise_candidates(model, ["w1 w2 w3", "w1 w2 w3 w4"], prompt="w1 w2")
    assert [each.start for each in found] == [2, 2]


def test_texts_that_differ_in_their_first_token_get_one_before_it(model):
    one, two = tokenise_candidates(model, ["w1 w2", "w3 w2"])
    assert one.ids == (98, 1, 2)
    assert (one.start, two.start) == (1, 1)


def test_texts_that_differ_in_their_first_token_are_refused_where_none_can_stand_before_it(
    own_plains, tokenizer
):
    import copy

    bare = copy.deepcopy(tokenizer)
    bare.bos_token = None
    with pytest.raises(ValueError, match="no token to put before it"):
        tokenise_candidates(PlainModel(own_plains["llama"], bare), ["w1 w2", "w3 w2"])


def test_a_text_is_scored_whole_but_for_its_first_token(model):
    (row,) = tokenise_texts(model, ["w1 w2 w3"])
    assert row == Continuation((1, 2, 3), 1)
    with pytest.raises(ValueError, match="single token"):
        tokenise_texts(model, ["w1"])


def test_nothing_to_score_is_refused(model):
    with pytest.raises(ValueError, match="nothing to score"):
        score_continuations(model, [])


def test_the_prompt_ends_where_scoring_begins(model):
    vector = SteeringVector.from_direction(torch.ones(32), site=0)
    rows = [Continuation((1, 2, 3), 2), Continuation((4, 5, 6, 7), 2)]
    plain = score_continuations(model, rows).log_likelihood
    found = {}
    for positions in ("all", "prompt", "generated"):
        with steer(model, vector, strength=2.0, positions=positions) as steering:
            found[positions] = score_continuations(model, rows, steering=steering).log_likelihood
    # Of an answer of one token nothing is read but the prompt, and so nothing is steered.
    assert found["generated"][0] == pytest.approx(plain[0], rel=1e-6)
    assert found["prompt"][0] == pytest.approx(found["all"][0], rel=1e-6)
    assert abs(found["prompt"][0] - plain[0]) > 1e-2
    # Of one of two tokens the first is read.
    assert abs(found["generated"][1] - plain[1]) > 1e-3
    assert abs(found["generated"][1] - found["all"][1]) > 1e-3


def test_a_likelihood_that_is_not_finite_is_refused(model):
    vector = SteeringVector.from_direction(torch.ones(32), site=0)
    with (
        steer(model, vector, strength=1e300) as steering,
        pytest.raises(ValueError, match="not finite"),
    ):
        score_continuations(model, ROWS, steering=steering)


def test_a_batch_that_runs_out_of_memory_is_not_counted_twice(model, monkeypatch):
    rows = [Continuation((1, 2, 3, 4), 1), Continuation((5, 6, 7, 8), 1)]
    expected = score_continuations(model, rows).log_likelihood
    argmax, failures = torch.Tensor.argmax, []

    def fail_once(*args, **kwargs):
        if not failures:
            failures.append("failed")
            raise RuntimeError("out of memory")
        return argmax(*args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "argmax", fail_once)
    scores = score_continuations(model, rows).log_likelihood
    assert failures
    assert scores == pytest.approx(expected, rel=1e-5)
