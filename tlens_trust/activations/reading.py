"""Reading statements: one forward pass a batch, all sites at once, gathered inside the hooks.

A hook copies the one vector a statement that is asked for out of `[batch, pos, d_model]`, and
nothing keeps the rest alive once the block is done with it.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from tlens_trust.activations.batches import pad_batch, read_in_batches
from tlens_trust.activations.forward_pass import (
    AllSitesRead,
    can_stop_early,
    evaluation_mode,
    input_device,
    run_blocks,
    without_idle_norms,
)
from tlens_trust.activations.positions import Position, read_span, span_of
from tlens_trust.activations.sites import split_site
from tlens_trust.activations.tokens import TokenisedStatement
from tlens_trust.checkpoints import HookedModel


def read_statements(
    model: HookedModel,
    tokenised: Sequence[TokenisedStatement],
    *,
    sites: Sequence[str],
    position: Position,
    batch_tokens: int,
    padding_side: str,
    describe: Callable[[int], str],
    source: str,
    advance: Callable[[int], object] = lambda n: None,
) -> Float[Tensor, "site example d_model"]:
    """Read every statement at every site.

    Args:
        model: A hooked model.
        tokenised: The statements.
        sites: Site names, as `resolve_sites` gives them.
        position: Which tokens to read, as `checked_position` gives it.
        batch_tokens: Tokens read at once, padding included; halved where memory runs out.
        padding_side: `"right"` or `"left"`.
        describe: How to call a statement, by its number, in an error.
        source: How to call the model in an error.
        advance: Told the number of statements after each batch.

    Returns:
        The readings in float32 on the CPU, in the order of the statements.

    Raises:
        ValueError: A reading is not finite, a position lies outside a statement, or a hook point
            does not fire or holds no vector per token.
    """
    spans = []
    for index, statement in enumerate(tokenised):
        try:
            start, stop = span_of(position, statement.stop - statement.start)
        except ValueError as error:
            raise ValueError(f"{error} This is {describe(index)}.") from None
        spans.append((statement.start + start, statement.start + stop))
    device = input_device(model)
    gathering = _Gathering(model, sites, source)
    values: Tensor | None = None

    def read(batch: list[int]) -> None:
        nonlocal values
        tokens, kept = pad_batch([tokenised[i].ids for i in batch], padding_side=padding_side)
        padding = kept.long().argmax(dim=1)  # in front of each statement
        here = torch.tensor([spans[i] for i in batch]) + padding[:, None]
        gathering.begin(here, device, tokens.shape[1])
        run_blocks(model, tokens.to(device), kept.to(device))
        read = gathering.end()
        if values is None:
            values = torch.empty(len(sites), len(tokenised), read.shape[-1])
        rows = torch.tensor(batch)
        _check_finite(read, sites, lambda row: describe(batch[row]), source)
        values[:, rows] = read
        advance(len(batch))

    with evaluation_mode(model), gathering.hooks(), without_idle_norms(model):
        read_in_batches([len(statement) for statement in tokenised], batch_tokens, read)
    if values is None:
        raise ValueError("There are no statements to read. Pass at least one.")
    return values


def check_one_width(widths: Mapping[str, int], source: str) -> None:
    """Refuse sites that do not fit in one tensor.

    Args:
        widths: How many numbers each site gives for a statement.
        source: How to call the model in an error.

    Raises:
        ValueError: The sites are of more than one width.
    """
    by_width = {width: site for site, width in reversed(list(widths.items()))}
    if len(by_width) > 1:
        named = " and ".join(f"{site!r} {width}" for width, site in sorted(by_width.items()))
        raise ValueError(
            f"The sites that were asked for are of unlike width in {source}: {named}. Collect "
            "them one width at a time; heads ('z') are narrower than the residual stream."
        )


# Indexed by pairs of tokens.
_NOT_BY_TOKEN = ("attn.hook_pattern", "attn.hook_attn_scores")


class _Gathering:
    """What the hooks of one collecting pass hold: the batch they are in, and what they took."""

    def __init__(self, model: HookedModel, sites: Sequence[str], source: str) -> None:
        self._model = model
        self._sites = sites
        self._source = source
        # An alias and the name behind it are one hook point, and so are a layer's heads: each is
        # hooked once and read once.
        points = model.hook_dict
        self._columns: dict[str, list[tuple[int, int | None]]] = defaultdict(list)
        self._asked: dict[str, str] = {}
        for column, site in enumerate(sites):
            hook, head = split_site(site)
            point = points[hook]
            if hook.endswith(_NOT_BY_TOKEN) or getattr(point, "pos_dim", None) not in (None, 1):
                raise ValueError(
                    f"The hook point {hook!r} of {source} does not hold one vector per token. "
                    "Read another site."
                )
            name = getattr(point, "name", None) or hook
            self._columns[name].append((column, head))
            self._asked.setdefault(name, hook)
        self._stop_early = can_stop_early(model)

    def hooks(self) -> Any:
        """The hooks, inside a `with` of the model's own."""
        return self._model.hooks(fwd_hooks=[(name, self._hook(name)) for name in self._columns])

    def begin(self, spans: Int[Tensor, "batch 2"], device: torch.device, n_pos: int) -> None:
        self._single = bool((spans[:, 1] - spans[:, 0] == 1).all())
        self._starts, self._stops = spans.to(device).unbind(dim=1)
        self._shape = (len(spans), n_pos)
        self._read: dict[str, Tensor] = {}

    def end(self) -> Float[Tensor, "site batch d_model"]:
        silent = [self._asked[name] for name in self._columns if name not in self._read]
        if silent:
            raise ValueError(
                f"The hook point {silent[0]!r} of {self._source} did not fire in a forward pass. "
                "It exists, but this backend does not compute it. Read another site."
            )
        rows: list[Tensor | None] = [None] * len(self._sites)
        for name, columns in self._columns.items():
            read = self._read.pop(name).to("cpu", torch.float32)
            for column, head in columns:
                rows[column] = self._vectors(name, read, head)
        found = [row for row in rows if row is not None]
        widths = {site: row.shape[-1] for site, row in zip(self._sites, found, strict=True)}
        check_one_width(widths, self._source)
        return torch.stack(found)

    def _hook(self, name: str) -> Callable[[Tensor, Any], None]:
        def take(tensor: Tensor, hook: Any) -> None:
            if tuple(tensor.shape[:2]) != self._shape or tensor.ndim not in (3, 4):
                raise ValueError(
                    f"The hook point {self._asked[name]!r} of {self._source} holds shape "
                    f"{tuple(tensor.shape)} for {self._shape[0]} statements of "
                    f"{self._shape[1]} tokens, and not one vector per token. Read another site."
                )
            starts, stops = self._starts.to(tensor.device), self._stops.to(tensor.device)
            self._read[name] = read_span(tensor, starts, stops, single=self._single)
            if self._stop_early and len(self._read) == len(self._columns):
                raise AllSitesRead

        return take

    def _vectors(
        self, name: str, read: Float[Tensor, "batch ..."], head: int | None
    ) -> Float[Tensor, "batch d_model"]:
        if head is None:
            if read.ndim == 2:
                return read
            raise ValueError(
                f"The hook point {self._asked[name]!r} of {self._source} has "
                f"{read.shape[1]} heads. Say which, as in '{self._asked[name]}[0]'."
            )
        if read.ndim == 2:
            # Some architectures keep the heads side by side in one axis.
            heads = int(self._model.cfg.n_heads)
            if not self._asked[name].endswith("hook_z") or read.shape[1] % heads:
                raise ValueError(
                    f"The hook point {self._asked[name]!r} of {self._source} has no heads. "
                    f"Leave out the [{head}]."
                )
            read = rearrange(read, "example (head d_head) -> example head d_head", head=heads)
        if head >= read.shape[1]:
            raise ValueError(
                f"No head {head} at {self._asked[name]!r} of {self._source}, whose heads run "
                f"from 0 to {read.shape[1] - 1}."
            )
        return read[:, head]


def _check_finite(
    read: Float[Tensor, "site batch d_model"],
    sites: Sequence[str],
    describe: Callable[[int], str],
    source: str,
) -> None:
    # A sum is finite only if everything in it is, short of an overflow, which is then told apart.
    if torch.isfinite(read.sum()):
        return
    bad = (~torch.isfinite(read)).any(dim=-1).nonzero()
    if not len(bad):
        return
    site, row = bad[0].tolist()
    value = read[site, row][~torch.isfinite(read[site, row])][0].item()
    raise ValueError(
        f"The activations hold {value} at {sites[site]!r} of {source}, for {describe(row)}. "
        "The weights may be broken or the dtype too narrow: load the model in float32, and look "
        "at its weights."
    )
