"""Many ridge-penalised logistic regressions on the same rows, solved together.

Cross-validation fits the same rows again and again: every fold, every strength of the penalty.
All those fits share the matrix of activations, so it is read once a pass for all of them (a
product of matrices, where one fit alone is a matrix times a vector), and one eigendecomposition
of its Gram matrix preconditions them all. The method is L-BFGS whose first guess of the inverse
Hessian is `(I + c·ZᵀZ)⁻¹`, with `c` the fit's own mean curvature and Newton's method for step
length and bias along every direction. It runs in float32, and again in float64 where that does
not reach the tolerance.

Each fit ends with a certificate, computed in float64. The objective, minimised over the bias, is
strongly convex with modulus 1 in the weights, so half the squared norm of its gradient bounds its
distance to the optimum (and is the duality gap).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# Pairs of steps that L-BFGS remembers, and passes without progress after which a fit is given up.
_MEMORY = 8
_PATIENCE = 25


@dataclass(frozen=True, eq=False)
class LogisticFits:
    """Logistic regressions for every site, fold and penalty.

    Attributes:
        coef: Weights, in nats per unit of the activations that were given.
        intercept: Biases, in nats.
        objective: `½‖v‖² + C Σ log-loss`, where `v` are the weights on standardised features.
        gap: A certified upper bound on the objective's distance to its optimum.
        converged: Where `gap` is within the tolerance, relative to the objective.
        passes: How often each site's activations were read.
    """

    coef: Float[Tensor, "site fold penalty d_model"]
    intercept: Float[Tensor, "site fold penalty"]
    objective: Float[Tensor, "site fold penalty"]
    gap: Float[Tensor, "site fold penalty"]
    converged: Bool[Tensor, "site fold penalty"]
    passes: Int[Tensor, " site"]


def solve_logistic(
    activations: Float[Tensor, "example site d_model"],
    labels: Int[Tensor, " example"],
    *,
    train: Bool[Tensor, "fold example"],
    C: Sequence[float] | Float[Tensor, "site fold penalty"],
    standardise: bool = True,
    tolerance: float = 1e-5,
    max_passes: int = 1000,
) -> LogisticFits:
    """Fit a logistic regression for every site, fold and penalty.

    Each minimises `½‖v‖² + C Σᵢ log(1 + exp(-sᵢ(v·zᵢ + b)))` over its training rows, with
    `sᵢ = 2yᵢ - 1` and `zᵢ` the activation standardised by the mean and deviation of those
    training rows: scikit-learn's `LogisticRegression(C=C)` behind a `StandardScaler`. The bias is
    not penalised. The result is folded back, so that `coef` and `intercept` act on `activations`.

    Args:
        activations: One row per statement and site.
        labels: 0 or 1 for each statement.
        train: For each fold, the rows that it is fitted on. Other rows change nothing.
        C: Inverse strengths of the penalty; the same for all, or one list per site and fold.
        standardise: Scale each feature to unit variance on the training rows.
        tolerance: Largest certified distance to the optimum, relative to the objective.
        max_passes: How often the activations are read before a fit is given up as unconverged.

    Returns:
        The fits, in float64, with a certificate each.

    Raises:
        ValueError: An activation is not finite, a fold's training rows lack a label, or a `C` is
            not positive.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [2.0], [3.0]]).unsqueeze(1)
        >>> fits = solve_logistic(
        ...     x, torch.tensor([0, 1, 0, 1]), train=torch.ones(1, 4, dtype=torch.bool), C=[1.0]
        ... )
        >>> fits.coef.shape, bool(fits.converged.all())
        (torch.Size([1, 1, 1, 1]), True)
    """
    _, sites, width = activations.shape
    folds, device = len(train), activations.device
    labels, train = labels.to(device), train.to(device)
    if not bool(torch.isfinite(activations).all()):
        raise ValueError(
            "`activations` must be finite to fit a probe, got a NaN or an infinity. "
            "Find the rows with `torch.isfinite(activations).flatten(1).all(1)`."
        )
    strength = C if isinstance(C, Tensor) else torch.tensor(list(C), dtype=torch.float64)
    strength = strength.to(device, torch.float64).expand(sites, folds, -1)
    if not bool((strength > 0).all()):
        raise ValueError(
            f"`C` must be positive, got {float(strength.min())}. It is the inverse strength of "
            "the penalty: the larger, the weaker."
        )
    for fold in range(folds):
        counts = torch.bincount(labels[train[fold]], minlength=2).tolist()
        if len(counts) > 2 or 0 in counts:
            raise ValueError(
                "`labels` must hold both 0 and 1, and nothing else, to fit a probe, got "
                f"{dict(enumerate(counts))} in the training rows of fold {fold}. "
                "Shuffle before splitting, or choose a larger split."
            )

    penalties = strength.shape[-1]
    coef = torch.empty(sites, folds, penalties, width, dtype=torch.float64, device=device)
    intercept = torch.empty(sites, folds, penalties, dtype=torch.float64, device=device)
    objective, gap = torch.empty_like(intercept), torch.empty_like(intercept)
    passes = torch.empty(sites, dtype=torch.int64, device=device)
    for site in range(sites):
        coef[site], intercept[site], objective[site], gap[site], passes[site] = _solve_site(
            activations[:, site],
            labels,
            train,
            strength[site],
            standardise=standardise,
            tolerance=tolerance,
            max_passes=max_passes,
        )
    return LogisticFits(coef, intercept, objective, gap, gap <= tolerance * objective, passes)


def _standardisation(
    values: Float[Tensor, "example d_model"],
    train: Bool[Tensor, "fold example"],
    *,
    precision: float,
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each feature over each fold's training rows, in float64.

    A feature that varies by no more than the rounding of its numbers (`precision`, relative) is
    constant, and its deviation is set to 1: dividing by the noise would make a feature of it.
    """
    weight = train.double()
    weight /= weight.sum(dim=1, keepdim=True)
    mean = weight @ values
    # About the mean of the first fold, or the square of a mean far from zero eats the digits.
    about = mean[0]
    shifted = values - about
    shift = mean - about
    variance = weight @ shifted.square() - shift.square()
    doubtful = (shift.square() > 1e4 * variance).any(dim=0).nonzero().squeeze(1)
    for fold in range(len(train)):
        centred = values[:, doubtful] - mean[fold, doubtful]
        variance[fold, doubtful] = weight[fold] @ centred.square()
    deviation = variance.clamp_min(0).sqrt()
    return mean, torch.where(deviation > 8 * precision * mean.abs(), deviation, 1.0)


