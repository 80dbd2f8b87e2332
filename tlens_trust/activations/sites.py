"""Sites: the places in a model where activations are read.

A site is a hook point inside a block, such as `blocks.8.hook_resid_post`. If the hook point's
tensors have a head axis, a site is one head, such as `blocks.3.attn.hook_z[7]`. With every backend,
site names are those of a `HookedTransformer`. A `TransformerBridge` calls the same hook point
`blocks.8.hook_out` and has the other name as an alias.
"""

import difflib
import operator
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tlens_trust.checkpoints.hooked_model import HookedModel

SITE_KINDS = {
    "resid_pre": "hook_resid_pre",
    "resid_mid": "hook_resid_mid",
    "resid_post": "hook_resid_post",
    "attn_out": "hook_attn_out",
    "mlp_out": "hook_mlp_out",
    "z": "attn.hook_z",
}

# The fraction of its own block that comes before a hook point. Hook points that are not listed here
# count as half way.
_SHARE_OF_BLOCK = {
    "hook_resid_pre": 0.0,
    "hook_in": 0.0,
    "hook_resid_post": 1.0,
    "hook_out": 1.0,
    "hook_mlp_out": 1.0,
}

_SITE = re.compile(r"blocks\.(?P<layer>\d+)\.(?P<hook>[\w.]+?)(?:\[(?P<head>\d+)\])?")


@dataclass(frozen=True)
class ModelShape:
    """The facts about a model that its site names depend on.

    Attributes:
        name: Name of the model in an error.
        n_layers: Number of blocks.
        n_heads: Number of attention heads in a block.
        hook_names: Every name in the model's `hook_dict`. None if it is unknown, and then names are
            not checked against it.
    """

    name: str
    n_layers: int
    n_heads: int
    hook_names: frozenset[str] | None = None

    @classmethod
    def of(cls, model: HookedModel) -> "ModelShape":
        """Return the shape of a hooked model."""
        cfg: Any = model.cfg
        return cls(
            name=str(getattr(cfg, "model_name", None) or type(model).__name__),
            n_layers=int(cfg.n_layers),
            n_heads=int(cfg.n_heads),
            hook_names=frozenset(model.hook_dict),
        )


def resolve_sites(
    model: HookedModel | ModelShape, sites: str | int | Sequence[str | int] = "resid_post"
) -> tuple[str, ...]:
    """Turn the sites that a user gives into site names.

    Args:
        model: A hooked model, or the shape of one.
        sites: One of these, or a sequence of them. `"resid_post"`, `"resid_pre"`, `"resid_mid"`,
            `"attn_out"` or `"mlp_out"` is that place in every block. `"z"` is every head of every
            block. A layer number is the residual stream after that block; negative numbers count
            from the end. A hook name is a place inside a block, and a `hook_z` without a head is
            all its heads.

    Returns:
        Site names in the given order, each once.

    Raises:
        ValueError: The model does not have a name, a layer or head is out of range, or `sites` is
            empty.

    Examples:
        >>> shape = ModelShape("toy", n_layers=2, n_heads=2)
        >>> resolve_sites(shape)
        ('blocks.0.hook_resid_post', 'blocks.1.hook_resid_post')
        >>> resolve_sites(shape, [-1, "blocks.0.attn.hook_z"])
        ('blocks.1.hook_resid_post', 'blocks.0.attn.hook_z[0]', 'blocks.0.attn.hook_z[1]')
    """
    shape = model if isinstance(model, ModelShape) else ModelShape.of(model)
    items = [sites] if isinstance(sites, str) or not isinstance(sites, Sequence) else list(sites)
    names = [name for item in items for name in _resolve(shape, item)]
    if not names:
        raise ValueError(
            "`sites` got an empty sequence. "
            "Leave it out to read the residual stream after every block."
        )
    # Each once, in order: 'resid_post' and a layer number may name the same site.
    return tuple(dict.fromkeys(names))


def split_site(site: str) -> tuple[str, int | None]:
    """Split a site into its hook name and its head; None for the whole tensor.

    Examples:
        >>> split_site("blocks.3.attn.hook_z[7]")
        ('blocks.3.attn.hook_z', 7)
    """
    match = _matched(site)
    head = match["head"]
    return site.partition("[")[0], None if head is None else int(head)


def site_head(site: str) -> int | None:
    """Return the head of a site, counted from 0; None where the site is not a head.

    Examples:
        >>> site_head("blocks.3.attn.hook_z[7]"), site_head("blocks.3.hook_resid_post")
        (7, None)
    """
    return split_site(site)[1]


def site_layer(site: str) -> int:
    """Return the block of a site, counted from 0.

    Examples:
        >>> site_layer("blocks.3.attn.hook_z[7]")
        3
    """
    return int(_matched(site)["layer"])


def site_depth(site: str, n_layers: int) -> float:
    """Return a site's depth as a fraction of the blocks: 0 before the first, 1 after the last.

    Between a block's attention and its MLP, half of the block is counted.

    Examples:
        >>> site_depth("blocks.3.hook_resid_post", n_layers=4)
        1.0
        >>> site_depth("blocks.3.hook_attn_out", n_layers=4)
        0.875
    """
    match = _matched(site)
    return (int(match["layer"]) + _SHARE_OF_BLOCK.get(match["hook"], 0.5)) / n_layers


