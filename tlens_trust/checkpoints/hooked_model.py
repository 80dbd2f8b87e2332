"""The protocol that every hooked model satisfies: the part of TransformerLens that is relied on."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class HookedModel(Protocol):
    """A model with hook points: a `HookedTransformer`, a `TransformerBridge` or a `PlainModel`.

    Code is typed against this protocol and never against a class, since which classes there are
    depends on the release of TransformerLens.
    """

    @property
    def cfg(self) -> Any:
        """The model's shape and device.

        It has `n_layers`, `d_model`, `n_heads`, `d_head`, `n_ctx`, `d_vocab`, `device` and
        `model_name`.
        """

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer, which TransformerLens may have set to add a BOS token."""

    @property
    def hook_dict(self) -> dict[str, Any]:
        """Hook points by name."""

    def hooks(
        self, fwd_hooks: Sequence[tuple[str, Callable[[Tensor, Any], Tensor | None]]] = ...
    ) -> AbstractContextManager[Any]:
        """Hooks that live inside a `with`."""


def own_tokenizer(model: HookedModel) -> Any:
    """Return the tokenizer as it was published, before TransformerLens set it to add a BOS token.

    TransformerLens reloads a tokenizer with `add_bos_token=True`, even for models that were trained
    without a BOS token. So `Checkpoint.load` keeps the published tokenizer beside the model. A
    model that the user built with TransformerLens does not have it. Then this function returns
    `model.tokenizer`, and `own_bos` returns the model's setting.

    Args:
        model: A hooked model.

    Returns:
        A tokenizer from transformers, or None where the model has none.
    """
    published_tokenizer = getattr(model, "own_tokenizer", None)
    return model.tokenizer if published_tokenizer is None else published_tokenizer


def own_bos(model: HookedModel) -> bool | None:
    """Say whether the model's own setting puts a BOS token before a text.

    Args:
        model: A hooked model.

    Returns:
        None where `own_tokenizer(model)` decides it: for every model that this package loaded, and
        for plain Hugging Face models. For a model that the user built with TransformerLens,
        `model.cfg.default_prepend_bos`, which its `to_tokens` follows.
    """
    if getattr(model, "own_tokenizer", None) is not None:
        return None
    setting = getattr(model.cfg, "default_prepend_bos", None)
    return None if setting is None else bool(setting)