@dataclass(frozen=True, eq=False)
class _Fits:
    """Fits that share their rows; the letters of the objective in one place.

    Fit `f` has margins `Z (v_f / ratio_f) + b_f`: `Z` is scaled once for all, `ratio` takes it
    from there to the fit's own standardisation.
    """

    features: Float[Tensor, "example d_model"]
    target: Float[Tensor, "example 1"]
    cost: Float[Tensor, "example fit"]
    ratio: Float[Tensor, "d_model fit"]

    def to(self, dtype: torch.dtype) -> "_Fits":
        return _Fits(*(part.to(dtype) for part in vars(self).values()))

    def select(self, keep: Tensor) -> "_Fits":
        return _Fits(self.features, self.target, self.cost[:, keep], self.ratio[:, keep])

    def margins(self, weights: Tensor) -> Tensor:
        return self.features @ (weights / self.ratio)

    def loss(self, logits: Tensor) -> Tensor:
        """`C Σ log-loss` of each fit, in nats."""
        return (self.cost * (torch.nn.functional.softplus(logits) - self.target * logits)).sum(0)

    def slopes(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """First and second derivative of the loss with respect to each logit."""
        chance = torch.sigmoid(logits)
        return self.cost * (chance - self.target), self.cost * chance * (1 - chance)

    def gradient(self, weights: Tensor, residual: Tensor) -> Tensor:
        return weights + (self.features.T @ residual) / self.ratio

    def best_bias(self, margins: Tensor, bias: Tensor) -> Tensor:
        """The bias that minimises the loss at given margins, by Newton's method."""
        for _ in range(60):
            first, second = self.slopes(margins + bias)
            # Clamped, since the curvature vanishes where every row is far from the boundary.
            step = (first.sum(0) / second.sum(0).clamp_min(1e-30)).clamp(-2, 2)
            bias = bias - step
            if bool((step.abs() <= 1e-12 * (1 + bias.abs())).all()):
                break
        return bias


def _solve_site(
    activations: Float[Tensor, "example d_model"],
    labels: Int[Tensor, " example"],
    train: Bool[Tensor, "fold example"],
    strength: Float[Tensor, "fold penalty"],
    *,
    standardise: bool,
    tolerance: float,
    max_passes: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
    """Weights, biases, objectives and certificates of one site's fits, and the passes taken."""
    folds, penalties = strength.shape
    values = activations.double()
    mean, scale = _standardisation(values, train, precision=torch.finfo(activations.dtype).eps)
    if not standardise:
        scale = torch.ones_like(scale)
    # One origin and one unit for all folds, from what they train on; `ratio` does the rest.
    centre, common = mean.mean(dim=0), scale.square().mean(dim=0).sqrt()
    exact = _Fits(
        features=(values - centre).div_(common),
        target=labels.double().unsqueeze(1),
        cost=(strength.unsqueeze(-1) * train.unsqueeze(1)).flatten(0, 1).T.contiguous(),
        ratio=(scale / common).T.repeat_interleave(penalties, dim=1),
    )
    weights = torch.zeros_like(exact.ratio)
    bias = torch.zeros_like(weights[0])
    objective, gap = torch.empty_like(bias), torch.full_like(bias, torch.inf)
    passes = 0
    for dtype in (torch.float32, torch.float64):
        todo = (gap > tolerance * objective).nonzero().squeeze(1)
        if not len(todo):
            break
        fits = exact.select(todo)
        # Half the tolerance, so that rounding seldom sends a finished fit through float64.
        found, taken = _minimise(
            fits.to(dtype), weights[:, todo].to(dtype), tolerance / 2, max_passes
        )
        weights[:, todo] = found.double()
        passes += taken
        margins = fits.margins(weights[:, todo])
        bias[todo] = fits.best_bias(margins, bias[todo])
        logits = margins + bias[todo]
        residual, _ = fits.slopes(logits)
        objective[todo] = 0.5 * weights[:, todo].square().sum(0) + fits.loss(logits)
        gap[todo] = 0.5 * fits.gradient(weights[:, todo], residual).square().sum(0)

    coef = weights / exact.ratio / common.unsqueeze(1)
    shape = (folds, penalties)
    return (
        coef.T.reshape(*shape, -1),
        (bias - centre @ coef).reshape(shape),
        objective.reshape(shape),
        gap.reshape(shape),
        passes,
    )


def _spectrum(features: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues of `ZᵀZ` that are not zero, and their vectors, from the smaller Gram matrix."""
    rows, width = features.shape
    if rows >= width:
        values, vectors = torch.linalg.eigh(features.T @ features)
        return values.clamp_min(0), vectors
    values, left = torch.linalg.eigh(features @ features.T)
    held = values > values[-1] * width * torch.finfo(values.dtype).eps
    values, left = values[held], left[:, held]
    return values, features.T @ (left / values.sqrt())


def _minimise(
    fits: _Fits, weights: Tensor, tolerance: float, max_passes: int
) -> tuple[Tensor, int]:
    """Weights within the tolerance of their optimum, as far as this precision can tell."""
    # Rows count as often as they are trained on, so that a row which never is cannot interfere.
    often = (fits.cost > 0).to(fits.cost.dtype).mean(dim=1, keepdim=True)
    values, vectors = _spectrum(fits.features * often.sqrt())
    result = weights.clone()
    active = torch.arange(weights.shape[1], device=weights.device)
    margins = fits.margins(weights)
    bias = fits.best_bias(margins, torch.zeros_like(weights[0]))
    residual, curvature = fits.slopes(margins + bias)
    objective = 0.5 * weights.square().sum(0) + fits.loss(margins + bias)
    gradient = fits.gradient(weights, residual)
    least, idle = torch.full_like(bias, torch.inf), torch.zeros_like(active)
    steps: list[Tensor] = []
    changes: list[Tensor] = []
    passes = 1
    while True:
        gap = _gap(gradient, residual, curvature)
        idle = torch.where(gap < 0.9 * least, 0, idle + 1)
        least = torch.minimum(least, gap)
        keep = (gap > tolerance * objective) & (idle < _PATIENCE)
        if passes >= max_passes or not bool(keep.any()):
            result[:, active] = weights
            return result, passes
        if not bool(keep.all()):
            result[:, active] = weights
            fits, active = fits.select(keep), active[keep]
            weights, gradient, margins = weights[:, keep], gradient[:, keep], margins[:, keep]
            residual, curvature = residual[:, keep], curvature[:, keep]
            bias, objective, least, idle = bias[keep], objective[keep], least[keep], idle[keep]
            steps = [step[:, keep] for step in steps]
            changes = [change[:, keep] for change in changes]

        mean_curvature = curvature.sum(0) / often.sum()
        shrink = 1 / (1 + mean_curvature * values.unsqueeze(1)) - 1
        direction = _descend(gradient, steps, changes, vectors, shrink)
        along = fits.margins(direction)
        length, bias, objective = _search(fits, weights, direction, margins, along, bias, objective)
        weights, margins = weights + length * direction, margins + length * along
        residual, curvature = fits.slopes(margins + bias)
        before, gradient = gradient, fits.gradient(weights, residual)
        steps = [*steps, length * direction][-_MEMORY:]
        changes = [*changes, gradient - before][-_MEMORY:]
        passes += 1


def _gap(gradient: Tensor, residual: Tensor, curvature: Tensor) -> Tensor:
    """Half the squared gradient, and to second order what a better bias would gain."""
    slack = residual.sum(0).square() / curvature.sum(0).clamp_min(1e-30)
    return 0.5 * (gradient.square().sum(0) + slack)


def _descend(
    gradient: Tensor, steps: list[Tensor], changes: list[Tensor], vectors: Tensor, shrink: Tensor
) -> Tensor:
    """The direction of L-BFGS (Nocedal and Wright, algorithm 7.4), preconditioned."""
    ahead = gradient
    history = []
    for step, change in zip(reversed(steps), reversed(changes), strict=True):
        curvature = (step * change).sum(0)
        # A pair without positive curvature, from rounding or a step of length 0, says nothing.
        inverse = torch.where(curvature > 0, 1 / curvature, 0)
        share = inverse * (step * ahead).sum(0)
        ahead = ahead - share * change
        history.append((step, change, inverse, share))
    ahead = ahead + vectors @ (shrink * (vectors.T @ ahead))
    for step, change, inverse, share in reversed(history):
        ahead = ahead + (share - inverse * (change * ahead).sum(0)) * step
    return -ahead


def _search(
    fits: _Fits,
    weights: Tensor,
    direction: Tensor,
    margins: Tensor,
    along: Tensor,
    bias: Tensor,
    objective: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Step length along the direction, with the bias and the objective that it leads to.

    Newton's method in both at once, each step halved until the objective does not rise. Margins
    are linear in both, so that none of it reads the activations.
    """
    slope, square = (weights * direction).sum(0), direction.square().sum(0)
    start = 0.5 * weights.square().sum(0)
    rounding = 8 * torch.finfo(bias.dtype).eps
    length = torch.zeros_like(bias)
    for _ in range(4):
        first, second = fits.slopes(margins + length * along + bias)
        by_length = slope + length * square + (first * along).sum(0)
        by_bias = first.sum(0)
        weighted = second * along
        mixed = weighted.sum(0)
        length_length = square + (weighted * along).sum(0)
        bias_bias = second.sum(0).clamp_min(1e-30)
        determinant = (length_length * bias_bias - mixed.square()).clamp_min(1e-30)
        by = (mixed * by_bias - bias_bias * by_length) / determinant
        bias_by = (mixed * by_length - length_length * by_bias) / determinant
        fraction = torch.ones_like(bias)
        for _ in range(30):
            new_length, new_bias = length + fraction * by, bias + fraction * bias_by
            reached = (
                start
                + new_length * (slope + 0.5 * new_length * square)
                + fits.loss(margins + new_length * along + new_bias)
            )
            worse = ~(reached <= objective + rounding * objective.abs())
            if not bool(worse.any()):
                break
            fraction = torch.where(worse, fraction / 2, fraction)
        fraction = torch.where(worse, 0, fraction)
        length, bias = length + fraction * by, bias + fraction * bias_by
        objective = torch.where(worse, objective, reached)
        if bool(((fraction * by).abs() <= 0.01 * length.abs()).all()):
            break
    return length, bias, objective
