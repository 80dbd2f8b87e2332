"""What is read is the model's own residual stream, as Hugging Face computes it.

The reference is a model loaded by transformers alone, one statement at a time, through forward
hooks that the fixture places: none of our code is on that side.
"""

import importlib.util
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from tlens_trust.activations import collect_activations

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def statements(words):
    return [words(count, start=count) for count in (5, 17, 1, 9, 9, 12)]


def stream_at(reference, tokenizer, architecture, statements, position=-1, attention="eager"):
    rows = tokenizer(statements)["input_ids"]
    streams = reference(architecture, rows, attention)
    return torch.stack([stream[:, position] for stream in streams])  # [example, site, d_model]


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox", "llama", "olmo", "olmo2"])
@pytest.mark.parametrize("kind", ["bridge", "plain"])
def test_the_residual_stream_is_hugging_faces_own_to_the_last_block(
    architecture, kind, load_bridge, load_plain, reference, tokenizer, statements, relative_error
):
    model = load_bridge(architecture) if kind == "bridge" else load_plain(architecture, "sdpa")
    read = collect_activations(model, statements, tokenizer=tokenizer, batch_tokens=40)
    expected = stream_at(reference, tokenizer, architecture, statements)
    assert relative_error(read.values, expected) < TOLERANCE
    # The controls: another token's stream, and the block before, are not within reach of that.
    assert relative_error(read.values, expected.roll(1, dims=0)) > 100 * TOLERANCE
    assert relative_error(read.values, expected.roll(1, dims=1)) > 100 * TOLERANCE


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox", "llama", "olmo"])
def test_hugging_faces_last_hidden_state_is_not_the_last_blocks_output(
    architecture, load_plain, tokenizer, statements, relative_error
):
    model = load_plain(architecture)
    read = collect_activations(model, statements[:1], tokenizer=tokenizer)
    with torch.no_grad():
        hidden = model(
            torch.tensor([tokenizer(statements[0])["input_ids"]]), output_hidden_states=True
        ).hidden_states
    assert relative_error(read.at(-2)[0], hidden[-2][0, -1]) < TOLERANCE
    assert relative_error(read.at(-1)[0], hidden[-1][0, -1]) > 100 * TOLERANCE


def test_resid_pre_is_what_the_block_before_put_out(bridge, tokenizer, statements):
    before = collect_activations(bridge, statements, sites="resid_pre", tokenizer=tokenizer)
    after = collect_activations(bridge, statements, tokenizer=tokenizer)
    assert torch.equal(before.values[:, 1:], after.values[:, :-1])


def test_attention_and_mlp_add_up_to_the_stream(bridge, tokenizer, statements, relative_error):
    def read(sites):
        return collect_activations(bridge, statements, sites=sites, tokenizer=tokenizer).values

    middle = read("resid_pre") + read("attn_out")
    assert relative_error(middle, read("resid_mid")) < TOLERANCE
    assert relative_error(middle + read("mlp_out"), read("resid_post")) < TOLERANCE


def test_heads_give_the_attentions_output_through_its_projection(
    bridge, tokenizer, statements, load_plain, relative_error
):
    heads = collect_activations(bridge, statements, sites="z", tokenizer=tokenizer)
    out = collect_activations(bridge, statements, sites="attn_out", tokenizer=tokenizer)
    model = load_plain("llama")
    for layer, block in enumerate(model.base_model.layers):
        z = torch.cat([heads.at(f"blocks.{layer}.attn.hook_z[{h}]") for h in range(4)], dim=-1)
        with torch.no_grad():
            projected = block.self_attn.o_proj(z)
        assert relative_error(projected, out.values[:, layer]) < TOLERANCE


def test_a_bridge_and_a_plain_model_are_read_alike_everywhere(
    bridge, load_plain, tokenizer, statements, relative_error
):
    plain = load_plain("llama")
    for sites in ("resid_pre", "resid_mid", "attn_out", "mlp_out", "z"):
        ours, theirs = (
            collect_activations(model, statements, sites=sites, tokenizer=tokenizer)
            for model in (bridge, plain)
        )
        assert ours.sites == theirs.sites
        assert relative_error(ours.values, theirs.values) < TOLERANCE


def test_reading_leaves_a_plain_model_as_it_was(load_plain, tokenizer, statements):
    model = load_plain("gpt2", "sdpa")
    model.train()
    model.transformer.h[0].eval()
    modes = [module.training for module in model.modules()]
    names = list(dict(model.named_parameters()))
    weights = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    first = collect_activations(model, statements, tokenizer=tokenizer)
    assert [module.training for module in model.modules()] == modes
    assert list(dict(model.named_parameters())) == names
    assert all(torch.equal(weights[name], weight) for name, weight in model.named_parameters())
    assert model.config._attn_implementation == "sdpa"
    assert not any(module._forward_hooks for module in model.modules())
    # GPT-2 has dropout, which would show.
    assert torch.equal(
        first.values, collect_activations(model, statements, tokenizer=tokenizer).values
    )
    # And what was read with dropout off can still be trained afterwards.
    loss = model(torch.tensor([[1, 2, 3]]), labels=torch.tensor([[1, 2, 3]])).loss
    loss.backward()


OLD_RELEASE = os.environ.get("TLENS_TRUST_TL39", "")


@pytest.mark.skipif(not OLD_RELEASE, reason="TLENS_TRUST_TL39 names no TransformerLens 3.9 folder")
def test_the_release_before_reads_the_same_stream_with_both_of_its_models(
    folders, tmp_path, reference, load_plain, tokenizer, statements, relative_error
):
    """In a process of its own, where TransformerLens 3.9 stands ahead on the path."""
    script = Path(__file__).with_name("read_with_release_3_9.py")
    package = Path(importlib.util.find_spec("tlens_trust").origin).parents[1]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([OLD_RELEASE, str(package)])}
    (tmp_path / "statements.txt").write_text("\n".join(statements))
    finished = subprocess.run(
        [sys.executable, str(script), str(tmp_path), *map(str, folders.values())],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    from safetensors.torch import load_file

    read = load_file(tmp_path / "read.safetensors")
    compared = Counter()
    for name, values in read.items():
        architecture, kind, sites, _ = name.split("/")
        if sites == "resid_post":
            expected = stream_at(reference, tokenizer, architecture, statements)
        else:
            plain = load_plain(architecture)
            expected = collect_activations(plain, statements, sites=sites, tokenizer=tokenizer)
            expected = expected.values
        assert relative_error(values, expected) < TOLERANCE, name
        compared[kind, sites] += 1
    # Five architectures through the bridge, four as a HookedTransformer; the stream with padding
    # on either side.
    assert compared == {
        ("bridge", "resid_post"): 10,
        ("bridge", "z"): 5,
        ("hooked_transformer", "resid_post"): 8,
        ("hooked_transformer", "z"): 4,
    }
