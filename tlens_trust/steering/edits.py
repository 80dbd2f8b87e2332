"""What steering does to one activation."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

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

    def on(self, device: torch.device, dtype: torch.dtype) -> "Callable[[Tensor], Tensor]":
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
