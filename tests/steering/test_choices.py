import copy

import numpy as np
import pytest

from tlens_trust.checkpoints.plain_model import PlainModel
from tlens_trust.concepts import Concept, load_concepts
from tlens_trust.concepts.embedded.corpus import toy_corpus
from tlens_trust.steering import FOLLOW_UPS, PAPER_CHOICES, ForcedChoice
from tlens_trust.steering.choices import ChoiceTask, choice_task
from tlens_trust.steering.everyday_questions import EVERYDAY_QUESTIONS, EverydayTask, everyday_task
from tlens_trust.steering.likelihood import Continuation, Likelihoods

CHAT = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}w91 {{ m['content'] }}"
    "{% else %}w90 {{ m['content'] }} {% endif %}{% endfor %}"
    "{% if add_generation_prompt %}w91{% endif %}"
)
CHOICE = ForcedChoice("claim", "w7 {statement} w8", (" w1",), (" w2", " w3"))


@pytest.fixture(scope="module")
def model(own_plains, tokenizer):
    return PlainModel(own_plains["llama"], tokenizer)


@pytest.fixture(scope="module")
def chatting(own_plains, tokenizer):
    tuned = copy.deepcopy(tokenizer)
    tuned.chat_template = CHAT
    return PlainModel(own_plains["llama"], tuned)


@pytest.fixture(scope="module")
def concept():
    said = ("w10 w11", "w10 w12", "w13 w14", "w13 w15")
    return Concept("c", "c", said, np.array([1, 0, 1, 0]), ("a", "a", "b", "b"))


def scored(probabilities, greedy):
    flat = np.log(np.array(probabilities, dtype=float)).ravel()
    shown = np.array(greedy, dtype=bool).ravel()
    return Likelihoods(flat, np.ones(len(flat), dtype=int), shown)


def readings(choice, labels, probabilities, greedy):
    rows = [Continuation((0, 1), 1)] * (len(labels) * len(choice.answers))
    groups = tuple(str(i) for i in range(len(labels)))
    task = ChoiceTask(choice, rows, np.array(labels), groups)
    return {q.name: q for q in task.quantities(scored(probabilities, greedy))}


def test_probabilities_of_the_answers_of_a_side_are_added():
    found = readings(
        CHOICE,
        [1, 0],
        [[0.2, 0.15, 0.1], [0.05, 0.3, 0.1]],
        [[True, False, False], [False, False, False]],
    )
    assert found["claim_log_odds"].values == pytest.approx(np.log([0.2 / 0.25, 0.05 / 0.4]))
    assert found["claim_trustworthy"].values.tolist() == [0.0, 0.0]
    assert found["claim_accuracy"].values.tolist() == [0.0, 1.0]
    # The likeliest of all tokens is an answer in the first prompt alone.
    assert found["claim_invalid"].values.tolist() == [0.0, 1.0]


def test_a_model_that_always_says_the_same_is_found_out():
    same = readings(CHOICE, [1, 0, 1, 0], [[0.6, 0.1, 0.1]] * 4, [[True, False, False]] * 4)
    assert same["claim_constant"].mean == 1.0
    assert same["claim_accuracy"].mean == 0.5
    three = [[0.6, 0.1, 0.1]] * 3 + [[0.1, 0.6, 0.1]]
    mixed = readings(CHOICE, [1, 0, 1, 0], three, [[True, False, False]] * 4)
    assert mixed["claim_constant"].mean == 0.75


def test_a_choice_whose_answers_are_not_the_labels_has_no_accuracy():
    free = ForcedChoice("mood", "{statement}", (" w1",), (" w2",), keyed=False)
    found = readings(free, [1, 0], [[0.6, 0.1], [0.2, 0.3]], [[True, False]] * 2)
    assert "mood_accuracy" not in found
    assert "mood_log_odds" in found


def test_every_answer_is_scored_behind_every_prompt(model, concept):
    task = choice_task(model, concept, CHOICE)
    assert len(task.continuations) == 12
    assert task.continuations[0] == Continuation((7, 10, 11, 8, 1), 4)
    assert task.continuations[4] == Continuation((7, 10, 12, 8, 2), 4)


def test_a_chat_template_is_followed_where_there_is_one(chatting, model, concept):
    task = choice_task(chatting, concept, CHOICE)
    assert task.continuations[0] == Continuation((90, 7, 10, 11, 8, 91, 1), 6)
    bare = choice_task(chatting, concept, CHOICE, chat=False)
    assert bare.continuations == choice_task(model, concept, CHOICE).continuations


def test_a_chat_is_refused_where_there_is_no_template(model, concept):
    with pytest.raises(ValueError, match="this tokenizer has none"):
        choice_task(model, concept, CHOICE, chat=True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("a b", "{statement}", ("x",), ("y",)), "begin with the name"),
        (("a", "nothing", ("x",), ("y",)), "no place for a statement"),
        (("a", "{statement}", (), ("y",)), "at least one answer"),
        (("a", "{statement}", ("x", ""), ("y",)), "and none empty"),
        (("a", "{statement}", ("x",), ("y", "x")), "on both sides"),
    ],
)
def test_a_choice_that_cannot_be_put_is_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        ForcedChoice(*arguments)


def test_follow_ups_are_how_the_toy_corpus_goes_on():
    passages = toy_corpus(5)
    followed = {name: [0, 0] for name in FOLLOW_UPS}
    for _ in range(4000):
        passage = next(passages)
        for name, choice in FOLLOW_UPS.items():
            for side, answers in enumerate((choice.trustworthy, choice.untrustworthy)):
                followed[name][side] += any(f".{answer}" in passage for answer in answers)
    assert all(min(sides) > 100 for sides in followed.values()), followed
    assert set(FOLLOW_UPS) == set(load_concepts())


def test_the_papers_choices_put_a_statement_and_take_a_digit():
    for choice in PAPER_CHOICES.values():
        assert {answer.strip() for answer in choice.answers} == {"0", "1"}
    assert not PAPER_CHOICES["sst2"].keyed


def test_everyday_questions_are_sixty_plain_ones_with_four_answers_each():
    assert len(EVERYDAY_QUESTIONS) >= 60
    asked = [question for question, _ in EVERYDAY_QUESTIONS]
    assert len(set(asked)) == len(asked)
    for question, answers in EVERYDAY_QUESTIONS:
        assert question.endswith("?")
        assert len({answer.lower() for answer in answers}) == 4


def test_an_everyday_answer_is_the_likeliest_one_per_token():
    rows = [Continuation((0, 1), 1)] * 8
    total = np.array([-6.0, -2.0, -9.0, -9.0, -6.0, -2.0, -9.0, -9.0])
    tokens = np.array([4, 1, 1, 1, 2, 1, 1, 1])
    found = EverydayTask(rows, 4).quantities(Likelihoods(total, tokens, np.zeros(8, dtype=bool)))
    assert found[0].values.tolist() == [1.0, 0.0]


def test_a_model_that_knows_nothing_gets_a_quarter_of_everyday_questions_right(model):
    task = everyday_task(model)
    drawn = np.random.default_rng(0).normal(size=(200, len(task.continuations)))
    ones = np.ones(drawn.shape[1], dtype=int)
    right = [task.quantities(Likelihoods(each, ones, ones.astype(bool)))[0].mean for each in drawn]
    assert np.mean(right) == pytest.approx(0.25, abs=0.02)
