"""The part of a hooked model that this package relies on."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class HookedModel(Protocol):
    """Whatever TransformerLens gives: a `HookedTransformer` or a `TransformerBridge`.

    Code is typed against this protocol and never against a class.
    """

    @property
    def cfg(self) -> Any:
        """`n_layers`, `d_model`, `n_heads`, `d_head`, `n_ctx`, `d_vocab`, `device`, `model_name`."""

    @property
    def tokenizer(self) -> Any:
        """The model's own tokenizer."""

    @property
    def hook_dict(self) -> dict[str, Any]:
        """Hook points by name."""

    def hooks(
        self, fwd_hooks: Sequence[tuple[str, Callable[[Tensor, Any], Tensor | None]]] = ...
    ) -> AbstractContextManager[Any]:
        """Hooks that live inside a `with`."""
