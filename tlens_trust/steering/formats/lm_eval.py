"""The steering file of lm-evaluation-harness.

    lm_eval --model steered --model_args pretrained=MODEL,steer_path=vector.pt --tasks …

Its `steered` model loads a torch file that maps modules below the model's `base_model` to actions
on their outputs, at all positions. `"add"` adds `steering_coefficient · steering_vector`. `"clamp"`
sets the projection onto the direction to `steering_coefficient`.

The docstring there describes a list, but the code reads a mapping. If it adds to several modules,
all of them get the vector and coefficient of the last one. So a file that adds has one site here.
"""

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from tlens_trust.activations.sites import site_layer
from tlens_trust.files import replaced_file
from tlens_trust.steering.formats.file_paths import path_to_read, path_to_write
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
        path: The file, ending in `.pt`. An existing file is replaced.
        strength: How strongly to steer, in the vector's own length.
        mode: `"add"` or `"clamp"`, as for `steer`.
        module: The name of block `layer` below the model's `base_model`: `"layers.{layer}"` for
            GPT-NeoX, Llama, OLMo and most others, `"h.{layer}"` for GPT-2.
        dtype: The number format of the harness's model, which the vector must match.
        device: The device of the harness's model, since the harness does not move the vector.

    Returns:
        The file.

    Raises:
        ValueError: The harness cannot steer at a site or add at several, or an argument has none
            of the allowed values.
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
                f"lm-evaluation-harness steers the output of a block, and this vector acts at "
                f"{site!r}. Extract it at a layer number, as site=8."
            )
        # The harness clamps the projection to the coefficient itself, in the model's own units.
        norm = float(direction.double().norm())
        steps[module.format(layer=site_layer(site))] = {
            "action": mode,
            # A copy, since `torch.save` writes the whole tensor that a row is a view of.
            "steering_vector": direction.to(device, dtype).clone(),
            "steering_coefficient": float(strength) * (1.0 if mode == "add" else norm),
            "bias": None,
        }
    with replaced_file(path_to_write(path)) as file:
        torch.save(steps, file)
    return Path(path).expanduser()


def read_lm_eval(path: str | os.PathLike[str]) -> tuple[SteeringVector, dict[str, Any]]:
    """Read a steering file of lm-evaluation-harness that adds.

    Args:
        path: The file. Nothing is unpickled except tensors and plain containers.

    Returns:
        The vector, multiplied with its coefficients, so that strength 1 acts as in the harness; and
        the file's coefficients by module.

    Raises:
        ValueError: The file does not exist, holds something else, or does not add.
    """
    place = path_to_read(path)
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
                f"{str(path)!r} does not add a vector to the output of a block, at {module!r}. "
                "Only files that add can be read."
            )
        coefficients[str(module)] = float(step["steering_coefficient"])
        directions.append(step["steering_vector"].float().reshape(-1) * coefficients[str(module)])
        sites.append(f"blocks.{int(layer)}.hook_resid_post")
    vector = SteeringVector(torch.stack(directions), tuple(sites), method="lm-evaluation-harness")
    return vector, coefficients
