"""Runs a forward pass that fires hook points and computes nothing after the blocks.

It computes neither the unembedding, which costs as much as several blocks of a small model, nor a
key-value cache. A `HookedTransformer` stops at a layer. A `TransformerBridge` and a `PlainModel`
have a Hugging Face model inside, whose `base_model` ends before the unembedding.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from tlens_trust.checkpoints.hooked_model import HookedModel
from tlens_trust.checkpoints.plain_model import PlainModel


class AllSitesRead(Exception):  # noqa: N818  (nothing went wrong)
    """Raised by a hook to end the forward pass early; `run_blocks` catches it."""


def run_blocks(
    model: HookedModel,
    tokens: Int[Tensor, "batch pos"],
    is_token: Bool[Tensor, "batch pos"],
) -> None:
    """Run a model's blocks, without the unembedding, and without gradients.

    The caller places the hooks inside a `with`. A hook may raise `AllSitesRead` to skip the rest of
    the pass, if `can_stop_early` is True.

    Args:
        model: A hooked model.
        tokens: Token ids, padded.
        is_token: False where a token is padding, on either side.
    """
    with torch.no_grad(), suppress(AllSitesRead):
        wrapped = wrapped_model(model)
        if wrapped is None:
            run: Any = model
            run(
                tokens,
                return_type=None,
                stop_at_layer=int(model.cfg.n_layers),
                attention_mask=is_token.long(),
            )
        else:
            body = getattr(wrapped, "base_model", wrapped)
            body(
                input_ids=tokens, attention_mask=is_token.long(), **_extra_arguments(body, is_token)
            )


def wrapped_model(model: HookedModel) -> nn.Module | None:
    """Return the Hugging Face model inside a hooked model; None where there is none."""
    inner_model = (
        model.model if isinstance(model, PlainModel) else getattr(model, "original_model", None)
    )
    return inner_model if isinstance(inner_model, nn.Module) else None


def can_stop_early(model: HookedModel) -> bool:
    """Whether a forward pass may be ended before the last block.

    This is not possible where accelerate moves weights to the GPU before a module runs and away
    after it. If the pass ended in between, the weights would stay there.
    """
    return not getattr(wrapped_model(model), "hf_device_map", None)


@contextmanager
def evaluation_mode(model: HookedModel) -> Iterator[None]:
    """Switch dropout off for the length of a `with`, and then restore each module's mode."""
    module = model if isinstance(model, nn.Module) else wrapped_model(model)
    # Part by part, since a user may keep some of them in evaluation mode while others train.
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
    """Compute a bridge's norms once instead of twice where they have no hooks.

    A bridge's norm computes its scale and its normalised input for two hook points. If no hook
    changed them, it then returns the result of the norm that it wraps, so every norm is computed
    twice. Inside the `with`, norms without hooks return that result at once. It is the same, bit
    for bit. Enter the `with` after all hooks are placed.
    """
    wrapped = wrapped_model(model)
    idle_norms = (
        [] if wrapped is None else [part for part in wrapped.modules() if _is_idle_norm(part)]
    )
    try:
        for norm in idle_norms:
            # The bridge's own __setattr__ would set it on the wrapped norm.
            object.__setattr__(norm, "forward", _forward_of_wrapped(norm))
        yield
    finally:
        for norm in idle_norms:
            vars(norm).pop("forward", None)


def _is_idle_norm(part: nn.Module) -> bool:
    # The function is compared, since a subclass with a forward of its own computes something else.
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
    """Name the places of a model with hook functions that could change what it computes.

    The hooks of three libraries are left out: transformers records outputs through hooks,
    accelerate moves weights, and TransformerLens connects its blocks.
    """
    names = [name for name, point in model.hook_dict.items() if getattr(point, "fwd_hooks", None)]
    module = model if isinstance(model, nn.Module) else wrapped_model(model)
    for name, part in () if module is None else module.named_modules():
        hooks = [*part._forward_hooks.values(), *part._forward_pre_hooks.values()]
        if any(_package(hook) not in _HOOKING_LIBRARIES for hook in hooks):
            names.append(name)
    return names


_HOOKING_LIBRARIES = ("transformers", "accelerate", "transformer_lens")


def _package(hook: Any) -> str:
    # A hook may be an object with `__call__`, whose module is that of its type.
    return str(getattr(hook, "__module__", None) or type(hook).__module__).partition(".")[0]


def input_device(model: HookedModel) -> torch.device:
    """Return the device that the tokens must be on."""
    device = torch.device(getattr(model.cfg, "device", None) or "cpu")
    # "meta" stands for weights that accelerate moves when they are needed. It moves tokens too.
    return torch.device("cpu") if device.type == "meta" else device


def _extra_arguments(body: nn.Module, is_token: Bool[Tensor, "batch pos"]) -> dict[str, Any]:
    forward: Callable[..., Any] = body.forward
    parameters = inspect.signature(forward).parameters
    arguments: dict[str, Any] = {}
    if "use_cache" in parameters:
        # A key-value cache would keep tensors of all positions, and nothing is generated here.
        arguments["use_cache"] = False
    # After padding on the left, a token's index in the row is not its position in the statement.
    # Most models must be given the positions. Those with three-dimensional positions
    # (`get_rope_index`) compute them from the mask.
    if (
        not is_token[:, 0].all()
        and "position_ids" in parameters
        and not hasattr(body, "get_rope_index")
    ):
        # Padding gets position 0, which every model has.
        arguments["position_ids"] = (is_token.long().cumsum(dim=1) - 1).clamp(min=0)
    return arguments
