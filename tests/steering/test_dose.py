import pytest
import torch

from tlens_trust.measures import LinearProbe
from tlens_trust.steering import (
    Intervention,
    NeutralPredictions,
    ProbeFires,
    SteeringVector,
    calibrate_strength,
    steer,
)
from tlens_trust.steering.neutral_text import NEUTRAL_TEXT, neutral_text

TEXTS = [f"w{k} w{k + 3} w{k + 7} w{k + 1} w{k + 20}" + " w5" * (k % 3) for k in range(12)]


@pytest.fixture(scope="module")
def vector(direction):
    return SteeringVector.from_direction(direction, site=1, rms=20.0)


@pytest.fixture(scope="module")
def predictions(own_plains, tokenizer):
    return NeutralPredictions(own_plains["llama"], TEXTS, tokenizer=tokenizer, batch_tokens=30)


def kl_by_hand(model, tokenizer, vector, strength, text):
    """Of one text, without padding: sum over predictions from the prompt's last token on."""
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    with torch.no_grad():
        plain = model(ids).logits[0].double().log_softmax(-1)
        with steer(model, vector, strength=strength):
            steered = model(ids).logits[0].double().log_softmax(-1)
    kl = (plain.exp() * (plain - steered)).sum(dim=-1)
    return float(kl[(ids.shape[1] + 1) // 2 - 1 :].sum()), ids.shape[1]


def test_the_divergence_is_that_of_each_text_alone(predictions, own_plains, tokenizer, vector):
    effect = predictions.effect_of(vector, Intervention(strength=2.0))
    for number, text in enumerate(TEXTS):
        expected, length = kl_by_hand(own_plains["llama"], tokenizer, vector, 2.0, text)
        assert float(effect.kl[number]) == pytest.approx(expected, rel=1e-3)
        assert int(effect.predictions[number]) == length - (length + 1) // 2 + 1
    assert effect.mean_kl == pytest.approx(float(effect.kl.sum() / effect.predictions.sum()))
    # Of n tokens, those after the first half are predicted, and each of them is one there is.
    assert bool((effect.tokens == effect.predictions - 1).all())


def test_perplexity_is_that_of_the_texts_own_tokens(predictions, own_plains, tokenizer, vector):
    surprise, tokens = 0.0, 0
    for text in TEXTS:
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        with torch.no_grad():
            log_p = own_plains["llama"](ids).logits[0].double().log_softmax(-1)
        for place in range((ids.shape[1] + 1) // 2, ids.shape[1]):
            surprise -= float(log_p[place - 1, ids[0, place]])
            tokens += 1
    effect = predictions.effect_of(vector, Intervention(strength=1.0))
    expected = torch.tensor(surprise / tokens).exp()
    assert effect.unsteered_perplexity == pytest.approx(float(expected), rel=1e-4)
    assert effect.perplexity != pytest.approx(effect.unsteered_perplexity, rel=1e-3)
    still = predictions.effect_of(vector, Intervention(strength=0.0))
    assert still.mean_kl == 0
    assert still.perplexity == still.unsteered_perplexity


@pytest.mark.parametrize("target", [0.001, 0.05, 1.0])
@pytest.mark.parametrize("mode", ["add", "rotate"])
def test_the_target_is_reached(mode, target, predictions, vector):
    dose = calibrate_strength(
        predictions.model, vector, target_kl=target, text=predictions, mode=mode
    )
    assert dose.strength > 0
    assert dose.kl == pytest.approx(target, rel=5e-3)
    again = predictions.effect_of(vector, Intervention(strength=dose.strength, mode=mode))
    assert again.mean_kl == dose.kl
    assert dose.evaluations < 25


def test_a_dose_does_not_depend_on_the_vectors_length_or_the_units(predictions, vector):
    model = predictions.model
    one = calibrate_strength(model, vector, target_kl=0.1, text=predictions)
    ten = calibrate_strength(model, 10 * vector, target_kl=0.1, text=predictions)
    rms = calibrate_strength(model, vector, target_kl=0.1, text=predictions, units="rms")
    assert one.strength == pytest.approx(10 * ten.strength, rel=1e-2)
    assert one.strength * float(vector.norms) == pytest.approx(20 * rms.strength, rel=1e-2)


@pytest.mark.parametrize("positions", ["prompt", "generated", "last", (-1, None)])
def test_every_policy_has_a_dose(positions, predictions, vector):
    dose = calibrate_strength(
        predictions.model, vector, target_kl=0.02, text=predictions, positions=positions
    )
    assert dose.kl == pytest.approx(0.02, rel=1e-2)


def test_a_small_dose_grows_with_the_square_of_the_strength(predictions, vector):
    small, twice = (
        predictions.effect_of(vector, Intervention(strength=strength)).mean_kl
        for strength in (0.05, 0.1)
    )
    assert twice / small == pytest.approx(4, rel=0.1)


def test_what_cannot_be_reached_is_said(predictions, vector):
    model = predictions.model
    with pytest.raises(ValueError, match="is not reached: the largest measured is"):
        calibrate_strength(model, vector, target_kl=1000.0, text=predictions)
    with pytest.raises(ValueError, match="removing the whole projection moves the model by"):
        calibrate_strength(model, vector, target_kl=10.0, text=predictions, mode="ablate")
    never = ProbeFires(LinearProbe(torch.ones(32), 0.0), above=1e9)
    with pytest.raises(ValueError, match="steering changes nothing"):
        calibrate_strength(model, vector, target_kl=0.1, text=predictions, when=never)
    with pytest.raises(ValueError, match="no small dose"):
        calibrate_strength(model, vector, target_kl=0.1, text=predictions, mode="clamp")
    with pytest.raises(ValueError, match="must be positive, got 0"):
        calibrate_strength(model, vector, target_kl=0.0, text=predictions)


def test_ablation_has_a_dose_up_to_all_of_it(predictions, vector):
    whole = predictions.effect_of(vector, Intervention(strength=1.0, mode="ablate")).mean_kl
    dose = calibrate_strength(
        predictions.model, vector, target_kl=whole / 4, text=predictions, mode="ablate"
    )
    assert 0 < dose.strength < 1


def test_texts_that_hold_nothing_to_predict_are_refused(own_plains, tokenizer):
    model = own_plains["llama"]
    with pytest.raises(ValueError, match="is one token"):
        NeutralPredictions(model, ["w1"], tokenizer=tokenizer)
    with pytest.raises(ValueError, match="`text` is empty"):
        NeutralPredictions(model, [], tokenizer=tokenizer)
    with pytest.raises(ValueError, match="Put it in a list"):
        NeutralPredictions(model, "w1 w2 w3", tokenizer=tokenizer)
    with pytest.raises(ValueError, match="has no tokenizer"):
        NeutralPredictions(model, ["w1 w2"])


def test_the_toys_neutral_text_is_in_its_words_and_in_no_concept():
    from tlens_trust.checkpoints.toy_text import make_tokenizer
    from tlens_trust.concepts.embedded.sets import embedded_concepts

    toy = make_tokenizer()
    texts = neutral_text(toy)
    assert texts != NEUTRAL_TEXT
    assert len(set(texts)) == len(set(NEUTRAL_TEXT)) == 40
    for text in texts:
        assert len(toy(text)["input_ids"]) <= len(text.split()) + text.count(",") + text.count(".")
    for concept in embedded_concepts().values():
        assert not any(said in text for said in concept.statements for text in texts)
        assert not any(said in text for said in concept.statements for text in NEUTRAL_TEXT)


def test_a_model_that_knows_words_gets_prose(tokenizer):
    # One token a word, known or not.
    assert neutral_text(tokenizer) == NEUTRAL_TEXT
