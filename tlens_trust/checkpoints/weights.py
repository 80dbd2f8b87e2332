"""Which files hold a checkpoint's weights, and the hash that tells them from any others."""

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
    """The files that a model is loaded from, among the files of its folder.

    Safetensors are preferred; of two formats only one is named. Shards come in order.

    Args:
        names: Names of the files at the folder's top.

    Returns:
        Empty where there are no weights.

    Examples:
        >>> weight_names(["config.json", "pytorch_model.bin", "model.safetensors"])
        ('model.safetensors',)
        >>> weight_names(["README.md"])
        ()
    """
    present = set(names)
    for whole, shard in _WHOLE_OR_SHARDS:
        if whole in present:
            return (whole,)
        shards = sorted(name for name in present if shard.fullmatch(name))
        if shards:
            return tuple(shards)
    return ()


def are_complete(weights: Sequence[str]) -> bool:
    """Whether all shards are there that the shards' own names tell of.

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
    return bool(weights) and totals <= {len(weights)}


def needed_names(
    names: Iterable[str], *, weights: bool = True, remote_code: bool = False
) -> tuple[str, ...]:
    """The files that loading a checkpoint reads: weights, settings, tokenizer.

    Args:
        names: Names of the files at the folder's top.
        weights: Whether the weights are wanted too, and not the small files alone.
        remote_code: Whether the model's own Python files are wanted.

    Examples:
        >>> needed_names(["config.json", "README.md", "model.safetensors", "optimizer.pt", "m.h5"])
        ('config.json', 'model.safetensors')
    """
    present = set(names)
    heavy = weight_names(present) if weights else ()
    whole = {name for name, _ in _WHOLE_OR_SHARDS}
    index = {_INDEX[Path(name).suffix] for name in heavy if name not in whole}
    wanted = {
        name
        for name in present
        if (_SMALL_FILES.fullmatch(name) and not name.endswith(".index.json"))
        or (remote_code and _READ_BY_PYTHON.fullmatch(name))
    }
    return tuple(sorted({*heavy, *wanted, *(index & present)}))


def has_tokenizer(names: Iterable[str]) -> bool:
    """Whether a tokenizer lies among the files of a folder."""
    return not _TOKENIZER_FILES.isdisjoint(names)


def files_identity(files: Sequence[WeightFile], config_oid: str) -> str:
    """SHA-256 over the weight files' names and SHA-256s and the git hash of `config.json`.

    The settings belong to it because the same weights read with another rotary base, say, give
    other activations. The git hash is what the hub knows of a small file without a download.
    """
    rows = sorted((file.name, file.sha256) for file in files)
    text = json.dumps(["files", rows, config_oid])
    return hashlib.sha256(text.encode()).hexdigest()


def folder_files(folder: Path) -> tuple[WeightFile, ...]:
    """The weight files of a folder, with their hashes.

    A file is read once for each state of it (path, size, time of last change). In the hub's cache
    the blob that a name points at is called by its SHA-256, so that nothing is read.

    Raises:
        ValueError: The folder holds no weights, or not all of their shards.
    """
    names = weight_names(path.name for path in folder.iterdir())
    check_weights(names, repr(str(folder)))
    return tuple(
        WeightFile(name, (folder / name).stat().st_size, file_sha256(folder / name))
        for name in names
    )


def check_weights(names: Sequence[str], where: str) -> None:
    """Refuse weights that are not there or not all there.

    Raises:
        ValueError: There are none, or shards are missing.
    """
    if not names:
        raise ValueError(
            f"No weights in {where}: model.safetensors, pytorch_model.bin or shards of these are "
            "looked for. Name a folder that a model was saved to."
        )
    if not are_complete(names):
        raise ValueError(
            f"Shards of the weights are missing in {where}, which has {', '.join(names)}. Save or "
            "download it again."
        )


def check_folder(folder: Path) -> None:
    """Refuse a folder that no model was saved to, without reading the weights.

    Raises:
        ValueError: `config.json` or weights are missing.
    """
    names = [path.name for path in folder.iterdir()]
    check_weights(weight_names(names), repr(str(folder)))
    if "config.json" not in names:
        raise ValueError(
            f"No config.json in {str(folder)!r}, so that the model's architecture is unknown. "
            "Save it there with `model.config.save_pretrained`."
        )


_FILE_HASHES: dict[tuple[str, int, int], str] = {}


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    real = path.resolve()
    if real.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", real.name):
        return real.name
    state = real.stat()
    key = (str(real), state.st_size, state.st_mtime_ns)
    if key not in _FILE_HASHES:
        with real.open("rb") as stream:
            _FILE_HASHES[key] = hashlib.file_digest(stream, "sha256").hexdigest()
    return _FILE_HASHES[key]


def git_oid(content: bytes) -> str:
    """The hash by which git, and the hub, know a small file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def model_identity(model: Any) -> str:
    """SHA-256 of the parameters' bytes and the settings of a model in memory.

    Computed anew each time, since a model in memory may be in training.

    Args:
        model: A Hugging Face model or a hooked model.
    """
    digest = hashlib.sha256(b"memory")
    module: nn.Module = model
    for name, tensor in sorted(module.state_dict().items()):
        if not isinstance(tensor, torch.Tensor):
            continue
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        flat = tensor.detach().to("cpu").contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    digest.update(_settings_text(model).encode())
    return digest.hexdigest()


def _settings_text(model: Any) -> str:
    settings = getattr(model, "config", None) or getattr(model, "cfg", None)
    to_dict = getattr(settings, "to_dict", None)
    known = to_dict() if callable(to_dict) else vars(settings)
    # Where a model lies and which release wrote it say nothing of what it computes.
    passing = {"_name_or_path", "transformers_version", "device", "n_devices", "model_name"}
    kept = {key: value for key, value in known.items() if key not in passing}
    return json.dumps(kept, sort_keys=True, default=str)
