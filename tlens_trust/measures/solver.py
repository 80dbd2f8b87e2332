"""Solve many ridge-penalised logistic regressions on the same rows together.

Cross-validation fits the same rows many times: once for every fold and every penalty. All these
fits share the matrix of activations. One matrix product per pass therefore serves all of them, and
one Gram matrix preconditions all of them.

The method is L-BFGS. Along every direction, Newton's method finds the step length and the bias. The
first guess of the inverse Hessian is `(I + c·ZᵀZ)⁻¹` for one of a few `c`, rescaled to the
curvature of the fit. With narrow activations, a fit that has not finished after some passes uses
the inverse of its own Hessian, so that its next step is a Newton step. The method runs in float32.
Fits that do not reach the tolerance run again in float64.

No fit starts from the solution of another fit. Starting from the solution at the previous penalty
would save a third of the passes of the last penalty, but then fits could not run together. On 6
sites of the benchmark (1,952 rows, 576 wide, one thread) the grid took 0.8 s together and 1.6 s
from one penalty to the next. Starting from the fit to all rows took 1.1 s. In addition, the rows of
a fold would then influence, within the tolerance, the probe that scores them.

Each fit ends with a certificate, computed in float64. The objective, minimised over the bias, is
strongly convex in the weights with modulus 1. Half the squared norm of its gradient is therefore an
upper bound on its distance to the optimum. (It is also the duality gap.)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.linalg import vecdot
from torch.nn.functional import logsigmoid

from tlens_trust.arguments import checked_count, checked_positive
from tlens_trust.measures.preconditioner import Hessians, Preconditioner

# The number of past steps that L-BFGS uses, and the number of passes without progress after which a
# fit stops.
_MEMORY = 8
_PATIENCE = 25
# Up to this width, each fit gets its own Hessian, computed again after every `_REFRESH` passes. If
# the labels can be separated, a fit takes 50 to 100 passes with a shared guess, and 10 to 25 with
# its own Hessian, in a third to two thirds of the time. From a width of 192 on, the Hessians cost
# more than the passes that they save.
_NARROW = 128
_REFRESH = 8
# Rows that are squared or converted to float64 at once. All rows at once would need a second copy
# of the activations.
_BLOCK = 256
# Bytes of activations that are solved together on a CPU. Small sites are faster together, and wide
# ones are not.
_TOGETHER = 2**24


@dataclass(frozen=True, eq=False)
class LogisticFits:
    """Logistic regressions for every site, fold and penalty.

    Attributes:
        coef: Weights, in nats per unit of the given activations.
        intercept: Biases, in nats.
        objective: `½‖v‖² + C Σ log-loss`, where `v` are the weights on standardised features.
        gap: A certified upper bound on the objective's distance to its optimum.
        converged: Whether `gap` is within the tolerance, relative to the objective.
        passes: The number of passes over each site's activations.
    """

    coef: Float[Tensor, "site fold penalty d_model"]
    intercept: Float[Tensor, "site fold penalty"]
    objective: Float[Tensor, "site fold penalty"]
    gap: Float[Tensor, "site fold penalty"]
    converged: Bool[Tensor, "site fold penalty"]
    passes: Int[Tensor, " site"]


def solve_logistic(
    activations: Float[Tensor, "example site d_model"],
    labels: Int[Tensor, " example"] | Int[Tensor, "fold example"],
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

    Runs on the device of the activations. On the CPU a few sites are solved at once, so that the
    memory use is little more than some copies of these sites. On a GPU, as many sites are solved at
    once as fit into a quarter of its free memory.

    Args:
        activations: One row per statement and site.
        labels: 0 or 1 for each statement. If labels differ between folds, as under permutation,
            one row per fold.
        train: For each fold, the rows that it is fitted on. Other rows do not change the fit.
        C: Inverse strengths of the penalty: the same for all, or one list per site and fold.
        standardise: Whether to scale each feature to unit variance on the training rows.
        tolerance: The largest certified distance to the optimum, relative to the objective.
        max_passes: The largest number of passes over the activations. A fit that needs more is
            returned as not converged.

    Returns:
        The fits in float64, each with a certificate.

    Raises:
        ValueError: An activation is not finite, a fold's training rows lack a label, or a `C` is
            not positive.

    Examples:
        >>> x = torch.tensor([[0.0], [1.0], [2.0], [3.0]]).unsqueeze(1)
        >>> fits = solve_logistic(
        ...     x, torch.tensor([0, 1, 0, 1]), train=torch.ones(1, 4, dtype=torch.bool), C=[1.0]
        ... )
        >>> fits.coef.shape, bool(fits.converged.all())
        (torch.Size([1, 1, 1, 1]), True)
    """
    if labels.shape[-1] != len(activations) or train.shape[-1] != len(activations):
        raise ValueError(
            "`labels` and `train` must have one entry for each row of activations, got "
            f"{len(activations)} activations, {labels.shape[-1]} labels and {train.shape[-1]} "
            "entries of `train`. Choose the same rows of all of them."
        )
    tolerance = checked_positive("tolerance", tolerance)
    max_passes = checked_count("max_passes", max_passes)
    rows, sites, width = activations.shape
    folds, device = len(train), activations.device
    labels, train = labels.to(device).expand(folds, rows), train.to(device)
    if not bool(torch.isfinite(torch.stack(activations.aminmax())).all()):
        raise ValueError(
            "`activations` must be finite to fit a probe, got a NaN or an infinity. "
            "Find the rows with `torch.isfinite(activations).flatten(1).all(1)`."
        )
    strength = C if isinstance(C, Tensor) else torch.tensor(list(C), dtype=torch.float64)
    strength = strength.to(device, torch.float64).expand(sites, folds, -1)
    if not bool((strength > 0).all()):
        raise ValueError(
            f"`C` must be positive, got {float(strength.min())}. It is the inverse strength of "
            "the penalty: a larger `C` is a weaker penalty."
        )
    for fold in range(folds):
        counts = torch.bincount(labels[fold, train[fold]], minlength=2).tolist()
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
    sites_at_once = max(1, _TOGETHER // (rows * width * 4))
    if device.type == "cuda":
        # Numbers that a site needs: copies of its activations, the vectors of all fits, and the
        # Gram matrices and inverses of the preconditioner, over rows or over features.
        numbers = rows * width * 5 + folds * penalties * (rows + width) * 30
        numbers += 2 * folds * rows**2 if rows <= 2 * width else 4 * width**2
        # Four bytes each, and a quarter of the free memory.
        sites_at_once = max(1, torch.cuda.mem_get_info(device)[0] // (4 * 4 * numbers))
    for start in range(0, sites, sites_at_once):
        part = slice(start, start + sites_at_once)
        coef[part], intercept[part], objective[part], gap[part], passes[part] = _solve_sites(
            activations[:, part].transpose(0, 1),
            labels,
            train,
            strength[part],
            standardise=standardise,
            tolerance=tolerance,
            max_passes=max_passes,
        )
    return LogisticFits(coef, intercept, objective, gap, gap <= tolerance * objective, passes)


def _standardisation(
    centred: Float[Tensor, "site example d_model"],
    centre: Float[Tensor, "site 1 d_model"],
    train: Bool[Tensor, "fold example"],
) -> tuple[Float[Tensor, "site fold d_model"], Float[Tensor, "site fold d_model"]]:
    """Compute mean (of the centred values) and deviation of each feature over training rows.

    A feature counts as constant if it varies by no more than the rounding of its values. Its
    deviation is set to infinity, since dividing by the rounding would turn it into a feature.
    """
    weight = train.to(centred.dtype)
    weight /= weight.sum(dim=1, keepdim=True)
    mean = weight @ centred
    variance = -mean.square()
    for start in range(0, centred.shape[1], _BLOCK):
        block = slice(start, start + _BLOCK)
        variance += weight[:, block] @ centred[:, block].square()
    # Rows outside a fold can move the centre far from the mean of the fold. Then almost all digits
    # of `E[x²] - E[x]²` cancel, and the variance is computed again in float64.
    site, fold, feature = (mean.square() > 100 * variance).nonzero(as_tuple=True)
    if len(site):
        exact = centred[site, :, feature].double()
        fold_weight = weight.double()[fold]
        deviations = exact - (fold_weight * exact).sum(dim=1, keepdim=True)
        variance[site, fold, feature] = (
            (fold_weight * deviations.square()).sum(dim=1).to(variance.dtype)
        )
    deviation = variance.clamp_min(0).sqrt()
    rounding = 8 * torch.finfo(centred.dtype).eps * ((mean + centre).abs() + mean.abs())
    return mean, torch.where(deviation > rounding, deviation, torch.inf)


@dataclass(frozen=True, eq=False)
class _Fits:
    """Fits on the same rows, and the terms of their objective.

    Fit `f` has logits `zᵢ·(ratio_f v_f) + b_f`. `features` holds `zᵢ`, scaled once for all fits.
    `ratio` converts it to the standardisation of each fit, and is 0 where a feature is constant. A
    margin is a logit times the sign of its label.
    """

    features: Float[Tensor, "site example d_model"]
    sign: Float[Tensor, "fit example"]
    cost: Float[Tensor, "site fit example"]
    ratio: Float[Tensor, "site fit d_model"]

    def to(self, dtype: torch.dtype) -> "_Fits":
        """Convert all but the features, which the matrix products convert block by block."""
        return _Fits(self.features, self.sign.to(dtype), self.cost.to(dtype), self.ratio.to(dtype))

    def select(self, keep: Tensor) -> "_Fits":
        """Return only these fits."""
        return _Fits(self.features, self.sign[keep], self.cost[:, keep], self.ratio[:, keep])

    def logits(self, weights: Tensor) -> Tensor:
        """Return the logits without the bias."""
        scaled = weights * self.ratio
        if scaled.dtype == self.features.dtype:
            return scaled @ self.features.mT
        parts = [scaled @ block.to(scaled.dtype).mT for block in self._blocks()]
        return torch.cat(parts, dim=-1)

    def gradient(self, weights: Tensor, pull: Tensor) -> Tensor:
        """Return the objective's gradient by the weights; `pull` comes from `slopes`."""
        if pull.dtype == self.features.dtype:
            return weights - (pull @ self.features) * self.ratio
        total = torch.zeros_like(weights)
        start = 0
        for block in self._blocks():
            stop = start + block.shape[1]
            total += pull[..., start:stop] @ block.to(pull.dtype)
            start = stop
        return weights - total * self.ratio

    def _blocks(self) -> tuple[Tensor, ...]:
        return torch.split(self.features, _BLOCK, dim=1)

    def margins(self, logits: Tensor, bias: Tensor) -> Tensor:
        """Return the logits times the sign of the label, in nats."""
        return (logits + bias.unsqueeze(-1)).mul_(self.sign)

    def loss(self, margins: Tensor) -> Tensor:
        """Compute `C Σ log-loss` of each fit, in nats."""
        log_likelihood: Tensor = vecdot(self.cost, logsigmoid(margins))
        return -log_likelihood

    def slopes(self, margins: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss's negative first derivative by each logit, and its second derivative."""
        probability = torch.sigmoid(margins)  # Of the label that the row has.
        pull = torch.addcmul(self.cost, self.cost, probability, value=-1)
        return pull * self.sign, probability.mul_(pull)

    def hessians(self, curvature: Tensor) -> Hessians:
        """Invert the Hessian of each fit, for the objective minimised over the bias."""
        return Hessians.of(self.features, curvature, self.ratio)

    def best_bias(self, logits: Tensor) -> Tensor:
        """Find the bias that minimises the loss at given logits, by Newton's method."""
        # The solution where all logits are 0.
        bias = 2 * torch.atanh(vecdot(self.cost, self.sign) / self.cost.sum(-1))
        accuracy = 64 * torch.finfo(bias.dtype).eps
        for _ in range(100):
            pull, curvature = self.slopes(self.margins(logits, bias))
            # Clamped, since the curvature vanishes if every row is far from the boundary.
            step = (pull.sum(-1) / curvature.sum(-1).clamp_min(1e-30)).clamp(-2, 2)
            bias = bias + step
            if bool((step.abs() <= accuracy * (1 + bias.abs())).all()):
                break
        return bias


def _solve_sites(
    activations: Float[Tensor, "site example d_model"],
    labels: Int[Tensor, "fold example"],
    train: Bool[Tensor, "fold example"],
    strength: Float[Tensor, "site fold penalty"],
    *,
    standardise: bool,
    tolerance: float,
    max_passes: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
    """Solve the fits of some sites.

    Returns:
        Weights, biases, objectives and certificates, and the number of passes.
    """
    sites, folds, penalties = strength.shape
    dtype = torch.float64 if activations.dtype == torch.float64 else torch.float32
    values = activations.to(dtype).contiguous()
    centre = values.mean(dim=1, keepdim=True)
    features = values - centre
    mean, scale = _standardisation(features, centre, train)
    if not standardise:
        scale = torch.ones_like(scale)
    # One origin and one unit for all folds, averaged over them. `ratio` corrects the unit of each
    # fit, and the bias corrects the origin.
    middle = mean.mean(1, keepdim=True)
    varies = scale.isfinite()
    common = torch.where(varies, scale, 0).square().sum(1, keepdim=True)
    common = (common / varies.sum(1, keepdim=True)).sqrt().where(varies.any(1, keepdim=True), 1)
    features = features.sub_(middle).div_(common)
    # In ascending order of `C`, so that the fits that share a preconditioner are adjacent.
    order = strength.mean(dim=0).flatten().argsort(stable=True)
    single = _Fits(
        features=features,
        sign=(2 * labels.to(dtype) - 1).repeat_interleave(penalties, dim=0)[order],
        cost=(strength.unsqueeze(-1) * train.unsqueeze(1)).flatten(1, 2)[:, order].to(dtype),
        ratio=(common / scale).repeat_interleave(penalties, dim=1)[:, order],
    )
    double = single.to(torch.float64)
    weights = torch.zeros_like(double.ratio)
    bias = torch.zeros_like(weights[..., 0])
    objective, gap = torch.zeros_like(bias), torch.full_like(bias, torch.inf)
    passes = 0
    for precision in (torch.float32, torch.float64):
        unsolved = (~(gap <= tolerance * objective)).any(dim=0).nonzero().squeeze(1)
        if not len(unsolved):
            break
        fits = single.to(precision).select(unsolved)
        if features.dtype != precision:
            fits = replace(fits, features=features.to(precision))
        # Nine tenths of the tolerance, so that rounding seldom sends a finished fit to float64.
        solution, passes_taken = _minimise(
            fits, weights[:, unsolved].to(precision), 0.9 * tolerance, max_passes
        )
        passes += passes_taken
        fits, solution = double.select(unsolved), torch.nan_to_num(solution.double(), 0, 0, 0)
        weights[:, unsolved] = solution
        logits = fits.logits(solution)
        bias[:, unsolved] = fits.best_bias(logits)
        margins = fits.margins(logits, bias[:, unsolved])
        pull, _ = fits.slopes(margins)
        objective[:, unsolved] = 0.5 * vecdot(solution, solution) + fits.loss(margins)
        gap[:, unsolved] = 0.5 * fits.gradient(solution, pull).square().sum(-1)

    coef = weights * double.ratio / common.double()
    intercept = bias - (coef * (centre.double() + middle.double())).sum(-1)
    original_order = order.argsort()
    shape = (sites, folds, penalties)
    return (
        coef[:, original_order].reshape(*shape, -1),
        intercept[:, original_order].reshape(shape),
        objective[:, original_order].reshape(shape),
        gap[:, original_order].reshape(shape),
        passes,
    )


def _minimise(
    fits: _Fits, weights: Tensor, tolerance: float, max_passes: int
) -> tuple[Tensor, int]:
    """Minimise the objectives by L-BFGS, up to the tolerance or the limit of the precision.

    Returns:
        The weights, and the number of passes.
    """
    preconditioner: Preconditioner | Hessians = Preconditioner.of(fits.features, fits.cost)
    result = weights.clone()
    active = torch.arange(weights.shape[1], device=weights.device)
    logits = fits.logits(weights) if bool(weights.any()) else torch.zeros_like(fits.cost)
    bias = fits.best_bias(logits)
    margins = fits.margins(logits, bias)
    pull, curvature = fits.slopes(margins)
    objective = 0.5 * vecdot(weights, weights) + fits.loss(margins)
    gradient = fits.gradient(weights, pull)
    smallest_gap, idle_passes = torch.full_like(bias, torch.inf), torch.zeros_like(bias)
    pairs: list[tuple[Tensor, Tensor, Tensor]] = []
    narrow = fits.features.shape[-1] <= _NARROW
    passes = 1
    while True:
        stiffness = curvature.sum(-1)
        # The bias is not quite at its optimum. A Newton step of it would gain half of this.
        slack = pull.sum(-1).square() / stiffness.clamp_min(1e-30)
        gap = 0.5 * (vecdot(gradient, gradient) + slack)
        idle_passes = torch.where(gap < 0.9 * smallest_gap, 0, idle_passes + 1)
        smallest_gap = torch.minimum(smallest_gap, gap)
        is_unfinished = ~(gap <= tolerance * objective) & (idle_passes < _PATIENCE)
        keep = is_unfinished.any(dim=0).nonzero().squeeze(1)
        if not len(keep) or passes >= max_passes:
            result[:, active] = weights
            return result, passes
        # Removing finished fits copies the others, so they are removed once they are a fifth.
        if len(keep) <= 0.8 * len(active):
            result[:, active] = weights
            fits, active = fits.select(keep), active[keep]
            preconditioner = preconditioner.select(keep.tolist())
            weights, gradient, logits = weights[:, keep], gradient[:, keep], logits[:, keep]
            pull, curvature, stiffness = pull[:, keep], curvature[:, keep], stiffness[:, keep]
            bias, objective = bias[:, keep], objective[:, keep]
            smallest_gap, idle_passes = smallest_gap[:, keep], idle_passes[:, keep]
            pairs = [
                (step[:, keep], change[:, keep], inverse[:, keep])
                for step, change, inverse in pairs
            ]

        if narrow and passes % _REFRESH == 0:
            # Earlier steps corrected the previous guess, and do not fit the new one.
            preconditioner, pairs = fits.hessians(curvature), []
        direction = _descend(
            gradient, pairs, partial(preconditioner.solve, fits.features, stiffness=stiffness)
        )
        direction_logits = fits.logits(direction)
        length, bias, objective, pull, curvature = _search(
            fits, weights, direction, logits, direction_logits, bias, objective, pull, curvature
        )
        step = length.unsqueeze(-1) * direction
        weights = weights + step
        logits = torch.addcmul(logits, length.unsqueeze(-1), direction_logits)
        previous_gradient, gradient = gradient, fits.gradient(weights, pull)
        change = gradient - previous_gradient
        product = vecdot(step, change).unsqueeze(-1)
        # A pair without positive curvature, from rounding or a step of length 0, is ignored.
        pairs.append((step, change, torch.where(product > 0, 1 / product, 0)))
        pairs = pairs[-_MEMORY:]
        passes += 1


def _descend(
    gradient: Tensor,
    pairs: list[tuple[Tensor, Tensor, Tensor]],
    solve: Callable[[Tensor], Tensor],
) -> Tensor:
    """Compute the preconditioned L-BFGS direction (Nocedal and Wright, algorithm 7.4)."""
    direction = -gradient
    shares = []
    for step, change, inverse in reversed(pairs):
        share = inverse * vecdot(step, direction).unsqueeze(-1)
        direction = torch.addcmul(direction, share, change, value=-1)
        shares.append(share)
    direction = solve(direction)
    for step, change, inverse in pairs:
        share = shares.pop() - inverse * vecdot(change, direction).unsqueeze(-1)
        direction = torch.addcmul(direction, share, step)
    return direction


def _search(
    fits: _Fits,
    weights: Tensor,
    direction: Tensor,
    logits: Tensor,
    direction_logits: Tensor,
    bias: Tensor,
    objective: Tensor,
    pull: Tensor,
    curvature: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Find the step length along a direction, with the bias that goes with it.

    Newton's method in length and bias together. Each of its steps is halved until the objective
    does not rise. It stops when the slope along the direction has halved. Logits are linear in both
    numbers, so that the search needs no pass over the activations.

    Returns:
        Length, bias, objective, and first and second derivatives at the end of the step.
    """
    slope, square = vecdot(weights, direction), vecdot(direction, direction)
    start_norm = 0.5 * vecdot(weights, weights)
    rounding = 8 * torch.finfo(bias.dtype).eps
    length = torch.zeros_like(bias)
    slope_at_start = slope - vecdot(pull, direction_logits)
    slope_by_length = slope_at_start
    for _ in range(4):
        # Gradient and Hessian of the objective in (length, bias), and the Newton step.
        slope_by_bias = -pull.sum(-1)
        weighted = curvature * direction_logits
        mixed = weighted.sum(-1)
        length_length = square + vecdot(weighted, direction_logits)
        bias_bias = curvature.sum(-1).clamp_min(1e-30)
        determinant = (length_length * bias_bias - mixed.square()).clamp_min(1e-30)
        length_step = (mixed * slope_by_bias - bias_bias * slope_by_length) / determinant
        bias_step = (mixed * slope_by_length - length_length * slope_by_bias) / determinant
        new_objective = torch.full_like(bias, torch.inf)
        for _ in range(30):
            new_length = length + length_step
            end = torch.addcmul(logits, new_length.unsqueeze(-1), direction_logits)
            margins = fits.margins(end, bias + bias_step)
            penalty = start_norm + new_length * (slope + 0.5 * new_length * square)
            new_objective = penalty + fits.loss(margins)
            is_worse = ~(new_objective <= objective + rounding * objective.abs())
            if not bool(is_worse.any()):
                break
            length_step = torch.where(is_worse, length_step / 2, length_step)
            bias_step = torch.where(is_worse, bias_step / 2, bias_step)
        else:
            # If rows are so far on the wrong side that their curvature underflows, Newton's step is
            # too long for any number of halvings. Such a fit keeps its length and bias.
            length_step = torch.where(is_worse, 0, length_step)
            bias_step = torch.where(is_worse, 0, bias_step)
            new_objective = torch.where(is_worse, objective, new_objective)
            end = torch.addcmul(logits, (length + length_step).unsqueeze(-1), direction_logits)
            margins = fits.margins(end, bias + bias_step)
        length, bias, objective = length + length_step, bias + bias_step, new_objective
        pull, curvature = fits.slopes(margins)
        slope_by_length = slope + length * square - vecdot(pull, direction_logits)
        if bool((slope_by_length.abs() <= 0.5 * slope_at_start.abs()).all()):
            break
    return length, bias, objective, pull, curvature
