"""Steering a model for the length of a `with`, by forward hooks at hook points."""

import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Int
from torch import Tensor, nn

from tlens_trust.activations.sites import resolve_sites, site_layer, split_site
from tlens_trust.checkpoints.hooked_model import HookedModel
from tlens_trust.checkpoints.plain_model import PlainModel, is_plain_model
from tlens_trust.measures.probe import LinearProbe
from tlens_trust.steering.compatibility import check_fits
from tlens_trust.steering.conditions import ProbeFires
from tlens_trust.steering.edits import Edit, ReadyEdit, make_edits
from tlens_trust.steering.passes import PassTracker
from tlens_trust.steering.positions import PositionRule, Positions, checked_positions
from tlens_trust.steering.vector import SteeringVector


class Steering:
    """What `steer` gives: the model that is steered, and a way to say where its prompt ends.

    Attributes:
        model: The hooked model; a plain Hugging Face model under TransformerLens' names.
        vector: What it is steered by.
    """

    def __init__(self, model: HookedModel, vector: SteeringVector, tracker: PassTracker) -> None:
        self.model = model
        self.vector = vector
        self._tracker = tracker

    def prompt(
        self, lengths: int | Sequence[int] | Int[Tensor, " batch"]
    ) -> AbstractContextManager[None]:
        """Say how long the prompt is, for the forward passes in a `with`.

        For texts of which the first part stands for a prompt and the rest for what a model
        generates: candidate answers that are scored by their likelihood, say. Without it, all that
        one forward pass reads is the prompt. Each of several nested `steer`s has to be told.

        Args:
            lengths: Tokens of the prompt in every row, or in each; a beginning-of-sequence token
                counts, padding does not.

        Raises:
            ValueError: A length is negative, or they are not as many as the rows that are read.
        """
        return self._tracker.prompt(lengths)


@contextmanager
def steer(
    model: HookedModel | nn.Module,
    vector: SteeringVector,
    *,
    strength: float | int,
    mode: str = "add",
    positions: Positions = "all",
    when: ProbeFires | LinearProbe | None = None,
    units: str = "vector",
    other_model: str = "warn",
) -> Iterator[Steering]:
    """Steer a model along a vector for the length of a `with`.

    Forward hooks edit the activations at the vector's sites; the model itself stays as it is. It
    holds for forward passes, `generate`, with and without a key-value cache, batches, and padding
    on either side. An inner `with` acts on what an outer one has done. Padding is never edited.

    With `x` an activation, `v` the vector at its site, `u = v / ‖v‖`, and `s` the strength:

    - `"add"`: `x + s v`.
    - `"ablate"`: `x - s (x·u) u`; strength 1 leaves no projection.
    - `"clamp"`: `x + (s‖v‖ - x·u) u`: the projection becomes that of `s v`, whatever it was.
    - `"rotate"`: `x + s v`, scaled back to the length of `x`: it is turned towards `v`.

    With `units="rms"`, `s v` is `s` times the root mean square of the residual stream's length at
    the site, as the vector has it, along `u`: at strength 0.5 what is added is half as long as the
    stream. (`"ablate"` has no units.) Strength 0 is the identity but for `"clamp"`, which then is
    `"ablate"` with strength 1.

    A position is the place of a token in its row, from 0, a beginning-of-sequence token included
    and padding left out. Positions are absolute, and where the prompt ends is fixed when it has
    been read, so that text and logits are the same with and without the cache. In `generate` the
    prompt is what it was given; in a forward pass it is all that is read, unless
    `with steering.prompt(lengths)` says otherwise.

    Args:
        model: A hooked model, or a plain Hugging Face model (in evaluation mode inside the
            `with`).
        vector: What to steer by, at one site or several.
        strength: How much, in `units`.
        mode: `"add"`, `"ablate"`, `"clamp"` or `"rotate"`.
        positions: Which tokens to steer: `"all"`; `"prompt"`; `"generated"`; `"last"`, the last
            token of the prompt alone; a token's number; a span `(start, stop)`, of which
            `(start, None)` runs on through all that is generated; or a set of tokens, ids or texts
            of one token each. Negative numbers count from the end of the prompt. What the paper's
            code does under a key-value cache is `(-1, None)`.
        when: Steer only where a probe fires; a `LinearProbe` alone stands for
            `ProbeFires(probe, above=0.0)` at the vector's one site.
        units: `"vector"`, the vector's own length, or `"rms"`.
        other_model: What to do where the vector is known to come from another run than the model:
            `"warn"`, `"allow"` or `"refuse"`. Another checkpoint of the same run is no other model.

    Yields:
        A handle with `prompt(lengths)`.

    Raises:
        ValueError: The vector is of another width than the model, has a site that the model lacks
            or that cannot be written to, has no length or no known RMS where it is needed, or an
            argument is none of those allowed.

    Warns:
        UserWarning: The vector comes from another run.

    Examples:
        >>> import torch
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> model = GPT2LMHeadModel(GPT2Config(n_layer=2, n_head=2, n_embd=8, vocab_size=11)).eval()
        >>> vector = SteeringVector.from_direction(torch.arange(8.0), site=0)
        >>> tokens = torch.tensor([[1, 2, 3]])
        >>> plain = model(tokens).logits
        >>> with steer(model, vector, strength=4.0, positions="last"):
        ...     steered = model(tokens).logits
        >>> (steered - plain).abs().amax(dim=-1).gt(1e-4).tolist()
        [[False, False, True]]
        >>> torch.equal(model(tokens).logits, plain)
        True
    """
    hooked = PlainModel(model) if is_plain_model(model) else model  # type: ignore[arg-type]
    if not isinstance(hooked, HookedModel):
        raise ValueError(
            f"`model` is what is steered, got a {type(model).__name__}. Allowed are a hooked model "
            "from TransformerLens and a Hugging Face model; load a Checkpoint with `.load()`."
        )
    edits = make_edits(vector, strength, mode, units)
    warning = check_fits(vector, hooked, other_model=other_model)
    if warning is not None:
        warnings.warn(warning, stacklevel=3)
    rule = checked_positions(positions, hooked.tokenizer)
    condition, read_at = _condition(when, vector, hooked)
    tracker = PassTracker(hooked)
    acting = _Acting(hooked, tracker, edits, rule, condition, read_at)
    layers = [site_layer(site) for site in (*vector.sites, *([read_at] if read_at else []))]
    with ExitStack() as stack:
        stack.enter_context(tracker.following(layers))
        stack.enter_context(hooked.hooks(fwd_hooks=acting.hooks()))
        yield Steering(hooked, vector, tracker)


