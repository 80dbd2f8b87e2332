"""Cheap guesses of the inverse Hessian for many logistic regressions on the same rows."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

# The largest `c`, in units of the inverse of the mean eigenvalue of `ZᵀZ`. Over features, `I` is
# negligible beside `c·ZᵀZ` at this `c`, so that fits with a larger one can share its inverse. Over
# rows, the data can be separated, so that the curvature stays small however large `C` is.
_LARGEST_OVER_FEATURES = 250.0
_LARGEST_OVER_ROWS = 30.0
# The largest ratio of the `c` of two fits that share an inverse.
_LARGEST_RATIO = 12.0
# The largest number of values in memory from which Hessians are computed at once.
_AT_ONCE = 2**22


@dataclass(frozen=True, eq=False)
class Preconditioner:
    """`(I + c·ZᵀZ)⁻¹` for a few `c`, each serving several fits.

    The Hessian of a fit is `I + Zᵀ S Z` with `S = C p(1 - p)` on its training rows. The guess
    replaces all of `S` by one `c`, and the training rows by all rows. This costs some passes, but a
    Hessian for each fit would cost far more.

    With no more training rows than features, all rows cannot replace the training rows, since a
    left-out row then leaves a direction without any curvature. In that case each set of training
    rows has its own inverses. They are computed over rows, by the Woodbury identity.

    Attributes:
        inverses: Over features, `(I + c·ZᵀZ)⁻¹`; over rows, `c(I + c·ZZᵀ)⁻¹` on training rows.
        stiffness: The sum of `S` over rows that each inverse assumes.
        uses: The number of the inverse that each fit uses.
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
        """Compute the inverses for fits in ascending order of `C`.

        Args:
            features: `Z`.
            cost: `C` on the training rows of each fit, 0 on other rows.
        """
        examples, width = features.shape[1:]
        train = cost[0] > 0
        over_rows = int(train.sum(dim=1).max()) <= width
        # A row is weighted by the share of fits that train on it. Rows without any have no effect.
        share_of_fits = train.to(cost.dtype).mean(dim=0)
        if over_rows:
            gram = _gram(features.mT)
            largest = _LARGEST_OVER_ROWS * examples
        else:
            # With equal shares, scaling the Gram matrix avoids a copy of the features.
            is_uniform = bool((share_of_fits == share_of_fits[0]).all())
            gram = _gram(features if is_uniform else features * share_of_fits.sqrt().unsqueeze(-1))
            if is_uniform:
                gram *= share_of_fits[0]
            largest = _LARGEST_OVER_FEATURES * width
        trace = gram.diagonal(dim1=1, dim2=2).sum(-1, keepdim=True)
        # A quarter is the curvature of the log-loss at log-odds of 0, its largest value.
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
        """Return the guesses of some of the fits, in the given order."""
        return replace(self, uses=tuple(self.uses[fit] for fit in keep))

    def solve(
        self,
        features: Float[Tensor, "site example d_model"],
        vectors: Float[Tensor, "site fit d_model"],
        stiffness: Float[Tensor, "site fit"],
    ) -> Float[Tensor, "site fit d_model"]:
        """Multiply one vector for each fit by the guess of the inverse Hessian.

        Args:
            features: `Z`.
            vectors: The vector of each fit.
            stiffness: The current sum of `S` over rows, for each fit. It falls as rows move away
                from the boundary. One factor for each fit corrects the guess for that.
        """
        inner = vectors @ features.mT if self.over_rows else vectors
        solution, assumed_stiffness = torch.empty_like(inner), torch.empty_like(stiffness)
        for number in sorted(set(self.uses)):
            fits = [fit for fit, inverse in enumerate(self.uses) if inverse == number]
            # A slice of adjacent fits makes a view, a list makes a copy.
            is_adjacent = fits[-1] - fits[0] == len(fits) - 1
            members: slice | list[int] = slice(fits[0], fits[-1] + 1) if is_adjacent else fits
            solution[:, members] = inner[:, members] @ self.inverses[number]
            assumed_stiffness[:, members] = self.stiffness[number]
        ratio = assumed_stiffness / stiffness.clamp_min(1e-30)
        correction = ratio.clamp(1e-3, 1).unsqueeze(-1)
        if self.over_rows:
            # Woodbury: `(I + c·ZᵀZ)⁻¹ = I - Zᵀ c(I + c·ZZᵀ)⁻¹ Z`.
            return (vectors - solution @ features).mul_(correction)
        return solution.mul_(correction)


