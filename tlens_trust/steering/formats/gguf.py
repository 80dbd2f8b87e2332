"""llama.cpp's control vectors.

A control vector is a GGUF file of the architecture `controlvector` with one float32 tensor a layer,
`direction.{layer}`. llama.cpp adds it, times the scale that it is run with, to what block `layer`
puts out, blocks counted from 0: `direction.{layer}` is our `blocks.{layer}.hook_resid_post`, with
the same sign. There is never one for block 0: its loader refuses that name.

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
from tlens_trust.steering.formats.places import existing, writable
from tlens_trust.steering.vector import SteeringVector

_ARCHITECTURE = "controlvector"
_TENSOR = "direction."
# Nobody else's keys begin so.
_OURS = "tlens_trust."


def write_gguf(
    vector: SteeringVector, path: str | os.PathLike[str], *, model_hint: str | None = None
) -> Path:
    """Write a vector as a control vector for llama.cpp.

    Args:
        vector: Directions of the residual stream after blocks, from block 1 on.
        path: Where to; an existing file is replaced.
        model_hint: llama.cpp's name of the architecture, as `llama` or `gptneox`, for which the
            format has a place.

    Returns:
        The file.

    Raises:
        ValueError: A site is none that llama.cpp can steer.
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
    with replaced_file(writable(path)) as file:
        writer = gguf.GGUFWriter(file, _ARCHITECTURE)
        writer.add_string(f"{_ARCHITECTURE}.model_hint", model_hint or "")
        writer.add_uint32(f"{_ARCHITECTURE}.layer_count", len(vector.sites))
        for key in ("method", "concept", "model", "checkpoint", "identity", "fingerprint"):
            said = getattr(vector, key)
            if said is not None:
                writer.add_string(f"{_OURS}{key}", said)
        for key in ("rms", "spread"):
            numbers = [float(number) for number in getattr(vector, key)]
            writer.add_string(f"{_OURS}{key}", json.dumps(numbers))
        for layer, direction in sorted(zip(vector.layers, vector.values, strict=True)):
            writer.add_tensor(f"{_TENSOR}{layer}", np.ascontiguousarray(direction.numpy()))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return Path(path).expanduser()


def read_gguf(path: str | os.PathLike[str]) -> SteeringVector:
    """Read a control vector, ours or another's (repeng's, llama.cpp's own).

    A layer whose direction is all zeros does nothing, and is left out.

    Args:
        path: The file.

    Returns:
        A vector at the residual stream after the blocks that the file names.

    Raises:
        ValueError: The file is not there, or holds no control vector.
        ImportError: The extra `gguf` is not installed.
    """
    gguf = _library()
    place = existing(path)
    try:
        reader = gguf.GGUFReader(place)
    except (ValueError, IndexError, OSError) as error:
        raise ValueError(f"{str(path)!r} is no GGUF file ({error}).") from error
    fields: dict[str, Any] = {key: field.contents() for key, field in reader.fields.items()}
    found = {}
    for tensor in reader.tensors:
        layer = tensor.name.removeprefix(_TENSOR)
        if layer != tensor.name and layer.isdigit() and np.any(tensor.data):
            found[int(layer)] = torch.from_numpy(np.array(tensor.data, dtype=np.float32))
    architecture = fields.get("general.architecture")
    if architecture != _ARCHITECTURE or not found or any(x.ndim != 1 for x in found.values()):
        raise ValueError(
            f"{str(path)!r} holds no control vector: its architecture is {architecture!r}, and "
            f"it has {len(found)} directions. Name a file of the architecture {_ARCHITECTURE!r}."
        )
    layers = sorted(found)
    kept: dict[str, Any] = {
        key: fields.get(f"{_OURS}{key}")
        for key in ("concept", "model", "checkpoint", "identity", "fingerprint")
    }
    # Of layers that are left out we know nothing either.
    sizes = {key: json.loads(fields.get(f"{_OURS}{key}", "null")) for key in ("rms", "spread")}
    return SteeringVector(
        values=torch.stack([found[layer] for layer in layers]),
        sites=tuple(f"blocks.{layer}.hook_resid_post" for layer in layers),
        method=fields.get(f"{_OURS}method", "control vector"),
        rms=_sizes(sizes["rms"], len(layers)),
        spread=_sizes(sizes["spread"], len(layers)),
        **kept,
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
