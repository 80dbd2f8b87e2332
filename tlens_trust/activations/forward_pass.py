"""The forward pass that fires hook points and computes nothing behind the blocks.

Neither the unembedding, which costs as much as several blocks of a small model, nor a key-value
cache. How far a hooked model can be cut short depends on what it is: a `HookedTransformer` stops
at a layer; what wraps a Hugging Face model (a `TransformerBridge`, or a model that was passed in
as it is) runs that model's `base_model`, which ends before the language-modelling head.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from tlens_trust.checkpoints import HookedModel, PlainModel


class AllSitesRead(Exception):  # noqa: N818  (nothing went wrong)
    """Raised from a hook when what lies behind it is not needed; caught by `run_blocks`."""


def run_blocks(
    model: HookedModel,
    tokens: Int[Tensor, "batch pos"],
    kept: Bool[Tensor, "batch pos"],
) -> None:
    """Run a model's blocks, without the unembedding, and without gradients.

    Hooks are expected to be in place, inside a `with`. One that has no need of the rest of the
    pass may raise `AllSitesRead`, where `can_stop_early` allows.

    Args:
        model: A hooked model.
        tokens: Token ids, padded.
        kept: False where a token is padding, on either side.
    """
    with torch.no_grad(), suppress(AllSitesRead):
        wrapped = wrapped_model(model)
        if wrapped is None:
            run: Any = model
            run(
                tokens,
                return_type=None,
                stop_at_layer=int(model.cfg.n_layers),
                attention_mask=kept.long(),
            )
        else:
            base = getattr(wrapped, "base_model", wrapped)
            base(input_ids=tokens, attention_mask=kept.long(), **_extras(base, kept))


def wrapped_model(model: HookedModel) -> nn.Module | None:
    """The Hugging Face model inside a hooked model; None where there is none inside."""
    inside = (
        model.model if isinstance(model, PlainModel) else getattr(model, "original_model", None)
    )
    return inside if isinstance(inside, nn.Module) else None


def can_stop_early(model: HookedModel) -> bool:
    """Whether a pass may be left in the middle.

    Not where accelerate moves weights in before a module runs and out after it: left in the
    middle, they would stay.
    """
    return not getattr(wrapped_model(model), "hf_device_map", None)


@contextmanager
def evaluation_mode(model: HookedModel) -> Iterator[None]:
    """Dropout off for as long as the `with` lasts; each module's own mode comes back after it."""
    module = model if isinstance(model, nn.Module) else wrapped_model(model)
    modes = [] if module is None else [(part, part.training) for part in module.modules()]
    if module is None or not any(training for _, training in modes):
        yield
        return
    try:
        module.eval()
        yield
    finally:
        for part, training in modes:
            part.training = training


@contextmanager
def without_idle_norms(model: HookedModel) -> Iterator[None]:
    """Spare a bridge the work that its norms do for hooks that nobody has placed.

    A bridge's norm computes its scale and its normalised input for two hook points, and then, if
    no hook changed them, gives what the wrapped norm gives: every norm is computed twice. For as
    long as the `with` lasts, norms without any hook give the wrapped norm's result straight away,
    the same to the bit. To be entered with all hooks in place.
    """
    wrapped = wrapped_model(model)
    idle = [] if wrapped is None else [part for part in wrapped.modules() if _is_idle_norm(part)]
    try:
        for norm in idle:
            # Past the bridge's own __setattr__, which would set it on the wrapped norm.
            object.__setattr__(norm, "forward", _forward_of_wrapped(norm))
        yield
    finally:
        for norm in idle:
            vars(norm).pop("forward", None)


def _is_idle_norm(part: nn.Module) -> bool:
    if type(part).forward.__qualname__ != "NormalizationBridge.forward":
        return False
    return bool(getattr(part, "use_native_layernorm_autograd", False)) and not any(
        point._forward_hooks or point._backward_hooks or point._forward_pre_hooks
        for point in part.children()
        if hasattr(point, "fwd_hooks")
    )


def _forward_of_wrapped(norm: Any) -> Callable[..., Tensor]:
    def forward(hidden_states: Tensor, **kwargs: Any) -> Tensor:
        result: Tensor = norm.original_component(hidden_states)
        return result.to(hidden_states.dtype)

    return forward


def attached_hooks(model: HookedModel) -> list[str]:
    """Where functions hang on a model that could change what it computes.

    The libraries' own do not count: transformers records outputs through hooks, accelerate moves
    weights, and TransformerLens wires its blocks.
    """
    found = [name for name, point in model.hook_dict.items() if getattr(point, "fwd_hooks", None)]
    module = model if isinstance(model, nn.Module) else wrapped_model(model)
    for name, part in () if module is None else module.named_modules():
        hooks = [*part._forward_hooks.values(), *part._forward_pre_hooks.values()]
        if any(_package(hook) not in _HOOKING_LIBRARIES for hook in hooks):
            found.append(name)
    return found


_HOOKING_LIBRARIES = ("transformers", "accelerate", "transformer_lens")


def _package(hook: Any) -> str:
    return str(getattr(hook, "__module__", None) or type(hook).__module__).partition(".")[0]


def input_device(model: HookedModel) -> torch.device:
    """The device that takes the tokens."""
    device = torch.device(getattr(model.cfg, "device", None) or "cpu")
    # Weights that accelerate keeps elsewhere between their turns; it moves the tokens too.
    return torch.device("cpu") if device.type == "meta" else device


def _extras(base: nn.Module, kept: Bool[Tensor, "batch pos"]) -> dict[str, Any]:
    forward: Callable[..., Any] = base.forward
    known = inspect.signature(forward).parameters
    extras: dict[str, Any] = {}
    if "use_cache" in known:
        extras["use_cache"] = False
    # Behind padding, a token's place in the row is not its place in the statement. Most models
    # have to be told; those that count in three dimensions (`get_rope_index`) work it out from
    # the mask.
    if not kept[:, 0].all() and "position_ids" in known and not hasattr(base, "get_rope_index"):
        extras["position_ids"] = (kept.long().cumsum(dim=1) - 1).clamp(min=0)
    return extras
