"""What probes find where labels mean nothing: p-values and null levels by permutation.

Permuting labels against pooled cross-validated predictions is no test: the probe of each fold was
fitted to the labels of the others, so that the predictions do not stay as they are when labels
change. A test has to fit again for every permutation. `refit_null` does, with ridge discriminants
in place of logistic probes (which start out as such: a discriminant is a logistic probe's first
Newton step). They have a closed form in which labels occur only as sums over rows, so that two
thousand refits at every penalty are a few matrix products.

`held_out_null` is for any other probe. It permutes the labels of one fold at a time against the
predictions of the probe that never saw them, and merges the folds' p-values.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import rankdata
from torch import Tensor

from tlens_trust.measures.permutations import PermutedLabels

# Refits whose predictions are held at once, and permutations behind the bands of fixed scores.
_DRAWS_AT_ONCE = 500
_FIXED = 500

# Scores that have bands; of refits, the share of label 1 that was found is kept as well.
_BANDS = ("accuracy", "balanced_accuracy", "auroc", "cross_entropy")

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
        draws: For each score, what refits to every draw of labels give, those to the labels
            themselves first; None where nothing was refitted.
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

    With features standardised (`x`), `S = Σ xᵢxᵢᵀ` over all rows, and `p` the training rows' share
    of label 1, the discriminant fitted without the fold `k` is
    `w = C (I + C p(1 - p) (1 - 1/K) S)⁻¹ Σ (yᵢ - p) xᵢ`, the second sum being over all rows but
    those of `k`; `w·x + log(p / (1 - p))` scores the rows of `k`. Its `C` is the one that gives
    the other folds' held-out scores the least cross-entropy. The statistic of a site is the AUROC
    of the scores, averaged within folds as everywhere, in standard deviations over all draws. Its
    p-value is `(1 + #{T* ≥ T}) / (1 + B)`; that among all sites compares with the largest `T*` over
    sites. Both are exact at their level: observed and permuted labels go through the same, penalty
    and site included, and neither `S` nor the scaling knows labels.

    So what is tested is whether labels can be read, in the way that the probe reads them, and small
    p-values go with an AUROC above the null band. (The largest separation over penalties would find
    more: in embedded sets that untrained weights read at chance, it found what lies along axes with
    next to no variance, which no regularised probe reads.)

    The bands are those of the discriminants' own held-out predictions. In unbalanced labels that of
    the accuracy lies at the share of the larger class, where a probe that has learnt nothing goes.

    Args:
        activations: One row per statement and site.
        permuted: The labels and their permutations, made with these folds.
        fold: The fold of each statement; below 0 where it is only ever trained on.
        C: Inverse penalties of the logistic probes that stand behind, or none, for `w` without any
            inverse and features as they are: the difference of means. Then there are no bands but
            that of the AUROC.

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
        statistics = in_deviations((permuted.draws[:, rows].astype(np.float64) @ ranks).T)
        p, p_best = p_values_of(statistics)
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
    """Labels and folds as the refits of every site need them.

    Attributes:
        draws: The labels of each draw.
        expected: Their expectation.
        members: Rows of each fold, and at the end those that are only ever trained on.
        tested: How many of them are scored.
    """

    draws: Float[Tensor, "example draw"]
    expected: Float[Tensor, " example"]
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
            draws,
            expected,
            tuple(torch.from_numpy(rows).to(device) for rows in members),
            sum(n >= 0 for n in numbers),
        )

    def others(self, k: int) -> Int[Tensor, " _"]:
        """The rows that are trained on for fold `k`."""
        return torch.cat([rows for j, rows in enumerate(self.members) if j != k])


def _refit_site(
    values: Float[Tensor, "example d_model"], folds: _Folds, C: Sequence[float]
) -> dict[str, Float[np.ndarray, " draw"]]:
    """The scores of each draw's refits, of its own labels."""
    features = _standardised_features(values.float(), scale=bool(C))
    if C:
        axes, spread = principal_axes(features)
        features = features @ axes
        label_variance = float((folds.expected * (1 - folds.expected)).mean())
        trained = 1 - sum(len(rows) for rows in folds.members[: folds.tested]) / (
            folds.tested * len(values)
        )
        strength = torch.tensor(list(C), device=values.device).unsqueeze(1)
        weights = strength / (1 + strength * label_variance * trained * spread)
    else:
        weights = torch.ones(1, features.shape[1], device=values.device)

    levels: list[dict[str, np.ndarray]] = []
    for first in range(0, folds.draws.shape[1], _DRAWS_AT_ONCE):
        labels = folds.draws[:, first : first + _DRAWS_AT_ONCE]
        predicted = _predict_refits(features, folds, labels, weights)
        levels.append(_levels_of_refits(predicted, folds, labels, all_scores=bool(C)))
    return {name: np.concatenate([level[name] for level in levels]) for name in levels[0]}


