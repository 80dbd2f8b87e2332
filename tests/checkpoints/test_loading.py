import importlib.metadata
import json
import logging
import os
import pickle
import shutil
import sys
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file

from tlens_trust.checkpoints import Checkpoint, CheckpointSeries
from tlens_trust.checkpoints.hooked_model import own_bos, own_tokenizer
from tlens_trust.checkpoints.loading import has_hooked_transformer, release

TOKENS = torch.arange(14).reshape(2, 7)
ARCHITECTURES = ("gpt2", "gpt_neox", "llama", "olmo", "olmo2")
release_4 = pytest.mark.skipif(
    importlib.metadata.version("transformer-lens").startswith("3."),
    reason="about releases that have no HookedTransformer",
)


def load(folder, **settings):
    return Checkpoint.from_directory(folder).loaded_with(device="cpu", **settings).load()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_weights_are_loaded_as_they_were_published(folders, architecture):
    from transformers import AutoModelForCausalLM

    published = AutoModelForCausalLM.from_pretrained(folders[architecture]).eval()
    bridge = load(folders[architecture])
    with torch.no_grad():
        ours, theirs = bridge(TOKENS), published(TOKENS).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    # Folding and centring would move every one of these off the published values.
    there = {tuple(w.flatten()[:8].tolist()) for w in bridge.parameters()}
    assert {tuple(w.flatten()[:8].tolist()) for w in published.parameters()} <= there


def test_the_number_format_is_the_one_asked_for(folders):
    model = load(folders["gpt2"], dtype=torch.bfloat16)
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    assert {weight.dtype for weight in load(folders["gpt2"]).parameters()} == {torch.float32}


def test_the_models_own_tokenizer_survives_what_transformer_lens_makes_of_it(folders):
    model = load(folders["llama"])
    assert model.tokenizer("w1 w2").input_ids[0] == model.tokenizer.bos_token_id
    assert own_tokenizer(model)("w1 w2").input_ids == [1, 2]
    assert own_bos(model) is None
    assert own_tokenizer(model).pad_token is None


def test_a_tokenizer_that_adds_bos_by_its_own_setting_keeps_adding_it(tmp_path, folders):
    from transformers import AutoTokenizer

    folder = shutil.copytree(folders["llama"], tmp_path / "step1")
    AutoTokenizer.from_pretrained(folder, add_bos_token=True).save_pretrained(folder)
    tokenizer = own_tokenizer(load(folder))
    assert tokenizer("w1 w2").input_ids == [tokenizer.bos_token_id, 1, 2]


def test_a_model_that_the_user_built_follows_transformer_lens_own_setting(folders):
    from transformer_lens.model_bridge import TransformerBridge

    built = TransformerBridge.boot_transformers(str(folders["gpt_neox"]), device="cpu")
    assert own_bos(built) is False
    assert own_tokenizer(built) is built.tokenizer
    built = TransformerBridge.boot_transformers(str(folders["gpt2"]), device="cpu")
    assert own_bos(built) is True


def test_a_tokenizer_in_the_folder_above_serves_folders_without_one(
    tmp_path, save_model, tokenizer
):
    for step in (1, 2):
        save_model(tmp_path / f"checkpoint-{step}", "gpt2", step, tokenizer=False)
    checkpoint = CheckpointSeries.from_directory(tmp_path)[1]
    with pytest.raises(ValueError, match=r"No tokenizer with .*checkpoint-2"):
        checkpoint.loaded_with(device="cpu").load()
    tokenizer.save_pretrained(tmp_path)
    assert own_tokenizer(checkpoint.loaded_with(device="cpu").load())("w4").input_ids == [4]


def test_a_tokenizer_can_be_given_as_a_folder_or_as_itself(tmp_path, save_model, tokenizer):
    save_model(tmp_path / "step1", "gpt2", tokenizer=False)
    tokenizer.save_pretrained(tmp_path / "words")
    by_folder = CheckpointSeries.from_directory(tmp_path, tokenizer=tmp_path / "words")
    assert own_tokenizer(by_folder[0].loaded_with(device="cpu").load())("w3").input_ids == [3]
    (tmp_path / "words").rename(tmp_path / "words-moved")
    itself = Checkpoint.from_directory(tmp_path / "step1", tokenizer=tokenizer)
    loaded = itself.loaded_with(device="cpu").load()
    assert own_tokenizer(loaded) is tokenizer
    assert tokenizer.pad_token is None
    assert loaded.tokenizer.pad_token is not None


