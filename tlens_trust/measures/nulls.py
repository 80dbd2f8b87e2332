"""Scores of probes under permuted labels: p-values and null bands.

Permuting labels against pooled cross-validated predictions is not a valid test. The probe of each
fold was fitted to the labels of the other folds, so predictions change when labels change. A valid
test fits again for every permutation. `refit_null` does so, with ridge discriminants in place of
logistic probes. A ridge discriminant is the first Newton step of a logistic probe. It has a closed
form in which labels occur only as sums over rows, so two thousand refits at every penalty are a few
matrix products.

`held_out_null` is for any other probe. It permutes the labels of one fold at a time against the
predictions of the probe that was not fitted to them, and merges the p-values of the folds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import rankdata
from torch import Tensor

from tlens_trust.measures.permutations import PermutedLabels

# The number of refits whose predictions are in memory at once.
_DRAWS_AT_ONCE = 500
# The number of permutations behind the bands of fixed scores.
_FIXED = 500

# Scores that have bands. Refits give the recall of label 1 as well, which has none.
_BANDS = ("accuracy", "balanced_accuracy", "auroc", "cross_entropy")

# Statistics this close, in standard deviations, count as equal. A permutation may leave all labels
# unchanged. Its statistic differs by rounding alone, and must not count as smaller.
_TIE = 1e-4


@dataclass(frozen=True, eq=False)
class Null:
    """The scores of a probe under permuted labels, at every site.

    Attributes:
        p: p-value of each site by itself.
        p_best: p-value of each site among all sites, by the null of the maximum. The smallest is
            the p-value of the best site.
        bands: For each score, the middle 95% under permuted labels, low and high.
        permutations: The number of permutations behind the p-values.
        refits: The number of permutations behind the bands.
        draws: For each score, its value in refits to every draw of labels. The first draw is the
            labels themselves. None if nothing was refitted.
    """

    p: Float[np.ndarray, " site"]
    p_best: Float[np.ndarray, " site"]
    bands: Mapping[str, Float[np.ndarray, "site bound"]]
    permutations: int
    refits: int
    draws: Mapping[str, Float[np.ndarray, "site draw"]] | None = None


def refit_null(
    activations: Float[Tensor, "example site d_model"],
    permuted: PermutedLabels,
    fold: Int[np.ndarray, " example"],
    *,
    C: Sequence[float],
) -> Null:
    """Refit ridge discriminants to permuted labels, through the choice of penalty and site.

    Let `x` be the standardised features, `S = Σ xᵢxᵢᵀ` over all rows, and `p` the share of label 1
    among the training rows. The discriminant fitted without fold `k` is
    `w = C (I + C p(1 - p) (1 - 1/K) S)⁻¹ Σ (yᵢ - p) xᵢ`, where the last sum is over all rows but
    those of `k`. It scores the rows of `k` by `w·x + log(p / (1 - p))`. Its `C` is the one with the
    least held-out cross-entropy in the other folds.

    The statistic `T` of a site is the AUROC of the scores, computed within folds and averaged. Its
    unit is the standard deviation over all draws. The p-value of a site is
    `(1 + #{T* ≥ T}) / (1 + B)`. The p-value among all sites compares `T` with the largest `T*` over
    sites. Both are exact. Observed and permuted labels go through the same steps, with the choice
    of penalty and site, and neither `S` nor the scaling depends on labels.

    So the test asks whether the labels can be decoded by such a probe. Small p-values go with an
    AUROC above the null band. The largest separation over penalties would be a statistic with more
    power, but a misleading one. On embedded sets that untrained weights decode at chance, it found
    differences along axes with almost no variance, which no regularised probe uses.

    The bands are those of the discriminants' held-out predictions. With unbalanced labels, the band
    of the accuracy lies at the share of the larger class, which is what a probe that has learnt
    nothing predicts.

    Args:
        activations: One row per statement and site.
        permuted: The labels and their permutations, made with these folds.
        fold: The fold of each statement. Below 0, the statement is in every training set.
        C: Inverse penalties of the logistic probes. If empty, `w` is the difference of means of the
            features without scaling, and the AUROC alone has a band.

    Source:
        Ojala and Garriga (2010), Journal of Machine Learning Research 11, on permutation tests of
        classifiers; Westfall and Young (1993), Resampling-Based Multiple Testing, for the null of
        the maximum.
    """
    folds = _Folds.of(permuted, fold, activations.device)
    sites = [_refit_site(activations[:, s], folds, C) for s in range(activations.shape[1])]
    draws = {name: np.stack([levels[name] for levels in sites]) for name in sites[0]}
    p, p_best = p_values_of(in_deviations(draws["auroc"]))
    return Null(
        p,
        p_best,
        {name: middle_95(levels[:, 1:].T) for name, levels in draws.items() if name in _BANDS},
        permuted.permutations,
        permuted.permutations,
        draws,
    )


def held_out_null(
    scores: Float[np.ndarray, "example site"],
    permuted: PermutedLabels,
    fold: Int[np.ndarray, " example"],
) -> Null:
    """Permute labels against the held-out scores of any probe, one fold at a time.

    The probe that scores a fold was not fitted to its labels. So permuting them against its scores
    is an exact test for this fold. The statistic is the AUROC of the fold. The p-values of folds
    depend on each other and are merged by twice their mean. This is valid for any dependence, but
    has little power if statements are few. The p-value among all sites merges, in the same way,
    the p-values by the null of the maximum of each fold.

    Args:
        scores: Held-out log-odds of label 1, in nats.
        permuted: The labels and their permutations, made with these folds.
        fold: The fold of each statement. Below 0, the statement is in every training set.

    Source:
        Vovk and Wang (2020), Biometrika 107, for merging.
    """
    tested_folds = np.unique(fold[fold >= 0])
    p_of_folds, p_best_of_folds = [], []
    for number in tested_folds:
        rows = fold == number
        ranks = rankdata(scores[rows], axis=0)
        statistics = in_deviations((permuted.draws[:, rows].astype(np.float64) @ ranks).T)
        p, p_best = p_values_of(statistics)
        p_of_folds.append(p)
        p_best_of_folds.append(p_best)
    bands, refits = held_out_bands(scores, permuted, fold)
    return Null(
        # One fold alone needs no merging.
        np.minimum(1, min(2, len(tested_folds)) * np.mean(p_of_folds, axis=0)),
        np.minimum(1, min(2, len(tested_folds)) * np.mean(p_best_of_folds, axis=0)),
        bands,
        permuted.permutations,
        refits,
    )


def held_out_bands(
    scores: Float[np.ndarray, "example site"],
    permuted: PermutedLabels,
    fold: Int[np.ndarray, " example"],
) -> tuple[dict[str, Float[np.ndarray, "site bound"]], int]:
    """Compute the middle 95% of each score under permuted labels, with fixed predictions.

    All folds are permuted at once. A probe that is fitted again would give other predictions, so
    the bands are stretched about their mean by `√(1 + 2/π)`. For a linear probe this is the right
    factor to first order: the answers to two rows depend on each other's labels alike.

    Returns:
        The bands, and the number of permutations behind them.
    """
    draws = min(_FIXED, permuted.permutations)
    bands = {}
    for name, level in levels_of_fixed(scores, permuted.draws[1 : draws + 1], fold).items():
        centre = level.mean(axis=0)[:, None]
        bands[name] = centre + np.sqrt(1 + 2 / np.pi) * (middle_95(level) - centre)
        if name != "cross_entropy":
            bands[name] = bands[name].clip(0, 1)
    return bands, draws


@dataclass(frozen=True, eq=False)
class _Folds:
    """Labels and folds, in the form that the refits of every site use.

    Attributes:
        draws: The labels of each draw.
        expected: The expected label of each statement under permutation.
        members: Rows of each fold. Rows in every training set, if any, are the last item.
        n_scored: The number of folds that are scored.
    """

    draws: Float[Tensor, "example draw"]
    expected: Float[Tensor, " example"]
    members: tuple[Int[Tensor, " _"], ...]
    n_scored: int

    @classmethod
    def of(
        cls, permuted: PermutedLabels, fold: Int[np.ndarray, " example"], device: torch.device
    ) -> "_Folds":
        draws = torch.from_numpy(permuted.draws).T.to(device, torch.float32).contiguous()
        expected = torch.from_numpy(permuted.expected).to(device, torch.float32)
        numbers = [*np.unique(fold[fold >= 0]).tolist(), *({-1} if (fold < 0).any() else ())]
        members = [np.flatnonzero(fold == n if n >= 0 else fold < 0) for n in numbers]
        return cls(
            draws,
            expected,
            tuple(torch.from_numpy(rows).to(device) for rows in members),
            sum(n >= 0 for n in numbers),
        )

    def training_rows(self, k: int) -> Int[Tensor, " _"]:
        """Give the training rows of fold `k`."""
        return torch.cat([rows for j, rows in enumerate(self.members) if j != k])


def _refit_site(
    values: Float[Tensor, "example d_model"], folds: _Folds, C: Sequence[float]
) -> dict[str, Float[np.ndarray, " draw"]]:
    """Refit one site to every draw of labels, and score the predictions by these labels."""
    features = _standardised_features(values.float(), scale=bool(C))
    if C:
        axes, spread = principal_axes(features)
        features = features @ axes
        label_variance = float((folds.expected * (1 - folds.expected)).mean())
        # The mean share of rows that a fold trains on: `1 - 1/K` if every row is in a fold.
        training_share = 1 - sum(len(rows) for rows in folds.members[: folds.n_scored]) / (
            folds.n_scored * len(values)
        )
        strength = torch.tensor(list(C), device=values.device).unsqueeze(1)
        weights = strength / (1 + strength * label_variance * training_share * spread)
    else:
        weights = torch.ones(1, features.shape[1], device=values.device)

    levels: list[dict[str, np.ndarray]] = []
    for start in range(0, folds.draws.shape[1], _DRAWS_AT_ONCE):
        labels = folds.draws[:, start : start + _DRAWS_AT_ONCE]
        predictions = _predict_refits(features, folds, labels, weights)
        levels.append(_levels_of_refits(predictions, folds, labels, all_scores=bool(C)))
    return {name: np.concatenate([level[name] for level in levels]) for name in levels[0]}


def _predict_refits(
    features: Float[Tensor, "example axis"],
    folds: _Folds,
    labels: Float[Tensor, "example refit"],
    weights: Float[Tensor, "penalty axis"],
) -> list[Float[Tensor, "_ refit"]]:
    """Compute held-out log-odds of ridge discriminants, for each fold.

    A discriminant is the first Newton step of a logistic probe that starts from weights of 0.
    """
    sums = torch.stack([features[rows].T @ labels[rows] for rows in folds.members])
    total = sums.sum(dim=0)
    gradients, held_out_features, offsets = [], [], []
    for k in range(folds.n_scored):
        train = folds.training_rows(k)
        share = folds.expected[train].mean()
        gradients.append(total - sums[k] - share * features[train].sum(dim=0).unsqueeze(1))
        held_out_features.append(features[folds.members[k]] - features[train].mean(dim=0))
        offsets.append(torch.logit(share))

    surprise = sums.new_zeros(folds.n_scored, len(weights), labels.shape[1])
    if len(weights) > 1:
        for k in range(folds.n_scored):
            sign = 1 - 2 * labels[folds.members[k]]
            for number, weight in enumerate(weights):
                log_odds = held_out_features[k] @ (weight.unsqueeze(1) * gradients[k]) + offsets[k]
                surprise[k, number] = torch.nn.functional.softplus(sign * log_odds).sum(dim=0)
    predictions = []
    for k in range(folds.n_scored):
        # A fold takes no part in the choice of its own penalty.
        best = (surprise.sum(dim=0) - surprise[k]).argmin(dim=0)
        predictions.append(held_out_features[k] @ (weights[best].T * gradients[k]) + offsets[k])
    return predictions


def _levels_of_refits(
    predictions: Sequence[Float[Tensor, "_ refit"]],
    folds: _Folds,
    labels: Float[Tensor, "example refit"],
    *,
    all_scores: bool,
) -> dict[str, Float[np.ndarray, " refit"]]:
    """Score the predictions of each refit by the labels that it was fitted to."""
    labels_of_folds = [labels[rows] for rows in folds.members[: folds.n_scored]]
    levels = {"auroc": sum(map(_area, predictions, labels_of_folds)) / folds.n_scored}
    if all_scores:
        # Permuting labels keeps their counts, so those of the first draw hold for all.
        ones = sum(label[:, 0].sum() for label in labels_of_folds)
        count = sum(len(label) for label in labels_of_folds)
        correct_counts, balanced_sums, true_positives, surprise = [], [], [], []
        for log_odds, label in zip(predictions, labels_of_folds, strict=True):
            correct = ((log_odds > 0) == (label > 0)).float()
            correct_counts.append(correct.sum(dim=0))
            weight = torch.where(label > 0, 0.5 / ones, 0.5 / (count - ones))
            balanced_sums.append((correct * weight).sum(dim=0))
            true_positives.append((correct * label).sum(dim=0))
            surprise.append(torch.nn.functional.softplus((1 - 2 * label) * log_odds).sum(dim=0))
        levels |= {
            "accuracy": sum(correct_counts) / count,
            "balanced_accuracy": sum(balanced_sums),
            "recall": sum(true_positives) / ones,
            "cross_entropy": sum(surprise) / count,
        }
    return {name: torch.as_tensor(level).double().cpu().numpy() for name, level in levels.items()}


def _area(
    log_odds: Float[Tensor, "_ refit"], label: Float[Tensor, "_ refit"]
) -> Float[Tensor, " refit"]:
    """Compute the AUROC of each column. Ties count half, and all columns hold equally many ones."""
    positive = label[:, 0].sum()
    # NumPy sorts several times faster than torch, especially along the last axis.
    values = log_odds.T.cpu().numpy()
    order = np.argsort(values, axis=1)
    sorted_labels = label.T.gather(1, torch.from_numpy(order).to(label.device))
    rank = torch.from_numpy(_ranks(np.take_along_axis(values, order, axis=1))).to(label)
    # The statistic U of Mann and Whitney, from the sum of the ranks of label 1.
    wins = (sorted_labels * rank).sum(dim=1) - positive * (positive + 1) / 2
    return wins / (positive * (len(label) - positive))


def _ranks(ascending: Float[np.ndarray, "refit row"]) -> Float[np.ndarray, "_ row"]:
    """Rank each ascending row from 1. Values that are equal to within rounding share a mean rank.

    Otherwise statements with equal activations would be ranked by their place in the file.
    """
    count = ascending.shape[1]
    ranks = np.tile(np.arange(count) + 1.0, (len(ascending), 1))
    # Some units in the last place of float32, at the largest value of the row.
    rounding = (
        16 * np.finfo(np.float32).eps * np.abs(ascending[:, [0, -1]]).max(axis=1, keepdims=True)
    )
    is_tie = np.diff(ascending, axis=1) <= rounding
    has_ties = is_tie.any(axis=1)
    if not has_ties.any():
        return ranks
    is_tie, place = is_tie[has_ties], np.arange(count)
    edge = np.ones((len(is_tie), 1), dtype=bool)
    # Each place gets the start and the end of its run of ties; its rank is the middle of the two.
    start = np.maximum.accumulate(np.where(np.hstack([edge, ~is_tie]), place, 0), axis=1)
    ends = np.where(np.hstack([~is_tie, edge]), place, count)
    end = np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]
    ranks[has_ties] = (start + end) / 2 + 1
    return ranks


def levels_of_fixed(
    scores: Float[np.ndarray, "example site"],
    draws: Int[np.ndarray, "draw example"],
    fold: Int[np.ndarray, " example"],
) -> dict[str, Float[np.ndarray, "draw site"]]:
    """Score fixed predictions by each draw of labels."""
    rows = fold >= 0
    labels, fold, scores = draws[:, rows].astype(np.float64), fold[rows], scores[rows]
    ones = labels[0].sum()
    zeros = len(fold) - ones
    guess = (scores > 0).astype(np.float64)
    # Each score is a sum over statements: `one` where the label is 1, `zero` where it is 0.
    terms = {
        "accuracy": (guess / len(fold), (1 - guess) / len(fold)),
        "balanced_accuracy": (guess / (2 * ones), (1 - guess) / (2 * zeros)),
        "cross_entropy": (
            np.logaddexp(0, -scores) / len(fold),
            np.logaddexp(0, scores) / len(fold),
        ),
    }
    levels = {name: zero.sum(axis=0) + labels @ (one - zero) for name, (one, zero) in terms.items()}
    numbers = np.unique(fold)
    area = np.zeros((len(draws), scores.shape[1]))
    for number in numbers:
        member = fold == number
        positive = labels[0, member].sum()
        wins = labels[:, member] @ rankdata(scores[member], axis=0) - positive * (positive + 1) / 2
        area += wins / (positive * (member.sum() - positive)) / len(numbers)
    return {**levels, "auroc": area}


def p_values_of(
    statistics: Float[np.ndarray, "site draw"],
) -> tuple[Float[np.ndarray, " site"], Float[np.ndarray, " site"]]:
    """Compute the p-value of each site by itself, and by the null of the maximum over sites.

    The first draw is the observed statistic.
    """
    observed = statistics[:, :1] - _TIE
    draws = statistics.shape[1]
    p = (1 + (statistics[:, 1:] >= observed).sum(axis=1)) / draws
    largest = statistics[:, 1:].max(axis=0)
    p_best = (1 + (largest >= observed).sum(axis=1)) / draws
    return p, p_best


def in_deviations(statistics: Float[np.ndarray, "row draw"]) -> Float[np.ndarray, "row draw"]:
    """Scale to standard deviations from the mean over all draws.

    The result is 0 if all draws agree to within rounding.
    """
    deviations = statistics - statistics.mean(axis=1, keepdims=True)
    scale = deviations.std(axis=1, keepdims=True)
    rounding = 1e-6 * np.abs(statistics).max(axis=1, keepdims=True)
    scaled: np.ndarray = np.divide(
        deviations, scale, out=np.zeros_like(deviations), where=scale > rounding
    )
    return scaled


def middle_95(level: Float[np.ndarray, "draw ..."]) -> Float[np.ndarray, "... bound"]:
    """Compute the 2.5th and the 97.5th percentile of the draws."""
    middle: np.ndarray = np.moveaxis(np.quantile(level, [0.025, 0.975], axis=0), 0, -1)
    return middle


def _standardised_features(
    values: Float[Tensor, "example d_model"], *, scale: bool
) -> Float[Tensor, "example d_model"]:
    """Centre features, and with `scale` divide them by their standard deviations.

    Mean and deviation are over all rows, test rows included. For a probe this would leak. A
    permutation test may do it, since no label is used. With `scale`, constant features become 0.
    """
    mean = values.mean(dim=0)
    features = values - mean
    if not scale:
        # One unit for all features, so that products of sums do not overflow float32.
        return features / features.square().mean().sqrt().clamp_min(1e-30)
    deviation = features.square().mean(dim=0).sqrt()
    rounding = 8 * torch.finfo(values.dtype).eps * mean.abs()
    return torch.where(deviation > rounding, features / deviation.clamp_min(1e-30), 0.0)


def principal_axes(
    rows: Float[Tensor, "example d_model"],
) -> tuple[Float[Tensor, "d_model axis"], Float[Tensor, " axis"]]:
    """Compute the principal axes of rows, and the sum of squares along each axis."""
    count, width = rows.shape
    if count >= width:
        spread, axes = torch.linalg.eigh(rows.T @ rows)
        return axes, spread.clamp_min(0)
    spread, axes = torch.linalg.eigh(rows @ rows.T)
    # Axes below float32 rounding have no reliable direction, and would be divided by almost 0.
    significant = spread > 1e-6 * spread[-1].clamp_min(1e-30)
    spread, axes = spread[significant], axes[:, significant]
    return rows.T @ axes / spread.sqrt(), spread
