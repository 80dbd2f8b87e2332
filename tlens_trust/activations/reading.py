"""Reads statements: one forward pass per batch collects the activations at all sites.

A hook copies one vector per statement out of `[batch, pos, d_model]`. The rest of the tensor can be
freed as soon as the block is done with it.
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
from tlens_trust.checkpoints.hooked_model import HookedModel


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
        sites: Site names from `resolve_sites`.
        position: The tokens to read, from `checked_position`.
        batch_tokens: Tokens in one batch, padding included. Halved when memory runs out.
        padding_side: `"right"` or `"left"`.
        describe: Names a statement in an error, given its number.
        source: Name of the model in an error.
        advance: Called with the number of statements after each batch.

    Returns:
        The activations in float32 on the CPU, in the order of the statements.

    Raises:
        ValueError: An activation is not finite, a position is outside a statement, or a hook point
            does not fire or does not hold one vector per token.
    """
    spans = []
    for index, statement in enumerate(tokenised):
        try:
            start, stop = span_of(position, statement.stop - statement.start)
        except ValueError as error:
            raise ValueError(f"{error} This is {describe(index)}.") from None
        spans.append((statement.start + start, statement.start + stop))
    device = input_device(model)
    batch_reader = _BatchReader(model, sites, source)
    values: Tensor | None = None

    def read_batch(batch: list[int]) -> None:
        nonlocal values
        tokens, is_token = pad_batch([tokenised[i].ids for i in batch], padding_side=padding_side)
        padding = is_token.long().argmax(dim=1)  # in front of each statement
        batch_spans = torch.tensor([spans[i] for i in batch]) + padding[:, None]
        batch_reader.begin(batch_spans, device, tokens.shape[1])
        run_blocks(model, tokens.to(device), is_token.to(device))
        values_of_batch = batch_reader.end()
        if values is None:
            # The width is known only now: the model's settings do not say it for every hook point.
            values = torch.empty(len(sites), len(tokenised), values_of_batch.shape[-1])
        rows = torch.tensor(batch)
        _check_finite(values_of_batch, sites, lambda row: describe(batch[row]), source)
        values[:, rows] = values_of_batch
        advance(len(batch))

    # Hooks are placed before idle norms are looked for, since a norm with a hook is not idle.
    with evaluation_mode(model), batch_reader.hooks(), without_idle_norms(model):
        read_in_batches([len(statement) for statement in tokenised], batch_tokens, read_batch)
    if values is None:
        raise ValueError("There are no statements to read. Pass at least one.")
    return values


def check_one_width(widths: Mapping[str, int], source: str) -> None:
    """Check that all sites have the same width, so that they fit in one tensor.

    Args:
        widths: Width of the vectors at each site.
        source: Name of the model in an error.

    Raises:
        ValueError: The sites have different widths.
    """
    # Reversed, so that the first site of each width is named.
    by_width = {width: site for site, width in reversed(list(widths.items()))}
    if len(by_width) > 1:
        examples = " and ".join(f"{site!r} {width}" for width, site in sorted(by_width.items()))
        raise ValueError(
            f"The sites have different widths in {source}: {examples}. Collect the sites of each "
            "width separately. Heads ('z') are narrower than the residual stream."
        )


# These hook points are indexed by pairs of tokens.
_NOT_BY_TOKEN = ("attn.hook_pattern", "attn.hook_attn_scores")