def to_pickle(folder, extra=None):
    """Turn a folder's safetensors into a pickle, with something more in it."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save({**tensors, **(extra or {})}, folder / "pytorch_model.bin")
    return folder


def test_a_pickle_of_tensors_is_loaded(tmp_path, folders):
    folder = to_pickle(shutil.copytree(folders["gpt2"], tmp_path / "step1"))
    with torch.no_grad():
        torch.testing.assert_close(load(folder)(TOKENS), load(folders["gpt2"])(TOKENS))


def test_shards_are_loaded_as_one_model(tmp_path, make_model, tokenizer):
    model = make_model("gpt_neox", seed=4)
    model.save_pretrained(tmp_path / "step1", max_shard_size="40KB")
    tokenizer.save_pretrained(tmp_path / "step1")
    checkpoint = Checkpoint.from_directory(tmp_path / "step1")
    assert len(checkpoint.weight_files) > 2
    with torch.no_grad():
        torch.testing.assert_close(
            checkpoint.loaded_with(device="cpu").load()(TOKENS),
            model(TOKENS).logits,
            rtol=1e-4,
            atol=1e-4,
        )
    before = checkpoint.identity
    shard = tmp_path / "step1" / checkpoint.weight_files[1].name
    tensors = {name: weight + 1 for name, weight in load_file(shard).items()}
    save_file(tensors, shard, metadata={"format": "pt"})
    assert checkpoint.identity != before


def test_a_body_saved_without_its_head_is_read(tmp_path, make_model, tokenizer):
    model = make_model("llama", seed=5)
    model.base_model.save_pretrained(tmp_path / "step1")
    tokenizer.save_pretrained(tmp_path / "step1")
    bridge = Checkpoint.from_directory(tmp_path / "step1").loaded_with(device="cpu").load()
    with torch.no_grad():
        ours = bridge.original_model.base_model(TOKENS).last_hidden_state
        torch.testing.assert_close(ours, model.base_model(TOKENS).last_hidden_state)


class Payload:
    """Unpickled without restriction, this would leave a file behind."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_pickle_that_holds_code_is_refused_and_not_run(tmp_path, folders):
    proof = tmp_path / "it-ran"
    folder = shutil.copytree(folders["gpt2"], tmp_path / "step1")
    to_pickle(folder, {"transformer.extra": Payload(proof)})
    with pytest.raises(ValueError, match="holds more than tensors"):
        load(folder)
    assert not proof.exists()
    # The trap is armed: whoever unpickles it without restriction runs it.
    torch.load(folder / "pytorch_model.bin", weights_only=False)
    assert proof.exists()


def test_safetensors_are_read_where_a_pickle_lies_beside_them(tmp_path, folders):
    folder = shutil.copytree(folders["gpt2"], tmp_path / "step1")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(tmp_path / "it-ran")))
    load(folder)
    assert not (tmp_path / "it-ran").exists()


def test_weights_that_do_not_fill_the_model_are_refused(tmp_path, folders):
    folder = shutil.copytree(folders["gpt2"], tmp_path / "step1")
    tensors = load_file(folder / "model.safetensors")
    del tensors["transformer.h.1.mlp.c_fc.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"1 weights are missing .*h\.1\.mlp\.c_fc\.weight"):
        load(folder)


def test_weights_of_another_shape_are_refused(tmp_path, folders):
    folder = shutil.copytree(folders["gpt2"], tmp_path / "step1")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 99}))
    with pytest.raises(Exception, match=r"(?i)mismatch"):
        load(folder)


@release_4
def test_the_error_says_which_release_has_a_hooked_transformer(folders):
    with pytest.raises(
        ValueError, match=r"TransformerLens 3\.9 has it .*\"bridge\" gives the same"
    ):
        load(folders["gpt2"], backend="hooked_transformer")
    assert not has_hooked_transformer()


@release_4
def test_auto_is_the_bridge_where_there_is_no_hooked_transformer(folders):
    checkpoint = Checkpoint.from_directory(folders["gpt2"])
    assert checkpoint.resolve_backend() == "bridge"
    assert checkpoint.loaded_with(backend="bridge").resolve_backend() == "bridge"
    assert type(checkpoint.loaded_with(device="cpu").load()).__name__ == "TransformerBridge"


