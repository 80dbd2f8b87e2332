import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from tlens_trust.checkpoints.plain_model import PlainModel
from tlens_trust.concepts import Concept
from tlens_trust.steering import (
    ForcedChoice,
    Intervention,
    SamplingOptions,
    SteeringTasks,
    SteeringVector,
    evaluate_steering,
    extract_steering_vector,
    generate_texts,
    steer,
    training_rows,
)
from tlens_trust.steering.evaluated_model import EvaluatedModel
from tlens_trust.steering.generations import generation_quantities

SITE = 1
CHOICE = ForcedChoice("answer", "{statement}", (" w62",), (" w63",))
NEUTRAL = [" ".join(f"w{(k * 7 + i * 5) % 60}" for i in range(8)) for k in range(6)]


@pytest.fixture(scope="module")
def concept(planted_concept):
    return planted_concept(groups=30)


@pytest.fixture(scope="module")
def model(plant):
    made, tokenizer, _ = plant()
    return PlainModel(made, tokenizer)


@pytest.fixture(scope="module")
def vector(model, concept):
    return extract_steering_vector(model, concept, site=SITE, rows=training_rows(concept))


DOSE = Intervention(target_kl=0.05)
TASKS = SteeringTasks(choices=[CHOICE], neutral_text=NEUTRAL, everyday=False, max_new_tokens=4)


def evaluate(model, vector, concept, *, intervention=DOSE, tasks=TASKS, draws=50, **options):
    return evaluate_steering(
        model,
        vector,
        concept,
        intervention=intervention,
        tasks=tasks,
        sampling=SamplingOptions(draws=draws, resamples=300),
        **options,
    )


@pytest.fixture(scope="module")
def found(model, vector, concept):
    return evaluate(model, vector, concept)


def test_a_planted_direction_is_shown_to_steer(found):
    steered = found.sel(condition="steered")
    for name in ("log_odds", "answer_log_odds"):
        assert float(steered[f"{name}_change_ci"].sel(bound="low")) > 0
        assert float(steered[f"{name}_wrong_way"]) == 0.0
        for control in ("equal_norm", "equal_kl"):
            here = found.sel(control=control)
            assert float(here[f"{name}_p"]) == pytest.approx(1 / 51)
            assert float(here[f"{name}_over_random_ci"].sel(bound="low")) > 0


def test_another_model_is_warned_of_let_pass_or_refused(plant, vector, concept):
    made, tokenizer, _ = plant()
    tuned = PlainModel(made, tokenizer, name="org/tuned")
    strange = replace(vector, model="org/base")
    tasks = replace(TASKS, choices=[])
    options = {"draws": 1, "tasks": tasks, "controls": "equal_norm"}
    with pytest.warns(UserWarning, match="comes from 'org/base', and 'org/tuned'"):
        evaluate(tuned, strange, concept, **options)
    evaluate(tuned, strange, concept, **options, other_model="allow")
    with pytest.raises(ValueError, match="'org/tuned' is another model"):
        evaluate(tuned, strange, concept, **options, other_model="refuse")


def test_the_other_way_the_planted_direction_steers_the_other_way(found):
    away = found.sel(condition="opposite")
    assert float(away.answer_log_odds_change_ci.sel(bound="high")) < 0
    assert float(away.answer_log_odds_wrong_way) > 0.9


def test_a_random_direction_is_not_shown_to_steer(model, vector, concept):
    # Its seed is none of the draws' own.
    found = evaluate(model, vector.random_like(seed=1), concept, controls="equal_norm")
    here = found.sel(control="equal_norm")
    assert float(here.answer_log_odds_p) > 0.05
    low, high = here.answer_log_odds_over_random_ci.sel(bound=["low", "high"]).values
    assert low < 0 < high


def test_at_equal_dose_random_directions_move_neutral_text_as_much(found):
    kl = float(found.kl.sel(condition="steered"))
    assert kl == pytest.approx(0.05, rel=0.01)
    assert found.kl_random.sel(control="equal_kl").values == pytest.approx(kl, rel=0.011)
    assert np.ptp(found.kl_random.sel(control="equal_norm").values) > 0.1 * kl
    assert np.ptp(found.random_strength.sel(control="equal_norm").values) == 0


def test_only_groups_that_the_vector_has_not_seen_are_tried(found, concept, vector):
    held = vector.held_out(concept)
    assert found.attrs["statements"] == int(held.sum()) == 30
    assert int(found.log_odds_n) == 15
    assert not set(np.array(concept.groups)[held]) & {
        concept.groups[row] for row in training_rows(concept)
    }


def test_a_vector_that_has_seen_every_group_is_refused(model, concept):
    whole = extract_steering_vector(model, concept, site=SITE)
    with pytest.raises(ValueError, match=r"rows=training_rows\(concept\)"):
        evaluate(model, whole, concept, draws=1)


def test_a_vector_that_does_not_say_what_it_has_seen_is_warned_of(model, concept, plant):
    own = SteeringVector.from_direction(plant()[2], site=SITE)
    with pytest.warns(UserWarning, match="does not say which statements"):
        found = evaluate(model, own, concept, draws=1)
    assert found.attrs["statements"] == len(concept)


