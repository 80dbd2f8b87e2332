"""Next-token distributions of a model, steered or not."""

import inspect
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tlens_trust.activations.forward_pass import wrapped_model
from tlens_trust.checkpoints.hooked_model import HookedModel


def read_logits(
    model: HookedModel,
    tokens: Int[Tensor, "batch pos"],
    kept: Bool[Tensor, "batch pos"],
    *,
    first: int = 0,
) -> Float[Tensor, "batch predicted d_vocab"]:
    """Run a whole model, hooks and all, without gradients and without a cache.

    Args:
        model: A hooked model, in evaluation mode.
        tokens: Token ids, padded at the right.
        kept: False where a token is padding.
        first: The first token whose successor is to be predicted; those before it are not
            unembedded, where the model lets itself be told so.

    Returns:
        Logits of the token after each one from the first on, on the model's device.
    """
    with torch.no_grad():
        wrapped = wrapped_model(model)
        if wrapped is None:
            run: Any = model
            logits: Tensor = run(tokens, return_type="logits", attention_mask=kept.long())
            return logits[:, first:]
        known = inspect.signature(wrapped.forward).parameters
        extras: dict[str, Any] = {"use_cache": False} if "use_cache" in known else {}
        narrow = first > 0 and "logits_to_keep" in known
        if narrow:
            extras["logits_to_keep"] = torch.arange(first, tokens.shape[1], device=tokens.device)
        logits = wrapped(input_ids=tokens, attention_mask=kept.long(), **extras).logits
        return logits if narrow else logits[:, first:]
