"""A model in which one direction of the residual stream alone decides between two answers.

GPT-NeoX blocks whose attention and MLP put out nothing pass the stream on as it is. Statements of
one side embed to `+a`, of the other to `-a`, amid what has nothing to do with it; the unembedding
reads `a` and gives one answer on either side. So `a` is what is read, and what acts.
"""

import numpy as np
import pytest
import torch

from tlens_trust.concepts import Concept
from tlens_trust.steering import (
    NeutralPredictions,
    calibrate_strength,
    extract_steering_vector,
    steer,
)

YES, NO = 90, 91
D_MODEL = 64


def plant_axis(make_model, coordinates=D_MODEL):
    """A model with an axis along so many coordinates."""
    model = make_model("gpt_neox", d_model=D_MODEL)
    generator = torch.Generator().manual_seed(11)
    axis = torch.randn(D_MODEL, generator=generator)
    axis[coordinates:] = 0.0
    axis[:coordinates] -= axis[:coordinates].mean()  # LayerNorm takes the mean away
    axis = axis / axis.norm()
    with torch.no_grad():
        for block in model.base_model.layers:
            for part in (block.attention.dense, block.mlp.dense_4h_to_h):
                part.weight.zero_()
                part.bias.zero_()
        norm = model.base_model.final_layer_norm
        norm.weight.fill_(1.0)
        norm.bias.zero_()
        words = torch.randn(100, D_MODEL, generator=generator)
        # The words of a pair share what has nothing to do with it, but for a little.
        words[20:40] = words[:20] + 0.1 * words[20:40]
        words = words - (words @ axis)[:, None] * axis
        words[:20] += 2 * axis
        words[20:40] -= 2 * axis
        model.get_input_embeddings().weight.copy_(words)
        readout = 0.3 * torch.randn(100, D_MODEL, generator=generator)
        readout = readout - (readout @ axis)[:, None] * axis
        readout[YES] += 2 * axis
        readout[NO] -= 2 * axis
        model.get_output_embeddings().weight.copy_(readout)
    return model, axis


@pytest.fixture(scope="module")
def planted(make_model):
    return plant_axis(make_model)


@pytest.fixture(scope="module")
def concept():
    rows = range(120)
    said = tuple(f"w{50 + row // 2 % 40} w{(row // 2 * 7 % 20) + 20 * (row % 2)}" for row in rows)
    # Label 1 is the side whose last words are the first twenty.
    return Concept(
        "planted", "reliability", said, 1 - np.arange(120) % 2, tuple(str(r // 2) for r in rows)
    )


def medians(activations, labels, groups):
    """A method of a user's own."""
    values = activations.double()
    return values[labels == 1].median(dim=0).values - values[labels == 0].median(dim=0).values


def found_cosine(model, axis, method, concept, tokenizer):
    vector = extract_steering_vector(
        model, concept, site=1, method=method, tokenizer=tokenizer, rows=range(80)
    )
    return float((vector.normalised().values[0] * axis).sum())


METHODS = (
    "mean_difference",
    "tracingllm",
    "pair_difference",
    "logistic",
    "lda",
    "ridge",
    medians,
)


@pytest.mark.parametrize("method", METHODS)
def test_the_planted_direction_is_found(method, planted, concept, tokenizer):
    assert found_cosine(*planted, method, concept, tokenizer) >= 0.95


def test_a_sparse_probe_finds_an_axis_along_few_coordinates_and_half_misses_any_other(
    make_model, planted, concept, tokenizer
):
    """Of an axis along all 64 coordinates the 16 that it may use do not hold .95."""
    few = plant_axis(make_model, coordinates=6)
    assert found_cosine(*few, "sparse", concept, tokenizer) >= 0.95
    assert 0.5 < found_cosine(*planted, "sparse", concept, tokenizer) < 0.95


def test_contrast_consistent_search_finds_it_roughly(planted, concept, tokenizer):
    """Any direction that parts the twins is as consistent; a random one has a cosine of .13."""
    assert found_cosine(*planted, "contrast_consistent", concept, tokenizer) >= 0.8


def test_iti_finds_the_heads_that_read_it_and_what_they_read(make_model, concept, tokenizer):
    model, axis = plant_axis(make_model)
    generator = torch.Generator().manual_seed(5)
    meant = torch.randn(2, D_MODEL // 4, generator=generator)
    reading = {(1, 0): meant[0], (1, 3): meant[1]}
    with torch.no_grad():
        for layer, block in enumerate(model.base_model.layers):
            seen = block.input_layernorm.weight * axis
            seen = seen / seen.norm()
            weight = block.attention.query_key_value.weight
            weight -= (weight @ seen)[:, None] * seen
            values = weight.view(4, 3, D_MODEL // 4, D_MODEL)[:, 2]
            for (own, head), direction in reading.items():
                if own == layer:
                    values[head] += 2 * direction[:, None] * seen
    vector = extract_steering_vector(
        model, concept, method="iti", heads=2, tokenizer=tokenizer, rows=range(80)
    )
    assert vector.sites == ("blocks.1.attn.hook_z[0]", "blocks.1.attn.hook_z[3]")
    cosines = torch.cosine_similarity(vector.values, meant, dim=1)
    assert bool((cosines >= 0.95).all())


def log_odds(model, texts, tokenizer):
    ids = torch.tensor(tokenizer(list(texts))["input_ids"])
    with torch.no_grad():
        logits = model(ids).logits[:, -1]
    return (logits[:, YES] - logits[:, NO]).numpy()


def test_it_steers_held_out_statements_further_than_random_directions_of_equal_dose(
    planted, concept, tokenizer
):
    model, _ = planted
    vector = extract_steering_vector(
        model, concept, site=1, method="tracingllm", tokenizer=tokenizer, rows=range(80)
    )
    held = np.flatnonzero(vector.held_out(concept))
    assert len(held) == 40
    texts = [concept.statements[row] for row in held]
    plain = log_odds(model, texts, tokenizer)
    neutral = [f"w{40 + k} w{45 + k} w{60 + k} w{41 + k}" for k in range(20)]
    predictions = NeutralPredictions(model, neutral, tokenizer=tokenizer)

    def effect(direction):
        dose = calibrate_strength(model, direction, target_kl=0.05, text=predictions)
        assert dose.kl == pytest.approx(0.05, rel=1e-2)
        with steer(model, direction, strength=dose.strength):
            return log_odds(model, texts, tokenizer) - plain

    found = effect(vector)
    groups = [concept.groups[row] for row in held]
    means = bootstrap_means(found, groups)
    assert np.quantile(means, 0.025) > 0
    drawn = [effect(vector.random_like(seed=seed)).mean() for seed in range(50)]
    assert found.mean() > max(drawn)
    # The controls: the other sign goes the other way, and random directions go nowhere together.
    assert effect(-vector).mean() < min(drawn)
    assert abs(np.mean(drawn)) < 0.25 * found.mean()


def bootstrap_means(values, groups, resamples=500):
    names, group = np.unique(groups, return_inverse=True)
    draws = np.random.default_rng(0).integers(len(names), size=(resamples, len(names)))
    sums = np.bincount(group, weights=values)
    counts = np.bincount(group)
    return sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
