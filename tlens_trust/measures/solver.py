"""Many ridge-penalised logistic regressions on the same rows, solved together.

Cross-validation fits the same rows again and again, for every fold and every strength of the
penalty. All these fits share the matrix of activations. One product of matrices per pass therefore
serves all of them, and one Gram matrix preconditions them all. The method is L-BFGS with Newton's
method for step length and bias along every direction. Its first guess of the inverse Hessian is
`(I + c·ZᵀZ)⁻¹` for one of a few `c`, rescaled to the curvature of the fit. If activations are
narrow, each fit that has not finished after some passes uses the inverse of its own Hessian, so
that the next step is Newton's. It runs in float32, and again in float64 where that does not reach
the tolerance.

No fit starts from another's solution. Going from one penalty to the next would save a third of the
passes of the last one, but fits could no longer run together. On 6 sites of the benchmark (1,952
rows, 576 wide, one thread) the grid took 0.8 s together and 1.6 s from one penalty to the next.
Starting from the fit to all rows took 1.1 s. Besides, the rows of a fold would then have changed,
within the tolerance, the probe that scores them.

Each fit ends with a certificate, computed in float64. The objective, minimised over the bias, is
strongly convex with modulus 1 in the weights, so half the squared norm of its gradient bounds its
distance to the optimum (and is the duality gap).
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

# Pairs of steps that L-BFGS remembers, and passes without progress after which a fit is given up.
_MEMORY = 8
_PATIENCE = 25
# Up to this width each fit gets a Hessian of its own, anew after so many passes. Labels that can be
# separated take 50 to 100 passes with a shared guess and 10 to 25 so, for a third to two thirds of
# the time; from a width of 192 on, the Hessians cost more than the passes that they save.
_NARROW = 128
_REFRESH = 8
# Rows that are squared or made float64 at once, so that no second copy of the activations is.
_BLOCK = 256
# Bytes of activations to solve together on a CPU: small ones gain from company, wide ones do not.
_TOGETHER = 2**24


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

    Runs on the device of the activations. On the CPU a few sites are solved at once, so that little
    more memory is used than some copies of them. On a GPU, as many sites are solved at once as fit
    into a quarter of its free memory.

    Args:
        activations: One row per statement and site.
        labels: 0 or 1 for each statement; one row for each fold where their labels differ, as
            under permutation.
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
            "There is one label, and one place in `train`, for each row of activations, got "
            f"{len(activations)} activations, {labels.shape[-1]} labels and {train.shape[-1]} "
            "places. Choose the same rows of all of them."
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
            "the penalty: the larger, the weaker."
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
    together = max(1, _TOGETHER // (rows * width * 4))
    if device.type == "cuda":
        numbers = rows * width * 5 + folds * penalties * (rows + width) * 30
        numbers += 2 * folds * rows**2 if rows <= 2 * width else 4 * width**2
        together = max(1, torch.cuda.mem_get_info(device)[0] // (4 * 4 * numbers))
    for first in range(0, sites, together):
        part = slice(first, first + together)
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
    """Mean (of what is centred) and standard deviation of each feature over training rows.

    A feature that varies by no more than the rounding of its numbers is constant, and its
    deviation is set to infinity: dividing by the noise would make a feature of it.
    """
    weight = train.to(centred.dtype)
    weight /= weight.sum(dim=1, keepdim=True)
    mean = weight @ centred
    variance = -mean.square()
    for start in range(0, centred.shape[1], _BLOCK):
        block = slice(start, start + _BLOCK)
        variance += weight[:, block] @ centred[:, block].square()
    # Rows outside a fold can drag the centre so far from its mean that the digits cancel.
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
    """Fits that share their rows; the letters of the objective in one place.

    Fit `f` has logits `zᵢ·(ratio_f v_f) + b_f`. `features` holds `zᵢ`, scaled once for all fits;
    `ratio` takes it from there to the fit's own standardisation, and is 0 where a feature is
    constant. A margin is a logit times the sign of its label.
    """

    features: Float[Tensor, "site example d_model"]
    sign: Float[Tensor, "fit example"]
    cost: Float[Tensor, "site fit example"]
    ratio: Float[Tensor, "site fit d_model"]

    def to(self, dtype: torch.dtype) -> "_Fits":
        """In another precision, all but the features, which `products` convert as they go."""
        return _Fits(self.features, self.sign.to(dtype), self.cost.to(dtype), self.ratio.to(dtype))

    def select(self, keep: Tensor) -> "_Fits":
        return _Fits(self.features, self.sign[keep], self.cost[:, keep], self.ratio[:, keep])

    def logits(self, weights: Tensor) -> Tensor:
        """What the weights add to the logits, without the bias."""
        scaled = weights * self.ratio
        if scaled.dtype == self.features.dtype:
            return scaled @ self.features.mT
        parts = [scaled @ block.to(scaled.dtype).mT for block in self._blocks()]
        return torch.cat(parts, dim=-1)

    def gradient(self, weights: Tensor, pull: Tensor) -> Tensor:
        """Of the objective with respect to the weights; `pull` as `slopes` gives it."""
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
        """How far each row stands on its label's side, in nats."""
        return (logits + bias.unsqueeze(-1)).mul_(self.sign)

    def loss(self, margins: Tensor) -> Tensor:
        """`C Σ log-loss` of each fit, in nats."""
        gained: Tensor = vecdot(self.cost, logsigmoid(margins))
        return -gained

    def slopes(self, margins: Tensor) -> tuple[Tensor, Tensor]:
        """The loss's first derivative with respect to each logit, negated, and its second."""
        right = torch.sigmoid(margins)
        pull = torch.addcmul(self.cost, self.cost, right, value=-1)
        return pull * self.sign, right.mul_(pull)

    def hessians(self, curvature: Tensor) -> Hessians:
        """Of each fit, the bias at its best, inverted."""
        return Hessians.of(self.features, curvature, self.ratio)

    def best_bias(self, logits: Tensor) -> Tensor:
        """The bias that minimises the loss at given logits, by Newton's method."""
        bias = 2 * torch.atanh(vecdot(self.cost, self.sign) / self.cost.sum(-1))
        accuracy = 64 * torch.finfo(bias.dtype).eps
        for _ in range(100):
            pull, curvature = self.slopes(self.margins(logits, bias))
            # Clamped, since the curvature vanishes where every row is far from the boundary.
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
    """Weights, biases, objectives and certificates of some sites' fits, and the passes taken."""
    sites, folds, penalties = strength.shape
    dtype = torch.float64 if activations.dtype == torch.float64 else torch.float32
    values = activations.to(dtype).contiguous()
    centre = values.mean(dim=1, keepdim=True)
    features = values - centre
    mean, scale = _standardisation(features, centre, train)
    if not standardise:
        scale = torch.ones_like(scale)
    # One origin and one unit for all folds, from what they train on; `ratio` does the rest.
    middle = mean.mean(1, keepdim=True)
    varies = scale.isfinite()
    common = torch.where(varies, scale, 0).square().sum(1, keepdim=True)
    common = (common / varies.sum(1, keepdim=True)).sqrt().where(varies.any(1, keepdim=True), 1)
    features = features.sub_(middle).div_(common)
    # The gentle fits first, so that those of one preconditioner stand side by side.
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
        todo = (~(gap <= tolerance * objective)).any(dim=0).nonzero().squeeze(1)
        if not len(todo):
            break
        fits = single.to(precision).select(todo)
        if features.dtype != precision:
            fits = replace(fits, features=features.to(precision))
        # Nine tenths, so that rounding seldom sends a finished fit through float64.
        solution, passes_taken = _minimise(
            fits, weights[:, todo].to(precision), 0.9 * tolerance, max_passes
        )
        passes += passes_taken
        fits, solution = double.select(todo), torch.nan_to_num(solution.double(), 0, 0, 0)
        weights[:, todo] = solution
        logits = fits.logits(solution)
        bias[:, todo] = fits.best_bias(logits)
        margins = fits.margins(logits, bias[:, todo])
        pull, _ = fits.slopes(margins)
        objective[:, todo] = 0.5 * vecdot(solution, solution) + fits.loss(margins)
        gap[:, todo] = 0.5 * fits.gradient(solution, pull).square().sum(-1)

    coef = weights * double.ratio / common.double()
    intercept = bias - (coef * (centre.double() + middle.double())).sum(-1)
    place = order.argsort()
    shape = (sites, folds, penalties)
    return (
        coef[:, place].reshape(*shape, -1),
        intercept[:, place].reshape(shape),
        objective[:, place].reshape(shape),
        gap[:, place].reshape(shape),
        passes,
    )