def _matched(site: str) -> re.Match[str]:
    match = _SITE.fullmatch(site)
    if match is None:
        raise ValueError(
            f"{site!r} is not a site. A site is a hook name inside a block, such as "
            "'blocks.8.hook_resid_post', or one head of it, such as 'blocks.3.attn.hook_z[7]'."
        )
    return match


def _resolve(shape: ModelShape, item: object) -> Iterator[str]:
    if isinstance(item, str):
        if item in SITE_KINDS:
            yield from _sites_of_kind(shape, item)
        else:
            yield from _sites_of_name(shape, item)
        return
    try:
        # For Python, True is the whole number 1.
        if isinstance(item, bool):
            raise TypeError
        layer = operator.index(item)  # type: ignore[arg-type]
    except TypeError:
        raise ValueError(
            f"A site is a name or a layer number, got {item!r} of type {type(item).__name__}. "
            f"Allowed are {', '.join(map(repr, SITE_KINDS))}, layer numbers and hook names."
        ) from None
    if not -shape.n_layers <= layer < shape.n_layers:
        raise ValueError(
            f"No block {layer} in {shape.name!r}, whose blocks run from 0 to "
            f"{shape.n_layers - 1}, or from -1 back to {-shape.n_layers}."
        )
    yield from _sites_of_name(shape, f"blocks.{layer % shape.n_layers}.hook_resid_post")


def _sites_of_kind(shape: ModelShape, kind: str) -> Iterator[str]:
    hooks = [f"blocks.{layer}.{SITE_KINDS[kind]}" for layer in range(shape.n_layers)]
    if shape.hook_names is not None:
        # Hybrid models have blocks without attention, which lack these sites.
        hooks = [hook for hook in hooks if hook in shape.hook_names]
    if not hooks:
        raise ValueError(_why_no_kind(shape, kind))
    for hook in hooks:
        yield from _heads_of(shape, hook)


def _sites_of_name(shape: ModelShape, name: str) -> Iterator[str]:
    match = _SITE.fullmatch(name)
    if match is None:
        raise ValueError(_why_no_site(shape, name))
    if int(match["layer"]) >= shape.n_layers:
        raise ValueError(
            f"No hook point named {name!r} in {shape.name!r}, whose blocks run from 0 to "
            f"{shape.n_layers - 1}. List them with `sorted(model.hook_dict)`."
        )
    hook, head = split_site(name)
    # With stored activations, the names are unknown, and the store says what it lacks.
    if shape.hook_names is not None and hook not in shape.hook_names:
        raise ValueError(
            _why_no_kind(shape, "resid_mid", name)
            if match["hook"] == "hook_resid_mid"
            else _why_no_site(shape, name)
        )
    if head is None:
        yield from _heads_of(shape, hook)
    elif match["hook"] == SITE_KINDS["z"] and head >= shape.n_heads:
        raise ValueError(
            f"No head {head} at {hook!r} in {shape.name!r}, whose heads run from 0 to "
            f"{shape.n_heads - 1}."
        )
    else:
        yield name


def _heads_of(shape: ModelShape, hook: str) -> Iterator[str]:
    if hook.endswith(SITE_KINDS["z"]):
        yield from (f"{hook}[{head}]" for head in range(shape.n_heads))
    else:
        yield hook


def _why_no_kind(shape: ModelShape, kind: str, name: str | None = None) -> str:
    beginning = (
        f"No {kind!r} in {shape.name!r}" if name is None else f"No {name!r} in {shape.name!r}"
    )
    hook_names = shape.hook_names or frozenset()
    # Blocks with an attention output and no stream after it run both parts in parallel.
    if kind == "resid_mid" and any(hook.endswith(".hook_attn_out") for hook in hook_names):
        return (
            f"{beginning}: attention and MLP of its blocks read the same residual stream in "
            "parallel, so there is nothing between them. Read 'resid_pre', 'resid_post', "
            "'attn_out' or 'mlp_out'."
        )
    return f"{beginning}: none of its blocks has `{SITE_KINDS[kind]}`. " + _LIST_THEM


_LIST_THEM = "List its hook points with `sorted(model.hook_dict)`."


def _why_no_site(shape: ModelShape, name: str) -> str:
    if shape.hook_names is not None and name in shape.hook_names:
        return (
            f"The hook point {name!r} of {shape.name!r} is outside the blocks, and a site is "
            "inside one. The input of the first block is 'blocks.0.hook_resid_pre', and the output "
            f"of the last is 'blocks.{shape.n_layers - 1}.hook_resid_post'."
        )
    # A misspelt name is the likeliest mistake.
    choices = [*SITE_KINDS, *sorted(shape.hook_names or ())]
    similar = difflib.get_close_matches(name, choices, n=1)
    hint = f" Did you mean {similar[0]!r}?" if similar else ""
    return (
        f"No hook point named {name!r} in {shape.name!r}.{hint} Allowed are "
        f"{', '.join(map(repr, SITE_KINDS))}, layer numbers from 0 to {shape.n_layers - 1}, and "
        f"hook names inside a block. {_LIST_THEM}"
    )