def _condition(
    when: ProbeFires | LinearProbe | None, vector: SteeringVector, model: HookedModel
) -> tuple[ProbeFires | None, str | None]:
    """The condition, and the site that it reads."""
    if when is None:
        return None, None
    condition = ProbeFires(when, above=0.0) if isinstance(when, LinearProbe) else when
    if condition.site is None:
        if len(vector.sites) > 1:
            raise ValueError(
                f"The vector acts at {len(vector.sites)} sites, and a probe reads one. Say which "
                "with `ProbeFires(probe, site=…)`."
            )
        site = vector.sites[0]
    else:
        named = resolve_sites(model, condition.site)
        if len(named) > 1:
            raise ValueError(
                f"A probe reads one site, got {condition.site!r}, which stands for {len(named)}. "
                "Name one, as 'blocks.3.attn.hook_z[7]'."
            )
        (site,) = named
    early = [
        other
        for other in vector.sites
        if (site_layer(other), _order(other)) < (site_layer(site), _order(site))
    ]
    if early:
        raise ValueError(
            f"The probe reads {site!r}, which is computed after {early[0]!r} is steered. Read it "
            "at the same site or an earlier one."
        )
    return condition, site


# In the order in which a block computes them; what is not named here is taken for its end.
_IN_BLOCK = ("hook_resid_pre", "attn.hook_z", "hook_attn_out", "hook_resid_mid", "hook_mlp_out")


def _order(site: str) -> int:
    hook = split_site(site)[0].split(".", 2)[2]
    return _IN_BLOCK.index(hook) if hook in _IN_BLOCK else len(_IN_BLOCK)


