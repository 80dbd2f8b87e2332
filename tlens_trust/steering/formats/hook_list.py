"""A list of hooks, as TransformerLens itself takes it."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from torch import Tensor

from tlens_trust.activations.sites import split_site
from tlens_trust.steering.edits import Edit, make_edits
from tlens_trust.steering.vector import SteeringVector


def make_hooks(
    vector: SteeringVector,
    *,
    strength: float | int,
    mode: str = "add",
    units: str = "vector",
) -> list[tuple[str, Callable[[Tensor, Any], Tensor]]]:
    """Make hooks for `model.run_with_hooks(…, fwd_hooks=…)` or `model.hooks(fwd_hooks=…)`.

    They edit every position, padding too, since a hook alone does not know what stands there; for
    anything else use `steer`. At heads they expect a hook point that keeps heads in an axis of
    their own.

    Args:
        vector: What to steer by.
        strength: How much, in `units`.
        mode: `"add"`, `"ablate"`, `"clamp"` or `"rotate"`, as `steer` has them.
        units: `"vector"` or `"rms"`.

    Returns:
        Names and functions, one for each hook point.

    Raises:
        ValueError: As `steer`, as far as it can be seen without a model.

    Examples:
        >>> import torch
        >>> vector = SteeringVector.from_direction(torch.tensor([1.0, 0.0]), site=3)
        >>> ((name, function),) = make_hooks(vector, strength=2.0)
        >>> name, function(torch.zeros(1, 1, 2), None).tolist()
        ('blocks.3.hook_resid_post', [[[2.0, 0.0]]])
    """
    by_hook: dict[str, list[tuple[int | None, Edit]]] = defaultdict(list)
    for site, edit in make_edits(vector, strength, mode, units).items():
        hook, head = split_site(site)
        by_hook[hook].append((head, edit))
    return [(hook, _function(edits)) for hook, edits in by_hook.items()]


def _function(edits: list[tuple[int | None, Edit]]) -> Callable[[Tensor, Any], Tensor]:
    def act(tensor: Tensor, hook: Any) -> Tensor:
        edited = tensor.clone()
        for head, edit in edits:
            part = tensor if head is None else tensor[:, :, head]
            found = edit.on(tensor.device, tensor.dtype)(part)
            if head is None:
                return found
            edited[:, :, head] = found
        return edited

    return act
