"""A cheap guess of the inverse Hessian, shared by many logistic regressions on the same rows."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

# The largest `c`, in units of the inverse of the mean eigenvalue of `ZᵀZ`. Over features, `I` no
# longer counts beside `c·ZᵀZ` there, so that fits with a larger one share its inverse. Over rows,
# the data can be separated, and curvature stays small however large `C` is.
_LARGEST_OVER_FEATURES = 250.0
_LARGEST_OVER_ROWS = 30.0
# Between fits that share an inverse, the largest factor from one `c` to another.
_BRIDGE = 12.0
# Numbers that are held at once to make Hessians of.
_AT_ONCE = 2**22


@dataclass(frozen=True, eq=False)
class Preconditioner:
    """`(I + c·ZᵀZ)⁻¹` for a few `c`, each serving several fits.

    The Hessian of a fit is `I + Zᵀ S Z` with `S = C p(1 - p)` on its training rows. Putting one
    `c` for all of `S`, and all rows for the training rows, costs some passes; a Hessian for each
    fit would cost far more. With no more training rows than features the latter would not do, as
    a row that is left out then leaves a direction without any curvature: there each set of
    training rows has inverses of its own, over rows, by the Woodbury identity.

    Attributes:
        inverses: Over features, `(I + c·ZᵀZ)⁻¹`; over rows, `c(I + c·ZZᵀ)⁻¹` on training rows.
        stiffness: Sum of `S` over rows that each inverse stands for.
        uses: Which inverse each fit uses.
        over_rows: Whether the inverses are over rows.
    """

    inverses: tuple[Float[Tensor, "site side side"], ...]
    stiffness: tuple[Float[Tensor, "site 1"], ...]
    uses: tuple[int, ...]
    over_rows: bool

    @classmethod
    def of(
        cls,
        features: Float[Tensor, "site example d_model"],
        cost: Float[Tensor, "site fit example"],
    ) -> "Preconditioner":
        """Factorise for fits in ascending order of `C`.

        Args:
            features: `Z`.
            cost: `C` on the training rows of each fit, 0 on others.
        """
        examples, width = features.shape[1:]
        train = cost[0] > 0
        over_rows = int(train.sum(dim=1).max()) <= width
        # A row counts as often as it is trained on: one that never is cannot interfere.
        share_of_fits = train.to(cost.dtype).mean(dim=0)
        if over_rows:
            gram = _gram(features.mT)
            largest = _LARGEST_OVER_ROWS * examples
        else:
            even = bool((share_of_fits == share_of_fits[0]).all())
            gram = _gram(features if even else features * share_of_fits.sqrt().unsqueeze(-1))
            if even:
                gram *= share_of_fits[0]
            largest = _LARGEST_OVER_FEATURES * width
        trace = gram.diagonal(dim1=1, dim2=2).sum(-1, keepdim=True)
        # A quarter is the curvature of the log-loss at even odds.
        ideal_c = torch.minimum(
            0.25 * cost.amax(dim=-1), largest / trace.clamp_min(torch.finfo(trace.dtype).tiny)
        )
        inverses: list[Tensor] = []
        stiffness: list[Tensor] = []
        uses = [0] * len(train)
        for members in _shares(ideal_c, train if over_rows else torch.zeros_like(train)):
            c = (ideal_c[:, members[0]] * ideal_c[:, members[-1]]).sqrt().reshape(-1, 1, 1)
            rows = train[members[0]] if over_rows else None
            for fit in members:
                uses[fit] = len(inverses)
            inverses.append(_inverse(gram, c, rows))
            stiffness.append(c[..., 0] * (share_of_fits if rows is None else rows).sum())
        return cls(tuple(inverses), tuple(stiffness), tuple(uses), over_rows)

    def select(self, keep: list[int]) -> "Preconditioner":
        """For some of the fits, in their order."""
        return replace(self, uses=tuple(self.uses[fit] for fit in keep))

    def solve(
        self,
        features: Float[Tensor, "site example d_model"],
        vectors: Float[Tensor, "site fit d_model"],
        stiffness: Float[Tensor, "site fit"],
    ) -> Float[Tensor, "site fit d_model"]:
        """The guess of the inverse Hessian times one vector for each fit.

        Args:
            features: `Z`.
            vectors: What to multiply.
            stiffness: Sum of `S` over rows, for each fit now. It falls as the rows find their
                side, which is undone here, as far as one factor can.
        """
        inner = vectors @ features.mT if self.over_rows else vectors
        solved, assumed = torch.empty_like(inner), torch.empty_like(stiffness)
        for number in sorted(set(self.uses)):
            fits = [fit for fit, used in enumerate(self.uses) if used == number]
            # A view, not a copy, where the fits stand side by side.
            adjacent = fits[-1] - fits[0] == len(fits) - 1
            where: slice | list[int] = slice(fits[0], fits[-1] + 1) if adjacent else fits
            solved[:, where] = inner[:, where] @ self.inverses[number]
            assumed[:, where] = self.stiffness[number]
        drift = (assumed / stiffness.clamp_min(1e-30)).clamp(1e-3, 1).unsqueeze(-1)
        if self.over_rows:
            return (vectors - solved @ features).mul_(drift)
        return solved.mul_(drift)


@dataclass(frozen=True, eq=False)
class Hessians:
    """The inverse Hessian of each fit by itself, at its weights of one pass.

    Where the labels can be separated, most rows end up far on their own side and only a few have
    any curvature, not the same ones in two fits. No shared guess knows which.

    Attributes:
        inverses: Of `I + R Zᵀ (S - S11ᵀS / Σ S) Z R`, with `R` the fit's ratio.
    """

    inverses: Float[Tensor, "site fit d_model d_model"]

    @classmethod
    def of(
        cls,
        features: Float[Tensor, "site example d_model"],
        curvature: Float[Tensor, "site fit example"],
        ratio: Float[Tensor, "site fit d_model"],
    ) -> "Hessians":
        """Invert them, a few fits at once.

        Args:
            features: `Z`.
            curvature: `S` of each fit, 0 on rows that it is not trained on.
            ratio: From the features to the fit's own standardisation.
        """
        examples, width = features.shape[1:]
        sites, fits = curvature.shape[:2]
        inverses = features.new_empty(sites, fits, width, width)
        total = curvature.sum(-1).clamp_min(torch.finfo(features.dtype).tiny)
        centre = ((curvature @ features) / total.unsqueeze(-1)).unsqueeze(2)
        at_once = max(1, _AT_ONCE // (sites * examples * width))
        for start in range(0, fits, at_once):
            some = slice(start, start + at_once)
            rows = features.unsqueeze(1) - centre[:, some]
            rows *= curvature[:, some].sqrt().unsqueeze(-1)
            rows *= ratio[:, some].unsqueeze(2)
            matrix = (rows.mT @ rows).flatten(0, 1)
            # `I`, and what rounding may have taken from the smallest eigenvalue.
            diagonal = matrix.diagonal(dim1=1, dim2=2)
            diagonal += 1 + torch.finfo(matrix.dtype).eps * diagonal.sum(-1, keepdim=True)
            inverse = torch.cholesky_inverse(torch.linalg.cholesky(matrix))
            inverses[:, some] = inverse.reshape(sites, -1, width, width)
        return cls(inverses)

    def select(self, keep: list[int]) -> "Hessians":
        """For some of the fits, in their order."""
        return Hessians(self.inverses[:, keep])

    def solve(
        self,
        features: Float[Tensor, "site example d_model"],
        vectors: Float[Tensor, "site fit d_model"],
        stiffness: Float[Tensor, "site fit"],
    ) -> Float[Tensor, "site fit d_model"]:
        """The inverse Hessian of each fit times its vector; nothing else is looked at."""
        return (vectors.unsqueeze(-2) @ self.inverses).squeeze(-2)


def _shares(
    ideal_c: Float[Tensor, "site fit"], rows: Bool[Tensor, "fit example"]
) -> list[list[int]]:
    """Fits that share an inverse: the same rows, and `c` within one bridge of each other."""
    heights = ideal_c.mean(dim=0).tolist()
    of_fit = torch.unique(rows, dim=0, return_inverse=True)[1].tolist()
    shares: list[list[int]] = []
    open_share: dict[int, list[int]] = {}
    for fit, (height, number) in enumerate(zip(heights, of_fit, strict=True)):
        share = open_share.get(number)
        if share is None or height > _BRIDGE * heights[share[0]]:
            share = open_share[number] = []
            shares.append(share)
        share.append(fit)
    return shares


def _inverse(
    gram: Float[Tensor, "site side side"],
    c: Float[Tensor, "site 1 1"],
    rows: Bool[Tensor, " side"] | None,
) -> Float[Tensor, "site side side"]:
    """`(I + c·gram)⁻¹`, or on some rows `c(I + c·gram)⁻¹` and 0 on others."""
    matrix = gram * c
    if rows is not None:
        matrix *= rows.unsqueeze(-1) & rows
    # `I`, and what rounding may have taken from the smallest eigenvalue.
    diagonal = matrix.diagonal(dim1=1, dim2=2)
    diagonal += 1 + torch.finfo(gram.dtype).eps * diagonal.sum(-1, keepdim=True)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(matrix))
    if rows is not None:
        inverse *= c * (rows.unsqueeze(-1) & rows)
    return inverse


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
