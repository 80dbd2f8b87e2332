"""Contrast-consistent search: a direction with consistent answers to pairs, without labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tlens_trust.arguments import check_counts, checked_choice
from tlens_trust.measures.classifier import check_training_rows
from tlens_trust.measures.cross_validation import ProbeMeasure
from tlens_trust.measures.directions.cross_fitting import DirectionCrossFitter
from tlens_trust.measures.directions.fitter import FittedDirection
from tlens_trust.measures.directions.pair_differences import (
    PairDifferenceFitter,
    principal_pair_direction,
    towards_label_one,
)
from tlens_trust.measures.directions.pairs import ContrastPairs, find_pairs
from tlens_trust.measures.directions.ridge_path import feature_scale
from tlens_trust.measures.folds import deal_folds
from tlens_trust.measures.log_odds import fit_log_odds
from tlens_trust.measures.probe import LinearProbe

# Learning rate of Adam. Features are standardised, so that one rate suits all sites.
_RATE = 0.03
# Folds behind the calibration. Each of them costs one more search, so there are few.
_INNER_FOLDS = 3


def fit_contrast_consistent_direction(
    activations: Float[Tensor, "example d_model"],
    pairs: Int[Tensor, "pair 2"],
    *,
    restarts: int = 6,
    steps: int = 200,
    seed: int = 0,
) -> tuple[LinearProbe, float]:
    """Search for a direction that calls exactly one statement of each pair true.

    Let `p(x) = σ(w·z + b)`, with `z` the activation standardised feature by feature over the given
    rows. The loss is the mean over pairs of

        `(p(x) + p(x') - 1)² + min(p(x), p(x'))²`.

    The first term asks for consistent answers, the second for confident ones. The loss uses no
    label, and exchanging the two statements of a pair does not change it. It is also nearly the
    same for `-w`: **which side is which cannot be known without labels**. The sign of the result
    is therefore arbitrary.

    The loss is not convex. Full-batch Adam minimises it from several starts: the principal
    direction of the pair differences, then random directions. The start with the lowest final loss
    is returned. With fewer pairs than features, meaningless directions reach a loss of zero too.
    The same seed gives the same bits.

    The original rewrites each statement into a yes-form and a no-form, and subtracts the mean of
    each form. Here statements are not rewritten, so one mean is subtracted.

    Args:
        activations: One row per statement, in the model's own units.
        pairs: The two rows of each pair, in any order.
        restarts: The number of starts.
        steps: The number of steps of Adam for each start.
        seed: Seed of the random starts.

    Returns:
        A direction and a bias, of arbitrary sign, and the loss that they reach.

    Raises:
        ValueError: `activations` holds a NaN or an infinity, there is no pair, or `restarts` or
            `steps` is less than 1.

    Source:
        Burns et al. (2022), Discovering latent knowledge in language models without supervision,
        arXiv:2212.03827.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> activations = torch.randn(200, 4, generator=generator)
        >>> activations[0::2, 2] += 4  # The first of each pair.
        >>> pairs = torch.arange(200).reshape(100, 2)
        >>> probe, loss = fit_contrast_consistent_direction(activations, pairs)
        >>> int(probe.direction.abs().argmax())
        2
    """
    if not bool(torch.isfinite(activations).all()):
        raise ValueError(
            "`activations` must be finite to fit a probe, got a NaN or an infinity. "
            "Find the rows with `torch.isfinite(activations).all(1)`."
        )
    if not len(pairs):
        raise ValueError(
            "`pairs` must hold at least one pair of rows, got none. Give the numbers of two "
            "rows for each pair."
        )
    weight = torch.ones(len(pairs), dtype=torch.float64, device=activations.device)
    contrasts = ContrastPairs(pairs[:, 0], pairs[:, 1], weight)
    search = _Search(restarts, steps, seed)
    (probe,), (loss,) = search(activations, contrasts, weight.unsqueeze(0))
    return probe, loss


@dataclass(frozen=True)
class _Search:
    """Run Adam from several starts, for several weightings of the pairs at once."""

    restarts: int
    steps: int
    seed: int

    def __post_init__(self) -> None:
        check_counts(self, {"restarts": 1, "steps": 1, "seed": 0})

    def __call__(
        self,
        activations: Float[Tensor, "example d_model"],
        pairs: ContrastPairs,
        weights: Float[Tensor, "problem pair"],
    ) -> tuple[list[LinearProbe], list[float]]:
        """Return the best direction for each weighting, and its loss."""
        scale = feature_scale(activations)
        centre = activations.double().mean(dim=0)
        features = ((activations.double() - centre) / scale).float()
        problems = len(weights)
        start = self._starts(features, pairs, weights)
        share = (weights / weights.sum(dim=1, keepdim=True)).float()
        share = share.repeat_interleave(self.restarts, dim=0).T.contiguous()
        slope, offset, loss = _adam(features, pairs, share, start, self.steps)
        best = loss.reshape(problems, self.restarts).argmin(dim=1)
        columns = best + self.restarts * torch.arange(problems, device=best.device)
        probes = []
        for column in columns.tolist():
            direction = slope[:, column].double() / scale
            bias = float(offset[column]) - float(direction @ centre)
            probes.append(LinearProbe(direction, bias))
        return probes, [float(loss[column]) for column in columns]

    def _starts(
        self,
        features: Float[Tensor, "example d_model"],
        pairs: ContrastPairs,
        weights: Float[Tensor, "problem pair"],
    ) -> Float[Tensor, "d_model column"]:
        """Return unit vectors to start from, with those of one problem side by side."""
        generator = torch.Generator().manual_seed(self.seed)
        width = features.shape[1]
        random_starts = torch.randn(width, self.restarts, generator=generator).to(features.device)
        random_starts /= random_starts.norm(dim=0)
        starts = []
        for weight in weights:
            problem_starts = random_starts.clone()
            principal, _ = principal_pair_direction(
                features, ContrastPairs(pairs.positive, pairs.negative, weight)
            )
            problem_starts[:, 0] = principal.float()
            starts.append(problem_starts)
        return torch.cat(starts, dim=1)


def _adam(
    features: Float[Tensor, "example d_model"],
    pairs: ContrastPairs,
    share: Float[Tensor, "pair column"],
    start: Float[Tensor, "d_model column"],
    steps: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return slopes, offsets and losses after `steps` steps of Adam from each start."""
    # The offset is the last row, so that one update serves slopes and offset. Decay rates and
    # epsilon are those of Kingma and Ba (2014), arXiv:1412.6980.
    point = torch.cat([start, torch.zeros_like(start[:1])])
    momentum, size = torch.zeros_like(point), torch.zeros_like(point)
    for step in range(1, steps + 1):
        _, residual = _loss(features @ point[:-1] + point[-1], pairs, share)
        gradient = torch.cat([features.T @ residual, residual.sum(dim=0, keepdim=True)])
        momentum = torch.lerp(gradient, momentum, 0.9)
        size = torch.lerp(gradient.square(), size, 0.999)
        rate = _RATE * (1 - 0.999**step) ** 0.5 / (1 - 0.9**step)
        point = point - rate * momentum / (size.sqrt() + 1e-8)
    loss, _ = _loss(features @ point[:-1] + point[-1], pairs, share)
    return point[:-1], point[-1], loss


