"""What probes find where labels mean nothing: p-values and null levels by permutation.

Permuting labels against pooled cross-validated predictions is no test: the probe of each fold was
fitted to the labels of the others, so that the predictions do not stay as they are when labels
change. A test has to fit again for every permutation. `separation_null` does, with ridge
discriminants in place of logistic probes (which start out as such: a discriminant is a logistic
probe's first Newton step). They have a closed form in which labels occur only as sums over rows, so
that two thousand refits at every penalty cost less than the logistic fits themselves.

`held_out_null` is for any other probe. It permutes the labels of one fold at a time against the
predictions of the probe that never saw them, and merges the folds' p-values.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import rankdata
from torch import Tensor

from tlens_trust.measures.permutations import PermutedLabels

# Draws whose sums over rows are held at once, and refits whose predictions are looked at.
_DRAWS_AT_ONCE = 512
_REFITS = 500

# Statistics this close, in standard deviations, are equal: labels that are permuted into
# themselves give the same statistic but for rounding, which must not make them look smaller.
_TIE = 1e-4


@dataclass(frozen=True, eq=False)
class Null:
    """What permuted labels give, at every site.

    Attributes:
        p: p-value of each site by itself.
        p_best: p-value of each site among all of them, by the null of the maximum: the least of
            them is the p-value of the best site.
        bands: For each score, the middle 95% under permuted labels, low and high.
        permutations: How many permutations stand behind the p-values.
        refits: How many of them stand behind the bands.
    """

    p: Float[np.ndarray, " site"]
    p_best: Float[np.ndarray, " site"]
    bands: Mapping[str, Float[np.ndarray, "site bound"]]
    permutations: int
    refits: int


def separation_null(
    activations: Float[Tensor, "example site d_model"],
    permuted: PermutedLabels,
    fold: Int[np.ndarray, " example"],
    *,
    C: Sequence[float],
) -> Null:
    """Refit ridge discriminants to permuted labels, through the choice of penalty and site.

    With features standardised, labels and features less their means within the strata in which
    labels are permuted (`ỹ`, `Z`), and the fold `k`'s sums `P_k = Σ_{i∈k} ỹᵢzᵢ`, the discriminant
    fitted without `k` is `W_C Σ_{j≠k} P_j` with `W_C = (I + C p(1 - p) (1 - 1/K) ZᵀZ)⁻¹`, and what
    it separates the labels of `k` by is `P_k·W_C Σ_{j≠k} P_j`. The statistic of a site is the sum
    of this over the folds (a cross-validated Mahalanobis distance between the labels), in standard
    deviations over all draws, at the penalty where it is largest; then again in standard
    deviations. Its p-value is `(1 + #{T* ≥ T}) / (1 + B)`; that among all sites compares with the
    largest `T*` over sites. Both are exact at their level: observed and permuted labels go through
    the same, penalty and site included, and `W_C` and the scaling know no labels.

    What it tests is whether labels tell anything, linearly, of the activations. It looks at how far
    labels lie apart rather than at how many statements are right, which finds more with as many
    statements.

    The bands are those of the discriminants' own held-out predictions, with the bias of a logistic
    probe that has taken one step, and the penalty of each fold chosen by the cross-entropy on the
    others. So in unbalanced labels they lie at the share of the larger class, where a probe that
    has learnt nothing goes.

    Args:
        activations: One row per statement and site.
        permuted: The labels and their permutations, made with these folds.
        fold: The fold of each statement; below 0 where it is only ever trained on.
        C: Inverse penalties of the logistic probes that stand behind, or none, to stay with
            `W = I` and features as they are: the difference of means. Then there are no bands.

    Source:
        Nili et al. (2014), PLoS Computational Biology 10, and Walther et al. (2016), NeuroImage
        137, for the statistic; Westfall and Young (1993), Resampling-Based Multiple Testing, for
        the null of the maximum.
    """
    device = activations.device
    sites = activations.shape[1]
    folds = _Folds.of(permuted, fold, device)
    refits = min(_REFITS, permuted.permutations) if C else 0
    statistics = np.empty((sites, len(permuted.draws)))
    bands: dict[str, list[np.ndarray]] = {}
    for site in range(sites):
        levels, statistics[site] = _refit_site(activations[:, site], folds, C, refits)
        for name, level in levels.items():
            bands.setdefault(name, []).append(_middle(level))
    p, p_best = _p_values(statistics)
    return Null(
        p,
        p_best,
        {name: np.stack(found) for name, found in bands.items()},
        permuted.permutations,
        refits,
    )


def held_out_null(
    scores: Float[np.ndarray, "example site"],
    permuted: PermutedLabels,
    fold: Int[np.ndarray, " example"],
) -> Null:
    """Permute labels against the held-out scores of any probe, one fold at a time.

    The probe that scores a fold has not seen its labels, so permuting them against its scores is
    exact for this fold; the statistic is its AUROC. The p-values of the folds depend on each other
    and are merged by twice their mean, which is valid however they do, but asks much of each fold
    where statements are few. That among all sites merges the folds' nulls of the maximum.

    Args:
        scores: Held-out log-odds of label 1, in nats.
        permuted: The labels and their permutations, made with these folds.
        fold: The fold of each statement; below 0 where it is only ever trained on.

    Source:
        Vovk and Wang (2020), Biometrika 107, for merging.
    """
    tested = np.unique(fold[fold >= 0])
    alone, together = [], []
    for number in tested:
        rows = fold == number
        ranks = rankdata(scores[rows], axis=0)
        statistics = _standardised((permuted.draws[:, rows].astype(np.float64) @ ranks).T)
        p, p_best = _p_values(statistics)
        alone.append(p)
        together.append(p_best)
    bands, refits = held_out_bands(scores, permuted, fold)
    return Null(
        # One fold alone needs no merging.
        np.minimum(1, min(2, len(tested)) * np.mean(alone, axis=0)),
        np.minimum(1, min(2, len(tested)) * np.mean(together, axis=0)),
        bands,
        permuted.permutations,
        refits,
    )


def held_out_bands(
    scores: Float[np.ndarray, "example site"],
    permuted: PermutedLabels,
    fold: Int[np.ndarray, " example"],
) -> tuple[dict[str, Float[np.ndarray, "site bound"]], int]:
    """The middle 95% of each score where labels are permuted and predictions stay the same.

    All folds are permuted at once. Since predictions would not stay the same, the bands are
    stretched about their mean by `√(1 + 2/π)`: to first order what a linear probe needs, whose
    answer to one row depends on another as that one's on the first.

    Returns:
        The bands, and the number of permutations behind them.
    """
    draws = min(_REFITS, permuted.permutations)
    bands = {}
    for name, level in _levels_of_fixed(scores, permuted.draws[1 : draws + 1], fold).items():
        centre = level.mean(axis=0)[:, None]
        bands[name] = centre + np.sqrt(1 + 2 / np.pi) * (_middle(level) - centre)
        if name != "cross_entropy":
            bands[name] = bands[name].clip(0, 1)
    return bands, draws


@dataclass(frozen=True, eq=False)
class _Folds:
    """Labels and folds as the refits of every site need them.

    Attributes:
        centred: Labels less their expectation, for each draw.
        draws: The labels.
        expected: The expectation.
        stratum: The stratum of each statement.
        members: Rows of each fold, and at the end those that are only ever trained on.
        tested: How many of them are scored.
    """

    centred: Float[Tensor, "example draw"]
    draws: Float[Tensor, "example draw"]
    expected: Float[Tensor, " example"]
    stratum: Int[Tensor, " example"]
    members: tuple[Int[Tensor, " _"], ...]
    tested: int

    @classmethod
    def of(
        cls, permuted: PermutedLabels, fold: Int[np.ndarray, " example"], device: torch.device
    ) -> "_Folds":
        draws = torch.from_numpy(permuted.draws).T.to(device, torch.float32).contiguous()
        expected = torch.from_numpy(permuted.expected).to(device, torch.float32)
        numbers = [*np.unique(fold[fold >= 0]).tolist(), *({-1} if (fold < 0).any() else ())]
        members = [np.flatnonzero(fold == n if n >= 0 else fold < 0) for n in numbers]
        return cls(
            draws - expected[:, None],
            draws,
            expected,
            torch.from_numpy(permuted.stratum).to(device),
            tuple(torch.from_numpy(rows).to(device) for rows in members),
            sum(n >= 0 for n in numbers),
        )

    def others(self, k: int) -> Int[Tensor, " _"]:
        """The rows that are trained on for fold `k`."""
        return torch.cat([rows for j, rows in enumerate(self.members) if j != k])


def _refit_site(
    values: Float[Tensor, "example d_model"],
    folds: _Folds,
    C: Sequence[float],
    refits: int,
) -> tuple[dict[str, Float[np.ndarray, " refit"]], Float[np.ndarray, " draw"]]:
    """Scores of the first few refits, and the statistic of every draw."""
    features = _standardised_features(values.float(), scale=bool(C))
    within = features - _stratum_means(features, folds.stratum)
    if C:
        basis, spread = _principal_axes(within)
        within, features = within @ basis, features @ basis
        label_variance = float((folds.expected * (1 - folds.expected)).mean())
        trained = 1 - sum(len(rows) for rows in folds.members[: folds.tested]) / (
            folds.tested * len(values)
        )
        strength = torch.tensor(list(C), device=values.device).unsqueeze(1)
        weights = 1 / (1 + strength * label_variance * trained * spread)
    else:
        weights = torch.ones(1, within.shape[1], device=values.device)

    draws = folds.centred.shape[1]
    separation = torch.empty(len(weights), draws, dtype=torch.float64, device=values.device)
    starts = [0, *range(1 + refits, draws, _DRAWS_AT_ONCE), draws]
    levels: dict[str, np.ndarray] = {}
    for first, last in pairwise(starts):
        sums = torch.stack([within[r].T @ folds.centred[r, first:last] for r in folds.members])
        total = sums.sum(dim=0)
        if first == 0 and refits:
            predicted = _predict_refits(features, folds, sums[:, :, 1:], strength * weights)
            levels = _levels_of_refits(predicted, folds)
        scored = sums[: folds.tested]
        products = scored.sum(dim=0) * total - scored.square_().sum(dim=0)
        separation[:, first:last] = (weights @ products).double()
    best = _standardised(separation.cpu().numpy()).max(axis=0)
    return levels, _standardised(best[None])[0]


def _predict_refits(
    features: Float[Tensor, "example axis"],
    folds: _Folds,
    sums: Float[Tensor, "fold axis refit"],
    weights: Float[Tensor, "penalty axis"],
) -> list[Float[Tensor, "_ refit"]]:
    """Held-out log-odds of a logistic probe's first Newton step from no weights, for each fold.

    The gradient that it steps along is `Σ (yᵢ - p)zᵢ` over the training rows, with `p` their share
    of label 1: the sums over permuted labels, and a part that no permutation changes. The penalty
    of a fold is the one that gives the other folds the least cross-entropy.
    """
    total = sums.sum(dim=0)
    gradients, held, offsets = [], [], []
    for k in range(folds.tested):
        train = folds.others(k)
        share = folds.expected[train].mean()
        fixed = features[train].T @ (folds.expected[train] - share)
        gradients.append(total - sums[k] + fixed.unsqueeze(1))
        held.append(features[folds.members[k]] - features[train].mean(dim=0))
        offsets.append(torch.logit(share))

    refits = sums.shape[2]
    surprise = sums.new_zeros(folds.tested, len(weights), refits)
    for k in range(folds.tested):
        away = 1 - 2 * folds.draws[folds.members[k], 1 : 1 + refits]
        for number, weight in enumerate(weights):
            log_odds = held[k] @ (weight.unsqueeze(1) * gradients[k]) + offsets[k]
            surprise[k, number] = torch.nn.functional.softplus(away * log_odds).sum(dim=0)
    predicted = []
    for k in range(folds.tested):
        chosen = (surprise.sum(dim=0) - surprise[k]).argmin(dim=0)
        predicted.append(held[k] @ (weights[chosen].T * gradients[k]) + offsets[k])
    return predicted


def _levels_of_refits(
    predicted: Sequence[Float[Tensor, "_ refit"]], folds: _Folds
) -> dict[str, Float[np.ndarray, " refit"]]:
    """The scores of each refit's own predictions of its own labels."""
    rows = folds.members[: folds.tested]
    labels = [folds.draws[row, 1 : 1 + predicted[0].shape[1]] for row in rows]
    ones = sum(label[:, 0].sum() for label in labels)
    count = sum(len(row) for row in rows)
    right, recalled, surprise, areas = [], [], [], []
    for log_odds, label in zip(predicted, labels, strict=True):
        correct = ((log_odds > 0) == (label > 0)).float()
        right.append(correct.sum(dim=0))
        recall = torch.where(label > 0, 0.5 / ones, 0.5 / (count - ones))
        recalled.append((correct * recall).sum(dim=0))
        surprise.append(torch.nn.functional.softplus((1 - 2 * label) * log_odds).sum(dim=0))
        positive = label[:, 0].sum()
        # NumPy sorts several times faster than torch does, along the last axis above all.
        order = np.argsort(log_odds.T.cpu().numpy(), axis=1)
        sorted_labels = label.T.gather(1, torch.from_numpy(order).to(label.device))
        rank = torch.arange(1, len(label) + 1, device=label.device, dtype=torch.float32)
        beaten = sorted_labels @ rank - positive * (positive + 1) / 2
        areas.append(beaten / (positive * (len(label) - positive)))
    levels = {
        "accuracy": sum(right) / count,
        "balanced_accuracy": sum(recalled),
        "auroc": sum(areas) / len(areas),
        "cross_entropy": sum(surprise) / count,
    }
    return {name: torch.as_tensor(level).double().cpu().numpy() for name, level in levels.items()}


