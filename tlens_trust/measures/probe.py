"""Linear probes: a direction and a bias that turn an activation into log-odds."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, no_type_check

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from tlens_trust.arguments import checked_grid, checked_positive
from tlens_trust.measures.classifier import ProbeClassifier, check_training_rows
from tlens_trust.measures.folds import deal_folds
from tlens_trust.measures.log_odds import fit_log_odds
from tlens_trust.measures.solver import solve_logistic


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """A direction in activation space and a bias.

    The log-odds of label 1 are `direction·x + bias`. Every function `fit_…_probe` returns such a
    probe. Its arguments are activations, labels and, by keyword, `groups` (and `seed` if the fit is
    random).

    Attributes:
        direction: Nats of log-odds per unit of activation, in the model's own units.
        bias: Log-odds at the origin of activation space, in nats.
    """

    direction: Float[Tensor, " d_model"]
    bias: float

    def log_odds(self, activations: Float[Tensor, "*example d_model"]) -> Float[Tensor, "*example"]:
        """Compute the log-odds of label 1, in nats, in float64."""
        return activations.double() @ self.direction.double().to(activations.device) + self.bias


def fit_logistic_probe(
    activations: Float[Tensor, "example d_model"],
    labels: Int[Tensor, " example"],
    *,
    groups: Sequence[str] | None = None,
    C: float | Sequence[float] = 1.0,
    standardise: bool = True,
) -> LinearProbe:
    """Fit a logistic-regression probe for one concept at one site.

    Minimises `½‖v‖² + C Σᵢ log(1 + exp(-sᵢ(v·zᵢ + b)))` with `sᵢ = 2yᵢ - 1` and `zᵢ` the
    activation standardised feature by feature over the given rows. The standardisation is then
    folded back into direction and bias. The bias is not penalised. Of several `C`, the one with the
    least cross-entropy on left-out groups is chosen, by cross-validation on the given rows.
    Deterministic.

    Shifting or rescaling a feature does not change the scores. A rotation of activation space
    does, unless `standardise` is off: then the penalty is the same in all directions.

    Args:
        activations: One row per statement, in the model's own units.
        labels: 1 where the statement is on the trustworthy side, else 0.
        groups: The group of each row, left out as a whole to choose `C`; None if each row is its
            own group. With one `C` it is not used.
        C: Inverse strength of the ridge penalty, as in scikit-learn; or several to choose from.
            Positive.
        standardise: Whether to scale each feature to unit variance first.

    Returns:
        A probe that maps an activation to the log-odds of label 1, in nats.

    Raises:
        ValueError: `activations` holds a NaN or an infinity, `labels` lacks 0 or 1 or is of another
            length, `C` is not positive, the groups are too few to choose one, or the optimum was
            not reached.

    Source:
        Alain and Bengio (2016), arXiv:1610.01644.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> labels = torch.arange(200) % 2
        >>> activations = torch.randn(200, 8, generator=generator)
        >>> activations[:, 3] += 3 * labels
        >>> probe = fit_logistic_probe(activations, labels)
        >>> int(probe.direction.abs().argmax())
        3
        >>> bool(((probe.log_odds(activations) > 0) == (labels == 1)).float().mean() > 0.85)
        True
    """
    check_training_rows(activations, labels, groups)
    hint = "It is the inverse strength of the penalty. Give 1.0, for example."
    grid = list(checked_grid("C", C, single=True, hint=hint))
    if len(grid) > 1:
        grid = [_choose_penalty(activations, labels, groups, grid, standardise)]
    fits = solve_logistic(
        activations.unsqueeze(1),
        labels,
        train=torch.ones(1, len(labels), dtype=torch.bool),
        C=grid,
        standardise=standardise,
    )
    if not bool(fits.converged):
        raise ValueError(
            f"The logistic probe did not converge: its objective is {float(fits.objective):.3g} "
            f"nats, which may be {float(fits.gap):.3g} above the optimum. Choose a smaller `C`, or "
            "look for activations of very different sizes."
        )
    return LinearProbe(fits.coef[0, 0, 0], float(fits.intercept))


def _choose_penalty(
    activations: Float[Tensor, "example d_model"],
    labels: Int[Tensor, " example"],
    groups: Sequence[str] | None,
    grid: list[float],
    standardise: bool,
) -> float:
    """Choose the `C` with the least cross-entropy on left-out groups; of equals, the smallest."""
    names = [str(row) for row in range(len(labels))] if groups is None else list(groups)
    fold = deal_folds(labels, names, folds=5)
    if fold is None:
        raise ValueError(
            f"To choose `C`, the {len(set(names))} groups must form two parts that both hold both "
            "labels, and they do not. Give one `C`."
        )
    left_out = torch.from_numpy(fold == np.arange(fold.max() + 1)[:, None]).to(activations.device)
    fits = solve_logistic(
        activations.unsqueeze(1), labels, train=~left_out, C=grid, standardise=standardise
    )
    cross_entropy = torch.zeros(len(grid), dtype=torch.float64, device=activations.device)
    for number, rows in enumerate(left_out):
        log_odds = activations[rows].double() @ fits.coef[0, number].T + fits.intercept[0, number]
        sign = 2.0 * labels[rows].to(log_odds) - 1
        cross_entropy += torch.nn.functional.softplus(-sign.unsqueeze(1) * log_odds).sum(dim=0)
    return grid[int(cross_entropy.argmin())]


def fit_mass_mean_probe(
    activations: Float[Tensor, "example d_model"],
    labels: Int[Tensor, " example"],
    *,
    groups: Sequence[str] | None = None,
) -> LinearProbe:
    """Fit a mass-mean probe: the difference of the class means, calibrated to log-odds.

    The direction is `θ = μ₁ - μ₀`, neither scaled nor whitened. A logistic regression on the same
    rows gives the slope and the offset that turn `θ·(x - (μ₁ + μ₀)/2)` into the log-odds of label
    1. Each row is part of one of the class means, so its projection on their difference is too
    large. For the calibration, each row is therefore projected with the means of the other groups,
    which has a closed form. Otherwise the log-odds would be far too large on wide activations.

    The slope is positive, so that the direction always points from label 0 to label 1. A rotation
    or a shift of activation space does not change the scores. Scaling a feature does.

    Args:
        activations: One row per statement, in the model's own units.
        labels: 1 where the statement is on the trustworthy side, else 0.
        groups: The group of each row (such as a pair of statements, or one question), left out as
            a whole in the calibration; None if each row is its own group.

    Returns:
        A probe along `θ`, of log-odds in nats.

    Raises:
        ValueError: `activations` holds a NaN or an infinity, or `labels` lacks 0 or 1.

    Source:
        Marks and Tegmark (2023), arXiv:2310.06824.

    Examples:
        >>> activations = torch.tensor([[0.0, 1.0], [0.2, 3.0], [1.0, 1.1], [1.2, 3.1]])
        >>> probe = fit_mass_mean_probe(activations, torch.tensor([0, 0, 1, 1]))
        >>> (probe.direction / probe.direction[0]).round(decimals=2).tolist()
        [1.0, 0.1]
    """
    check_training_rows(activations, labels, groups)
    values = activations.double()
    centre = values.mean(dim=0)
    values = values - centre
    means = torch.stack([values[labels == label].mean(dim=0) for label in (0, 1)])
    difference = means[1] - means[0]

    number = torch.arange(len(labels))
    if groups is not None:
        _, inverse = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
        number = torch.from_numpy(inverse)
    scores = _scores_without_own_group(values, labels, means, number.to(labels.device))
    slope, offset = fit_log_odds(scores, labels)
    direction = slope * difference
    bias = offset - float(direction @ (centre + means.mean(dim=0)))
    return LinearProbe(direction, bias)


def _scores_without_own_group(
    values: Float[Tensor, "example d_model"],
    labels: Int[Tensor, " example"],
    means: Float[Tensor, "2 d_model"],
    group: Int[Tensor, " example"],
) -> Float[Tensor, " example"]:
    """Compute `(μ₁ - μ₀)·(x - (μ₁ + μ₀)/2)` with the means of all groups but the row's own."""
    groups = int(group.max()) + 1
    # `(μ₁ - μ₀)·(x - (μ₁ + μ₀)/2) = (μ₁·x - ‖μ₁‖²/2) - (μ₀·x - ‖μ₀‖²/2)`, one term for each label.
    distance = torch.zeros(len(labels), dtype=values.dtype, device=values.device)
    for label, sign in ((0, -1.0), (1, 1.0)):
        rows = labels == label
        group_sums = torch.zeros(groups, values.shape[1], dtype=values.dtype, device=values.device)
        group_sums.index_add_(0, group[rows], values[rows])
        other_rows = int(rows.sum()) - torch.bincount(group[rows], minlength=groups)
        if not bool((other_rows > 0).all()):
            # One group holds all rows of a label. The mean of all rows is used.
            group_sums.zero_()
            other_rows = torch.full_like(other_rows, int(rows.sum()))
        mean = (means[label] * rows.sum() - group_sums) / other_rows.unsqueeze(1)
        inner = (values * mean[group]).sum(dim=1)
        distance += sign * (inner - 0.5 * mean.square().sum(dim=1)[group])
    return distance