def _loss(
    logits: Float[Tensor, "example column"],
    pairs: ContrastPairs,
    share: Float[Tensor, "pair column"],
) -> tuple[Float[Tensor, " column"], Float[Tensor, "example column"]]:
    """Return the loss of each column, and its derivative with respect to each logit."""
    probability = torch.sigmoid(logits)
    p_positive, p_negative = probability[pairs.positive], probability[pairs.negative]
    gap, smaller = p_positive + p_negative - 1, torch.minimum(p_positive, p_negative)
    loss = (share * (gap.square() + smaller.square())).sum(dim=0)
    slope = torch.zeros_like(logits)
    # If both are equal, each gets half of the derivative of the minimum. Exchanging the two
    # statements then changes nothing.
    positive_is_smaller = 0.5 * (1 + torch.sign(p_negative - p_positive))
    slope.index_add_(0, pairs.positive, 2 * share * (gap + positive_is_smaller * smaller))
    slope.index_add_(0, pairs.negative, 2 * share * (gap + (1 - positive_is_smaller) * smaller))
    # The derivative of the sigmoid, by the chain rule.
    return loss, slope * probability * (1 - probability)


def fit_contrast_consistent_probe(
    activations: Float[Tensor, "example d_model"],
    labels: Int[Tensor, " example"],
    *,
    groups: Sequence[str],
    restarts: int = 6,
    steps: int = 200,
    seed: int = 0,
) -> LinearProbe:
    """Search for a contrast-consistent direction, and set its sign and scale by the labels.

    The direction is that of `fit_contrast_consistent_direction` on contrast pairs. These are
    statements of one group with opposite labels, and each group has the same weight. The labels of
    the given rows, and no others, are used three times:

    - they say which statements form a pair;
    - they set the sign, so that the mean pair difference points to label 1;
    - they set slope and offset of the log-odds, by logistic regression on left-out groups.

    For a direction that no label has changed, use `fit_contrast_consistent_direction`.

    Args:
        activations: One row per statement, in the model's own units.
        labels: 1 where the statement is on the trustworthy side, else 0.
        groups: The group of each statement.
        restarts: The number of starts.
        steps: The number of steps of Adam for each start.
        seed: Seed of the random starts.

    Returns:
        A probe of log-odds in nats.

    Raises:
        ValueError: `activations` holds a NaN or an infinity, `labels` lacks 0 or 1, no group
            holds both labels, or `restarts` or `steps` is less than 1.

    Source:
        Burns et al. (2022), arXiv:2212.03827.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> labels = torch.arange(200) % 2
        >>> activations = torch.randn(200, 4, generator=generator)
        >>> activations[:, 2] += 4 * labels
        >>> groups = [str(row // 2) for row in range(200)]
        >>> probe = fit_contrast_consistent_probe(activations, labels, groups=groups)
        >>> int(probe.direction.argmax())
        2
    """
    fitter = ContrastConsistentFitter(restarts, steps, seed)
    return fitter(activations, labels, groups).probe


