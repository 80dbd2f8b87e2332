"""Whether a vector fits a model: its width, its sites, and the run it comes from."""

from pathlib import PurePosixPath
from typing import Any

from tlens_trust.activations.forward_pass import wrapped_model
from tlens_trust.activations.sites import ModelShape, resolve_sites, split_site
from tlens_trust.checkpoints.families import parse_revision
from tlens_trust.checkpoints.hooked_model import HookedModel
from tlens_trust.checkpoints.plain_model import PlainModel
from tlens_trust.steering.vector import SteeringVector

OTHER_MODEL = ("warn", "allow", "refuse")
_AS_WIDE_AS_THE_MODEL = (
    "hook_resid_pre",
    "hook_resid_mid",
    "hook_resid_post",
    "hook_attn_out",
    "hook_mlp_out",
)


def check_fits(vector: SteeringVector, model: HookedModel, *, other_model: str) -> str | None:
    """See whether a vector can steer a model.

    Args:
        vector: The vector.
        model: The model.
        other_model: `"warn"`, `"allow"` or `"refuse"`, where the vector is of another run.

    Returns:
        What to warn of; None where there is nothing.

    Raises:
        ValueError: The vector is of another width, has a site that the model lacks or that cannot
            be written to, or is of another run and that is refused.
    """
    check_other_model(other_model)
    cfg: Any = model.cfg
    name = ModelShape.of(model).name
    hooks = [split_site(site) for site in vector.sites]
    for hook, head in hooks:
        last = hook.rpartition(".")[2]
        if head is None and last in _AS_WIDE_AS_THE_MODEL:
            kind, width = "d_model", int(cfg.d_model)
        elif head is not None and last == "hook_z":
            kind, width = "d_head", int(cfg.d_head)
        else:
            continue
        if vector.width != width:
            raise ValueError(
                f"This steering vector has {kind}={vector.width}, but {name!r} has {kind}={width}. "
                "Extract it from a checkpoint of the model it will steer."
            )
    for site in vector.sites:
        resolve_sites(model, site)
    for hook, _ in hooks:
        _check_writable(hook, model, name)
    if other_model == "allow" or vector.model is None:
        return None
    own, others = run_name(vector.model), run_name(name)
    if own == others:
        return None
    said = (
        f"This steering vector comes from {vector.model!r}, and {name!r} is another model, whose "
        "activations may mean something else though they are as wide."
    )
    if other_model == "refuse":
        raise ValueError(f"{said} Extract it from a checkpoint of {name!r}.")
    return (
        f"{said} Where one was trained further from the other that is the experiment: say so with "
        "other_model='allow'."
    )


def check_other_model(other_model: str) -> None:
    """Refuse what `steer` does not take.

    Raises:
        ValueError: It is none of `OTHER_MODEL`.
    """
    if other_model not in OTHER_MODEL:
        raise ValueError(f"`other_model` is 'warn', 'allow' or 'refuse', got {other_model!r}.")


def run_name(model: str) -> str:
    """What a model id, a folder or a path is called, its owner and its checkpoint's name left out.

    Two runs in folders of one name are taken for one: a run that was downloaded or moved has to be
    known again in its new place, and a loaded model tells no more of where it lay than this name.

    Examples:
        >>> run_name("EleutherAI/pythia-160m"), run_name("/data/toy/step512")
        ('pythia-160m', 'toy')
    """
    parts = [part for part in PurePosixPath(model.replace("\\", "/")).parts if part != "/"]
    while len(parts) > 1 and (parse_revision(parts[-1]) or _is_commit(parts[-1])):
        parts.pop()
        if len(parts) > 1 and parts[-1] == "snapshots":
            parts.pop()
    return parts[-1].rpartition("--")[2] if parts else model


def _is_commit(name: str) -> bool:
    return len(name) == 40 and set(name) <= set("0123456789abcdef")


def _check_writable(hook: str, model: HookedModel, name: str) -> None:
    # Where a model is read through the modules of another library, nothing computes the middle of
    # the residual stream: the name stands for the input of the norm before the MLP.
    if not hook.endswith("hook_resid_mid") or wrapped_model(model) is None:
        return
    point = getattr(model.hook_dict[hook], "name", None) or ""
    if point == hook and not isinstance(model, PlainModel):
        return
    raise ValueError(
        f"{hook!r} of {name!r} can be read, but an edit there would reach the MLP and not the "
        "residual stream. Steer 'hook_attn_out' of the same block, or 'hook_resid_post'."
    )