class _Acting:
    """The hook functions of one `steer`."""

    def __init__(
        self,
        model: HookedModel,
        tracker: PassTracker,
        edits: dict[str, Edit],
        rule: PositionRule,
        condition: ProbeFires | None,
        read_at: str | None,
    ) -> None:
        self._heads = int(model.cfg.n_heads)
        self._tracker = tracker
        self._rule = rule
        self._condition = condition
        self._read_at = read_at
        self._fired: tuple[int, Bool[Tensor, "batch pos"] | None] = (0, None)
        self._chosen: tuple[int, Bool[Tensor, "batch pos"] | bool] = (0, False)
        self._by_hook: dict[str, list[tuple[int | None, Edit]]] = defaultdict(list)
        for site, edit in edits.items():
            hook, head = split_site(site)
            self._by_hook[hook].append((head, edit))
        self._ready: dict[tuple[int, torch.device, torch.dtype], ReadyEdit] = {}

    def hooks(self) -> list[tuple[str, Callable[[Tensor, Any], Tensor | None]]]:
        """Names and functions, what reads a condition before what edits."""
        placed: list[tuple[str, Callable[[Tensor, Any], Tensor | None]]] = []
        if self._read_at is not None:
            placed.append((split_site(self._read_at)[0], self._read))
        placed += [
            (hook, partial(self._act, hook, edits))
            for hook, edits in self._by_hook.items()
            if not all(edit.is_identity for _, edit in edits)
        ]
        return placed

    def _read(self, tensor: Tensor, hook: Any) -> None:
        assert self._condition is not None
        assert self._read_at is not None
        head = split_site(self._read_at)[1]
        seen = tensor if head is None else self._by_head(tensor, self._read_at)[:, :, head]
        width = len(self._condition.probe.direction)
        if seen.shape[-1] != width:
            raise ValueError(
                f"The probe reads {width} numbers, and {self._read_at!r} holds {seen.shape[-1]}. "
                "Fit it at the site that it reads."
            )
        with torch.no_grad():
            self._fired = self._tracker.number, self._condition.fires(seen)

    def _act(
        self, name: str, edits: list[tuple[int | None, Edit]], tensor: Tensor, hook: Any
    ) -> Tensor | None:
        where = self._where(tensor, name)
        if where is False:
            return None
        if len(edits) == 1 and edits[0][0] is None:
            return self._applied(tensor, edits[0][1], where)
        # A copy, of which each head is set in turn.
        by_head = self._by_head(tensor, name).clone()
        for head, edit in edits:
            by_head[:, :, head] = self._applied(by_head[:, :, head], edit, where)
        return by_head.view(tensor.shape)

    def _where(self, tensor: Tensor, name: str) -> Bool[Tensor, "batch pos"] | bool:
        """Which positions to edit; True for all of them, False for none."""
        layout = self._tracker.layout
        if layout is None or layout.shape != tensor.shape[:2]:
            seen = "nothing" if layout is None else f"{layout.shape[0]} rows of {layout.shape[1]}"
            raise ValueError(
                f"{name!r} holds shape {tuple(tensor.shape)} while the model reads {seen} tokens. "
                "Steer a site that holds one vector per token, and run the whole model."
            )
        number, where = self._chosen
        if number != self._tracker.number:
            where = self._rule.chosen(layout)
            self._chosen = self._tracker.number, where
        if self._condition is None:
            return where
        number, fired = self._fired
        if fired is None or number != self._tracker.number:
            raise ValueError(
                f"The probe at {self._read_at!r} had not been read when {name!r} was. Read it "
                "at the same site or an earlier one."
            )
        if isinstance(where, bool):
            return fired if where else False
        return fired & where.to(fired.device)

    def _applied(self, x: Tensor, edit: Edit, where: Bool[Tensor, "batch pos"] | bool) -> Tensor:
        if edit.vector.shape[0] != x.shape[-1]:
            raise ValueError(
                f"This steering vector is {edit.vector.shape[0]} wide, but what it is to steer is "
                f"{x.shape[-1]} wide. Extract it at this site of a checkpoint of this model."
            )
        key = id(edit), x.device, x.dtype
        ready = self._ready.get(key)
        if ready is None:
            ready = self._ready[key] = edit.on(x.device, x.dtype)
        edited = ready(x)
        if isinstance(where, bool):
            return edited
        return torch.where(where.to(x.device).unsqueeze(-1), edited, x)

    def _by_head(self, tensor: Tensor, name: str) -> Tensor:
        if tensor.ndim == 4:
            return tensor
        # Some architectures keep the heads side by side in one axis.
        if tensor.ndim != 3 or tensor.shape[-1] % self._heads:
            raise ValueError(f"{name!r} holds shape {tuple(tensor.shape)}, without heads.")
        return rearrange(
            tensor, "batch pos (head d_head) -> batch pos head d_head", head=self._heads
        )