def _levels_of_fixed(
    scores: Float[np.ndarray, "example site"],
    draws: Int[np.ndarray, "draw example"],
    fold: Int[np.ndarray, " example"],
) -> dict[str, Float[np.ndarray, "draw site"]]:
    """The scores of predictions that stay the same, against each draw of labels."""
    rows = fold >= 0
    labels, fold, scores = draws[:, rows].astype(np.float64), fold[rows], scores[rows]
    ones = labels[0].sum()
    zeros = len(fold) - ones
    guess = (scores > 0).astype(np.float64)
    # Each score is a sum over statements: `one` where the label is 1, `zero` where it is 0.
    summed = {
        "accuracy": (guess / len(fold), (1 - guess) / len(fold)),
        "balanced_accuracy": (guess / (2 * ones), (1 - guess) / (2 * zeros)),
        "cross_entropy": (
            np.logaddexp(0, -scores) / len(fold),
            np.logaddexp(0, scores) / len(fold),
        ),
    }
    levels = {
        name: zero.sum(axis=0) + labels @ (one - zero) for name, (one, zero) in summed.items()
    }
    numbers = np.unique(fold)
    area = np.zeros((len(draws), scores.shape[1]))
    for number in numbers:
        here = fold == number
        positive = labels[0, here].sum()
        beaten = labels[:, here] @ rankdata(scores[here], axis=0) - positive * (positive + 1) / 2
        area += beaten / (positive * (here.sum() - positive)) / len(numbers)
    return {**levels, "auroc": area}


