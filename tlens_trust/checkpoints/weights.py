"""Finds the files that hold a checkpoint's weights, and hashes them."""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

# In transformers' own order of preference: safetensors before pickles, one file before shards.
_WHOLE_OR_SHARDS = (
    ("model.safetensors", re.compile(r"model-\d+-of-(\d+)\.safetensors")),
    ("pytorch_model.bin", re.compile(r"pytorch_model-\d+-of-(\d+)\.bin")),
)
_INDEX = {".safetensors": "model.safetensors.index.json", ".bin": "pytorch_model.bin.index.json"}
_TOKENIZER_FILES = {
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
}
_SMALL_FILES = re.compile(r"[^/]+\.(?:json|txt|model|jinja|tiktoken)")
_READ_BY_PYTHON = re.compile(r"[^/]+\.py")


@dataclass(frozen=True)
class WeightFile:
    """One file of weights: its name, its size in bytes, its SHA-256 in hexadecimal."""

    name: str
    size: int
    sha256: str


def weight_names(names: Iterable[str]) -> tuple[str, ...]:
    """Find the files that a model is loaded from among the files of its folder.

    If there are weights in two formats, only safetensors are returned.

    Args:
        names: Names of the files directly in the folder.

    Returns:
        The names, shards in order. Empty if there are no weights.

    Examples:
        >>> weight_names(["config.json", "pytorch_model.bin", "model.safetensors"])
        ('model.safetensors',)
        >>> weight_names(["README.md"])
        ()
    """
    names_present = set(names)
    for single_file, shard in _WHOLE_OR_SHARDS:
        if single_file in names_present:
            return (single_file,)
        shards = sorted(name for name in names_present if shard.fullmatch(name))
        if shards:
            return tuple(shards)
    return ()


def are_complete(weights: Sequence[str]) -> bool:
    """Whether all shards are present, as counted in the shards' names.

    Examples:
        >>> are_complete(["model-00001-of-00002.safetensors"])
        False
    """
    totals = {
        int(match[1])
        for _, shard in _WHOLE_OR_SHARDS
        for match in map(shard.fullmatch, weights)
        if match
    }
    # Each shard's name says how many there are, as in 00001-of-00003. A single file says nothing.
    return bool(weights) and totals <= {len(weights)}


def needed_names(
    names: Iterable[str], *, weights: bool = True, remote_code: bool = False
) -> tuple[str, ...]:
    """Find the files that loading a checkpoint needs: weights, settings, tokenizer.

    Args:
        names: Names of the files directly in the folder.
        weights: Whether to include the weights, and not only the small files.
        remote_code: Whether to include the model's Python files.

    Examples:
        >>> needed_names(["config.json", "README.md", "model.safetensors", "optimizer.pt", "m.h5"])
        ('config.json', 'model.safetensors')
    """
    names_present = set(names)
    weight_files = weight_names(names_present) if weights else ()
    single_files = {name for name, _ in _WHOLE_OR_SHARDS}
    # An index says which shard holds a tensor. For a single file it is of no use.
    index_files = {_INDEX[Path(name).suffix] for name in weight_files if name not in single_files}
    small_files = {
        name
        for name in names_present
        if (_SMALL_FILES.fullmatch(name) and not name.endswith(".index.json"))
        or (remote_code and _READ_BY_PYTHON.fullmatch(name))
    }
    return tuple(sorted({*weight_files, *small_files, *(index_files & names_present)}))


def has_tokenizer(names: Iterable[str]) -> bool:
    """Whether the files of a folder include a tokenizer."""
    return not _TOKENIZER_FILES.isdisjoint(names)


def files_identity(files: Sequence[WeightFile], config_oid: str) -> str:
    """Hash the weight files' names and SHA-256s together with the git hash of `config.json`.

    The settings are included, since the same weights give other activations with, for example,
    another rotary base. The git hash is what the hub publishes for a small file.
    """
    # Sorted, since the hub and the disk list files in different orders.
    rows = sorted((file.name, file.sha256) for file in files)
    text = json.dumps(["files", rows, config_oid])
    return hashlib.sha256(text.encode()).hexdigest()


def folder_files(folder: Path) -> tuple[WeightFile, ...]:
    """Return the weight files of a folder, with their hashes.

    A file is hashed again only when its size or time of change differs. In the hub's cache a file's
    name is its SHA-256, so it is not hashed at all.

    Raises:
        ValueError: The folder holds no weights, or shards are missing.
    """
    names = weight_names(path.name for path in folder.iterdir())
    check_weights(names, repr(str(folder)))
    return tuple(
        WeightFile(name, (folder / name).stat().st_size, file_sha256(folder / name))
        for name in names
    )


def check_weights(names: Sequence[str], place: str) -> None:
    """Check that there are weights, and that no shard is missing.

    Raises:
        ValueError: There are no weights, or shards are missing.
    """
    if not names:
        raise ValueError(
            f"No weights in {place}. Weights are in model.safetensors, pytorch_model.bin or shards "
            "of these. Name a folder that a model was saved to."
        )
    if not are_complete(names):
        raise ValueError(
            f"Shards of the weights are missing in {place}, which has {', '.join(names)}. Save or "
            "download it again."
        )


def check_folder(folder: Path) -> None:
    """Check that a model was saved to a folder, without opening the weights.

    Raises:
        ValueError: `config.json` or weights are missing.
    """
    names = [path.name for path in folder.iterdir()]
    check_weights(weight_names(names), repr(str(folder)))
    if "config.json" not in names:
        raise ValueError(
            f"No config.json in {str(folder)!r}, so the model's architecture is unknown. "
            "Save it there with `model.config.save_pretrained`."
        )


_FILE_HASHES: dict[tuple[str, int, int], str] = {}


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    resolved = path.resolve()
    # The hub's cache names a file in LFS by its SHA-256.
    if resolved.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", resolved.name):
        return resolved.name
    file_stat = resolved.stat()
    key = (str(resolved), file_stat.st_size, file_stat.st_mtime_ns)
    if key not in _FILE_HASHES:
        with resolved.open("rb") as stream:
            _FILE_HASHES[key] = hashlib.file_digest(stream, "sha256").hexdigest()
    return _FILE_HASHES[key]


def git_oid(content: bytes) -> str:
    """Return the hash that git, and therefore the hub, gives to a small file."""
    # Git uses SHA-1. Some builds of Python refuse it unless it protects nothing.
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def model_identity(model: Any) -> str:
    """Hash the parameters' bytes and the settings of a model in memory.

    The hash is computed anew at each call, since the model may be in training.

    Args:
        model: A Hugging Face model or a hooked model.
    """
    digest = hashlib.sha256(b"memory")
    module: nn.Module = model
    for name, tensor in sorted(module.state_dict().items()):
        # A module may keep other state beside its tensors.
        if not isinstance(tensor, torch.Tensor):
            continue
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        # As bytes, since numpy has no bfloat16. A tensor without axes cannot be viewed as bytes.
        flat = tensor.detach().to("cpu").contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    digest.update(_settings_text(model).encode())
    return digest.hexdigest()


def _settings_text(model: Any) -> str:
    settings = getattr(model, "config", None) or getattr(model, "cfg", None)
    to_dict = getattr(settings, "to_dict", None)
    all_settings = to_dict() if callable(to_dict) else vars(settings)
    # The model's folder and the release that wrote it do not change what it computes.
    irrelevant = {"_name_or_path", "transformers_version", "device", "n_devices", "model_name"}
    relevant_settings = {key: value for key, value in all_settings.items() if key not in irrelevant}
    return json.dumps(relevant_settings, sort_keys=True, default=str)
