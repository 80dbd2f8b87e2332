"""TransformerLens 3.9, which has HookedTransformer, in a process of its own.

`TLENS_TRUST_TL39` names the folder that release was installed to; its import takes long, so that
one process answers for all tests.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

OLD_RELEASE = os.environ.get("TLENS_TRUST_TL39", "")
pytestmark = pytest.mark.skipif(
    not OLD_RELEASE, reason="TLENS_TRUST_TL39 names no TransformerLens 3.9 folder"
)

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
HALF_ROTARY = {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5}
# What each may get wrong is written in its settings: they are off every default.
CONVERTED = {
    "gpt2": ("gpt2", {}),
    "gpt2-scaled": ("gpt2", {"scale_attn_by_inverse_layer_idx": True, "n_inner": 48}),
    "gpt_neox": ("gpt_neox", {}),
    "gpt_neox-rotary": (
        "gpt_neox",
        {"use_parallel_residual": False, "rope_parameters": HALF_ROTARY},
    ),
    "llama-grouped": ("llama", {"num_key_value_heads": 2}),
    "llama-wide-heads": ("llama", {"head_dim": 16}),
    "llama-tied": ("llama", {"tie_word_embeddings": True}),
    "llama-rope": ("llama", {"rope_parameters": LLAMA3}),
    # That release takes a folder called so for Gemma and for Llama.
    "gemma-llama-run": ("gpt_neox", {}),
    "olmo": ("olmo", {}),
    "olmo-clipped": ("olmo", {"clip_qkv": 0.5}),
}
LEFT_TO_THE_BRIDGE = {
    "olmo2": ("olmo2", {}, "Olmo2ForCausalLM"),
    "llama-biases": ("llama", {"attention_bias": True}, "leaves out biases"),
    "llama-linear": (
        "llama",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0}},
        "scaled by 'linear'",
    ),
    "olmo-grouped": ("olmo", {"num_key_value_heads": 2}, "grouped-query attention"),
    "llama-mish": ("llama", {"hidden_act": "mish"}, "no activation 'mish'"),
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory, save_model):
    root = tmp_path_factory.mktemp("models")
    for seed, (name, case) in enumerate((CONVERTED | LEFT_TO_THE_BRIDGE).items()):
        save_model(root / name, case[0], seed, **case[1])
    # A name that the release knows, of an architecture that is converted by name alone.
    cache, commit = tmp_path_factory.mktemp("cache"), "c" * 40
    repository = cache / "models--Qwen--Qwen2-0.5B"
    save_model(repository / "snapshots" / commit, "qwen2", tie_word_embeddings=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "early").write_text(commit)
    package = Path(__file__).parents[2]
    done = subprocess.run(
        [
            sys.executable,
            str(Path(__file__).parent / "load_with_release_3_9.py"),
            *(str(root), "Qwen/Qwen2-0.5B", "early"),
        ],
        capture_output=True,
        text=True,
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join([OLD_RELEASE, str(package)])}
        | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.rpartition("ANSWERS ")[2])
    assert found["version"].startswith("3.9")
    shutil.rmtree(root)
    return found


@pytest.mark.parametrize("name", CONVERTED)
def test_a_folder_is_converted_to_hugging_faces_own_stream(answers, name):
    found = answers[f"{name}/hooked_transformer"]
    assert found.get("class") == "HookedTransformer", found
    assert found["error"] < 1e-4
    assert found["logits"] < 1e-4
    assert found["sites"] == 12
    assert found["protocol"]
    assert not found["training"]
    assert found["name"] == name


@pytest.mark.parametrize("name", [*CONVERTED, *LEFT_TO_THE_BRIDGE])
def test_the_bridge_of_the_same_release_gives_the_same_stream(answers, name):
    found = answers[f"{name}/bridge"]
    assert found.get("class") == "TransformerBridge", found
    assert found["error"] < 1e-4
    assert found["logits"] < 1e-4


@pytest.mark.parametrize("name", CONVERTED)
def test_auto_takes_the_hooked_transformer_where_it_is_converted(answers, name):
    assert answers[f"{name}/auto"]["class"] == "HookedTransformer"
    assert answers[f"{name}/resolved"] == "hooked_transformer"


@pytest.mark.parametrize("name", LEFT_TO_THE_BRIDGE)
def test_auto_takes_the_bridge_where_it_is_not_and_the_error_says_why(answers, name):
    assert answers[f"{name}/auto"]["class"] == "TransformerBridge"
    assert answers[f"{name}/resolved"] == "bridge"
    refused = answers[f"{name}/hooked_transformer"]
    assert refused["error_type"] == "ValueError"
    assert LEFT_TO_THE_BRIDGE[name][2] in refused["said"]
    assert 'backend="bridge" gives the same' in refused["said"]


def test_a_name_that_the_release_knows_is_loaded_at_the_revision_asked_for(answers):
    found = answers["known_name"]
    assert found.get("class") == "HookedTransformer", found
    assert found["name"] == "Qwen/Qwen2-0.5B"
    assert found["error"] < 1e-4


@pytest.mark.parametrize("backend", ["hooked_transformer", "bridge"])
def test_the_models_own_tokenizer_is_kept_beside(answers, backend):
    for name in CONVERTED:
        found = answers[f"{name}/{backend}"]
        assert found["own_tokens"] == [1, 2]
        assert found["own_bos"] is None


def test_a_hooked_transformer_cannot_be_spread_over_devices(answers):
    assert "cannot be spread" in answers["device_map"]["said"]


def test_the_number_format_is_the_one_asked_for(answers):
    assert answers["dtypes"] == ["torch.bfloat16"]


def test_a_released_model_gives_its_memory_back(answers):
    held, left = answers["released"]
    assert held > 0
    assert left == 0
