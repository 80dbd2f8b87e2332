"""Ridge regression for any penalty, with exact cross-validation over groups and no further fits.

Let `X` be the features, centred and scaled over the rows, and `t` the centred targets. Let
`XXᵀ = Q E Qᵀ` be the eigendecomposition (or that of `XᵀX`, with more rows than features). The
weights for a penalty `λ` are `(XᵀX + λI)⁻¹Xᵀt`. The fitted values are `H t`, with
`H = Q (E/(E + λ)) Qᵀ + 11ᵀ/n`. For a group of rows `g`, the residuals of a fit without it are
exactly `(I - H_gg)⁻¹(t - Ht)_g`, so that nothing has to be fitted again.
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
        basis: Maps these coordinates `c` to weights of the scaled features: `w = basis c`.
        target: Label minus the mean label.
        centre: Mean of each feature.
        scale: The divisor of each feature.
        groups: A number per row. Rows with the same number are left out together.
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
        """Compute the eigendecomposition, which serves all penalties.

        Args:
            activations: One row per statement.
            labels: 0 or 1.
            groups: The group of each row, left out as a whole; None if each row is its own group.
            scale: The divisor of each feature.
        """
        values = activations.double()
        centre = values.mean(dim=0)
        features = (values - centre) / scale
        rows, width = features.shape
        # `XᵀX` and `XXᵀ` have the same positive eigenvalues, so the smaller one is decomposed.
        if rows >= width:
            eigenvalues, basis = torch.linalg.eigh(features.T @ features)
            eigenvalues = eigenvalues.clamp_min(0)
            components = features @ basis
        else:
            eigenvalues, vectors = torch.linalg.eigh(features @ features.T)
            # Smaller eigenvalues are rounding, by which the basis must not be divided. Centring
            # alone makes one of them zero.
            is_positive = eigenvalues > eigenvalues[-1] * width * torch.finfo(values.dtype).eps
            eigenvalues, vectors = eigenvalues[is_positive], vectors[:, is_positive]
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
        """Return the weights in the coordinates of the eigenvectors."""
        return (self.components.T @ self.target) / (self.eigenvalues + penalty)

    def left_out(
        self, penalty: float
    ) -> tuple[Float[Tensor, " example"], Float[Tensor, " example"]]:
        """Compute residuals and scores of each row, by fits without the row's group.

        Args:
            penalty: `λ`.

        Returns:
            The residuals `t - t̂`, and the scores `w·(x - x̄)`, with `w` and `x̄` of the other
            groups. The scores do not contain the mean label of the other groups. It is lower for
            rows of label 1, since their own label is missing from it.
        """
        rows = len(self.target)
        fitted_values = self.components @ self.coefficients(penalty)
        residuals = self.target - fitted_values
        # Scaled so that the product of two rows is their entry of `H`, apart from `1/n`.
        shrunk_components = self.components / (self.eigenvalues + penalty).sqrt()
        left_out_residuals = torch.empty_like(residuals)
        other_means = torch.empty_like(residuals)
        sizes = torch.bincount(self.groups)
        order = torch.argsort(self.groups, stable=True)
        starts = torch.cumsum(sizes, 0) - sizes
        # Groups of one size are solved in one batch.
        for size in sorted(set(sizes.tolist())):
            group_numbers = (sizes == size).nonzero().squeeze(1)
            offsets = torch.arange(size, device=starts.device)
            members = order[starts[group_numbers].unsqueeze(1) + offsets]
            group_rows = shrunk_components[members]
            leverage = group_rows @ group_rows.mT + 1 / rows
            identity = torch.eye(size, dtype=leverage.dtype, device=leverage.device)
            solution = torch.linalg.solve(identity - leverage, residuals[members].unsqueeze(-1))
            left_out_residuals[members] = solution.squeeze(-1)
            # The targets add up to 0, so that the others add up to minus those of the group.
            other_mean = -self.target[members].sum(dim=1, keepdim=True) / (rows - size)
            other_means[members] = other_mean.expand(-1, size)
        return left_out_residuals, self.target - left_out_residuals - other_means

    def probe(self, penalty: float) -> LinearProbe:
        """Return the probe for a penalty, with log-odds in nats.

        Slope and offset come from a logistic regression on the scores of left-out groups.
        """
        _, scores = self.left_out(penalty)
        slope, offset = fit_log_odds(scores, (self.target > 0).long())
        direction = slope * (self.basis @ self.coefficients(penalty)) / self.scale
        return LinearProbe(direction, offset - float(direction @ self.centre))


def number_groups(
    groups: Sequence[str] | None, labels: Int[Tensor, " example"]
) -> Int[Tensor, " example"]:
    """Number the groups, one number per row. Without two groups, each row is its own group."""
    if groups is not None and len(set(groups)) > 1:
        _, inverse = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
        return torch.from_numpy(inverse.astype(np.int64)).to(labels.device)
    return torch.arange(len(labels), device=labels.device)


def feature_scale(
    activations: Float[Tensor, "example d_model"], labels: Int[Tensor, " example"] | None = None
) -> Float[Tensor, " d_model"]:
    """Compute the standard deviation of each feature, or 1 for a constant feature.

    A feature counts as constant if it varies by no more than the rounding of its values. Dividing
    by such a deviation would turn rounding into a feature.

    Args:
        activations: One row per statement.
        labels: If given, deviations are taken from the mean of each label.

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
