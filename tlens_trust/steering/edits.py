"""What steering does to one activation."""

from collections.abc import Callable
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

    def on(self, device: torch.device, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        """The edit for activations of one device and number format.

        It computes in float32 at least, and rounds once, at its end.
        """
        exact = torch.promote_types(dtype, torch.float32)
        vector = self.vector.to(device, exact)
        unit = vector / vector.norm()
        step = self.amount * vector
        amount = self.amount

        def add(x: Tensor) -> Tensor:
            return x + step

        def ablate(x: Tensor) -> Tensor:
            return x - amount * (x @ unit).unsqueeze(-1) * unit

        def clamp(x: Tensor) -> Tensor:
            return x + (amount - (x @ unit)).unsqueeze(-1) * unit

        def rotate(x: Tensor) -> Tensor:
            moved = x + step
            size, length = moved.norm(dim=-1, keepdim=True), x.norm(dim=-1, keepdim=True)
            # What is moved to the origin has no direction to be turned to.
            safe = torch.where(size > 0, size, torch.ones_like(size))
            return torch.where(size > 0, moved * (length / safe), x)

        chosen = {"add": add, "ablate": ablate, "clamp": clamp, "rotate": rotate}[self.mode]

        def edit(x: Tensor) -> Tensor:
            return chosen(x.to(exact)).to(dtype)

        return edit


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