def test_a_vector_of_another_concept_is_warned_of(model, vector, planted_concept):
    with pytest.warns(UserWarning, match="was estimated from 'planted', and not from 'other'"):
        evaluate(model, vector, planted_concept(seed=3, name="other"), draws=1)


def test_unsteered_and_steered_are_what_the_model_gives_by_hand(found, model, vector, concept):
    tried = concept.take(vector.held_out(concept))
    tokenizer, plain = model.tokenizer, model.model
    for condition in ("unsteered", "steered", "opposite"):
        odds = []
        with steer(model, vector, strength=float(found.strength.sel(condition=condition))):
            for statement in tried.statements:
                ids = torch.tensor([tokenizer(statement)["input_ids"]])
                with torch.no_grad():
                    log_p = plain(ids).logits[0, -1].log_softmax(-1)
                odds.append(float(log_p[62] - log_p[63]))
        here = float(found.answer_log_odds.sel(condition=condition))
        assert here == pytest.approx(np.mean(odds), rel=1e-4, abs=1e-5)


def test_the_change_is_the_difference_of_what_stands_beside_it(found):
    for name in ("log_odds", "mc2", "answer_log_odds", "neutral_loss", "kl"):
        values = found[name]
        change = values - values.sel(condition="unsteered")
        assert found[f"{name}_change"].values == pytest.approx(change.values, abs=1e-9)
        assert float(found[f"{name}_change"].sel(condition="unsteered")) == 0.0
    assert found.perplexity.values == pytest.approx(np.exp(found.neutral_loss.values))


def test_the_first_few_random_directions_are_those_of_many(found, model, vector, concept):
    few = evaluate(model, vector, concept, draws=3, controls="equal_norm")
    many = found.answer_log_odds_random.sel(control="equal_norm").values
    assert few.answer_log_odds_random.values[0] == pytest.approx(many[:3], rel=1e-6)
    assert few.attrs["random"].startswith("a look")
    assert not found.attrs["random"].startswith("a look")


def test_a_given_strength_is_used_as_it_is(model, vector, concept):
    found = evaluate(model, vector, concept, intervention=Intervention(strength=0.5), draws=2)
    assert found.strength.values.tolist() == [0.0, 0.5, -0.5]
    assert found.random_strength.sel(control="equal_norm").values.tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"controls": "none"}, "`controls`"),
        ({"controls": ()}, "compared with nothing"),
        ({"other_model": "never"}, "`other_model` is"),
        ({"seed": -1}, "`seed`"),
        ({"probe_site": 0}, "one site after block 1"),
        (
            {"tasks": replace(TASKS, prompts=["w1 w2"], max_new_tokens=31)},
            "shorten the prompt",
        ),
    ],
)
def test_arguments_that_make_no_sense_are_refused(model, vector, concept, arguments, said):
    with pytest.raises(ValueError, match=said):
        evaluate(model, vector, concept, **arguments)


def test_a_concept_without_a_trustworthy_side_is_refused(model, vector, concept):
    with pytest.raises(ValueError, match="no polarity"):
        evaluate(model, vector, replace(concept, polarity=False))


def test_a_probe_behind_the_steered_site_is_moved(plant, concept):
    made, tokenizer, _ = plant()
    model = PlainModel(made, tokenizer)
    early = extract_steering_vector(model, concept, site=0, rows=training_rows(concept))
    found = evaluate(model, early, concept, probe_site=1, draws=2)
    assert float(found.probe_log_odds_change_ci.sel(condition="steered", bound="low")) > 0
    assert found.probe_log_odds_n == 30


def test_no_hook_is_left_where_a_judge_fails(model, vector, concept):
    def failing(texts):
        raise RuntimeError("no opinion")

    tasks = replace(TASKS, prompts=["w1 w2"], judge=failing)
    before = [len(module._forward_hooks) for module in model.model.modules()]
    with pytest.raises(RuntimeError, match="no opinion"):
        evaluate(model, vector, concept, tasks=tasks, draws=1)
    assert [len(module._forward_hooks) for module in model.model.modules()] == before


def test_a_judge_sees_what_is_written_in_each_condition(model, vector, concept):
    seen = []

    def judge(texts):
        seen.append(list(texts))
        return [float(text.count("w62") - text.count("w63")) for text in texts]

    prompts = ["w1 w2 w3", "w4 w5"]
    tasks = replace(TASKS, prompts=prompts, judge=judge)
    found = evaluate(model, vector, concept, tasks=tasks, draws=1)
    assert len(seen) == 3
    assert found.generation.sel(condition="steered").values.tolist() == seen[1]
    assert found.generation["prompt"].values.tolist() == prompts
    assert found.judged.sel(condition="unsteered") == pytest.approx(
        np.mean([text.count("w62") - text.count("w63") for text in seen[0]])
    )