def _p_values(
    statistics: Float[np.ndarray, "site draw"],
) -> tuple[Float[np.ndarray, " site"], Float[np.ndarray, " site"]]:
    """By itself and by the null of the maximum; the first draw is what was observed."""
    observed = statistics[:, :1] - _TIE
    draws = statistics.shape[1]
    alone = (1 + (statistics[:, 1:] >= observed).sum(axis=1)) / draws
    largest = statistics[:, 1:].max(axis=0)
    best = (1 + (largest >= observed).sum(axis=1)) / draws
    return alone, best


def _standardised(statistics: Float[np.ndarray, "row draw"]) -> Float[np.ndarray, "row draw"]:
    """In standard deviations from the mean over all draws; 0 where all draws agree."""
    about = statistics - statistics.mean(axis=1, keepdims=True)
    deviation = about.std(axis=1, keepdims=True)
    rounding = 1e-6 * np.abs(statistics).max(axis=1, keepdims=True)
    scaled: np.ndarray = np.divide(
        about, deviation, out=np.zeros_like(about), where=deviation > rounding
    )
    return scaled


def _middle(level: Float[np.ndarray, "draw ..."]) -> Float[np.ndarray, "... bound"]:
    middle: np.ndarray = np.moveaxis(np.quantile(level, [0.025, 0.975], axis=0), 0, -1)
    return middle


