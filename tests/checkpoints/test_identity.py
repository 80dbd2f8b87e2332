import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tlens_trust.checkpoints import Checkpoint, CheckpointSeries, weights
from tlens_trust.checkpoints.weights import file_sha256, git_oid, needed_names, weight_names


def identity(folder):
    return Checkpoint.from_directory(folder).identity


def test_the_same_files_in_two_places_have_one_identity(tmp_path, folders):
    shutil.copytree(folders["gpt2"], tmp_path / "step5")
    assert identity(tmp_path / "step5") == identity(folders["gpt2"])


def test_two_folders_of_one_name_with_different_weights_never_share_an_identity(
    tmp_path, save_model
):
    one = save_model(tmp_path / "a" / "step5", "gpt2", 1)
    two = save_model(tmp_path / "b" / "step5", "gpt2", 2)
    first, second = Checkpoint.from_directory(one), Checkpoint.from_directory(two)
    assert first.revision == second.revision
    assert first.identity != second.identity


def test_one_changed_bit_changes_the_identity_even_within_one_checkpoint(tmp_path, folders):
    folder = shutil.copytree(folders["gpt2"], tmp_path / "step5")
    checkpoint = Checkpoint.from_directory(folder)
    before = checkpoint.identity
    path = folder / "model.safetensors"
    tensors = load_file(path)
    name = sorted(tensors)[0]
    tensors[name].view(-1)[0] += 1
    save_file(tensors, path, metadata={"format": "pt"})
    assert checkpoint.identity != before


def test_other_settings_over_the_same_weights_have_another_identity(tmp_path, folders):
    folder = shutil.copytree(folders["gpt_neox"], tmp_path / "step5")
    before = identity(folder)
    config = folder / "config.json"
    config.write_text(config.read_text().replace("10000.0", "20000.0"))
    assert identity(folder) != before


def test_what_is_no_weight_and_no_setting_does_not_count(tmp_path, folders):
    folder = shutil.copytree(folders["gpt2"], tmp_path / "step5")
    before = identity(folder)
    (folder / "optimizer.pt").write_bytes(b"state")
    (folder / "README.md").write_text("words")
    assert identity(folder) == before


def test_a_file_is_hashed_once_for_each_state_of_it(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"one")
    calls = []
    digest = weights.hashlib.file_digest
    monkeypatch.setattr(
        weights.hashlib, "file_digest", lambda *args: calls.append(1) or digest(*args)
    )
    first = file_sha256(path)
    assert file_sha256(path) == first
    assert len(calls) == 1
    path.write_bytes(b"two")
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    assert file_sha256(path) != first
    assert len(calls) == 2


def test_a_blob_of_the_hubs_cache_is_known_by_its_name(tmp_path):
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    (blobs / ("ab" * 32)).write_bytes(b"not hashed")
    (tmp_path / "model.safetensors").symlink_to(blobs / ("ab" * 32))
    assert file_sha256(tmp_path / "model.safetensors") == "ab" * 32


def test_the_git_hash_is_gits_own():
    # `printf hello | git hash-object --stdin`
    assert git_oid(b"hello") == "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0"


def test_a_model_in_memory_changes_its_identity_with_its_weights(make_model, tokenizer):
    model = make_model("gpt2", seed=1)
    checkpoint = CheckpointSeries.from_models({0: model}, tokenizer=tokenizer)[0]
    before = checkpoint.identity
    assert checkpoint.identity == before
    with torch.no_grad():
        model.transformer.h[1].mlp.c_fc.bias[3] += 1e-3
    assert checkpoint.identity != before
    twin = CheckpointSeries.from_models({9: make_model("gpt2", seed=1)}, tokenizer=tokenizer)[0]
    assert twin.identity == before


def test_a_hooked_model_in_memory_has_a_stable_identity_of_its_own(folders):
    load = Checkpoint.from_directory(folders["gpt2"]).loaded_with(device="cpu").load
    one, two = (CheckpointSeries.from_models({0: load()})[0] for _ in range(2))
    assert one.identity == two.identity
    other = Checkpoint.from_directory(folders["gpt_neox"]).loaded_with(device="cpu").load()
    assert CheckpointSeries.from_models({0: other})[0].identity != one.identity


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["pytorch_model.bin", "model.safetensors"], ("model.safetensors",)),
        (["pytorch_model.bin"], ("pytorch_model.bin",)),
        (
            ["model-00002-of-00002.safetensors", "model-00001-of-00002.safetensors", "x.bin"],
            ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"),
        ),
        (["consolidated.pth", "flax_model.msgpack", "optimizer.pt"], ()),
    ],
)
def test_safetensors_are_preferred_and_one_format_is_chosen(names, chosen):
    assert weight_names(names) == chosen


def test_what_loading_does_not_read_is_not_fetched():
    names = [
        "README.md",
        "config.json",
        "model-00001-of-00001.safetensors",
        "model.safetensors.index.json",
        "modeling_own.py",
        "optimizer.bin",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
        "tokenizer.json",
        "tokenizer.model",
        "runs/events.json",
    ]
    wanted = {
        "config.json",
        "model-00001-of-00001.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer.model",
    }
    assert set(needed_names(names)) == wanted
    assert set(needed_names(names, remote_code=True)) == wanted | {"modeling_own.py"}
    assert set(needed_names(names, weights=False)) == {
        "config.json",
        "tokenizer.json",
        "tokenizer.model",
    }


def test_missing_shards_are_refused(tmp_path, folders):
    folder = shutil.copytree(folders["gpt2"], tmp_path / "step5")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    with pytest.raises(ValueError, match="Shards of the weights are missing"):
        Checkpoint.from_directory(folder)