def test_a_model_is_not_changed_by_being_evaluated(plant, concept, vector):
    made, tokenizer, _ = plant()
    before = {name: weight.clone() for name, weight in made.state_dict().items()}
    evaluate(PlainModel(made, tokenizer), vector, concept, draws=1)
    assert all(torch.equal(before[name], weight) for name, weight in made.state_dict().items())


def test_a_pass_is_made_for_each_condition_and_each_direction(model, vector, concept, monkeypatch):
    passes = []
    run_pass = EvaluatedModel.evaluate

    def counted(self, *arguments, **options):
        passes.append(options.get("effects_only", False))
        return run_pass(self, *arguments, **options)

    monkeypatch.setattr(EvaluatedModel, "evaluate", counted)
    evaluate(model, vector, concept, draws=4)
    assert passes == [False] * 3 + [True] * 8


def test_greedy_text_in_a_batch_is_that_of_each_prompt_alone(model):
    prompts = ["w1 w2 w3 w4 w5", "w6 w7", "w8"]
    together = generate_texts(model, prompts, max_new_tokens=6)
    for prompt, written in zip(prompts, together, strict=True):
        ids = model.tokenizer(prompt)["input_ids"]
        for _ in range(6):
            with torch.no_grad():
                ids.append(int(model.model(torch.tensor([ids])).logits[0, -1].argmax()))
        own = ids[len(ids) - 6 :]
        own = own[: own.index(65)] if 65 in own else own
        assert list(written.tokens) == own
        assert written.prompt == prompt


def test_text_ends_where_the_model_ends_it(plant):
    made, tokenizer, _ = plant(seed=1)
    with torch.no_grad():
        # The end of text is what follows whatever is read.
        made.gpt_neox.final_layer_norm.weight.zero_()
        made.gpt_neox.final_layer_norm.bias.fill_(1.0)
        made.get_output_embeddings().weight[65] = 5.0
    (written,) = generate_texts(PlainModel(made, tokenizer), ["w1 w2"], max_new_tokens=5)
    assert (written.tokens, written.text) == ((), "")


def test_a_judge_that_does_not_judge_every_text_is_refused(model):
    written = generate_texts(model, ["w1", "w2"], max_new_tokens=2)
    with pytest.raises(ValueError, match="one finite number for each of the 2 texts"):
        generation_quantities(written, lambda texts: [1.0])
    with pytest.raises(ValueError, match="finite"):
        generation_quantities(written, lambda texts: [1.0, float("nan")])


def test_a_text_classification_model_judges_by_the_probability_of_a_label(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        DistilBertConfig,
        DistilBertForSequenceClassification,
        PreTrainedTokenizerFast,
    )

    from tlens_trust.steering import classifier_judge

    words = {"[PAD]": 0, "[UNK]": 1, "good": 2, "bad": 3}
    backend = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]", model_max_length=16
    )
    config = DistilBertConfig(
        vocab_size=4, dim=8, n_layers=1, n_heads=2, hidden_dim=8, max_position_embeddings=16
    )
    torch.manual_seed(0)
    model = DistilBertForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    texts = ["good good", "bad"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        judged = classifier_judge(tmp_path, label="LABEL_1")(texts)
        opposed = classifier_judge(tmp_path, label="LABEL_0")(texts)
        with pytest.raises(ValueError, match="no label 'toxic'"):
            classifier_judge(tmp_path, label="toxic")
    for text, score in zip(texts, judged, strict=True):
        with torch.no_grad():
            logits = model(
                **{
                    key: value
                    for key, value in tokenizer(text, return_tensors="pt").items()
                    if key != "token_type_ids"
                }
            ).logits
        assert score == pytest.approx(float(logits.softmax(-1)[0, 1]), abs=1e-5)
    assert judged + opposed == pytest.approx(np.ones(2), abs=1e-5)


def test_half_of_the_groups_make_a_vector_and_the_rest_is_left(concept):
    rows = training_rows(concept, seed=3)
    used = {concept.groups[row] for row in rows}
    assert len(rows) == 30
    assert len(used) == 15
    other = training_rows(concept, seed=3, held_out=1)
    assert sorted([*rows, *other]) == list(range(len(concept)))
    with pytest.raises(ValueError, match="one of 2 folds"):
        training_rows(concept, held_out=2)


def test_labels_that_mean_nothing_give_no_vector_that_is_shown_to_steer(plant, concept):
    made, tokenizer, _ = plant()
    model = PlainModel(made, tokenizer)
    drawn = np.random.default_rng(1)
    flips = np.repeat(drawn.permutation(np.arange(30) % 2), 2)
    # Twins exchange their labels in half of the groups: what tells them apart tells nothing.
    blind = Concept(
        "blind",
        "blind",
        concept.statements,
        np.where(flips, 1 - concept.labels, concept.labels),
        concept.groups,
    )
    vector = extract_steering_vector(model, blind, site=SITE, rows=training_rows(blind))
    found = evaluate(model, vector, blind, controls="equal_norm", draws=1)
    low, high = found.log_odds_change_ci.sel(condition="steered").values
    assert low < 0 < high
