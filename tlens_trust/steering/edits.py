"""What steering does to one activation."""

from dataclasses import dataclass
from math import isfinite

import torch
from jaxtyping import Float
from torch import Tensor

from tlens_trust.steering.vector import SteeringVector

UNITS = ("vector", "rms")
MODES = ("add", "ablate", "clamp", "rotate")


@dataclass(frozen=True, eq=False)
class Edit:
    """An edit along one direction, as `steer` describes its modes.

    Attributes:
        mode: `"add"`, `"ablate"`, `"clamp"` or `"rotate"`.
        vector: The direction; its length counts where `amount` counts in it.
        amount: How often the vector is added (`"add"`, `"rotate"`), how much of the projection is
            taken away (`"ablate"`), or what the projection becomes in the model's own units
            (`"clamp"`).
    """

    mode: str
    vector: Float[Tensor, " d_model"]
    amount: float

    @property
    def is_identity(self) -> bool:
        """Whether nothing changes, to the bit."""
        return self.amount == 0 and self.mode != "clamp"

    def on(self, device: torch.device, dtype: torch.dtype) -> "ReadyEdit":
        """The edit for activations of one device and number format."""
        exact = torch.promote_types(dtype, torch.float32)
        vector = self.vector.to(device, exact)
        return ReadyEdit(self.mode, self.amount * vector, vector / vector.norm(), self.amount)


@dataclass(frozen=True, eq=False)
class ReadyEdit:
    """An edit with its direction where activations are.

    It computes in the direction's number format, float32 at least, and rounds once, at its end.

    Attributes:
        mode: As `Edit` has it.
        step: What is added, or turned towards.
        unit: The direction, of length 1.
        amount: As `Edit` has it.
    """

    mode: str
    step: Float[Tensor, " d_model"]
    unit: Float[Tensor, " d_model"]
    amount: float

    def __call__(self, x: Float[Tensor, "*place d_model"]) -> Float[Tensor, "*place d_model"]:
        """The activation that takes the place of `x`."""
        return self._edited(x.to(self.unit.dtype)).to(x.dtype)

    def _edited(self, x: Tensor) -> Tensor:
        if self.mode == "add":
            return x + self.step
        if self.mode == "rotate":
            moved = x + self.step
            size, length = moved.norm(dim=-1, keepdim=True), x.norm(dim=-1, keepdim=True)
            # What is moved to the origin has no direction to be turned to.
            safe = torch.where(size > 0, size, torch.ones_like(size))
            return torch.where(size > 0, moved * (length / safe), x)
        along = (x @ self.unit).unsqueeze(-1)
        change = -self.amount * along if self.mode == "ablate" else self.amount - along
        return x + change * self.unit


def make_edits(
    vector: SteeringVector, strength: float | int, mode: str, units: str
) -> dict[str, Edit]:
    """The edit at each site, as `steer` describes its modes and units.

    Raises:
        ValueError: `strength`, `mode` or `units` is none of those allowed, a direction has no
            length, or the size of the residual stream is needed and not known.
    """
    if mode not in MODES:
        raise ValueError(f"`mode` is one of {', '.join(map(repr, MODES))}, got {mode!r}.")
    if units not in UNITS:
        raise ValueError(f"`units` is 'vector' or 'rms', got {units!r}.")
    if isinstance(strength, bool) or not isfinite(strength):
        raise ValueError(f"`strength` is a finite number, got {strength!r}.")
    edits = {}
    for site, direction, rms in zip(vector.sites, vector.values, _listed(vector.rms), strict=True):
        norm = float(direction.double().norm())
        if norm == 0:
            raise ValueError(
                f"The direction at {site!r} has no length, and so points nowhere. Leave that site "
                "out with `vector.select(…)`."
            )
        unit = rms if units == "rms" else norm
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
        edits[site] = Edit(mode, direction, amount)
    return edits


def _listed(numbers: Tensor | None) -> list[float]:
    assert numbers is not None  # set when the vector was made
    return [float(number) for number in numbers]
