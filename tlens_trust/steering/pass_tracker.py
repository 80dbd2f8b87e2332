"""The forward pass that is running: which columns it processes, and where the prompt ended.

A hook point receives a tensor, without its context. The context comes from the model's input:

- of a Hugging Face model (the one that a bridge wraps, or a plain one), from a forward pre-hook
  that receives token ids, attention mask and key-value cache;

- of a `HookedTransformer`, from hooks on the embedding and on the steered blocks, because its
  `generate` embeds tokens itself and passes embeddings to the blocks.

Nothing is wrapped or replaced, and nothing is guessed from shapes.

The end of the prompt is decided in this order.

1. Inside `with steering.prompt(lengths)` it is where the user says.

2. In a call of the model's own `generate` (a bridge's, a `HookedTransformer`'s, Hugging Face's, or
   one that streams), the first forward pass processes the prompt. All later tokens are generated.
   The call stack shows that a pass belongs to such a call. The tensors cannot show it: without a
   cache, `generate` processes longer and longer texts, and so does a user who scores them.

3. In any other pass without a cache, the whole input is the prompt. With a cache, the prompt is
   what the cache held when it was first seen, or the first input to an empty cache. Later input
   counts as generated.

So the role of a token never depends on other passes in the same `with`.
"""

import inspect
import operator
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from types import CodeType, FrameType
from typing import Any
from weakref import ref

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from tlens_trust.activations.forward_pass import wrapped_model
from tlens_trust.checkpoints.hooked_model import HookedModel, own_tokenizer
from tlens_trust.steering.steered_positions import Layout

# Methods that generate text, and the loops inside them that run on when a generator is resumed.
_GENERATING = ("generate", "generate_stream", "hf_generate", "_generate_tokens")


