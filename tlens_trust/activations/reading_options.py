"""The settings for reading statements, in one value that is checked before a model is loaded.

Bad settings are refused even if the store holds all of the activations already.
"""

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from tlens_trust.activations.positions import Position, checked_position
from tlens_trust.activations.sites import SITE_KINDS
from tlens_trust.activations.store import ActivationStore
from tlens_trust.arguments import checked_count

DEFAULT_BATCH_TOKENS = 4096

Sites: TypeAlias = str | int | Sequence[str | int]
Store: TypeAlias = ActivationStore | Literal["default"] | None


@dataclass(frozen=True)
class ReadingOptions:
    """The settings for reading statements at a checkpoint.

    Attributes:
        sites: The sites to read: `"resid_post"` (after every block), `"attn_out"`, `"mlp_out"`,
            `"resid_mid"`, `"z"` (every head), layer numbers, or hook names.
        position: The token of a statement to read: `"last"`, `"mean"`, a number or a span.
        bos: Whether a beginning-of-sequence token stands before each statement. None follows the
            tokenizer's own setting.
        batch_tokens: Tokens in one batch, padding included. Halved when memory runs out.
        store: Where activations are kept. `"default"` becomes an `ActivationStore` in the user's
            cache. None keeps none.

    Raises:
        ValueError: An argument is not of the kind described above.

    Examples:
        >>> ReadingOptions(sites=range(2), store=None).sites
        (0, 1)
        >>> ReadingOptions(batch_tokens=0)
        Traceback (most recent call last):
        ValueError: `batch_tokens` must be a whole number from 1, got 0. It counts the tokens of one
        batch, padding included.
    """

    sites: Sites = "resid_post"
    position: Position = "last"
    bos: bool | None = None
    batch_tokens: int = DEFAULT_BATCH_TOKENS
    store: Store = "default"

    def __post_init__(self) -> None:
        object.__setattr__(self, "sites", checked_sites(self.sites))
        object.__setattr__(self, "position", checked_position(self.position))
        if self.bos is not None and not isinstance(self.bos, bool):
            raise ValueError(
                "`bos` says whether a beginning-of-sequence token stands before each statement, "
                f"got {self.bos!r}. Give True or False, or None for the tokenizer's own setting."
            )
        check_batch_tokens(self.batch_tokens)
        if isinstance(self.store, str) and self.store == "default":
            object.__setattr__(self, "store", ActivationStore())
        elif self.store is not None and not isinstance(self.store, ActivationStore):
            raise ValueError(
                f"`store` must be an ActivationStore, or None to keep nothing, got {self.store!r}. "
                "Give `ActivationStore(folder)`, or leave it out."
            )

    @property
    def activation_store(self) -> ActivationStore | None:
        """The `ActivationStore`; None where nothing is kept."""
        assert not isinstance(self.store, str)
        return self.store


def checked_sites(sites: Any) -> str | int | tuple[str | int, ...]:
    """Check sites as far as possible without a model.

    Returns:
        Sites as `resolve_sites` takes them.

    Raises:
        ValueError: A site is neither a name nor a layer number, or there are no sites.

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
    # The order of the sites is an axis of the result.
    if isinstance(sites, Mapping | set | frozenset):
        raise ValueError(
            f"`sites` must have an order, and a {type(sites).__name__} has none, got {sites!r}. "
            "Give a list."
        )
    checked = tuple(_checked_site(site) for site in sites)
    if not checked:
        raise ValueError(
            "`sites` got an empty sequence. "
            "Leave it out to read the residual stream after every block."
        )
    return checked


def _checked_site(site: Any) -> str | int:
    if isinstance(site, str):
        return site
    try:
        # For Python, True is the whole number 1.
        if isinstance(site, bool):
            raise TypeError
        return operator.index(site)
    except TypeError:
        raise ValueError(
            f"A site is a name or a layer number, got {site!r} of type {type(site).__name__}. "
            f"Allowed are {', '.join(map(repr, SITE_KINDS))}, layer numbers and hook names."
        ) from None


def check_batch_tokens(batch_tokens: Any) -> None:
    """Check that a number of tokens is a whole number from 1.

    Raises:
        ValueError: It is not a whole number, or it is below 1.
    """
    checked_count(
        "batch_tokens", batch_tokens, hint="It counts the tokens of one batch, padding included."
    )