@dataclass(frozen=True)
class ContrastConsistentFitter:
    """Fits contrast-consistent directions, with sign and scale from the training rows.

    Attributes:
        restarts: The number of starts.
        steps: The number of steps of Adam for each start.
        seed: Seed of the random starts.
    """

    restarts: int = 6
    steps: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        check_counts(self, {"restarts": 1, "steps": 1, "seed": 0})

    @property
    def identity(self) -> str:
        """Name every parameter."""
        return f"restarts={self.restarts}, steps={self.steps}, seed={self.seed}"

    @property
    def report_attributes(self) -> Mapping[str, dict[str, str]]:
        """Describe the loss."""
        return {
            "consistency_loss": {
                "units": "1",
                "long_name": "contrast-consistency loss on the training rows, mean over the folds",
            }
        }

    def __call__(
        self,
        activations: Float[Tensor, "example d_model"],
        labels: Int[Tensor, " example"],
        groups: Sequence[str] | None,
    ) -> FittedDirection:
        """Fit on the given rows."""
        check_training_rows(activations, labels, groups)
        pairs = find_pairs(labels, groups)
        assert groups is not None  # `find_pairs` refuses it.
        weights = [pairs.weight]
        fold = deal_folds(labels, groups, folds=_INNER_FOLDS)
        if fold is not None:
            # A pair lies in one group, and so in one fold.
            fold_of_pair = torch.from_numpy(fold).to(labels.device)[pairs.positive]
            weights += [pairs.weight * (fold_of_pair != k) for k in range(int(fold.max()) + 1)]
        if fold is not None and not all(bool(weight.any()) for weight in weights):
            # All pairs lie in one fold, so that no pair remains for the fit without it.
            fold, weights = None, weights[:1]
        search = _Search(self.restarts, self.steps, self.seed)
        probes, losses = search(activations, pairs, torch.stack(weights))
        oriented_probes = []
        for probe, weight in zip(probes, weights, strict=True):
            weighted_pairs = ContrastPairs(pairs.positive, pairs.negative, weight)
            sign = towards_label_one(probe.direction, activations, weighted_pairs)
            oriented_probes.append(LinearProbe(sign * probe.direction, sign * probe.bias))
        scores = oriented_probes[0].log_odds(activations)
        if fold is not None:
            for k, probe in enumerate(oriented_probes[1:]):
                left_out = torch.from_numpy(fold == k).to(activations.device)
                scores[left_out] = probe.log_odds(activations[left_out])
        slope, offset = fit_log_odds(scores, labels)
        probe = oriented_probes[0]
        return FittedDirection(
            LinearProbe(slope * probe.direction, slope * probe.bias + offset),
            {"consistency_loss": losses[0]},
        )


def ccs_probe(
    *,
    variant: str = "gradient",
    restarts: int = 6,
    steps: int = 200,
    seed: int = 0,
    folds: int = 5,
    resamples: int = 1000,
    permutations: int = 2000,
    floor: bool = True,
) -> ProbeMeasure:
    """Contrast-consistent search as a measure: grouped cross-validation at every site.

    Args:
        variant: `"gradient"` minimises the loss. `"tpc"` is the closed form of Burns et al.: the
            principal direction of the pair differences of standardised features.
        restarts: The number of starts. Only `"gradient"` uses it.
        steps: The number of steps of Adam for each start. Only `"gradient"` uses it.
        seed: Seed of the random starts. Only `"gradient"` uses it.
        folds: The number of folds that the groups are dealt into. At least 2.
        resamples: The number of bootstrap resamples behind an interval.
        permutations: The number of permutations of the labels behind a p-value.
        floor: Whether to classify the statements by their text alone as well.

    Returns:
        A measure named `ccs` or `ccs_tpc`. It raises a ValueError for a concept without contrast
        pairs.

    Raises:
        ValueError: `variant` is neither, or `restarts` or `steps` is less than 1.

    Examples:
        >>> ccs_probe().name, ccs_probe(variant="tpc").name
        ('ccs', 'ccs_tpc')
    """
    checked_choice("variant", variant, ("gradient", "tpc"))
    if variant == "tpc":
        closed_form = DirectionCrossFitter(PairDifferenceFitter(standardise=True))
        return ProbeMeasure("ccs_tpc", closed_form, folds, resamples, permutations, floor)
    fitter = DirectionCrossFitter(ContrastConsistentFitter(restarts, steps, seed))
    return ProbeMeasure("ccs", fitter, folds, resamples, permutations, floor)
