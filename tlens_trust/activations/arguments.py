"""How a checkpoint is to be read: what a user asks for, checked before anything is loaded.

Whether all of it is in the store already makes no difference to what is refused.
"""

import operator
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from tlens_trust.activations.sites import SITE_KINDS
from tlens_trust.activations.store import ActivationStore


def checked_sites(sites: Any) -> str | int | tuple[str | int, ...]:
    """Sites as `resolve_sites` takes them; which of them there are, only a model says.

    Raises:
        ValueError: They are no names or layer numbers, or none.

    Examples:
        >>> checked_sites(range(2))
        (0, 1)
        >>> checked_sites(1.5)
        Traceback (most recent call last):
        ValueError: A site is a name or a layer number, got 1.5 of type float. Allowed are
        'resid_pre', 'resid_mid', 'resid_post', 'attn_out', 'mlp_out', 'z', layer numbers and hook
        names.
    """
    if isinstance(sites, str) or not isinstance(sites, Iterable):
        return _checked_site(sites)
    if isinstance(sites, Mapping | set | frozenset):
        raise ValueError(
            f"`sites` has an order, and a {type(sites).__name__} has none, got {sites!r}. Give a "
            "list."
        )
    found = tuple(_checked_site(site) for site in sites)
    if not found:
        raise ValueError(
            "`sites` asks for nothing, got an empty sequence. "
            "Leave it out to read the residual stream after every block."
        )
    return found


def _checked_site(site: Any) -> str | int:
    if isinstance(site, str):
        return site
    try:
        if isinstance(site, bool):
            raise TypeError
        return operator.index(site)
    except TypeError:
        raise ValueError(
            f"A site is a name or a layer number, got {site!r} of type {type(site).__name__}. "
            f"Allowed are {', '.join(map(repr, SITE_KINDS))}, layer numbers and hook names."
        ) from None


def check_reading(*, store: Any, batch_tokens: Any, device: Any, dtype: Any) -> None:
    """Refuse a store, a budget, a device or a number format that nothing could be read with.

    Raises:
        ValueError: It is none, or the device is not there.

    Examples:
        >>> check_reading(store=None, batch_tokens=0, device=None, dtype=torch.float32)
        Traceback (most recent call last):
        ValueError: `batch_tokens` is how many tokens are read at once, padding included, and must
        be positive, got 0.
    """
    if store is not None and not isinstance(store, ActivationStore):
        raise ValueError(
            f"`store` must be an ActivationStore, or None to keep nothing, got {store!r}. Give "
            "`ActivationStore(folder)`, or leave it out."
        )
    check_batch_tokens(batch_tokens)
    check_device(device)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        meant = getattr(torch, dtype, None) if isinstance(dtype, str) else None
        there = isinstance(meant, torch.dtype) and meant.is_floating_point
        raise ValueError(
            f"`dtype` must be a number format of torch's, got {dtype!r}. Give "
            f"{meant if there else 'torch.float32, torch.bfloat16 or torch.float16'}."
        )


def check_batch_tokens(batch_tokens: Any) -> None:
    """Refuse what is no budget of tokens.

    Raises:
        ValueError: It is no whole number, or not positive.
    """
    whole = isinstance(batch_tokens, int) and not isinstance(batch_tokens, bool)
    if not whole or batch_tokens < 1:
        raise ValueError(
            "`batch_tokens` is how many tokens are read at once, padding included, and must be "
            f"positive, got {batch_tokens!r}."
        )


def check_device(device: Any) -> None:
    """Refuse a device that torch does not know, or that this machine lacks.

    Raises:
        ValueError: It is such a one.
    """
    if device is None:
        return
    try:
        known = torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(
            f"`device` must be a device of torch's, got {device!r}. Give 'cpu', 'cuda', 'cuda:1' "
            "or 'mps', or leave it out for the GPU where there is one."
        ) from None
    count = 1
    if known.type == "cuda":
        count = torch.cuda.device_count()
    elif known.type == "mps":
        count = int(torch.backends.mps.is_available())
    if not count or (known.type == "cuda" and (known.index or 0) >= count):
        held = f"{count} of them, numbered from 0" if count else "none"
        raise ValueError(
            f"`device` is {str(known)!r}, and torch finds {held} on this machine. Leave it out for "
            "what is there, or give 'cpu'."
        )