def _minimise(
    fits: _Fits, weights: Tensor, tolerance: float, max_passes: int
) -> tuple[Tensor, int]:
    """Weights within the tolerance of their optimum, as far as this precision can tell."""
    preconditioner: Preconditioner | Hessians = Preconditioner.of(fits.features, fits.cost)
    result = weights.clone()
    active = torch.arange(weights.shape[1], device=weights.device)
    logits = fits.logits(weights) if bool(weights.any()) else torch.zeros_like(fits.cost)
    bias = fits.best_bias(logits)
    margins = fits.margins(logits, bias)
    pull, curvature = fits.slopes(margins)
    objective = 0.5 * vecdot(weights, weights) + fits.loss(margins)
    gradient = fits.gradient(weights, pull)
    least, idle = torch.full_like(bias, torch.inf), torch.zeros_like(bias)
    pairs: list[tuple[Tensor, Tensor, Tensor]] = []
    narrow = fits.features.shape[-1] <= _NARROW
    passes = 1
    while True:
        stiffness = curvature.sum(-1)
        slack = pull.sum(-1).square() / stiffness.clamp_min(1e-30)
        gap = 0.5 * (vecdot(gradient, gradient) + slack)
        idle = torch.where(gap < 0.9 * least, 0, idle + 1)
        least = torch.minimum(least, gap)
        keep = (
            (~(gap <= tolerance * objective) & (idle < _PATIENCE)).any(dim=0).nonzero().squeeze(1)
        )
        if not len(keep) or passes >= max_passes:
            result[:, active] = weights
            return result, passes
        # A fit that is done comes along until leaving it behind is worth the copying.
        if len(keep) <= 0.8 * len(active):
            result[:, active] = weights
            fits, active = fits.select(keep), active[keep]
            preconditioner = preconditioner.select(keep.tolist())
            weights, gradient, logits = weights[:, keep], gradient[:, keep], logits[:, keep]
            pull, curvature, stiffness = pull[:, keep], curvature[:, keep], stiffness[:, keep]
            bias, objective = bias[:, keep], objective[:, keep]
            least, idle = least[:, keep], idle[:, keep]
            pairs = [
                (step[:, keep], change[:, keep], inverse[:, keep])
                for step, change, inverse in pairs
            ]

        if narrow and passes % _REFRESH == 0:
            # Pairs of steps tell of the guess that they were made with.
            preconditioner, pairs = fits.hessians(curvature), []
        direction = _descend(
            gradient, pairs, partial(preconditioner.solve, fits.features, stiffness=stiffness)
        )
        along = fits.logits(direction)
        length, bias, objective, pull, curvature = _search(
            fits, weights, direction, logits, along, bias, objective, pull, curvature
        )
        step = length.unsqueeze(-1) * direction
        weights, logits = weights + step, torch.addcmul(logits, length.unsqueeze(-1), along)
        before, gradient = gradient, fits.gradient(weights, pull)
        change = gradient - before
        product = vecdot(step, change).unsqueeze(-1)
        # A pair without positive curvature, from rounding or a step of length 0, says nothing.
        pairs.append((step, change, torch.where(product > 0, 1 / product, 0)))
        pairs = pairs[-_MEMORY:]
        passes += 1


