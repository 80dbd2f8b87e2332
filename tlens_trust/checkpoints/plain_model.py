"""Gives a plain Hugging Face model TransformerLens' hook points, without changing the model.

Booting a `TransformerBridge` renames a model's parameters and switches its attention, which must
not happen to a model in training. This module wraps nothing. It places torch's forward hooks on the
blocks for the length of a `with`, under TransformerLens' names, and removes them afterwards.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from einops import rearrange
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


@dataclass(frozen=True)
class PlainConfig:
    """The shape of a plain model, under TransformerLens' names."""

    model_name: str
    n_layers: int
    d_model: int
    n_heads: int
    d_head: int
    n_ctx: int | None
    d_vocab: int
    device: str
    dtype: Any


@dataclass(frozen=True)
class PlainHookPoint:
    """The hook point that a hook function is called from."""

    name: str

    def layer(self) -> int:
        """Return the number of the block, from 0."""
        return int(self.name.split(".")[1])


@dataclass(frozen=True)
class _BlockParts:
    """The names of the parts of one kind of block, as paths below the block.

    `children` are the names of the block's submodules, without dropouts. A block is of this kind if
    it has exactly these. `mid` is the module whose input is the residual stream between attention
    and MLP.
    """

    children: frozenset[str]
    attn_out: str
    mlp_out: str
    z: str
    mid: str


_BLOCK_KINDS = (
    _BlockParts(  # GPT-2
        frozenset({"ln_1", "attn", "ln_2", "mlp"}), "attn", "mlp", "attn.c_proj", "ln_2"
    ),
    _BlockParts(  # GPT-NeoX; no `mid` where attention and MLP run in parallel
        frozenset({"input_layernorm", "attention", "post_attention_layernorm", "mlp"}),
        "attention",
        "mlp",
        "attention.dense",
        "post_attention_layernorm",
    ),
    _BlockParts(  # Llama, OLMo, Mistral, Qwen and their like
        frozenset({"input_layernorm", "self_attn", "post_attention_layernorm", "mlp"}),
        "self_attn",
        "mlp",
        "self_attn.o_proj",
        "post_attention_layernorm",
    ),
    _BlockParts(  # OLMo-2 and OLMo-3, which normalise the outputs of attention and MLP
        frozenset({"self_attn", "post_attention_layernorm", "mlp", "post_feedforward_layernorm"}),
        "post_attention_layernorm",
        "post_feedforward_layernorm",
        "self_attn.o_proj",
        "mlp",
    ),
)

# The names under which transformers' decoders keep their blocks.
_BLOCK_LISTS = ("h", "layers", "blocks", "layer")


@dataclass(frozen=True)
class _Place:
    """A module and the side of it where a hook function is called."""

    module: nn.Module
    side: str  # "input" or "output"
    heads: int | None = None
    writable: bool = True


