"""What a forward pass is in the middle of: which columns it reads, and where the prompt ended.

A hook point sees a tensor and not what it is a part of. What is missing is seen where the model
takes its input: by a forward pre-hook on a Hugging Face model (the one that a bridge wraps, or a
plain one), which is told token ids, attention mask and key-value cache, and on the embedding and
the steered blocks of a `HookedTransformer`, whose `generate` embeds tokens by itself and hands
embeddings to the blocks. Nothing is wrapped or replaced, and nothing is guessed from shapes.

Where the prompt ends is decided in this order.

1. Inside `with steering.prompt(lengths)` it ends where the user says.
2. In a call of the model's own `generate` (a bridge's, a `HookedTransformer`'s, Hugging Face's,
   and what streams) the first forward pass of that call reads the prompt, and whatever comes after
   it is generated. That a pass belongs to such a call is seen on the call stack: without a cache, a
   call of `generate` reads ever longer texts, and a user who scores ever longer texts does the
   same, so that no look at the tensors could tell one from the other.
3. In any other pass, all that is read without a cache is the prompt. With a cache, what was in it
   when it was first seen, or was read into it while it was empty, is the prompt, and what is read
   on top of it counts as generated.

So what a token counts as never depends on what else was run before in the same `with`.
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
from tlens_trust.steering.positions import Layout

# What generates text, and the loops inside that run on when a generator is asked for more.
_GENERATING = ("generate", "generate_stream", "hf_generate", "_generate_tokens")


class PassTracker:
    """Follows the forward passes of a model while hooks are in place.

    Attributes:
        layout: What stands where in the present pass; None before the first.
        number: Counts passes.
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
        self._caches: list[tuple[ref[Any], int]] = []
        self._stated: Int[Tensor, " batch"] | None = None
        self._seen: tuple[Any, ...] = ()
        self._ids: Tensor | None = None
        self._ids_run: FrameType | None = None
        self._block = -1
        self.layout: Layout | None = None
        self.number = 0

    @contextmanager
    def following(self, layers: Sequence[int]) -> Iterator[None]:
        """Watch the model's input for the length of a `with`.

        Args:
            layers: The blocks that will be asked about.
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
                # Some heads call a part of the body, so that the body's own hook would not see it.
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
            self._seen, self._ids, self.layout = (), None, None

    @contextmanager
    def prompt(self, lengths: int | Sequence[int] | Int[Tensor, " batch"]) -> Iterator[None]:
        """Say where the prompt ends, for the passes in a `with`; see `Steering.prompt`."""
        stated = torch.as_tensor(lengths).reshape(-1).long()
        if not len(stated) or bool((stated < 0).any()):
            raise ValueError(
                f"`lengths` is how many tokens of a row are its prompt, got {lengths!r}. Allowed "
                "are a number that is not negative, or one for each row."
            )
        before = self._stated
        self._stated = stated
        try:
            yield
        finally:
            self._stated = before

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
        read = ids if ids is not None else embeddings
        if read is None:
            return
        if not self._is_same((ids, embeddings, mask, cache, self._stated)):
            self._begin(ids, read, mask, cache, _cached(cache))

    def _on_embedding(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        # `HookedTransformer.generate` embeds the prompt, and then each token by itself, and hands
        # embeddings on: their ids are gathered here.
        ids = args[0]
        run = self._running()
        if run is not None and run is self._ids_run and ids.shape[1] == 1 and self._ids is not None:
            self._ids = torch.cat([self._ids, ids], dim=1)
        else:
            self._ids, self._ids_run = ids, run

    def _on_block(
        self, layer: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        last, self._block = self._block, layer
        if last < layer and self.number:
            return  # further on in the same pass
        residual = args[0] if args else kwargs["resid_pre"]
        entry, mask = kwargs.get("past_kv_cache_entry"), kwargs.get("attention_mask")
        ids, columns = self._ids, residual.shape[1]
        if ids is not None and (len(ids) != len(residual) or ids.shape[1] < columns):
            ids = None
        ids = None if ids is None else ids[:, ids.shape[1] - columns :]
        past = 0 if entry is None else int(entry.past_keys.shape[1])
        self._begin(ids, residual, mask, entry, past)

    def _is_same(self, seen: tuple[Any, ...]) -> bool:
        """Whether model and body tell of the same pass, one after the other."""
        same = len(self._seen) == len(seen) and all(map(operator.is_, self._seen, seen))
        # Told twice is told once; a third time is another pass over the same tensors.
        self._seen = () if same else seen
        return same

    def _begin(
        self, ids: Tensor | None, read: Tensor, mask: Tensor | None, cache: Any, past: int
    ) -> None:
        rows, columns = int(read.shape[0]), int(read.shape[1])
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
            full=None if full is None else full.to(read.device),
            past=past,
            prompt_columns=prompt_columns,
            stated=self._checked_stated(rows),
            tokens=ids,
            device=read.device,
        )

    def _prompt_in(self, cache: Any, past: int, columns: int) -> int:
        """Columns of the prompt in a cache: what it held, or took up empty, when first seen."""
        # By identity: caches of transformers and of TransformerLens compare in ways of their own.
        self._caches = [(held, first) for held, first in self._caches if held() is not None]
        known = [first for held, first in self._caches if held() is cache]
        if not past:
            self._caches = [(held, first) for held, first in self._caches if held() is not cache]
        elif known:
            return min(known[0], past)
        self._caches.append((ref(cache), past or columns))
        return past or columns

    def _checked_stated(self, rows: int) -> Int[Tensor, " batch"] | None:
        if self._stated is not None and len(self._stated) not in (1, rows):
            raise ValueError(
                f"`prompt` was told the lengths of {len(self._stated)} prompts, and the model "
                f"reads {rows} rows. Say one length, or one for each row."
            )
        return self._stated

    def _without_trailing_padding(
        self, ids: Int[Tensor, "batch pos"]
    ) -> Bool[Tensor, "batch pos"] | None:
        """Where tokens are no padding at the right, which models are given without a mask.

        One row of a padded batch has no padding, so that what all rows end with is text.
        """
        if self._pad is None or len(ids) < 2:
            return None
        trailing = (ids == self._pad).long().flip(1).cumprod(dim=1).sum(dim=1)
        padding = trailing - trailing.min()
        if not bool(padding.any()):
            return None
        column = torch.arange(ids.shape[1], device=ids.device)
        kept: Tensor = column < (ids.shape[1] - padding)[:, None]
        return kept

    def _running(self) -> FrameType | None:
        """The outermost call of what generates text with this model; None outside of one."""
        found = None
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            # By identity, since a code object compares and hashes all that it holds.
            if id(frame.f_code) in self._codes:
                found = frame
                # While a call runs, what called it stays the same; a generator's caller does not.
                if frame is self._run and not frame.f_code.co_flags & inspect.CO_GENERATOR:
                    return found
            frame = frame.f_back
        return found


# What the hooks look at, among the arguments of a Hugging Face model.
_LOOKED_AT = ("input_ids", "inputs_embeds", "attention_mask", "past_key_values")


def _places(model: nn.Module) -> dict[str, int]:
    """Where the arguments stand that are passed by position; a place past all where none is."""
    names = list(inspect.signature(model.forward).parameters)
    return {name: names.index(name) if name in names else sys.maxsize for name in _LOOKED_AT}


def _body(model: nn.Module) -> nn.Module:
    body: nn.Module = getattr(model, "base_model", model)
    return body


@lru_cache
def _generating_code(*kinds: Any) -> dict[int, CodeType]:
    """Code by its identity, which holds as long as the code is held here."""
    found = {}
    for kind in kinds:
        for name in _GENERATING:
            method = inspect.unwrap(getattr(kind, name, None) or len)
            code = getattr(method, "__code__", None)
            if code is not None:
                found[id(code)] = code
    return found


def _cached(cache: Any) -> int:
    """How many columns a key-value cache holds."""
    if cache is None:
        return 0
    length = getattr(cache, "get_seq_length", None)
    return int(cache[0][0].shape[-2]) if length is None else int(length())


def _whole_mask(
    mask: Any, rows: int, past: int, columns: int
) -> Bool[Tensor, "batch total"] | None:
    if mask is None:
        return None
    total = past + columns
    if not isinstance(mask, Tensor) or mask.ndim != 2 or len(mask) != rows:
        said = f"shape {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(
            f"Which tokens are padding is read off the attention mask, which must have the shape "
            f"({rows}, {total}), one number a token, got {said}. Pass such a mask, and generate "
            "with the default kind of cache."
        )
    if mask.device.type == "cpu" and bool(mask.all()):
        return None
    kept = mask.bool()[:, :total]
    if kept.shape[1] < total:
        kept = torch.nn.functional.pad(kept, (total - kept.shape[1], 0), value=True)
    return kept