def _descend(
    gradient: Tensor,
    pairs: list[tuple[Tensor, Tensor, Tensor]],
    solve: Callable[[Tensor], Tensor],
) -> Tensor:
    """The direction of L-BFGS (Nocedal and Wright, algorithm 7.4), preconditioned."""
    ahead = -gradient
    shares = []
    for step, change, inverse in reversed(pairs):
        share = inverse * vecdot(step, ahead).unsqueeze(-1)
        ahead = torch.addcmul(ahead, share, change, value=-1)
        shares.append(share)
    ahead = solve(ahead)
    for step, change, inverse in pairs:
        share = shares.pop() - inverse * vecdot(change, ahead).unsqueeze(-1)
        ahead = torch.addcmul(ahead, share, step)
    return ahead


def _search(
    fits: _Fits,
    weights: Tensor,
    direction: Tensor,
    logits: Tensor,
    along: Tensor,
    bias: Tensor,
    objective: Tensor,
    pull: Tensor,
    curvature: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Step length along the direction, and bias, objective and derivatives at its end.

    Newton's method in length and bias at once, each step halved until the objective does not
    rise, until the slope along the direction has halved. Logits are linear in both, so that
    none of it reads the activations.
    """
    slope, square = vecdot(weights, direction), vecdot(direction, direction)
    start = 0.5 * vecdot(weights, weights)
    rounding = 8 * torch.finfo(bias.dtype).eps
    length = torch.zeros_like(bias)
    at_start = slope - vecdot(pull, along)
    by_length = at_start
    for _ in range(4):
        by_bias = -pull.sum(-1)
        weighted = curvature * along
        mixed = weighted.sum(-1)
        length_length = square + vecdot(weighted, along)
        bias_bias = curvature.sum(-1).clamp_min(1e-30)
        determinant = (length_length * bias_bias - mixed.square()).clamp_min(1e-30)
        by = (mixed * by_bias - bias_bias * by_length) / determinant
        bias_by = (mixed * by_length - length_length * by_bias) / determinant
        reached = torch.full_like(bias, torch.inf)
        for _ in range(30):
            ahead = length + by
            end = torch.addcmul(logits, ahead.unsqueeze(-1), along)
            margins = fits.margins(end, bias + bias_by)
            reached = start + ahead * (slope + 0.5 * ahead * square) + fits.loss(margins)
            worse = ~(reached <= objective + rounding * objective.abs())
            if not bool(worse.any()):
                break
            by, bias_by = torch.where(worse, by / 2, by), torch.where(worse, bias_by / 2, bias_by)
        else:
            # Where rows stand so far on the wrong side that their curvature underflows, Newton's
            # step is too long for any number of halvings. Such a fit stays where it is.
            by, bias_by = torch.where(worse, 0, by), torch.where(worse, 0, bias_by)
            reached = torch.where(worse, objective, reached)
            end = torch.addcmul(logits, (length + by).unsqueeze(-1), along)
            margins = fits.margins(end, bias + bias_by)
        length, bias, objective = length + by, bias + bias_by, reached
        pull, curvature = fits.slopes(margins)
        by_length = slope + length * square - vecdot(pull, along)
        if bool((by_length.abs() <= 0.5 * at_start.abs()).all()):
            break
    return length, bias, objective, pull, curvature