class PlainModel:
    """A plain Hugging Face model with hook points under TransformerLens' names.

    The residual stream (`hook_resid_pre`, `hook_resid_post`) is available for every decoder whose
    blocks are found. `hook_attn_out`, `hook_mlp_out`, `attn.hook_z` and `hook_resid_mid` are
    available for blocks that are built like those of GPT-2, GPT-NeoX, Llama, OLMo and OLMo-2.

    Attributes:
        model: The model itself. Its parameters, attention and mode are never changed.
        tokenizer: The model's tokenizer, as published.

    Raises:
        ValueError: The model has no list of `num_hidden_layers` blocks.
    """

    def __init__(self, model: nn.Module, tokenizer: Any = None, *, name: str | None = None) -> None:
        self.model = model
        self.tokenizer = tokenizer
        config = _text_config(model)
        self._name = name or getattr(config, "_name_or_path", "") or type(model).__name__
        self._blocks = _find_blocks(model, int(config.num_hidden_layers), self._name)
        self._places = dict(_places(self._blocks, config))
        self.hook_dict = {name: PlainHookPoint(name) for name in self._places}

    @property
    def own_tokenizer(self) -> Any:
        """The tokenizer, unchanged."""
        return self.tokenizer

    @property
    def cfg(self) -> PlainConfig:
        """The model's shape, and the device where it is now."""
        config = _text_config(self.model)
        heads = int(config.num_attention_heads)
        width = int(config.hidden_size)
        weight = next(self.model.parameters())
        return PlainConfig(
            model_name=self._name,
            n_layers=len(self._blocks),
            d_model=width,
            n_heads=heads,
            d_head=int(getattr(config, "head_dim", None) or width // heads),
            n_ctx=getattr(config, "max_position_embeddings", None),
            d_vocab=int(config.vocab_size),
            device=str(weight.device),
            dtype=weight.dtype,
        )

    @contextmanager
    def hooks(
        self, fwd_hooks: Sequence[tuple[str, Callable[[Tensor, Any], Tensor | None]]] = ()
    ) -> Iterator["PlainModel"]:
        """Place forward hooks for the length of a `with`.

        Inside the `with`, every module is in evaluation mode, so that dropout adds no noise to the
        activations. Afterwards each module has its own mode back.

        Args:
            fwd_hooks: Pairs of a hook name and a function, called as `function(tensor, hook=…)`.
                A tensor that the function returns replaces the activation.

        Raises:
            ValueError: The model has no hook point of that name, or a function returns a tensor
                at `hook_resid_mid`, which cannot be replaced.

        Examples:
            >>> from transformers import GPT2Config, GPT2LMHeadModel
            >>> import torch
            >>> config = GPT2Config(n_layer=2, n_head=2, n_embd=8, vocab_size=11)
            >>> model = PlainModel(GPT2LMHeadModel(config))
            >>> shapes = []
            >>> hook = lambda tensor, hook: shapes.append((hook.name, tuple(tensor.shape)))
            >>> with model.hooks([("blocks.1.hook_resid_post", hook)]):
            ...     _ = model.model.base_model(torch.zeros(1, 3, dtype=torch.int64))
            >>> shapes
            [('blocks.1.hook_resid_post', (1, 3, 8))]
        """
        modules = list(self.model.modules())
        # One by one, since a user may keep some modules in evaluation mode while others train.
        modes = [module.training for module in modules]
        # Hooks are placed within the `try`, so that none remains if a later name is wrong.
        handles: list[RemovableHandle] = []
        try:
            for name, function in fwd_hooks:
                handles.append(self._attach(name, function))
            for module in modules:
                module.training = False
            yield self
        finally:
            for handle in handles:
                handle.remove()
            for module, mode in zip(modules, modes, strict=True):
                module.training = mode

    def _attach(
        self, name: str, function: Callable[[Tensor, Any], Tensor | None]
    ) -> RemovableHandle:
        if name not in self._places:
            raise ValueError(self._why_no_hook_point(name))
        place = self._places[name]
        point = self.hook_dict[name]

        def call(tensor: Tensor) -> Tensor | None:
            hook_input = tensor
            if place.heads is not None:
                hook_input = rearrange(
                    tensor, "... (head d_head) -> ... head d_head", head=place.heads
                )
            replacement = function(hook_input, hook=point)  # type: ignore[call-arg]
            if replacement is None:
                return None
            if not place.writable:
                raise ValueError(
                    f"{name!r} of {self._name!r} cannot be replaced: a tensor returned there would "
                    "reach the MLP and not the residual stream. Replace 'hook_attn_out' or "
                    "'hook_resid_pre'."
                )
            if place.heads is None:
                return replacement
            return rearrange(replacement, "... head d_head -> ... (head d_head)")

        def on_output(module: nn.Module, args: Any, output: Any) -> Any:
            # Some modules return a tuple that begins with the hidden states.
            activation = output[0] if isinstance(output, tuple) else output
            replacement = call(activation)
            if replacement is None:
                return None
            return (replacement, *output[1:]) if isinstance(output, tuple) else replacement

        def on_input(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            # Some architectures pass the hidden states by name.
            replacement = call(args[0] if args else kwargs["hidden_states"])
            if replacement is None:
                return None
            if args:
                return (replacement, *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": replacement}

        if place.side == "output":
            return place.module.register_forward_hook(on_output)
        return place.module.register_forward_pre_hook(on_input, with_kwargs=True)

    def _why_no_hook_point(self, name: str) -> str:
        layer = name.split(".")[1] if name.startswith("blocks.") and name.count(".") > 1 else ""
        reason = "whose blocks run from 0 to " + str(len(self._blocks) - 1)
        if layer.isdigit() and int(layer) < len(self._blocks):
            block = type(self._blocks[int(layer)]).__name__
            hook_names = ", ".join(n.split(".", 2)[2] for n in self.hook_dict if f".{layer}." in n)
            reason = f"whose {block} has {hook_names}"
        return (
            f"No hook point named {name!r} in {self._name!r}, {reason}. "
            "List them with `sorted(model.hook_dict)`."
        )

    def __repr__(self) -> str:
        return f"PlainModel({type(self.model).__name__}, {self._name!r})"


def is_plain_model(model: object) -> bool:
    """Whether this is a Hugging Face model that TransformerLens has not wrapped."""
    return (
        isinstance(model, nn.Module)
        and hasattr(model, "config")
        and hasattr(model, "base_model")
        and not hasattr(model, "hook_dict")
    )


def _text_config(model: nn.Module) -> Any:
    config: Any = model.config
    # A model of text and images keeps the settings of its decoder in a part of its own.
    text = getattr(config, "get_text_config", None)
    return config if text is None else text()


def _find_blocks(model: nn.Module, n_layers: int, name: str) -> nn.ModuleList:
    lists = [
        (path.count("."), path, module)
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
    ]
    # The least nested list comes first, so that no list inside a block is taken for the blocks.
    for _, path, module in sorted(lists, key=lambda entry: entry[:2]):
        if path.rpartition(".")[2] in _BLOCK_LISTS and len(module) == n_layers:
            return module
    list_sizes = ", ".join(f"{path} ({len(module)})" for _, path, module in lists) or "none"
    raise ValueError(
        f"No list of {n_layers} blocks in {name!r}, whose lists are {list_sizes}. Blocks must be "
        f"in a ModuleList named {' or '.join(_BLOCK_LISTS)}. Pass a decoder from transformers, or "
        "a TransformerBridge."
    )


def _places(blocks: nn.ModuleList, config: Any) -> Iterator[tuple[str, _Place]]:
    # Then attention and MLP read the same stream, and there is nothing between them.
    parallel = bool(getattr(config, "use_parallel_residual", False))
    for layer, block in enumerate(blocks):
        yield f"blocks.{layer}.hook_resid_pre", _Place(block, "input")
        children = {
            name for name, child in block.named_children() if not isinstance(child, nn.Dropout)
        }
        parts = next((kind for kind in _BLOCK_KINDS if kind.children == children), None)
        if parts is not None:
            heads = int(config.num_attention_heads)
            # The input of the output projection is every head's result, side by side. If the
            # projection has another name, only this site is missing.
            projection = _submodule(block, parts.z)
            if projection is not None:
                yield f"blocks.{layer}.attn.hook_z", _Place(projection, "input", heads)
            attention = block.get_submodule(parts.attn_out)
            yield f"blocks.{layer}.hook_attn_out", _Place(attention, "output")
            if not parallel:
                # The block holds the stream already, so a change here would not reach it.
                middle = block.get_submodule(parts.mid)
                yield (
                    f"blocks.{layer}.hook_resid_mid",
                    _Place(middle, "input", writable=False),
                )
            mlp = block.get_submodule(parts.mlp_out)
            yield f"blocks.{layer}.hook_mlp_out", _Place(mlp, "output")
        yield f"blocks.{layer}.hook_resid_post", _Place(block, "output")


def _submodule(block: nn.Module, path: str) -> nn.Module | None:
    try:
        return block.get_submodule(path)
    except AttributeError:
        return None