class PassTracker:
    """Follows the forward passes of a model while hooks are in place.

    Attributes:
        layout: The layout of the current pass; None before the first.
        number: The number of the current pass.
    """

    def __init__(self, model: HookedModel) -> None:
        self._model = model
        self._wrapped = wrapped_model(model)
        kinds: list[Any] = [type(model), type(self._wrapped)]
        self._codes = _generating_code(*kinds)
        self._pad = getattr(own_tokenizer(model), "pad_token_id", None)
        if self._pad is None:
            self._pad = getattr(model.tokenizer, "pad_token_id", None)
        self._run: FrameType | None = None
        self._run_prompt = 0
        # Weak references: the tracker must not keep the memory of a cache that the user dropped.
        self._caches: list[tuple[ref[Any], int]] = []
        self._stated_lengths: Int[Tensor, " batch"] | None = None
        self._inputs: tuple[Any, ...] = ()
        self._ids: Tensor | None = None
        self._ids_run: FrameType | None = None
        self._block = -1
        self.layout: Layout | None = None
        self.number = 0

    @contextmanager
    def following(self, layers: Sequence[int]) -> Iterator[None]:
        """Follow the model's input inside a `with`.

        Args:
            layers: The blocks whose passes are followed.
        """
        handles = []
        try:
            if self._wrapped is None:
                hooked: Any = self._model
                handles.append(hooked.embed.register_forward_pre_hook(self._on_embedding))
                for layer in sorted(set(layers)):
                    watch = partial(self._on_block, layer)
                    block = hooked.blocks[layer]
                    handles.append(block.register_forward_pre_hook(watch, with_kwargs=True))
            else:
                # Some heads call a part of the body, and the body's own hook would not see that.
                parts = {id(part): part for part in (self._wrapped, _body(self._wrapped))}
                for part in parts.values():
                    watch = partial(self._on_model, _places(part))
                    handles.append(part.register_forward_pre_hook(watch, with_kwargs=True))
            yield
        finally:
            for handle in handles:
                handle.remove()
            # A frame keeps all its variables alive, a whole cache among them.
            self._run = self._ids_run = None
            self._inputs, self._ids, self.layout = (), None, None

    @contextmanager
    def prompt(self, lengths: int | Sequence[int] | Int[Tensor, " batch"]) -> Iterator[None]:
        """State where the prompt ends, for the passes in a `with`; see `Steering.prompt`."""
        stated_lengths = torch.as_tensor(lengths).reshape(-1).long()
        if not len(stated_lengths) or bool((stated_lengths < 0).any()):
            raise ValueError(
                f"`lengths` is the number of tokens in a row's prompt, got {lengths!r}. Allowed "
                "are a number that is not negative, or one for each row."
            )
        previous_lengths = self._stated_lengths
        self._stated_lengths = stated_lengths
        try:
            yield
        finally:
            self._stated_lengths = previous_lengths

    def _on_model(
        self,
        places: dict[str, int],
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        ids, embeddings, mask, cache = (
            kwargs[name] if name in kwargs else args[place] if place < len(args) else None
            for name, place in places.items()
        )
        inputs = ids if ids is not None else embeddings
        if inputs is None:
            return
        if not self._is_same((ids, embeddings, mask, cache, self._stated_lengths)):
            self._begin(ids, inputs, mask, cache, _cached(cache))

    def _on_embedding(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        # `HookedTransformer.generate` embeds the prompt and then each token, and passes embeddings
        # on. Their ids are collected here.
        ids = args[0]
        run = self._running()
        if run is not None and run is self._ids_run and ids.shape[1] == 1 and self._ids is not None:
            self._ids = torch.cat([self._ids, ids], dim=1)
        else:
            self._ids, self._ids_run = ids, run

    def _on_block(
        self, layer: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        previous_block, self._block = self._block, layer
        # Blocks run in ascending order, so a block that is not after the last begins a new pass.
        if previous_block < layer and self.number:
            return  # a later block of the same pass
        residual = args[0] if args else kwargs["resid_pre"]
        entry, mask = kwargs.get("past_kv_cache_entry"), kwargs.get("attention_mask")
        ids, columns = self._ids, residual.shape[1]
        # Ids of other rows or of fewer columns were embedded for something else.
        if ids is not None and (len(ids) != len(residual) or ids.shape[1] < columns):
            ids = None
        ids = None if ids is None else ids[:, ids.shape[1] - columns :]
        past = 0 if entry is None else int(entry.past_keys.shape[1])
        self._begin(ids, residual, mask, entry, past)

    def _is_same(self, inputs: tuple[Any, ...]) -> bool:
        """Whether the hooks of model and body report the same pass, one after the other."""
        is_same = len(self._inputs) == len(inputs) and all(map(operator.is_, self._inputs, inputs))
        # Two reports are one pass; a third is another pass over the same tensors.
        self._inputs = () if is_same else inputs
        return is_same

    def _begin(
        self, ids: Tensor | None, inputs: Tensor, mask: Tensor | None, cache: Any, past: int
    ) -> None:
        rows, columns = int(inputs.shape[0]), int(inputs.shape[1])
        run = self._running()
        if run is not None:
            if run is not self._run:
                self._run_prompt = past + columns
            prompt_columns = self._run_prompt
        else:
            prompt_columns = columns if cache is None else self._prompt_in(cache, past, columns)
        self._run = run
        full = _whole_mask(mask, rows, past, columns)
        if mask is None and run is None and not past and ids is not None:
            full = self._without_trailing_padding(ids)
        self.number += 1
        self.layout = Layout(
            shape=(rows, columns),
            full=None if full is None else full.to(inputs.device),
            past=past,
            prompt_columns=prompt_columns,
            stated_lengths=self._checked_lengths(rows),
            tokens=ids,
            device=inputs.device,
        )

    def _prompt_in(self, cache: Any, past: int, columns: int) -> int:
        """Columns of the prompt in a cache: those it held, or first took up, when first seen."""
        # By identity: caches of transformers and TransformerLens define equality differently.
        self._caches = [(entry, prompt) for entry, prompt in self._caches if entry() is not None]
        earlier = [prompt for entry, prompt in self._caches if entry() is cache]
        if not past:
            self._caches = [(entry, n) for entry, n in self._caches if entry() is not cache]
        elif earlier:
            return min(earlier[0], past)
        self._caches.append((ref(cache), past or columns))
        return past or columns

    def _checked_lengths(self, rows: int) -> Int[Tensor, " batch"] | None:
        if self._stated_lengths is not None and len(self._stated_lengths) not in (1, rows):
            raise ValueError(
                f"`prompt` got the lengths of {len(self._stated_lengths)} prompts, and the model's "
                f"input has {rows} rows. Give one length, or one for each row."
            )
        return self._stated_lengths

    def _without_trailing_padding(
        self, ids: Int[Tensor, "batch pos"]
    ) -> Bool[Tensor, "batch pos"] | None:
        """Where tokens are not padding at the right, for a batch without a mask.

        At least one row of a padded batch has no padding, so tokens that end all rows are text.
        """
        if self._pad is None or len(ids) < 2:
            return None
        trailing = (ids == self._pad).long().flip(1).cumprod(dim=1).sum(dim=1)
        padding = trailing - trailing.min()
        if not bool(padding.any()):
            return None
        column = torch.arange(ids.shape[1], device=ids.device)
        is_token: Tensor = column < (ids.shape[1] - padding)[:, None]
        return is_token

    def _running(self) -> FrameType | None:
        """The outermost running call that generates text with this model; None outside one."""
        outermost = None
        # `inspect.stack` reads source files at every call, and this runs in every forward pass.
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            # By identity, since a code object compares and hashes everything in it.
            if id(frame.f_code) in self._codes:
                outermost = frame
                # The caller of a running function stays the same; a generator's caller does not.
                if frame is self._run and not frame.f_code.co_flags & inspect.CO_GENERATOR:
                    return outermost
            frame = frame.f_back
        return outermost


# The arguments of a Hugging Face model that the hooks use.
_ARGUMENTS = ("input_ids", "inputs_embeds", "attention_mask", "past_key_values")


def _places(model: nn.Module) -> dict[str, int]:
    """The place of each argument that is passed by position; past all places if there is none."""
    # Found once: binding the arguments to the signature in every pass is slow.
    names = list(inspect.signature(model.forward).parameters)
    return {name: names.index(name) if name in names else sys.maxsize for name in _ARGUMENTS}


def _body(model: nn.Module) -> nn.Module:
    body: nn.Module = getattr(model, "base_model", model)
    return body


@lru_cache
def _generating_code(*kinds: Any) -> dict[int, CodeType]:
    """Code by its identity, which is unique as long as the code is referenced here."""
    by_identity = {}
    for kind in kinds:
        for name in _GENERATING:
            # `generate` of transformers is decorated, and the stack shows the inner function.
            # `len` stands for a method that does not exist, since it has no code.
            method = inspect.unwrap(getattr(kind, name, None) or len)
            code = getattr(method, "__code__", None)
            if code is not None:
                by_identity[id(code)] = code
    return by_identity


def _cached(cache: Any) -> int:
    """How many columns a key-value cache holds."""
    if cache is None:
        return 0
    # An older cache is a tuple with keys and values of each block.
    length = getattr(cache, "get_seq_length", None)
    return int(cache[0][0].shape[-2]) if length is None else int(length())


def _whole_mask(
    mask: Any, rows: int, past: int, columns: int
) -> Bool[Tensor, "batch total"] | None:
    if mask is None:
        return None
    total = past + columns
    if not isinstance(mask, Tensor) or mask.ndim != 2 or len(mask) != rows:
        got = f"shape {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(
            "The attention mask says which tokens are padding. It must have the shape "
            f"({rows}, {total}), one number per token, got {got}. Pass such a mask, and generate "
            "with the default kind of cache."
        )
    # Looking into a mask on another device would make the processor wait for it.
    if mask.device.type == "cpu" and bool(mask.all()):
        return None
    is_token = mask.bool()[:, :total]
    # A mask of the input alone says nothing of the cache, whose columns then count as tokens.
    if is_token.shape[1] < total:
        is_token = torch.nn.functional.pad(is_token, (total - is_token.shape[1], 0), value=True)
    return is_token
