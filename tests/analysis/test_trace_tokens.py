"""A concept that stands on one word, in models that are built to write it there."""

import numpy as np
import pytest
import torch

from tlens_trust import CheckpointSeries, Concept
from tlens_trust.analysis import trace_tokens

WORDS = ["the", "kind", "rude", "mild", "harsh", "man", "woman", "left", "stayed"]


@pytest.fixture(scope="module")
def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="the"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="the")


def model(planted):
    """Blocks that add nothing, on embeddings that are random or of one axis, kind to rude."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    made = GPT2LMHeadModel(
        GPT2Config(vocab_size=len(WORDS), n_layer=2, n_embd=16, n_head=2, n_positions=16)
    )
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if ".attn.c_proj" in name or ".mlp.c_proj" in name:
                weight.zero_()
        if planted:
            made.transformer.wpe.weight.zero_()
            made.transformer.wte.weight.zero_()
            made.transformer.wte.weight[:, 0] = torch.tensor([0, 3, -3, 3, -3, 0, 0, 0, 0.0])
    return made


@pytest.fixture(scope="module")
def series(tokenizer):
    return CheckpointSeries.from_models(
        {0: model(planted=False), 100: model(planted=True)}, tokenizer=tokenizer, name="built"
    )


@pytest.fixture(scope="module")
def concept():
    pairs = [
        (f"{who} {verb} {word}", label, f"{who} {verb} {pair}")
        for who in ("man", "woman", "the man", "the woman", "man the", "woman the")
        for verb in ("left", "stayed")
        for pair, words in enumerate((("kind", "rude"), ("mild", "harsh")))
        for word, label in zip(words, (1, 0), strict=True)
    ]
    texts, labels, groups = zip(*pairs, strict=True)
    return Concept("kindness", "toxicity", texts, np.array(labels), groups)


def test_a_concept_appears_on_the_word_it_stands_on_once_it_is_known(series, concept):
    scores = trace_tokens(series, concept, "the kind man left rude the woman", store=None)
    assert "".join(scores["text"].values) == "the kind man left rude the woman"
    last = scores["score"].sel(checkpoint=scores.checkpoint[-1]).isel(site=1).values
    assert last.argmax() == 1
    assert last.argmin() == 4
    assert last[1] > 1 > -1 > last[4]
    others = np.delete(last, [1, 4])
    assert np.abs(others).max() < min(last[1], -last[4])
    assert scores["step"].values.tolist() == [0, 100]
    assert scores["score"].attrs["units"] == "nats"


def test_the_text_s_own_group_teaches_the_probes_nothing(series, concept, monkeypatch):
    from tlens_trust.analysis import token_scores

    fitted = []
    fit = token_scores.fit_logistic_probe

    def count(activations, labels, **options):
        fitted.append(len(labels))
        return fit(activations, labels, **options)

    monkeypatch.setattr(token_scores, "fit_logistic_probe", count)
    trace_tokens(series[1:], concept, "the rude man", store=None)
    trace_tokens(series[1:], concept, concept.statements[0], store=None)
    assert fitted == [len(concept)] * 2 + [len(concept) - 2] * 2


def test_a_concept_without_polarity_speaks_of_label_1(series, concept):
    from dataclasses import replace

    told = trace_tokens(series[1:], replace(concept, polarity=False), "the man", store=None)
    assert "label 1" in told["score"].attrs["long_name"]
    assert "trustworthy" not in told["score"].attrs["long_name"]


def test_checkpoints_that_read_other_tokens_are_not_put_side_by_side(series, tokenizer, concept):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {w: i for i, w in enumerate(WORDS)} | {"the kind": 8}
    backend = Tokenizer(models.WordLevel(words, unk_token="the"))
    backend.pre_tokenizer = pre_tokenizers.Split(" man", "isolated")
    other = CheckpointSeries.from_models(
        {200: model(planted=True)},
        tokenizer=PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="the"),
        name="other",
    )
    with pytest.raises(ValueError, match="as other tokens"):
        trace_tokens([series[1], other[0]], concept, "the kind man", store=None)
