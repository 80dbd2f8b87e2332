"""The file that lm-evaluation-harness steers by.

    lm_eval --model steered --model_args pretrained=MODEL,steer_path=vector.pt --tasks …

Its `steered` model loads a torch file that maps a module below the model's `base_model` to what is
to be done to its output, at all positions: `"add"` adds `steering_coefficient · steering_vector`,
`"clamp"` sets the projection onto the direction to `steering_coefficient`.

Its code (not its docstring, which tells of a list) reads a mapping, and gives every module the
vector and coefficient of the last one where several are added to. So a file of ours that adds
holds one site.
"""

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from tlens_trust.activations.sites import site_layer
from tlens_trust.files import replaced_file
from tlens_trust.steering.formats.places import existing, writable
from tlens_trust.steering.vector import SteeringVector

_ACTIONS = ("add", "clamp")


def write_lm_eval(
    vector: SteeringVector,
    path: str | os.PathLike[str],
    *,
    strength: float | int,
    mode: str = "add",
    module: str = "layers.{layer}",
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> Path:
    """Write a vector as a steering file for lm-evaluation-harness.

    Args:
        vector: Directions of the residual stream after blocks.
        path: Where to, ending in `.pt`; an existing file is replaced.
        strength: How much, in the vector's own length.
        mode: `"add"` or `"clamp"`, as `steer` has them.
        module: Where block `layer` lies below the model's `base_model`: `"layers.{layer}"` for
            GPT-NeoX, Llama, OLMo and most others, `"h.{layer}"` for GPT-2.
        dtype: What the harness's model computes in, which the vector must match.
        device: Where the harness's model lies, since the harness does not move the vector.

    Returns:
        The file.

    Raises:
        ValueError: A site is none that the harness can steer, several are to be added to, or an
            argument is none of those allowed.
    """
    if mode not in _ACTIONS:
        raise ValueError(
            f"lm-evaluation-harness knows the actions 'add' and 'clamp', got mode={mode!r}."
        )
    if "{layer}" not in module:
        raise ValueError(f"`module` says where block {{layer}} lies, got {module!r}.")
    if Path(path).suffix not in (".pt", ".pth"):
        raise ValueError(
            f"lm-evaluation-harness goes by the file's ending, got {str(path)!r}. Let it be .pt."
        )
    if mode == "add" and len(vector.sites) > 1:
        raise ValueError(
            f"lm-evaluation-harness would add the direction of the last site at all "
            f"{len(vector.sites)} of them. Write one site, with `vector.select(…)`."
        )
    steps: dict[str, dict[str, Any]] = {}
    for site, direction in zip(vector.sites, vector.values, strict=True):
        if not site.endswith(".hook_resid_post"):
            raise ValueError(
                f"lm-evaluation-harness steers what a block puts out, and this vector acts at "
                f"{site!r}. Extract it at a layer number, as site=8."
            )
        norm = float(direction.double().norm())
        steps[module.format(layer=site_layer(site))] = {
            "action": mode,
            "steering_vector": direction.to(device, dtype).clone(),
            "steering_coefficient": float(strength) * (1.0 if mode == "add" else norm),
            "bias": None,
        }
    with replaced_file(writable(path)) as file:
        torch.save(steps, file)
    return Path(path).expanduser()


def read_lm_eval(path: str | os.PathLike[str]) -> tuple[SteeringVector, dict[str, Any]]:
    """Read a steering file of lm-evaluation-harness that adds.

    Args:
        path: The file. Nothing is unpickled but tensors and plain containers.

    Returns:
        The vector, coefficients multiplied in, so that strength 1 does what the harness does; and
        the file's own coefficients by module.

    Raises:
        ValueError: The file is not there, holds something else, or does anything but add.
    """
    place = existing(path)
    try:
        steps = torch.load(place, weights_only=True, map_location="cpu")
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{str(path)!r} holds more than tensors, or is no torch file: refused. ({error})"
        ) from error
    if not isinstance(steps, dict) or not steps:
        raise ValueError(f"{str(path)!r} maps no module to a steering vector.")
    directions, sites, coefficients = [], [], {}
    for module, step in steps.items():
        layer = str(module).rpartition(".")[2]
        if not isinstance(step, dict) or step.get("action") != "add" or not layer.isdigit():
            raise ValueError(
                f"{str(path)!r} does something else than to add a vector to a block's output, at "
                f"{module!r}. Only that can be read."
            )
        coefficients[str(module)] = float(step["steering_coefficient"])
        directions.append(step["steering_vector"].float().reshape(-1) * coefficients[str(module)])
        sites.append(f"blocks.{int(layer)}.hook_resid_post")
    vector = SteeringVector(torch.stack(directions), tuple(sites), method="lm-evaluation-harness")
    return vector, coefficients
