"""Ridge regression for any penalty, with exact cross-validation over groups at no cost of fits.

Let the features `X` be centred and scaled over the rows, let the targets `t` be centred, and let
`XXᵀ = Q E Qᵀ` be the eigendecomposition (or that of `XᵀX`, if rows are many). The weights for a
penalty `λ` are `(XᵀX + λI)⁻¹Xᵀt`. The fitted values are `H t`, with `H = Q (E/(E + λ)) Qᵀ + 11ᵀ/n`.
For a group of rows `g`, the residuals of a fit without it are exactly `(I - H_gg)⁻¹(t - Ht)_g`, so
that nothing has to be fitted again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tlens_trust.measures.log_odds import fit_log_odds
from tlens_trust.measures.probe import LinearProbe


@dataclass(frozen=True, eq=False)
class RidgePath:
    """Ridge regressions of the label on one set of rows, for any penalty.

    Attributes:
        components: `Q √E`: the rows in the coordinates of the eigenvectors.
        eigenvalues: `E`.
        basis: From these coordinates back to the scaled features: `w = basis c`.
        target: Label minus the mean label.
        centre: Mean of each feature.
        scale: What each feature was divided by.
        groups: A number per row; rows of one number are left out together.
    """

    components: Float[Tensor, "example rank"]
    eigenvalues: Float[Tensor, " rank"]
    basis: Float[Tensor, "d_model rank"]
    target: Float[Tensor, " example"]
    centre: Float[Tensor, " d_model"]
    scale: Float[Tensor, " d_model"]
    groups: Int[Tensor, " example"]

    @classmethod
    def of(
        cls,
        activations: Float[Tensor, "example d_model"],
        labels: Int[Tensor, " example"],
        groups: Sequence[str] | None,
        *,
        scale: Float[Tensor, " d_model"],
    ) -> "RidgePath":
        """Decompose once for all penalties.

        Args:
            activations: One row per statement.
            labels: 0 or 1.
            groups: The group of each row, left out as a whole; None if each row is its own group.
            scale: What to divide each feature by.
        """
        values = activations.double()
        centre = values.mean(dim=0)
        features = (values - centre) / scale
        rows, width = features.shape
        if rows >= width:
            eigenvalues, basis = torch.linalg.eigh(features.T @ features)
            eigenvalues = eigenvalues.clamp_min(0)
            components = features @ basis
        else:
            eigenvalues, vectors = torch.linalg.eigh(features @ features.T)
            is_known = eigenvalues > eigenvalues[-1] * width * torch.finfo(values.dtype).eps
            eigenvalues, vectors = eigenvalues[is_known], vectors[:, is_known]
            components = vectors * eigenvalues.sqrt()
            basis = features.T @ (vectors / eigenvalues.sqrt())
        target = labels.double()
        return cls(
            components,
            eigenvalues,
            basis,
            target - target.mean(),
            centre,
            scale,
            number_groups(groups, labels),
        )

    def coefficients(self, penalty: float) -> Float[Tensor, " rank"]:
        """The weights in the coordinates of the eigenvectors."""
        return (self.components.T @ self.target) / (self.eigenvalues + penalty)

    def left_out(
        self, penalty: float
    ) -> tuple[Float[Tensor, " example"], Float[Tensor, " example"]]:
        """What fits without each row's own group say of the row.

        Args:
            penalty: `λ`.

        Returns:
            The residuals `t - t̂`; and the scores `w·(x - x̄)`, with `w` and `x̄` of the other
            groups. The mean label of the other groups is left out of the scores, since it falls
            where the row's own label rises.
        """
        rows = len(self.target)
        fitted_values = self.components @ self.coefficients(penalty)
        residuals = self.target - fitted_values
        shrunk = self.components / (self.eigenvalues + penalty).sqrt()
        result, mean_left = torch.empty_like(residuals), torch.empty_like(residuals)
        sizes = torch.bincount(self.groups)
        order = torch.argsort(self.groups, stable=True)
        starts = torch.cumsum(sizes, 0) - sizes
        for size in sorted(set(sizes.tolist())):
            group_numbers = (sizes == size).nonzero().squeeze(1)
            offsets = torch.arange(size, device=starts.device)
            members = order[starts[group_numbers].unsqueeze(1) + offsets]
            group_rows = shrunk[members]
            leverage = group_rows @ group_rows.mT + 1 / rows
            identity = torch.eye(size, dtype=leverage.dtype, device=leverage.device)
            left_out_residuals = torch.linalg.solve(
                identity - leverage, residuals[members].unsqueeze(-1)
            )
            result[members] = left_out_residuals.squeeze(-1)
            mean_change = -self.target[members].sum(dim=1, keepdim=True) / (rows - size)
            mean_left[members] = mean_change.expand(-1, size)
        return result, self.target - result - mean_left

    def probe(self, penalty: float) -> LinearProbe:
        """The direction for a penalty, of log-odds in nats.

        Slope and offset are those of a logistic regression on the scores of left-out groups.
        """
        _, scores = self.left_out(penalty)
        slope, offset = fit_log_odds(scores, (self.target > 0).long())
        direction = slope * (self.basis @ self.coefficients(penalty)) / self.scale
        return LinearProbe(direction, offset - float(direction @ self.centre))


def number_groups(
    groups: Sequence[str] | None, labels: Int[Tensor, " example"]
) -> Int[Tensor, " example"]:
    """A number per row for its group; rows count as groups where there is no other."""
    if groups is not None and len(set(groups)) > 1:
        _, inverse = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
        return torch.from_numpy(inverse.astype(np.int64)).to(labels.device)
    return torch.arange(len(labels), device=labels.device)


def feature_scale(
    activations: Float[Tensor, "example d_model"], labels: Int[Tensor, " example"] | None = None
) -> Float[Tensor, " d_model"]:
    """The standard deviation of each feature; 1 where it is mere rounding.

    Dividing a constant feature by its rounding would make a feature of it.

    Args:
        activations: One row per statement.
        labels: Where given, deviations are those within the labels.

    Returns:
        One positive number per feature, in float64.
    """
    values = activations.double()
    parts = [values] if labels is None else [values[labels == label] for label in (0, 1)]
    means = torch.stack([part.mean(dim=0) for part in parts])
    squares = sum((part - mean).square().sum(0) for part, mean in zip(parts, means, strict=True))
    scale = (torch.as_tensor(squares) / len(values)).sqrt()
    precision = torch.float64 if activations.dtype == torch.float64 else torch.float32
    rounding = 8 * torch.finfo(precision).eps * means.abs().amax(dim=0)
    return torch.where(scale > rounding, scale, 1.0)