def _standardised_features(
    values: Float[Tensor, "example d_model"], *, scale: bool
) -> Float[Tensor, "example d_model"]:
    """Features about their mean; with `scale` in their standard deviation, constants left out.

    Over all rows, which a probe may not do. A permutation test may: no label is looked at.
    """
    mean = values.mean(dim=0)
    features = values - mean
    if not scale:
        # One unit for all, so that float32 has room for products of sums.
        return features / features.square().mean().sqrt().clamp_min(1e-30)
    deviation = features.square().mean(dim=0).sqrt()
    rounding = 8 * torch.finfo(values.dtype).eps * mean.abs()
    return torch.where(deviation > rounding, features / deviation.clamp_min(1e-30), 0.0)


def _stratum_means(
    features: Float[Tensor, "example d_model"], stratum: Int[Tensor, " example"]
) -> Float[Tensor, "example d_model"]:
    """The mean over each statement's stratum."""
    sizes = torch.bincount(stratum)
    sums = features.new_zeros(len(sizes), features.shape[1]).index_add_(0, stratum, features)
    return (sums / sizes.unsqueeze(1))[stratum]


def _principal_axes(
    rows: Float[Tensor, "example d_model"],
) -> tuple[Float[Tensor, "d_model axis"], Float[Tensor, " axis"]]:
    """Axes along which rows are uncorrelated, and the sum of squares along each."""
    count, width = rows.shape
    if count >= width:
        spread, axes = torch.linalg.eigh(rows.T @ rows)
        return axes, spread.clamp_min(0)
    spread, axes = torch.linalg.eigh(rows @ rows.T)
    kept = spread > 1e-6 * spread[-1].clamp_min(1e-30)
    spread, axes = spread[kept], axes[:, kept]
    return rows.T @ axes / spread.sqrt(), spread
