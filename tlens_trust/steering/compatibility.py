"""Whether a vector is compatible with a model: its width, its sites, and the run it is from."""

from pathlib import PurePosixPath
from typing import Any

from tlens_trust.activations.forward_pass import wrapped_model
from tlens_trust.activations.sites import ModelShape, resolve_sites, split_site
from tlens_trust.checkpoints.families import parse_revision
from tlens_trust.checkpoints.hooked_model import HookedModel
from tlens_trust.checkpoints.plain_model import PlainModel
from tlens_trust.steering.vector import SteeringVector

OTHER_MODEL = ("warn", "allow", "refuse")
# Sites whose width is known without running the model. That of others is compared when their hook
# first fires.
_WIDTH_OF_MODEL = (
    "hook_resid_pre",
    "hook_resid_mid",
    "hook_resid_post",
    "hook_attn_out",
    "hook_mlp_out",
)


def check_fits(vector: SteeringVector, model: HookedModel, *, other_model: str) -> str | None:
    """Check whether a vector can steer a model.

    Args:
        vector: The vector.
        model: The model.
        other_model: `"warn"`, `"allow"` or `"refuse"`: what to do if the vector is from another
            run.

    Returns:
        The text of a warning, or None.

    Raises:
        ValueError: The vector has another width, has a site that the model lacks or that cannot be
            written to, or is from another run and that is refused.
    """
    check_other_model(other_model)
    cfg: Any = model.cfg
    name = ModelShape.of(model).name
    hooks = [split_site(site) for site in vector.sites]
    for hook, head in hooks:
        hook_name = hook.rpartition(".")[2]
        if head is None and hook_name in _WIDTH_OF_MODEL:
            kind, width = "d_model", int(cfg.d_model)
        elif head is not None and hook_name == "hook_z":
            kind, width = "d_head", int(cfg.d_head)
        else:
            continue
        if vector.width != width:
            raise ValueError(
                f"This steering vector has {kind}={vector.width}, but {name!r} has {kind}={width}. "
                "Extract it from a checkpoint of the model it will steer."
            )
    # Resolving a site raises an error where the model lacks it.
    for site in vector.sites:
        resolve_sites(model, site)
    for hook, _ in hooks:
        _check_writable(hook, model, name)
    if other_model == "allow" or vector.model is None:
        return None
    if run_name(vector.model) == run_name(name):
        return None
    finding = (
        f"This steering vector comes from {vector.model!r}, and {name!r} is another model. Its "
        "activations may have another meaning, though they have the same width."
    )
    if other_model == "refuse":
        raise ValueError(f"{finding} Extract it from a checkpoint of {name!r}.")
    return (
        f"{finding} If one was trained further from the other, this is intended: say so with "
        "other_model='allow'."
    )


def check_other_model(other_model: str) -> None:
    """Refuse an unknown value of `other_model`.

    Raises:
        ValueError: It is none of `OTHER_MODEL`.
    """
    if other_model not in OTHER_MODEL:
        raise ValueError(f"`other_model` is 'warn', 'allow' or 'refuse', got {other_model!r}.")


def run_name(model: str) -> str:
    """The name of a run in a model id, a folder or a path, without its owner and checkpoint.

    Two runs in folders of one name count as one run. A run that was downloaded or moved must be
    recognised in its new place, and a loaded model knows no more of its folder than this name.

    Examples:
        >>> run_name("EleutherAI/pythia-160m"), run_name("/data/toy/step512")
        ('pythia-160m', 'toy')
    """
    parts = [part for part in PurePosixPath(model.replace("\\", "/")).parts if part != "/"]
    # Checkpoints are subfolders of their run. In the cache of huggingface_hub, a run lies in
    # `models--OWNER--NAME/snapshots/COMMIT`.
    while len(parts) > 1 and (parse_revision(parts[-1]) or _is_commit(parts[-1])):
        parts.pop()
        if len(parts) > 1 and parts[-1] == "snapshots":
            parts.pop()
    return parts[-1].rpartition("--")[2] if parts else model


def _is_commit(name: str) -> bool:
    # Hub commits are SHA-1 hashes in hexadecimal digits.
    return len(name) == 40 and set(name) <= set("0123456789abcdef")


def _check_writable(hook: str, model: HookedModel, name: str) -> None:
    # In a model whose modules belong to another library, no module computes the middle of the
    # residual stream: the name stands for the input of the norm before the MLP.
    if not hook.endswith("hook_resid_mid") or wrapped_model(model) is None:
        return
    # An alias leads to a hook point with another name. A block that computes the middle of the
    # stream itself has a point of that very name.
    point = getattr(model.hook_dict[hook], "name", None) or ""
    if point == hook and not isinstance(model, PlainModel):
        return
    raise ValueError(
        f"{hook!r} of {name!r} can be read, but an edit there would reach only the MLP and not "
        "the residual stream. Steer 'hook_attn_out' of the same block, or 'hook_resid_post'."
    )
