import pytest

from tlens_trust.measures import LinearProbe
from tlens_trust.steering import (
    EstimationOptions,
    ForcedChoice,
    Intervention,
    ProbeFires,
    SamplingOptions,
    SteeringTasks,
)

CHOICE = ForcedChoice("answer", "{statement}", (" yes",), (" no",))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strength": 1.0, "target_kl": 0.1}, "Give one of them"),
        ({}, "Give one of them"),
        ({"strength": float("nan")}, "`strength` is a finite number"),
        ({"strength": True}, "`strength` is a finite number"),
        ({"target_kl": 0.0}, "must be positive, got 0"),
        ({"target_kl": float("inf")}, "must be positive, got inf"),
        ({"target_kl": 0.1, "mode": "clamp"}, "no small dose"),
        ({"strength": 1.0, "mode": "push"}, "`mode` is one of"),
        ({"strength": 1.0, "units": "metres"}, "`units` is"),
        ({"strength": 1.0, "positions": "somewhere"}, "`positions` says"),
        ({"strength": 1.0, "positions": (4, 2)}, "empty span"),
        ({"strength": 1.0, "positions": set()}, "empty set of tokens"),
    ],
)
def test_an_intervention_that_nothing_could_do_is_refused_when_it_is_made(arguments, message):
    with pytest.raises(ValueError, match=message):
        Intervention(**arguments)


def test_a_token_named_by_its_text_waits_for_a_tokenizer():
    assert Intervention(strength=1.0, positions={" kind"}).positions == {" kind"}


def test_the_size_of_an_intervention_is_replaced_and_the_rest_stays():
    dose = Intervention(target_kl=0.1, mode="rotate", positions="last", units="rms")
    strong = dose.at_strength(2.0)
    assert (strong.strength, strong.target_kl) == (2.0, None)
    assert (strong.mode, strong.positions, strong.units) == ("rotate", "last", "rms")
    assert strong.at_dose(0.1) == dose
    assert strong != dose


def test_a_probe_alone_is_a_condition_at_even_odds():
    import torch

    probe = LinearProbe(torch.ones(2), 0.0)
    condition = Intervention(strength=1.0, when=probe).condition
    assert (condition.probe, condition.above, condition.site) == (probe, 0.0, None)
    fires = ProbeFires(probe, below=1.0)
    assert Intervention(strength=1.0, when=fires).condition is fires
    assert Intervention(strength=1.0).condition is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"choices": [CHOICE, CHOICE]}, "Two choices are named 'answer'"),
        ({"neutral_text": "one text"}, "`neutral_text` is a sequence of texts"),
        ({"neutral_text": []}, "`neutral_text` is empty"),
        ({"prompts": "one text"}, "`prompts` is a sequence of texts"),
        ({"max_new_tokens": 0}, "`max_new_tokens`"),
        ({"batch_tokens": 0}, "`batch_tokens`"),
    ],
)
def test_tasks_that_nothing_could_be_asked_are_refused_when_they_are_made(arguments, message):
    with pytest.raises(ValueError, match=message):
        SteeringTasks(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"draws": 0}, "`draws`"),
        ({"draws": True}, "`draws`"),
        ({"resamples": 0}, "`resamples`"),
        ({"confidence": 1.0}, "`confidence`"),
    ],
)
def test_numbers_that_nothing_could_be_drawn_with_are_refused_when_given(arguments, message):
    with pytest.raises(ValueError, match=message):
        SamplingOptions(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sites": []}, "`sites` got an empty"),
        ({"sites": 1, "method": "magic"}, "`method` is one of"),
        ({"sites": 1, "heads": 0}, "`heads` is how many"),
        ({"sites": 1, "position": "first"}, "position"),
    ],
)
def test_an_estimate_that_nothing_could_make_is_refused_when_it_is_described(arguments, message):
    with pytest.raises(ValueError, match=message):
        EstimationOptions(store=None, **arguments)
