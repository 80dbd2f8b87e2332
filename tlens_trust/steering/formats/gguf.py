"""llama.cpp's control vectors.

A control vector is a GGUF file of the architecture `controlvector`. It holds one float32 tensor per
layer, named `direction.{layer}`. llama.cpp multiplies it with a scale and adds it to the output of
block `layer`, counted from 0. So `direction.{layer}` corresponds to
`blocks.{layer}.hook_resid_post`, with the same sign. There is never one for block 0: the loader of
llama.cpp refuses that name.

    llama-cli -m model.gguf --control-vector-scaled vector.gguf:1.5

acts as `steer(model, vector, strength=1.5)`, at all positions.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tlens_trust.activations.sites import site_layer
from tlens_trust.files import replaced_file
from tlens_trust.steering.formats.file_paths import path_to_read, path_to_write
from tlens_trust.steering.vector import SteeringVector

_ARCHITECTURE = "controlvector"
_TENSOR = "direction."
# The prefix of the keys that only this package writes.
_PREFIX = "tlens_trust."


def write_gguf(
    vector: SteeringVector, path: str | os.PathLike[str], *, model_hint: str | None = None
) -> Path:
    """Write a vector as a control vector for llama.cpp.

    Args:
        vector: Directions of the residual stream after blocks, from block 1 on.
        path: The file. An existing file is replaced.
        model_hint: llama.cpp's name of the architecture, as `llama` or `gptneox`, which the format
            can record.

    Returns:
        The file.

    Raises:
        ValueError: llama.cpp cannot steer at a site.
        ImportError: The extra `gguf` is not installed.
    """
    gguf = _library()
    for site in vector.sites:
        if not site.endswith(".hook_resid_post"):
            raise ValueError(
                f"llama.cpp steers the residual stream after a block, and this vector acts at "
                f"{site!r}. Extract it at a layer number, as site=8."
            )
        if site_layer(site) == 0:
            raise ValueError(
                "llama.cpp cannot steer the output of the first block: its control vectors begin "
                "with block 1. Leave 'blocks.0.hook_resid_post' out, or extract at a later one."
            )
    with replaced_file(path_to_write(path)) as file:
        writer = gguf.GGUFWriter(file, _ARCHITECTURE)
        writer.add_string(f"{_ARCHITECTURE}.model_hint", model_hint or "")
        writer.add_uint32(f"{_ARCHITECTURE}.layer_count", len(vector.sites))
        for key in ("method", "concept", "model", "checkpoint", "identity", "fingerprint"):
            text = getattr(vector, key)
            if text is not None:
                writer.add_string(f"{_PREFIX}{key}", text)
        for key in ("rms", "spread"):
            numbers = [float(number) for number in getattr(vector, key)]
            writer.add_string(f"{_PREFIX}{key}", json.dumps(numbers))
        for layer, direction in sorted(zip(vector.layers, vector.values, strict=True)):
            writer.add_tensor(f"{_TENSOR}{layer}", np.ascontiguousarray(direction.numpy()))
        # The writer insists on this order.
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return Path(path).expanduser()


def read_gguf(path: str | os.PathLike[str]) -> SteeringVector:
    """Read a control vector of this package or of another (repeng, llama.cpp).

    A layer whose direction is all zeros has no effect, and is left out.

    Args:
        path: The file.

    Returns:
        A vector at the residual stream after the blocks that the file names.

    Raises:
        ValueError: The file does not exist, or holds no control vector.
        ImportError: The extra `gguf` is not installed.
    """
    gguf = _library()
    place = path_to_read(path)
    try:
        reader = gguf.GGUFReader(place)
    except (ValueError, IndexError, OSError) as error:
        raise ValueError(f"{str(path)!r} is no GGUF file ({error}).") from error
    fields: dict[str, Any] = {key: field.contents() for key, field in reader.fields.items()}
    directions = {}
    for tensor in reader.tensors:
        layer = tensor.name.removeprefix(_TENSOR)
        if layer != tensor.name and layer.isdigit() and np.any(tensor.data):
            # A copy, since the reader maps the file into memory.
            directions[int(layer)] = torch.from_numpy(np.array(tensor.data, dtype=np.float32))
    architecture = fields.get("general.architecture")
    is_flat = all(direction.ndim == 1 for direction in directions.values())
    if architecture != _ARCHITECTURE or not directions or not is_flat:
        raise ValueError(
            f"{str(path)!r} holds no control vector: its architecture is {architecture!r}, and "
            f"it has {len(directions)} directions. Name a file of the architecture "
            f"{_ARCHITECTURE!r}."
        )
    layers = sorted(directions)
    provenance: dict[str, Any] = {
        key: fields.get(f"{_PREFIX}{key}")
        for key in ("concept", "model", "checkpoint", "identity", "fingerprint")
    }
    # Sizes count only if they are of exactly these layers.
    sizes = {key: json.loads(fields.get(f"{_PREFIX}{key}", "null")) for key in ("rms", "spread")}
    return SteeringVector(
        values=torch.stack([directions[layer] for layer in layers]),
        sites=tuple(f"blocks.{layer}.hook_resid_post" for layer in layers),
        method=fields.get(f"{_PREFIX}method", "control vector"),
        rms=_sizes(sizes["rms"], len(layers)),
        spread=_sizes(sizes["spread"], len(layers)),
        **provenance,
    )


def _sizes(numbers: Any, sites: int) -> torch.Tensor | None:
    return torch.tensor(numbers) if isinstance(numbers, list) and len(numbers) == sites else None


def _library() -> Any:
    try:
        import gguf
    except ImportError as error:
        raise ImportError(
            "Control vectors are written by the package gguf, which is not installed: "
            "pip install 'tlens-trust[gguf]'."
        ) from error
    return gguf
