"""Projections on a vector against the readings themselves, and where `steer` really acts."""

import numpy as np
import pytest
import torch

from tlens_trust import CheckpointSeries
from tlens_trust.activations.token_activations import collect_tokens
from tlens_trust.analysis import project_tokens
from tlens_trust.measures import LinearProbe
from tlens_trust.steering import ProbeFires, SteeringVector, steer
from tlens_trust.views import draw_tokens

TEXT = "w1 w60 w3 w61 w5"


@pytest.fixture(scope="module")
def series(plant):
    made = {0: plant(readable=False), 8: plant()}
    return CheckpointSeries.from_models(
        {step: model for step, (model, _, _) in made.items()}, tokenizer=made[8][1], name="planted"
    )


@pytest.fixture(scope="module")
def direction(plant):
    return plant()[2]


def test_a_projection_is_the_multiple_of_the_vector_that_a_token_holds(series, direction):
    vector = SteeringVector.from_direction(4.0 * direction, site=1)
    found = project_tokens(series, vector, TEXT, bos=False)
    for number, checkpoint in enumerate(series):
        readings = collect_tokens(checkpoint, TEXT, sites=1, bos=False)
        own = (readings.values[:, 0] @ direction / 4.0).numpy()
        np.testing.assert_allclose(found.score.values[number, 0], own, atol=1e-5)
    halved = project_tokens(series, 2.0 * vector, TEXT, bos=False)
    np.testing.assert_allclose(2 * halved.score, found.score, atol=1e-5)
    last = found.score.sel(checkpoint="planted@step8").isel(site=0)
    assert last[1] > 0.5
    assert last[3] < -0.5


@pytest.mark.parametrize(
    ("options", "prompt_tokens"),
    [
        ({"positions": "all"}, None),
        ({"positions": "last"}, 3),
        ({"positions": "generated"}, 2),
        ({"positions": "prompt"}, 2),
        ({"positions": (1, 3)}, None),
        ({"positions": {"w60", "w5"}}, None),
        ({"positions": "all", "when": "probe"}, None),
        ({"positions": "generated", "when": ProbeFires}, 2),
    ],
)
def test_tokens_are_marked_where_steering_changes_them(series, direction, options, prompt_tokens):
    vector = SteeringVector.from_direction(direction, site=0)
    probe = LinearProbe(direction.clone(), bias=-0.5)
    if options.get("when") == "probe":
        options = options | {"when": probe}
    elif "when" in options:
        options = options | {"when": ProbeFires(probe, site=0, below=0.0)}
    found = project_tokens(
        series[-1:], vector, TEXT, bos=False, prompt_tokens=prompt_tokens, **options
    )
    model = series[-1].in_memory
    tokens = torch.tensor([collect_tokens(series[-1], TEXT, sites=0, bos=False).ids])
    held = []
    if isinstance(options.get("positions"), set):  # A plain model has no tokenizer to ask.
        options = options | {"positions": {60, 5}}
    with torch.no_grad(), steer(model, vector, strength=2.0, **options) as steering:
        # A hook that comes later sees what the earlier one has done.
        handle = model.gpt_neox.layers[0].register_forward_hook(lambda *call: held.append(call[2]))
        with steering.prompt(tokens.shape[1] if prompt_tokens is None else prompt_tokens):
            model(tokens)
        handle.remove()
    plain = collect_tokens(series[-1], TEXT, sites=0, bos=False).values[:, 0]
    steered = held[0][0] if isinstance(held[0], tuple) else held[0]
    changed = (steered.reshape(plain.shape) - plain).norm(dim=-1) > 1e-3
    assert found.acts.values[0].tolist() == changed.tolist()
    assert changed.sum() > 0


def test_a_view_underlines_where_steering_acts(series, direction):
    vector = SteeringVector.from_direction(direction, site=0)
    drawn = draw_tokens(project_tokens(series, vector, TEXT, positions="last", bos=False))
    assert drawn.marked.sum(axis=1).tolist() == [1, 1]
    assert drawn.fragment().count("<u>w5</u>") + drawn.fragment().count("<u> w5</u>") == 1
    assert "multiples of the vector" in drawn.title


@pytest.mark.parametrize(
    ("vector", "options", "told"),
    [
        (SteeringVector.from_direction(torch.arange(7.0), site=0), {}, "7 wide"),
        (SteeringVector.from_direction(torch.ones(64), site=0), {"prompt_tokens": 9}, "5 tokens"),
        (SteeringVector.from_direction(torch.ones(64), site=0), {"positions": "odd"}, "positions"),
        (SteeringVector.from_direction(torch.ones(64), site=9), {}, "blocks.9|layer|site"),
    ],
)
def test_what_cannot_be_projected_is_refused(series, vector, options, told):
    with pytest.raises(ValueError, match=told):
        project_tokens(series, vector, TEXT, bos=False, **options)