class LogisticProbe(ProbeClassifier):
    """Logistic regression on standardised activations, as a scikit-learn classifier.

    See `fit_logistic_probe` for the objective. The standardisation is that of the training rows. It
    is folded into `coef_` and `intercept_`, which act on activations in the model's own units.

    Args:
        C: Inverse strength of the ridge penalty. Positive.
        standardise: Whether to scale each feature to unit variance first.
        tolerance: The largest certified distance to the optimum, relative to the objective.
        max_passes: The largest number of passes over the activations. If a fit needs more, it stops
            with a warning.

    Attributes:
        coef_: The direction, of shape `(1, d_model)`.
        intercept_: The bias, of shape `(1,)`.
        classes_: The two labels; log-odds are those of the second.
        n_iter_: The number of passes over the activations.

    Examples:
        >>> activations = torch.tensor([[0.0, 1.0], [0.2, 3.0], [1.0, 1.1], [1.2, 3.1]])
        >>> probe = LogisticProbe(C=10.0).fit(activations, torch.tensor([0, 0, 1, 1]))
        >>> probe.predict(activations).tolist()
        [0, 0, 1, 1]
    """

    C: float
    standardise: bool
    tolerance: float
    max_passes: int

    # Scikit-learn requires that a constructor accepts any value and that `fit` refuses it.
    @no_type_check
    def __init__(
        self,
        C: float = 1.0,
        *,
        standardise: bool = True,
        tolerance: float = 1e-5,
        max_passes: int = 1000,
    ) -> None:
        self.C = C
        self.standardise = standardise
        self.tolerance = tolerance
        self.max_passes = max_passes

    def _fit_direction(
        self,
        activations: Float[Tensor, "example d_model"],
        labels: Int[Tensor, " example"],
        groups: Any,
    ) -> tuple[Tensor, float]:
        # Groups are not used, since they only serve to choose `C`.
        C = checked_positive("C", self.C, hint="It is the inverse strength of the penalty.")
        fits = solve_logistic(
            activations.unsqueeze(1),
            labels,
            train=torch.ones(1, len(labels), dtype=torch.bool),
            C=[C],
            standardise=self.standardise,
            tolerance=self.tolerance,
            max_passes=self.max_passes,
        )
        self.n_iter_ = int(fits.passes)
        if not bool(fits.converged):
            warnings.warn(
                f"LogisticProbe stopped after {self.n_iter_} passes, at most "
                f"{float(fits.gap):.3g} nats above the optimum. Raise `max_passes`, or lower `C`.",
                ConvergenceWarning,
                stacklevel=3,
            )
        return fits.coef[0, 0, 0], float(fits.intercept)


class MassMeanProbe(ProbeClassifier):
    """The difference of the class means, calibrated to log-odds, as a scikit-learn classifier.

    See `fit_mass_mean_probe`.

    Attributes:
        coef_: The direction, of shape `(1, d_model)`: the difference of the class means times a
            positive slope.
        intercept_: The bias, of shape `(1,)`.
        classes_: The two labels; log-odds are those of the second.

    Examples:
        >>> activations = torch.tensor([[0.0, 1.0], [0.2, 3.0], [1.0, 1.1], [1.2, 3.1]])
        >>> probe = MassMeanProbe().fit(activations, torch.tensor([0, 0, 1, 1]))
        >>> probe.predict(activations).tolist()
        [0, 0, 1, 1]
    """

    def _fit_direction(
        self,
        activations: Float[Tensor, "example d_model"],
        labels: Int[Tensor, " example"],
        groups: Any,
    ) -> tuple[Tensor, float]:
        probe = fit_mass_mean_probe(activations, labels, groups=groups)
        return probe.direction, probe.bias
