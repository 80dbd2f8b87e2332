"""The part of a hooked model that this package relies on."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class HookedModel(Protocol):
    """Whatever TransformerLens gives: a `HookedTransformer` or a `TransformerBridge`.

    Code is typed against this protocol and never against a class. `PlainModel` satisfies it too.
    """

    @property
    def cfg(self) -> Any:
        """Shape and place.

        `n_layers`, `d_model`, `n_heads`, `d_head`, `n_ctx`, `d_vocab`, `device`, `model_name`.
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
    """The tokenizer as it was published, before TransformerLens set it to add a BOS token.

    TransformerLens reloads a tokenizer with `add_bos_token=True`, also for models that were
    trained without. `Checkpoint.load` keeps the untouched one beside the model. A model that the
    user built with TransformerLens has lost it: then this is `model.tokenizer`, and `own_bos` says
    what the model's settings ask for.

    Args:
        model: A hooked model.

    Returns:
        A tokenizer from transformers, or None where the model has none.
    """
    kept = getattr(model, "own_tokenizer", None)
    return model.tokenizer if kept is None else kept


def own_bos(model: HookedModel) -> bool | None:
    """Whether a BOS token stands before a text by the model's own setting.

    Args:
        model: A hooked model.

    Returns:
        None where `own_tokenizer(model)` decides by itself: for every model that this package
        loaded, and for plain Hugging Face models. For a model that the user built with
        TransformerLens, `model.cfg.default_prepend_bos`, which is what its `to_tokens` follows.
    """
    if getattr(model, "own_tokenizer", None) is not None:
        return None
    setting = getattr(model.cfg, "default_prepend_bos", None)
    return None if setting is None else bool(setting)
