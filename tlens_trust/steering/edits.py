"""What an intervention does to one activation."""

from dataclasses import dataclass
from math import isfinite

import torch
from jaxtyping import Float
from torch import Tensor

from tlens_trust.steering.intervention import Intervention
from tlens_trust.steering.vector import SteeringVector


@dataclass(frozen=True, eq=False)
class ActivationEdit:
    """An edit along one direction, as `steer` describes its modes.

    Attributes:
        mode: `"add"`, `"ablate"`, `"clamp"` or `"rotate"`.
        vector: The direction. `amount` counts in its length where the mode says so.
        amount: How often the vector is added (`"add"`, `"rotate"`), what share of the projection
            is removed (`"ablate"`), or the new projection in the model's own units (`"clamp"`).
    """

    mode: str
    vector: Float[Tensor, " d_model"]
    amount: float

    @property
    def is_identity(self) -> bool:
        """Whether nothing changes, to the bit."""
        # Clamping to 0 removes the projection.
        return self.amount == 0 and self.mode != "clamp"

    def on(self, device: torch.device, dtype: torch.dtype) -> "PlacedEdit":
        """The edit for activations of one device and number format."""
        exact = torch.promote_types(dtype, torch.float32)
        vector = self.vector.to(device, exact)
        return PlacedEdit(self.mode, self.amount * vector, vector / vector.norm(), self.amount)


@dataclass(frozen=True, eq=False)
class PlacedEdit:
    """An edit whose direction lies on the device of the activations.

    It computes in the direction's number format, at least float32, and rounds once at the end.

    Attributes:
        mode: The mode of the `ActivationEdit`.
        step: The vector that is added or turned towards.
        unit: The direction, of length 1.
        amount: The amount of the `ActivationEdit`.
    """

    mode: str
    step: Float[Tensor, " d_model"]
    unit: Float[Tensor, " d_model"]
    amount: float

    def __call__(self, x: Float[Tensor, "*place d_model"]) -> Float[Tensor, "*place d_model"]:
        """The activation that replaces `x`."""
        return self._replacement(x.to(self.unit.dtype)).to(x.dtype)

    def _replacement(self, x: Tensor) -> Tensor:
        if self.mode == "add":
            return x + self.step
        if self.mode == "rotate":
            total = x + self.step
            size, length = total.norm(dim=-1, keepdim=True), x.norm(dim=-1, keepdim=True)
            # An activation that is moved to the origin has no direction to be turned to.
            divisor = torch.where(size > 0, size, torch.ones_like(size))
            return torch.where(size > 0, total * (length / divisor), x)
        projection = (x @ self.unit).unsqueeze(-1)
        change = -self.amount * projection if self.mode == "ablate" else self.amount - projection
        return x + change * self.unit


def make_edits(vector: SteeringVector, intervention: Intervention) -> dict[str, ActivationEdit]:
    """The edit at each site, as `steer` describes its modes and units.

    Args:
        vector: The steering vector.
        intervention: Its strength, mode and units.

    Raises:
        ValueError: The intervention has no strength, a direction has no length, or the size of the
            residual stream is needed and unknown.
    """
    strength, mode = intervention.strength, intervention.mode
    if strength is None:
        raise ValueError(
            f"Steering takes a strength, got a dose, target_kl={intervention.target_kl}. Find the "
            "strength that reaches it with `calibrate_strength`."
        )
    assert vector.rms is not None  # set when the vector was made
    edits = {}
    for site, direction, rms in zip(vector.sites, vector.values, vector.rms.tolist(), strict=True):
        norm = float(direction.double().norm())
        if norm == 0:
            raise ValueError(
                f"The direction at {site!r} has length 0. Leave that site out with "
                "`vector.select(…)`."
            )
        unit = rms if intervention.units == "rms" else norm
        # Ablation removes a share of the projection and needs no size.
        if mode != "ablate" and not isfinite(unit):
            raise ValueError(
                "`units='rms'` counts in the size of the residual stream, which this vector does "
                f"not know at {site!r}. Extract it with `extract_steering_vector`, pass `rms=` to "
                "`SteeringVector.from_direction`, or use units='vector'."
            )
        amount = {
            "add": strength * unit / norm,
            "rotate": strength * unit / norm,
            "ablate": float(strength),
            "clamp": strength * unit,
        }[mode]
        edits[site] = ActivationEdit(mode, direction, amount)
    return edits