class _BatchReader:
    """Places the hooks of one reading, and holds the activations of the batch being read."""

    def __init__(self, model: HookedModel, sites: Sequence[str], source: str) -> None:
        self._model = model
        self._sites = sites
        self._source = source
        # An alias and the name behind it are one hook point, and so are the heads of a layer. Each
        # hook point gets one hook.
        points = model.hook_dict
        self._columns: dict[str, list[tuple[int, int | None]]] = defaultdict(list)
        self._requested_names: dict[str, str] = {}
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
            self._requested_names.setdefault(name, hook)
        self._stop_early = can_stop_early(model)

    def hooks(self) -> Any:
        """Place the hooks for the length of a `with`."""
        return self._model.hooks(fwd_hooks=[(name, self._hook(name)) for name in self._columns])

    def begin(self, spans: Int[Tensor, "batch 2"], device: torch.device, n_pos: int) -> None:
        self._single = bool((spans[:, 1] - spans[:, 0] == 1).all())
        self._starts, self._stops = spans.to(device).unbind(dim=1)
        self._shape = (len(spans), n_pos)
        # A batch that ran out of memory may have left some, and is now read again.
        self._activations: dict[str, Tensor] = {}

    def end(self) -> Float[Tensor, "site batch d_model"]:
        silent_hooks = [
            self._requested_names[name] for name in self._columns if name not in self._activations
        ]
        if silent_hooks:
            raise ValueError(
                f"The hook point {silent_hooks[0]!r} of {self._source} did not fire in a forward "
                "pass. It exists, but this backend does not compute it. Read another site."
            )
        rows: list[Tensor | None] = [None] * len(self._sites)
        for name, columns in self._columns.items():
            # Taken out one by one, so that the device's memory is freed as they are copied.
            activation = self._activations.pop(name).to("cpu", torch.float32)
            for column, head in columns:
                rows[column] = self._vectors(name, activation, head)
        vectors = [row for row in rows if row is not None]
        widths = {site: row.shape[-1] for site, row in zip(self._sites, vectors, strict=True)}
        check_one_width(widths, self._source)
        return torch.stack(vectors)

    def _hook(self, name: str) -> Callable[[Tensor, Any], None]:
        def take(tensor: Tensor, hook: Any) -> None:
            # Checked at every batch, since the name of a hook point does not tell its shape.
            if tuple(tensor.shape[:2]) != self._shape or tensor.ndim not in (3, 4):
                raise ValueError(
                    f"The hook point {self._requested_names[name]!r} of {self._source} holds shape "
                    f"{tuple(tensor.shape)} for {self._shape[0]} statements of "
                    f"{self._shape[1]} tokens, and not one vector per token. Read another site."
                )
            # With `device_map`, each block may be on a device of its own.
            starts, stops = self._starts.to(tensor.device), self._stops.to(tensor.device)
            self._activations[name] = read_span(tensor, starts, stops, single=self._single)
            # The blocks above the highest site need not be computed.
            if self._stop_early and len(self._activations) == len(self._columns):
                raise AllSitesRead

        return take

    def _vectors(
        self, name: str, activation: Float[Tensor, "batch ..."], head: int | None
    ) -> Float[Tensor, "batch d_model"]:
        if head is None:
            if activation.ndim == 2:
                return activation
            raise ValueError(
                f"The hook point {self._requested_names[name]!r} of {self._source} has "
                f"{activation.shape[1]} heads. Choose one, as in "
                f"'{self._requested_names[name]}[0]'."
            )
        if activation.ndim == 2:
            # Some architectures concatenate the heads on one axis.
            heads = int(self._model.cfg.n_heads)
            if not self._requested_names[name].endswith("hook_z") or activation.shape[1] % heads:
                raise ValueError(
                    f"The hook point {self._requested_names[name]!r} of {self._source} has no "
                    f"heads. Leave out the [{head}]."
                )
            activation = rearrange(
                activation, "example (head d_head) -> example head d_head", head=heads
            )
        if head >= activation.shape[1]:
            raise ValueError(
                f"No head {head} at {self._requested_names[name]!r} of {self._source}, whose heads "
                f"run from 0 to {activation.shape[1] - 1}."
            )
        return activation[:, head]


def _check_finite(
    values: Float[Tensor, "site batch d_model"],
    sites: Sequence[str],
    describe: Callable[[int], str],
    source: str,
) -> None:
    # A quick check first: a finite sum has only finite terms. A sum that is not finite may come
    # from an overflow, so the terms are then checked one by one.
    if torch.isfinite(values.sum()):
        return
    not_finite = (~torch.isfinite(values)).any(dim=-1).nonzero()
    if not len(not_finite):
        return
    site, row = not_finite[0].tolist()
    value = values[site, row][~torch.isfinite(values[site, row])][0].item()
    raise ValueError(
        f"The activations hold {value} at {sites[site]!r} of {source}, for {describe(row)}. "
        "The weights may be broken or the dtype too narrow: load the model in float32, and look "
        "at its weights."
    )