def _predict_refits(
    features: Float[Tensor, "example axis"],
    folds: _Folds,
    labels: Float[Tensor, "example refit"],
    weights: Float[Tensor, "penalty axis"],
) -> list[Float[Tensor, "_ refit"]]:
    """Held-out log-odds of a logistic probe's first Newton step from no weights, for each fold."""
    sums = torch.stack([features[rows].T @ labels[rows] for rows in folds.members])
    total = sums.sum(dim=0)
    gradients, held, offsets = [], [], []
    for k in range(folds.tested):
        train = folds.others(k)
        share = folds.expected[train].mean()
        gradients.append(total - sums[k] - share * features[train].sum(dim=0).unsqueeze(1))
        held.append(features[folds.members[k]] - features[train].mean(dim=0))
        offsets.append(torch.logit(share))

    surprise = sums.new_zeros(folds.tested, len(weights), labels.shape[1])
    if len(weights) > 1:
        for k in range(folds.tested):
            away = 1 - 2 * labels[folds.members[k]]
            for number, weight in enumerate(weights):
                log_odds = held[k] @ (weight.unsqueeze(1) * gradients[k]) + offsets[k]
                surprise[k, number] = torch.nn.functional.softplus(away * log_odds).sum(dim=0)
    predicted = []
    for k in range(folds.tested):
        chosen = (surprise.sum(dim=0) - surprise[k]).argmin(dim=0)
        predicted.append(held[k] @ (weights[chosen].T * gradients[k]) + offsets[k])
    return predicted


def _levels_of_refits(
    predicted: Sequence[Float[Tensor, "_ refit"]],
    folds: _Folds,
    labels: Float[Tensor, "example refit"],
    *,
    all_scores: bool,
) -> dict[str, Float[np.ndarray, " refit"]]:
    """The scores of each refit's predictions of its own labels, or the AUROC alone."""
    own = [labels[rows] for rows in folds.members[: folds.tested]]
    levels = {"auroc": sum(map(_area, predicted, own)) / folds.tested}
    if all_scores:
        ones = sum(label[:, 0].sum() for label in own)
        count = sum(len(label) for label in own)
        right, recalled, found, surprise = [], [], [], []
        for log_odds, label in zip(predicted, own, strict=True):
            correct = ((log_odds > 0) == (label > 0)).float()
            right.append(correct.sum(dim=0))
            recall = torch.where(label > 0, 0.5 / ones, 0.5 / (count - ones))
            recalled.append((correct * recall).sum(dim=0))
            found.append((correct * label).sum(dim=0))
            surprise.append(torch.nn.functional.softplus((1 - 2 * label) * log_odds).sum(dim=0))
        levels |= {
            "accuracy": sum(right) / count,
            "balanced_accuracy": sum(recalled),
            "recall": sum(found) / ones,
            "cross_entropy": sum(surprise) / count,
        }
    return {name: torch.as_tensor(level).double().cpu().numpy() for name, level in levels.items()}


def _area(
    log_odds: Float[Tensor, "_ refit"], label: Float[Tensor, "_ refit"]
) -> Float[Tensor, " refit"]:
    """AUROC of each column, ties counting half; every column holds as many labels 1."""
    positive = label[:, 0].sum()
    # NumPy sorts several times faster than torch does, along the last axis above all.
    values = log_odds.T.cpu().numpy()
    order = np.argsort(values, axis=1)
    sorted_labels = label.T.gather(1, torch.from_numpy(order).to(label.device))
    rank = torch.from_numpy(_ranks(np.take_along_axis(values, order, axis=1))).to(label)
    beaten = (sorted_labels * rank).sum(dim=1) - positive * (positive + 1) / 2
    return beaten / (positive * (len(label) - positive))


def _ranks(ascending: Float[np.ndarray, "refit row"]) -> Float[np.ndarray, "_ row"]:
    """Ranks from 1 along rows that ascend; what is alike to within rounding shares its mean rank.

    Without it statements that read alike would be ranked by their place in the file.
    """
    count = ascending.shape[1]
    ranks = np.tile(np.arange(count) + 1.0, (len(ascending), 1))
    near = 16 * np.finfo(np.float32).eps * np.abs(ascending[:, [0, -1]]).max(axis=1, keepdims=True)
    alike = np.diff(ascending, axis=1) <= near
    tied = alike.any(axis=1)
    if not tied.any():
        return ranks
    alike, place = alike[tied], np.arange(count)
    edge = np.ones((len(alike), 1), dtype=bool)
    first = np.maximum.accumulate(np.where(np.hstack([edge, ~alike]), place, 0), axis=1)
    ends = np.where(np.hstack([~alike, edge]), place, count)
    last = np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]
    ranks[tied] = (first + last) / 2 + 1
    return ranks


def levels_of_fixed(
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


def p_values_of(
    statistics: Float[np.ndarray, "site draw"],
) -> tuple[Float[np.ndarray, " site"], Float[np.ndarray, " site"]]:
    """By itself and by the null of the maximum; the first draw is what was observed."""
    observed = statistics[:, :1] - _TIE
    draws = statistics.shape[1]
    alone = (1 + (statistics[:, 1:] >= observed).sum(axis=1)) / draws
    largest = statistics[:, 1:].max(axis=0)
    best = (1 + (largest >= observed).sum(axis=1)) / draws
    return alone, best


def in_deviations(statistics: Float[np.ndarray, "row draw"]) -> Float[np.ndarray, "row draw"]:
    """In standard deviations from the mean over all draws; 0 where all draws agree."""
    about = statistics - statistics.mean(axis=1, keepdims=True)
    deviation = about.std(axis=1, keepdims=True)
    rounding = 1e-6 * np.abs(statistics).max(axis=1, keepdims=True)
    scaled: np.ndarray = np.divide(
        about, deviation, out=np.zeros_like(about), where=deviation > rounding
    )
    return scaled


def middle_95(level: Float[np.ndarray, "draw ..."]) -> Float[np.ndarray, "... bound"]:
    """From the 2.5th percentile of the draws to the 97.5th."""
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


def principal_axes(
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
