"""What steering costs while a model generates, beside the same model and hooks without it.

Run with `python -m pytest tests/benchmarks/test_steering_speed.py -s`. Every round runs all
contenders one after the other, and ratios are medians over rounds, so that another load on the
machine falls on all of them.
"""

import statistics
import time
from contextlib import nullcontext

import pytest
import torch

from tlens_trust.checkpoints import Checkpoint
from tlens_trust.checkpoints.plain_model import PlainModel
from tlens_trust.steering import SteeringVector, steer

ROUNDS = 9
NEW_TOKENS = 64
LAYER = 4
SITE = f"blocks.{LAYER}.hook_resid_post"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The same weights, read through a bridge and as they are."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=8_000,
        hidden_size=512,
        intermediate_size=1376,
        num_hidden_layers=8,
        num_attention_heads=8,
        max_position_embeddings=256,
        eos_token_id=None,
        pad_token_id=0,
    )
    plain = LlamaForCausalLM(config).eval()
    folder = tmp_path_factory.mktemp("fast")
    words = {f"w{number}": number for number in range(7_999)} | {"<unk>": 7_999}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", eos_token="<unk>", pad_token="w0"
    )
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    bridge = Checkpoint.from_directory(folder).loaded_with(device="cpu", backend="bridge").load()
    return {"plain": PlainModel(plain), "bridge": bridge}


def generate(model, tokens):
    with torch.no_grad():
        if isinstance(model, PlainModel):
            model.model.generate(
                input_ids=tokens,
                attention_mask=torch.ones_like(tokens),
                max_new_tokens=NEW_TOKENS,
                do_sample=False,
            )
        else:
            model.generate(
                tokens,
                max_new_tokens=NEW_TOKENS,
                do_sample=False,
                stop_at_eos=False,
                verbose=False,
            )


@pytest.mark.parametrize("positions", ["all", "generated"])
@pytest.mark.parametrize("kind", ["plain", "bridge"])
def test_steered_generation_keeps_95_percent_of_the_speed(models, kind, positions, capsys):
    model = models[kind]
    tokens = torch.randint(1, 8_000, (4, 24), generator=torch.Generator().manual_seed(0))
    vector = SteeringVector.from_direction(torch.randn(512), site=LAYER, rms=10.0)
    contenders = {
        "no hook": nullcontext,
        "a hook that changes nothing": lambda: model.hooks(
            fwd_hooks=[(SITE, lambda tensor, hook: tensor)]
        ),
        "steered": lambda: steer(model, vector, strength=1.0, positions=positions),
    }
    seconds = {name: [] for name in contenders}
    for each in range(ROUNDS + 1):
        for name, context in contenders.items():
            with context():
                start = time.perf_counter()
                generate(model, tokens)
                taken = time.perf_counter() - start
            if each:  # the first round warms up
                seconds[name].append(taken)
    ratios = {
        name: statistics.median(
            one / other for one, other in zip(times, seconds["steered"], strict=True)
        )
        for name, times in seconds.items()
    }
    with capsys.disabled():
        taken = statistics.median(seconds["steered"])
        print(f"\n{kind}, steered at {positions!r}: {taken:.3f} s; speed")
        for name in list(contenders)[:2]:
            print(f"  {ratios[name]:.3f} of that with {name}")
    assert ratios["a hook that changes nothing"] >= 0.95