def test_an_unknown_backend_names_those_that_there_are(folders):
    with pytest.raises(ValueError, match="'auto', 'hooked_transformer' or 'bridge'"):
        load(folders["gpt2"], backend="transformer")


def test_a_device_and_a_map_of_devices_exclude_each_other(folders):
    with pytest.raises(ValueError, match="Give one of them"):
        load(folders["gpt2"], device_map={"": "cpu"})


def test_a_map_of_devices_is_passed_on(folders):
    checkpoint = Checkpoint.from_directory(folders["llama"])
    parts = ("model.embed_tokens", "model.layers", "model.norm", "model.rotary_emb", "lm_head")
    places = {part: "disk" if part == "model.layers" else "cpu" for part in parts}
    with checkpoint.loaded_with(device_map=places).loaded() as model:
        assert model.original_model.hf_device_map["model.layers"] == "disk"
        with torch.no_grad():
            spread = model(TOKENS)
    with torch.no_grad():
        torch.testing.assert_close(spread, load(folders["llama"])(TOKENS))


def test_code_that_comes_with_a_model_is_not_run_unless_it_is_trusted(tmp_path, folders):
    folder = shutil.copytree(folders["gpt2"], tmp_path / "step1")
    proof = tmp_path / "it-ran"
    (folder / "own.py").write_text(
        "import pathlib\n"
        f"pathlib.Path({str(proof)!r}).touch()\n"
        "from transformers import GPT2Config\n"
        "class OwnConfig(GPT2Config):\n    model_type = 'own'\n"
    )
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="trust_remote_code"):
        load(folder)
    assert not proof.exists()


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox"])
def test_loading_is_silent_and_leaves_every_setting_as_it_was(folders, architecture, capfd):
    from transformers.utils import logging as transformers_logging

    transformers_logging.enable_progress_bar()
    verbosity = transformers_logging.get_verbosity()
    filters, level = list(warnings.filters), logging.root.manager.disable
    capfd.readouterr()
    load(folders[architecture])
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    assert transformers_logging.get_verbosity() == verbosity
    assert transformers_logging.is_progress_bar_enabled()
    assert (list(warnings.filters), logging.root.manager.disable) == (filters, level)


def test_errors_and_repr_call_the_model_by_its_name(tmp_path, save_model):
    save_model(tmp_path / "mine" / "step3", "gpt2")
    model = CheckpointSeries.from_directory(tmp_path / "mine")[0].loaded_with(device="cpu").load()
    assert model.cfg.model_name == "mine"


def test_a_released_model_gives_its_memory_back_whoever_still_names_it(folders):
    model = load(folders["gpt2"])
    assert sum(weight.numel() for weight in model.parameters()) > 0
    release(model)
    assert sum(weight.numel() for weight in model.parameters()) == 0
    with Checkpoint.from_directory(folders["gpt2"]).loaded_with(device="cpu").loaded() as model:
        assert sum(weight.numel() for weight in model.parameters()) > 0
    assert sum(weight.numel() for weight in model.parameters()) == 0


def test_a_model_is_released_after_an_exception(folders):
    with (
        pytest.raises(RuntimeError, match="inside"),
        Checkpoint.from_directory(folders["gpt2"]).loaded_with(device="cpu").loaded() as model,
    ):
        raise RuntimeError("inside")
    assert sum(weight.numel() for weight in model.parameters()) == 0


def test_settings_and_tokenizer_are_had_without_the_weights(tmp_path, folders):
    folder = shutil.copytree(folders["llama"], tmp_path / "step1")
    checkpoint = Checkpoint.from_directory(folder)
    (folder / "model.safetensors").write_bytes(b"torn")
    assert checkpoint.load_config().num_hidden_layers == 3
    assert checkpoint.load_tokenizer()("w5").input_ids == [5]


def test_asking_whether_there_is_a_hooked_transformer_imports_nothing(monkeypatch):
    kept = {name for name in sys.modules if name.startswith("transformer_lens")}
    for name in kept:
        monkeypatch.delitem(sys.modules, name)
    has_hooked_transformer()
    assert not any(name.startswith("transformer_lens") for name in sys.modules)