@dataclass(frozen=True, eq=False)
class Hessians:
    """The inverse Hessian of each fit, at its weights of one pass.

    If the labels can be separated, most rows end up far on the correct side, and only a few rows
    have any curvature. These rows differ between fits, so that a shared guess is poor.

    Attributes:
        inverses: The inverses of `I + R Zᵀ (S - S11ᵀS / Σ S) Z R`, with `R` the fit's ratio. The
            subtracted term comes from minimising over the bias.
    """

    inverses: Float[Tensor, "site fit d_model d_model"]

    @classmethod
    def of(
        cls,
        features: Float[Tensor, "site example d_model"],
        curvature: Float[Tensor, "site fit example"],
        ratio: Float[Tensor, "site fit d_model"],
    ) -> "Hessians":
        """Compute and invert the Hessians, a few fits at once.

        Args:
            features: `Z`.
            curvature: `S` of each fit, 0 on rows that it is not trained on.
            ratio: The factor from the features to the standardisation of each fit.
        """
        examples, width = features.shape[1:]
        sites, fits = curvature.shape[:2]
        inverses = features.new_empty(sites, fits, width, width)
        total = curvature.sum(-1).clamp_min(torch.finfo(features.dtype).tiny)
        centre = ((curvature @ features) / total.unsqueeze(-1)).unsqueeze(2)
        at_once = max(1, _AT_ONCE // (sites * examples * width))
        for start in range(0, fits, at_once):
            part = slice(start, start + at_once)
            rows = features.unsqueeze(1) - centre[:, part]
            rows *= curvature[:, part].sqrt().unsqueeze(-1)
            rows *= ratio[:, part].unsqueeze(2)
            matrix = (rows.mT @ rows).flatten(0, 1)
            # Adds `I`, and a little more, since rounding may have lowered the smallest eigenvalue.
            diagonal = matrix.diagonal(dim1=1, dim2=2)
            diagonal += 1 + torch.finfo(matrix.dtype).eps * diagonal.sum(-1, keepdim=True)
            inverse = torch.cholesky_inverse(torch.linalg.cholesky(matrix))
            inverses[:, part] = inverse.reshape(sites, -1, width, width)
        return cls(inverses)

    def select(self, keep: list[int]) -> "Hessians":
        """Return the guesses of some of the fits, in the given order."""
        return Hessians(self.inverses[:, keep])

    def solve(
        self,
        features: Float[Tensor, "site example d_model"],
        vectors: Float[Tensor, "site fit d_model"],
        stiffness: Float[Tensor, "site fit"],
    ) -> Float[Tensor, "site fit d_model"]:
        """Multiply the vector of each fit by its inverse Hessian; other arguments are not used."""
        return (vectors.unsqueeze(-2) @ self.inverses).squeeze(-2)


def _shares(
    ideal_c: Float[Tensor, "site fit"], rows: Bool[Tensor, "fit example"]
) -> list[list[int]]:
    """List the fits that share an inverse: with the same rows, and similar `c`."""
    mean_c = ideal_c.mean(dim=0).tolist()
    row_sets = torch.unique(rows, dim=0, return_inverse=True)[1].tolist()
    shares: list[list[int]] = []
    open_share: dict[int, list[int]] = {}
    for fit, (c, number) in enumerate(zip(mean_c, row_sets, strict=True)):
        share = open_share.get(number)
        if share is None or c > _LARGEST_RATIO * mean_c[share[0]]:
            share = open_share[number] = []
            shares.append(share)
        share.append(fit)
    return shares


def _inverse(
    gram: Float[Tensor, "site side side"],
    c: Float[Tensor, "site 1 1"],
    rows: Bool[Tensor, " side"] | None,
) -> Float[Tensor, "site side side"]:
    """Compute `(I + c·gram)⁻¹`, or on some rows `c(I + c·gram)⁻¹` and 0 on others."""
    matrix = gram * c
    if rows is not None:
        matrix *= rows.unsqueeze(-1) & rows
    # Adds `I`, and a little more, since rounding may have lowered the smallest eigenvalue.
    diagonal = matrix.diagonal(dim1=1, dim2=2)
    diagonal += 1 + torch.finfo(gram.dtype).eps * diagonal.sum(-1, keepdim=True)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(matrix))
    if rows is not None:
        inverse *= c * (rows.unsqueeze(-1) & rows)
    return inverse


def _gram(rows: Float[Tensor, "site example side"]) -> Float[Tensor, "site side side"]:
    """Compute `ZᵀZ` by blocks of columns: by symmetry, half of it need not be computed."""
    side = rows.shape[-1]
    result = torch.empty(len(rows), side, side, dtype=rows.dtype, device=rows.device)
    block = max(128, -(-side // 4))
    for start in range(0, side, block):
        stop = min(start + block, side)
        strip = rows[:, :, start:stop].mT @ rows[:, :, start:]
        result[:, start:stop, start:] = strip
        result[:, start:, start:stop] = strip.mT
    return result
