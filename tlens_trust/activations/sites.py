"""Where to read: from what a user asks for to TransformerLens hook names.

A site is one place in the model: a hook point inside a block, such as
`blocks.8.hook_resid_post`, or one head of a hook point whose tensors have a head axis, written
`blocks.3.attn.hook_z[7]`. Site names are `HookedTransformer`'s, whichever backend reads them: a
`TransformerBridge` calls the same hook point `blocks.8.hook_out` and knows the other name as an
alias.
"""

import difflib
import operator
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tlens_trust.checkpoints import HookedModel

SITE_KINDS = {
    "resid_pre": "hook_resid_pre",
    "resid_mid": "hook_resid_mid",
    "resid_post": "hook_resid_post",
    "attn_out": "hook_attn_out",
    "mlp_out": "hook_mlp_out",
    "z": "attn.hook_z",
}

# How much of its own block a hook point has behind it. What is not named here lies before the
# attention's output, half way.
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
    """What has to be known of a model to name its sites.

    Attributes:
        name: What to call the model in an error.
        n_layers: Blocks.
        n_heads: Attention heads of a block.
        hook_names: Every name in the model's `hook_dict`; None where it is not at hand, in which
            case names are not checked against it.
    """

    name: str
    n_layers: int
    n_heads: int
    hook_names: frozenset[str] | None = None

    @classmethod
    def of(cls, model: HookedModel) -> "ModelShape":
        """The shape of a hooked model."""
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
    """Name every site that a user asks for.

    Args:
        model: A hooked model, or the shape of one.
        sites: `"resid_post"`, `"resid_pre"`, `"resid_mid"`, `"attn_out"` or `"mlp_out"` for that
            place in every block; `"z"` for every head of every block; a layer number for the
            residual stream after that block, negative ones counted from the end; a hook name
            inside a block, where a bare `hook_z` stands for all its heads; or a sequence of these.

    Returns:
        Site names in the order asked for, each once.

    Raises:
        ValueError: A name is unknown to the model, a layer or head is out of range, or nothing
            is asked for.

    Examples:
        >>> shape = ModelShape("toy", n_layers=2, n_heads=2)
        >>> resolve_sites(shape)
        ('blocks.0.hook_resid_post', 'blocks.1.hook_resid_post')
        >>> resolve_sites(shape, [-1, "blocks.0.attn.hook_z"])
        ('blocks.1.hook_resid_post', 'blocks.0.attn.hook_z[0]', 'blocks.0.attn.hook_z[1]')
    """
    shape = model if isinstance(model, ModelShape) else ModelShape.of(model)
    asked = [sites] if isinstance(sites, str) or not isinstance(sites, Sequence) else list(sites)
    names = [name for item in asked for name in _resolve(shape, item)]
    if not names:
        raise ValueError(
            "`sites` asks for nothing, got an empty sequence. "
            "Leave it out to read the residual stream after every block."
        )
    return tuple(dict.fromkeys(names))


def split_site(site: str) -> tuple[str, int | None]:
    """The hook name of a site, and which head of it; None for the whole tensor.

    Examples:
        >>> split_site("blocks.3.attn.hook_z[7]")
        ('blocks.3.attn.hook_z', 7)
    """
    match = _matched(site)
    head = match["head"]
    return site.partition("[")[0], None if head is None else int(head)


def site_head(site: str) -> int | None:
    """Which head a site is, counted from 0; None where it is none.

    Examples:
        >>> site_head("blocks.3.attn.hook_z[7]"), site_head("blocks.3.hook_resid_post")
        (7, None)
    """
    return split_site(site)[1]


def site_layer(site: str) -> int:
    """The block that a site lies in, counted from 0.

    Examples:
        >>> site_layer("blocks.3.attn.hook_z[7]")
        3
    """
    return int(_matched(site)["layer"])


def site_depth(site: str, n_layers: int) -> float:
    """The fraction of the blocks that lies behind a site: 0 before the first, 1 after the last.

    What lies between a block's attention and its MLP counts as half of that block.

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
            f"{site!r} is no site. A site is a hook name inside a block, such as "
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
        # Hybrid models have blocks without attention: those have no such site.
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
    what = f"No {kind!r} in {shape.name!r}" if name is None else f"No {name!r} in {shape.name!r}"
    known = shape.hook_names or frozenset()
    if kind == "resid_mid" and any(hook.endswith(".hook_attn_out") for hook in known):
        return (
            f"{what}: attention and MLP of its blocks read the same residual stream in parallel, "
            "so that there is nothing between them. Read 'resid_pre', 'resid_post', 'attn_out' "
            "or 'mlp_out'."
        )
    return f"{what}: none of its blocks has `{SITE_KINDS[kind]}`. " + _LIST_THEM


_LIST_THEM = "List its hook points with `sorted(model.hook_dict)`."


def _why_no_site(shape: ModelShape, name: str) -> str:
    if shape.hook_names is not None and name in shape.hook_names:
        return (
            f"The hook point {name!r} of {shape.name!r} lies outside the blocks, and a site lies "
            "inside one. What enters the first block is 'blocks.0.hook_resid_pre', what leaves "
            f"the last 'blocks.{shape.n_layers - 1}.hook_resid_post'."
        )
    known = [*SITE_KINDS, *sorted(shape.hook_names or ())]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return (
        f"No hook point named {name!r} in {shape.name!r}.{hint} Allowed are "
        f"{', '.join(map(repr, SITE_KINDS))}, layer numbers from 0 to {shape.n_layers - 1}, and "
        f"hook names inside a block. {_LIST_THEM}"
    )
