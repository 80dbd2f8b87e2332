"""A cheap guess of the inverse Hessian, shared by many logistic regressions on the same rows."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

# Beyond `c` this many times the inverse of the mean eigenvalue, `I` no longer counts beside
# `c·ZᵀZ`, and all such fits share one inverse. Below, a factor of this between two `c` is bridged.
_SATURATION = 500.0
_BRIDGE = 12.0


@dataclass(frozen=True, eq=False)
class Preconditioner:
    """`(I + c·ZᵀZ)⁻¹` for a few `c`, each serving a run of neighbouring fits.

    The Hessian of a fit is `I + Zᵀ S Z` with `S = C p(1 - p)` on its training rows. Putting one
    `c` for all of `S`, and all rows for the training rows, costs some passes; a Hessian for each
    fit would cost far more.

    Attributes:
        inverses: Of `I/c + ZᵀZ`, or where rows are few of `I/c + ZZᵀ`; one for each level.
        levels: The `c` of each level, of shape `(site, 1)`.
        level: The level of each fit, ascending.
        rows: The rows of `Z` where the inverses are over rows; else None.
        count: How many rows count, in weight.
    """

    inverses: tuple[Float[Tensor, "site side side"], ...]
    levels: tuple[Float[Tensor, "site 1"], ...]
    level: tuple[int, ...]
    rows: Float[Tensor, "site example d_model"] | None
    count: Float[Tensor, "site 1"]

    @classmethod
    def of(
        cls,
        features: Float[Tensor, "site example d_model"],
        cost: Float[Tensor, "site fit example"],
    ) -> "Preconditioner":
        """Factorise for fits in ascending order of `C`.

        Args:
            features: `Z`.
            cost: `C` on the training rows of each fit, 0 on others. A row counts as often as it
                is trained on, so that a row that never is cannot interfere.
        """
        _, examples, width = features.shape
        often = (cost > 0).to(cost.dtype).mean(dim=1)
        few, even = 2 * examples < width, bool((often == often[:, :1]).all())
        rows = features if even and not few else features * often.sqrt().unsqueeze(-1)
        gram = _gram(rows.mT if few else rows)
        if even and not few:
            gram *= often[:, :1].unsqueeze(-1)
        trace = gram.diagonal(dim1=1, dim2=2).sum(-1, keepdim=True)
        saturated = _SATURATION * width / trace.clamp_min(torch.finfo(trace.dtype).tiny)
        # A quarter is the curvature of the log-loss at even odds.
        wanted = torch.minimum(0.25 * cost.amax(dim=-1), saturated)
        level: list[int] = []
        heads: list[float] = []
        for c in wanted.mean(dim=0).tolist():
            if not heads or c > _BRIDGE * heads[-1]:
                heads.append(c)
            level.append(len(heads) - 1)
        inverses, levels = [], []
        for number in range(len(heads)):
            first = level.index(number)
            last = first + level.count(number) - 1
            c = (wanted[:, first] * wanted[:, last]).sqrt().unsqueeze(-1)
            matrix = gram.clone()
            # `I`, and what rounding may have taken from the smallest eigenvalue.
            unit = 1 / c + torch.finfo(gram.dtype).eps * trace
            matrix.diagonal(dim1=1, dim2=2).add_(unit)
            inverses.append(torch.cholesky_inverse(torch.linalg.cholesky(matrix)))
            levels.append(c)
        return cls(
            tuple(inverses),
            tuple(levels),
            tuple(level),
            rows if few else None,
            often.sum(dim=1, keepdim=True),
        )

    def select(self, keep: list[int]) -> "Preconditioner":
        """For some of the fits, in their order."""
        level = tuple(self.level[index] for index in keep)
        return Preconditioner(self.inverses, self.levels, level, self.rows, self.count)

    def solve(
        self,
        vectors: Float[Tensor, "site fit d_model"],
        curvature: Float[Tensor, "site fit"],
    ) -> Float[Tensor, "site fit d_model"]:
        """The guess of the inverse Hessian times one vector for each fit.

        Args:
            vectors: What to multiply.
            curvature: Sum of `S` of each fit now. Its mean has moved away from the level's `c`
                since, which is undone here, as far as one factor can.
        """
        parts = []
        start = 0
        for number, (inverse, c) in enumerate(zip(self.inverses, self.levels, strict=True)):
            stop = start + self.level.count(number)
            if start == stop:
                continue
            part = vectors[:, start:stop]
            drift = (c * self.count / curvature[:, start:stop].clamp_min(1e-30)).clamp(1e-3, 1)
            if self.rows is None:
                parts.append((part @ inverse).mul_((drift / c).unsqueeze(-1)))
            else:
                inner = part @ self.rows.mT @ inverse @ self.rows
                parts.append((part - inner).mul_(drift.unsqueeze(-1)))
            start = stop
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _gram(rows: Float[Tensor, "site example side"]) -> Float[Tensor, "site side side"]:
    """`ZᵀZ`, by blocks of columns, since it is symmetric and half of it need not be computed."""
    side = rows.shape[-1]
    result = torch.empty(len(rows), side, side, dtype=rows.dtype, device=rows.device)
    block = max(128, -(-side // 4))
    for start in range(0, side, block):
        stop = min(start + block, side)
        strip = rows[:, :, start:stop].mT @ rows[:, :, start:]
        result[:, start:stop, start:] = strip
        result[:, start:, start:stop] = strip.mT
    return result
