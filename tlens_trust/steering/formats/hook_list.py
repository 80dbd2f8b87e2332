"""A list of hooks for TransformerLens' own functions."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from torch import Tensor

from tlens_trust.activations.sites import split_site
from tlens_trust.steering.edits import ActivationEdit, make_edits
from tlens_trust.steering.intervention import Intervention
from tlens_trust.steering.vector import SteeringVector


def make_hooks(
    vector: SteeringVector,
    *,
    strength: float | int,
    mode: str = "add",
    units: str = "vector",
) -> list[tuple[str, Callable[[Tensor, Any], Tensor]]]:
    """Make hooks for `model.run_with_hooks(…, fwd_hooks=…)` or `model.hooks(fwd_hooks=…)`.

    They edit every position, including padding, since a hook alone does not know which tokens are
    padding. For anything else use `steer`. At heads they expect a hook point with a separate axis
    for heads.

    Args:
        vector: The steering vector.
        strength: How strongly to steer, in `units`.
        mode: `"add"`, `"ablate"`, `"clamp"` or `"rotate"`, as for `steer`.
        units: `"vector"` or `"rms"`.

    Returns:
        The name of each hook point, and its function.

    Raises:
        ValueError: As `steer`, where that does not depend on the model.

    Examples:
        >>> import torch
        >>> vector = SteeringVector.from_direction(torch.tensor([1.0, 0.0]), site=3)
        >>> ((name, function),) = make_hooks(vector, strength=2.0)
        >>> name, function(torch.zeros(1, 1, 2), None).tolist()
        ('blocks.3.hook_resid_post', [[[2.0, 0.0]]])
    """
    intervention = Intervention(strength=strength, mode=mode, units=units)
    by_hook: dict[str, list[tuple[int | None, ActivationEdit]]] = defaultdict(list)
    for site, edit in make_edits(vector, intervention).items():
        hook, head = split_site(site)
        by_hook[hook].append((head, edit))
    return [(hook, _function(edits)) for hook, edits in by_hook.items()]


def _function(edits: list[tuple[int | None, ActivationEdit]]) -> Callable[[Tensor, Any], Tensor]:
    def act(tensor: Tensor, hook: Any) -> Tensor:
        # A copy, since a cache of activations may refer to the tensor.
        steered = tensor.clone()
        for head, edit in edits:
            part = tensor if head is None else tensor[:, :, head]
            steered_part = edit.on(tensor.device, tensor.dtype)(part)
            if head is None:
                return steered_part
            steered[:, :, head] = steered_part
        return steered

    return act
