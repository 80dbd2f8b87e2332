"""Steering a model inside a `with`, by forward hooks at hook points."""

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
from tlens_trust.steering.compatibility import check_fits, check_other_model
from tlens_trust.steering.edits import ActivationEdit, PlacedEdit, make_edits
from tlens_trust.steering.intervention import Intervention, ProbeFires
from tlens_trust.steering.pass_tracker import PassTracker
from tlens_trust.steering.steered_positions import PositionRule, Positions, checked_positions
from tlens_trust.steering.vector import SteeringVector


class Steering:
    """The handle that `steer` yields: the steered model, and where its prompt ends.

    Attributes:
        model: The hooked model. A plain Hugging Face model has TransformerLens' names here.
        vector: The steering vector.
    """

    def __init__(self, model: HookedModel, vector: SteeringVector, tracker: PassTracker) -> None:
        self.model = model
        self.vector = vector
        self._tracker = tracker

    def prompt(
        self, lengths: int | Sequence[int] | Int[Tensor, " batch"]
    ) -> AbstractContextManager[None]:
        """State how long the prompt is, for the forward passes in a `with`.

        Use it for texts whose first part is a prompt and whose rest stands for generated text, as
        candidate answers that are scored by their likelihood. Without it, the whole input of a
        forward pass is the prompt. Each of several nested `steer`s needs its own call.

        Args:
            lengths: Tokens of the prompt, one number for all rows or one for each. A
                beginning-of-sequence token counts, padding does not.

        Raises:
            ValueError: A length is negative, or there are not as many as rows.
        """
        return self._tracker.prompt(lengths)


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
) -> AbstractContextManager[Steering]:
    """Steer a model along a vector inside a `with`.

    Forward hooks edit the activations at the vector's sites. The model itself is not changed. It
    works for forward passes, for `generate` with and without a key-value cache, and for batches
    with padding on either side. An inner `with` acts on the result of an outer one. Padding is
    never edited.

    With `x` an activation, `v` the vector at its site, `u = v / ‖v‖`, and `s` the strength:

    - `"add"`: `x + s v`.
    - `"ablate"`: `x - s (x·u) u`. Strength 1 removes the whole projection.
    - `"clamp"`: `x + (s‖v‖ - x·u) u`. The projection becomes that of `s v`.
    - `"rotate"`: `x + s v`, scaled back to the length of `x`. The activation turns towards `v`.

    With `units="rms"`, the length of `s v` is `s` times the root mean square of the residual
    stream's length at the site, as the vector records it. At strength 0.5 the added vector is half
    as long as the stream. (`"ablate"` has no units.)

    Strength 0 changes nothing, except with `"clamp"`, where it equals `"ablate"` with strength 1.

    A position is the place of a token in its row, counted from 0 without padding; a
    beginning-of-sequence token counts. Positions are absolute, and the end of the prompt is fixed
    once the prompt has been read. So text and logits are the same with and without the cache. In
    `generate` the prompt is its input. In a forward pass the whole input is the prompt, unless
    `with steering.prompt(lengths)` says otherwise.

    Args:
        model: A hooked model, or a plain Hugging Face model (in evaluation mode inside the
            `with`).
        vector: The steering vector, at one site or several.
        strength: How strongly to steer, in `units`.
        mode: `"add"`, `"ablate"`, `"clamp"` or `"rotate"`.
        positions: Which tokens to steer: `"all"`, `"prompt"`, `"generated"`, or `"last"` (the last
            token of the prompt alone). Also a token's number, a span `(start, stop)`, or a set of
            tokens, given as ids or as texts of one token each. `(start, None)` includes all
            generated tokens. Negative numbers count from the end of the prompt. The paper's code
            under a key-value cache corresponds to `(-1, None)`.
        when: Steer only where a probe fires. A `LinearProbe` alone means
            `ProbeFires(probe, above=0.0)` at the vector's one site.
        units: `"vector"`, the vector's own length, or `"rms"`.
        other_model: What to do if the vector is known to come from another run than the model:
            `"warn"`, `"allow"` or `"refuse"`. Another checkpoint of the same run is no other model.

    Returns:
        A context manager. It yields a handle with `prompt(lengths)`.

    Raises:
        ValueError: The vector does not fit the model's width or sites, or a site cannot be written
            to. A direction has length 0, or an RMS that is needed is unknown. An argument has none
            of the allowed values.

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
    check_other_model(other_model)
    intervention = Intervention(
        strength=strength, mode=mode, positions=positions, when=when, units=units
    )
    return intervene(model, vector, intervention, other_model=other_model)


@contextmanager
def intervene(
    model: HookedModel | nn.Module,
    vector: SteeringVector,
    intervention: Intervention,
    *,
    other_model: str = "warn",
) -> Iterator[Steering]:
    """Steer a model inside a `with`, as `steer` does.

    Args:
        model: A hooked model, or a plain Hugging Face model.
        vector: The steering vector.
        intervention: How it is used, with a strength.
        other_model: What to do if the vector comes from another run, as for `steer`.

    Yields:
        A handle with `prompt(lengths)`.

    Raises:
        ValueError: As `steer`, or the intervention has no strength.

    Warns:
        UserWarning: The vector comes from another run.
    """
    hooked = PlainModel(model) if is_plain_model(model) else model  # type: ignore[arg-type]
    if not isinstance(hooked, HookedModel):
        raise ValueError(
            f"`model` is the model to steer, got a {type(model).__name__}. Allowed are a hooked "
            "model from TransformerLens and a Hugging Face model; load a Checkpoint with `.load()`."
        )
    edits = make_edits(vector, intervention)
    warning = check_fits(vector, hooked, other_model=other_model)
    if warning is not None:
        # The second level is `contextlib`, the third the user's `with`.
        warnings.warn(warning, stacklevel=3)
    rule = checked_positions(intervention.positions, hooked.tokenizer)
    condition = intervention.condition
    probe_site = None if condition is None else _probe_site(condition, vector, hooked)
    tracker = PassTracker(hooked)
    hooks = _SteeringHooks(hooked, tracker, edits, rule, condition, probe_site)
    # The probe's block is followed too: a pass must have begun when the probe is evaluated.
    layers = [site_layer(site) for site in (*vector.sites, *([probe_site] if probe_site else []))]
    with ExitStack() as stack:
        stack.enter_context(tracker.following(layers))
        stack.enter_context(hooked.hooks(fwd_hooks=hooks.by_name()))
        yield Steering(hooked, vector, tracker)


def _probe_site(condition: ProbeFires, vector: SteeringVector, model: HookedModel) -> str:
    """The site whose activations a condition depends on."""
    if condition.site is None:
        if len(vector.sites) > 1:
            raise ValueError(
                f"The vector acts at {len(vector.sites)} sites, and a probe has one. Name it "
                "with `ProbeFires(probe, site=…)`."
            )
        site = vector.sites[0]
    else:
        sites = resolve_sites(model, condition.site)
        if len(sites) > 1:
            raise ValueError(
                f"A probe has one site, got {condition.site!r}, which stands for {len(sites)}. "
                "Name one, as 'blocks.3.attn.hook_z[7]'."
            )
        (site,) = sites
    sites_before = [
        steered_site
        for steered_site in vector.sites
        if (site_layer(steered_site), _order(steered_site)) < (site_layer(site), _order(site))
    ]
    if sites_before:
        raise ValueError(
            f"The probe is at {site!r}, which is computed after {sites_before[0]!r} is steered. "
            "Give it the same site or an earlier one."
        )
    return site


# In the order in which a block computes them. Other sites count as its end.
_IN_BLOCK = ("hook_resid_pre", "attn.hook_z", "hook_attn_out", "hook_resid_mid", "hook_mlp_out")


def _order(site: str) -> int:
    hook = split_site(site)[0].split(".", 2)[2]
    return _IN_BLOCK.index(hook) if hook in _IN_BLOCK else len(_IN_BLOCK)


class _SteeringHooks:
    """The hook functions of one `steer`."""

    def __init__(
        self,
        model: HookedModel,
        tracker: PassTracker,
        edits: dict[str, ActivationEdit],
        rule: PositionRule,
        condition: ProbeFires | None,
        probe_site: str | None,
    ) -> None:
        self._heads = int(model.cfg.n_heads)
        self._tracker = tracker
        self._rule = rule
        self._condition = condition
        self._probe_site = probe_site
        # The pass that a mask belongs to, and the mask.
        self._fires: tuple[int, Bool[Tensor, "batch pos"] | None] = (0, None)
        self._positions: tuple[int, Bool[Tensor, "batch pos"] | bool] = (0, False)
        self._by_hook: dict[str, list[tuple[int | None, ActivationEdit]]] = defaultdict(list)
        for site, edit in edits.items():
            hook, head = split_site(site)
            self._by_hook[hook].append((head, edit))
        self._edits_by_place: dict[tuple[int, torch.device, torch.dtype], PlacedEdit] = {}

    def by_name(self) -> list[tuple[str, Callable[[Tensor, Any], Tensor | None]]]:
        """Names of hook points and functions, the condition before the edits."""
        hooks: list[tuple[str, Callable[[Tensor, Any], Tensor | None]]] = []
        # Hooks at one point fire in the order in which they were placed. So a probe at the steered
        # site sees the activations before the edit.
        if self._probe_site is not None:
            hooks.append((split_site(self._probe_site)[0], self._evaluate_condition))
        hooks += [
            (hook, partial(self._edit, hook, edits))
            for hook, edits in self._by_hook.items()
            if not all(edit.is_identity for _, edit in edits)
        ]
        return hooks

    def _evaluate_condition(self, tensor: Tensor, hook: Any) -> None:
        assert self._condition is not None
        assert self._probe_site is not None
        head = split_site(self._probe_site)[1]
        activations = tensor
        if head is not None:
            activations = self._by_head(tensor, self._probe_site)[:, :, head]
        width = len(self._condition.probe.direction)
        if activations.shape[-1] != width:
            raise ValueError(
                f"The probe has {width} weights, and {self._probe_site!r} is "
                f"{activations.shape[-1]} wide. Fit it at the site where it is used."
            )
        # A condition is a comparison, which has no gradient.
        with torch.no_grad():
            self._fires = self._tracker.number, self._condition.fires(activations)

    def _edit(
        self, name: str, edits: list[tuple[int | None, ActivationEdit]], tensor: Tensor, hook: Any
    ) -> Tensor | None:
        mask = self._mask(tensor, name)
        # A hook that returns None leaves the activations as they are.
        if mask is False:
            return None
        if len(edits) == 1 and edits[0][0] is None:
            return self._steer(tensor, edits[0][1], mask)
        # A copy, in which each head is set in turn.
        by_head = self._by_head(tensor, name).clone()
        for head, edit in edits:
            by_head[:, :, head] = self._steer(by_head[:, :, head], edit, mask)
        return by_head.view(tensor.shape)

    def _mask(self, tensor: Tensor, name: str) -> Bool[Tensor, "batch pos"] | bool:
        """Which positions to edit; True for all of them, False for none."""
        layout = self._tracker.layout
        if layout is None or layout.shape != tensor.shape[:2]:
            size = "nothing" if layout is None else f"{layout.shape[0]} rows of {layout.shape[1]}"
            raise ValueError(
                f"{name!r} has shape {tuple(tensor.shape)} while the model's input is {size} "
                "tokens. Steer a site that has one vector per token, and run the whole model."
            )
        number, mask = self._positions
        # One mask serves all sites of a pass.
        if number != self._tracker.number:
            mask = self._rule.mask(layout)
            self._positions = self._tracker.number, mask
        if self._condition is None:
            return mask
        number, fires = self._fires
        if fires is None or number != self._tracker.number:
            raise ValueError(
                f"The probe at {self._probe_site!r} was not evaluated before {name!r} was "
                "computed. Give it the same site or an earlier one."
            )
        if isinstance(mask, bool):
            return fires if mask else False
        return fires & mask.to(fires.device)

    def _steer(
        self, x: Tensor, edit: ActivationEdit, mask: Bool[Tensor, "batch pos"] | bool
    ) -> Tensor:
        if edit.vector.shape[0] != x.shape[-1]:
            raise ValueError(
                f"This steering vector is {edit.vector.shape[0]} wide, but the activations there "
                f"are {x.shape[-1]} wide. Extract it at this site of a checkpoint of this model."
            )
        # This object keeps its edits, so their identities stay unique. A model may be spread over
        # several devices, and each gets its copy once.
        key = id(edit), x.device, x.dtype
        placed_edit = self._edits_by_place.get(key)
        if placed_edit is None:
            placed_edit = self._edits_by_place[key] = edit.on(x.device, x.dtype)
        replacement = placed_edit(x)
        if isinstance(mask, bool):
            return replacement
        return torch.where(mask.to(x.device).unsqueeze(-1), replacement, x)

    def _by_head(self, tensor: Tensor, name: str) -> Tensor:
        if tensor.ndim == 4:
            return tensor
        # Some architectures keep the heads side by side in one axis.
        if tensor.ndim != 3 or tensor.shape[-1] % self._heads:
            raise ValueError(f"{name!r} has shape {tuple(tensor.shape)}, without heads.")
        return rearrange(
            tensor, "batch pos (head d_head) -> batch pos head d_head", head=self._heads
        )
