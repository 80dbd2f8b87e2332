"""Null levels of transfer to another set: probes of permuted labels, and the text-only baseline.

Both are fitted to the source without a fold, as the transferred probe is. They score the target's
statements whose groups are in that fold. Statements in no fold get the mean over folds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import rankdata
from torch import Tensor

from tlens_trust.concepts import Concept, text_floor
from tlens_trust.measures.nulls import (
    in_deviations,
    levels_of_fixed,
    middle_95,
    p_values_of,
    principal_axes,
)
from tlens_trust.measures.permutations import PermutedLabels, permute_labels

# More draws would not move the ends of a 95% band visibly, and every draw is a fit.
MOST_REFITS = 500


@dataclass(frozen=True, eq=False)
class TargetStatements:
    """Labels of the scored set, and which probes score which statement.

    Attributes:
        labels: 0 or 1 for each statement.
        judged_by: The source's fold whose probe scores it; -1 for the mean of all folds' probes.
        parts: Statements with the same number are scored alike. The AUROC is taken within them.
    """

    labels: Int[np.ndarray, " other"]
    judged_by: Int[np.ndarray, " other"]
    parts: Int[np.ndarray, " other"]


def target_null(
    scores: Float[np.ndarray, "other site"],
    groups: Sequence[str],
    statements: TargetStatements,
    *,
    permutations: int,
    seed: int,
) -> tuple[Float[np.ndarray, " site"], Float[np.ndarray, " site"]]:
    """Permute the target's labels against its scores, which do not depend on these labels.

    The statistic is the AUROC. The test is exact at its level, since the probes are fixed: unlike
    in cross-validation, none was fitted to a label that is permuted.

    Args:
        scores: Scores of the target's statements, by probes of another set.
        groups: Groups of the target. Labels are permuted within them, as in `permute_labels`.
        statements: Its labels, and the parts within which the AUROC is taken.
        permutations: Number of permutations.
        seed: Seed of the permutations.

    Returns:
        p-values of each site by itself, and by the null of the maximum over sites.
    """
    permuted = permute_labels(
        statements.labels, groups, statements.parts, permutations=permutations, seed=seed
    )
    areas = levels_of_fixed(scores, permuted.draws, statements.parts)["auroc"]
    return p_values_of(in_deviations(areas.T))


def target_refit_bands(
    source: Float[Tensor, "example site d_model"],
    target: Float[Tensor, "other site d_model"],
    permuted: PermutedLabels,
    fold: Int[np.ndarray, " example"],
    statements: TargetStatements,
    *,
    C: Sequence[float],
) -> dict[str, Float[np.ndarray, "site bound"]]:
    """Null bands of the target's scores, by directions that were fitted to permuted source labels.

    The discriminants are those of `refit_null`: the first Newton step of a logistic probe, fitted
    to permuted labels of the source. The penalty is chosen there for every draw anew. They are
    scored against the target's own labels. Where its statements vary along the concept more than
    along anything else, any direction separates its labels, in one sense or the other. The bands
    are then wide.

    Args:
        source: One row per statement and site.
        target: The same sites of the other set.
        permuted: The source's labels and their permutations, of which 500 are refitted.
        fold: The fold of each of the source's statements, from 0.
        statements: The statements that are scored.
        C: Inverse penalties of the logistic probes, or none, for a difference of means.

    Returns:
        The middle 95% of `accuracy` and `auroc`.
    """
    refitted = replace(permuted, draws=permuted.draws[: 1 + MOST_REFITS])
    levels = [
        _refit_site(source[:, site], target[:, site], refitted, fold, statements, C)
        for site in range(source.shape[1])
    ]
    return {
        name: np.stack([middle_95(level[name][1:]) for level in levels])
        for name in ("accuracy", "auroc")
    }


def _refit_site(
    values: Float[Tensor, "example d_model"],
    target_values: Float[Tensor, "other d_model"],
    permuted: PermutedLabels,
    fold: Int[np.ndarray, " example"],
    statements: TargetStatements,
    C: Sequence[float],
) -> dict[str, Float[np.ndarray, " draw"]]:
    """Accuracy and AUROC of every draw's refits in the target, at one site."""
    # Units and axes are chosen without labels, so all rows of the source may be used.
    mean = values.float().mean(dim=0)
    source_features, target_features = values.float() - mean, target_values.float() - mean
    deviation = source_features.square().mean(dim=0).sqrt()
    if C:
        rounding = 8 * torch.finfo(values.dtype).eps * mean.abs()
        unit = torch.where(deviation > rounding, 1 / deviation.clamp_min(1e-30), 0.0)
        axes, spread = principal_axes(source_features * unit)
        source_features, target_features = (
            source_features * unit @ axes,
            target_features * unit @ axes,
        )
        label_variance = float((permuted.expected * (1 - permuted.expected)).mean())
        trained = 1 - 1 / (int(fold.max()) + 1)
        strength = torch.tensor(list(C), device=values.device).unsqueeze(1)
        weights = strength / (1 + strength * label_variance * trained * spread)
    else:
        scale = deviation.square().mean().sqrt().clamp_min(1e-30)
        source_features, target_features = source_features / scale, target_features / scale
        weights = torch.ones(1, source_features.shape[1], device=values.device)

    draws = torch.from_numpy(permuted.draws).T.to(values.device, torch.float32).contiguous()
    log_odds = _score_refits(
        source_features,
        target_features,
        draws,
        permuted,
        fold,
        statements.judged_by,
        weights,
        prior=bool(C),
    )
    ones = statements.labels == 1
    part_rows = [statements.parts == number for number in np.unique(statements.parts)]
    areas = [_areas(log_odds[rows], ones[rows]) for rows in part_rows]
    return {
        "accuracy": ((log_odds > 0) == ones[:, None]).mean(axis=0),
        "auroc": np.mean(areas, axis=0),
    }


def _score_refits(
    source_features: Float[Tensor, "example axis"],
    target_features: Float[Tensor, "other axis"],
    draws: Float[Tensor, "example refit"],
    permuted: PermutedLabels,
    fold: Int[np.ndarray, " example"],
    judged_by: Int[np.ndarray, " other"],
    weights: Float[Tensor, "penalty axis"],
    *,
    prior: bool,
) -> Float[np.ndarray, "other refit"]:
    """Log-odds of the target's statements, by the refits without the fold that scores them."""
    expected = torch.from_numpy(permuted.expected).to(source_features)
    members = [
        torch.from_numpy(fold == k).to(source_features.device) for k in range(int(fold.max()) + 1)
    ]
    sums = torch.stack([source_features[rows].T @ draws[rows] for rows in members])
    total = sums.sum(dim=0)
    centres, gradients, offsets = [], [], []
    for rows, left_out in zip(members, sums, strict=True):
        share = expected[~rows].mean()
        centres.append(source_features[~rows].mean(dim=0))
        gradients.append(total - left_out - share * source_features[~rows].sum(dim=0).unsqueeze(1))
        offsets.append(torch.logit(share) if prior else torch.zeros_like(share))

    surprise = sums.new_zeros(len(members), len(weights), draws.shape[1])
    if len(weights) > 1:
        for k, rows in enumerate(members):
            signs, held_out_features = 1 - 2 * draws[rows], source_features[rows] - centres[k]
            for number, weight in enumerate(weights):
                log_odds = held_out_features @ (weight.unsqueeze(1) * gradients[k]) + offsets[k]
                surprise[k, number] = torch.nn.functional.softplus(signs * log_odds).sum(dim=0)

    scores = source_features.new_zeros(len(target_features), draws.shape[1])
    for k in range(len(members)):
        best_penalties = (surprise.sum(dim=0) - surprise[k]).argmin(dim=0)
        direction = weights[best_penalties].T * gradients[k]
        for judge, share_of in ((k, 1.0), (-1, 1 / len(members))):
            rows = torch.from_numpy(judged_by == judge).to(source_features.device)
            if rows.any():
                scores[rows] += share_of * (
                    (target_features[rows] - centres[k]) @ direction + offsets[k]
                )
    log_odds_by_refit: np.ndarray = scores.cpu().numpy()
    return log_odds_by_refit


def _areas(
    scores: Float[np.ndarray, "other refit"], ones: np.ndarray
) -> Float[np.ndarray, " refit"]:
    """The area under the ROC curve of each column; ties count half."""
    positive = int(ones.sum())
    pairs_won = rankdata(scores, axis=0)[ones].sum(axis=0) - positive * (positive + 1) / 2
    areas: np.ndarray = pairs_won / (positive * (len(ones) - positive))
    return areas


def target_text_scores(
    source: Concept,
    target: Concept,
    fold: Int[np.ndarray, " example"],
    judged_by: Int[np.ndarray, " other"],
    *,
    seed: int,
) -> Float[np.ndarray, " other"] | None:
    """Score the target by its text alone, with classifiers that were fitted to the source's text.

    Args:
        source: The statements that classifiers are fitted to, as in `text_floor`.
        target: The statements that are scored.
        fold: The fold of each of the source's statements, from 0.
        judged_by: The fold without which a statement's classifier is fitted; -1 for the mean of
            all.
        seed: Seed of the folds within the training rows.

    Returns:
        Log-odds of label 1, in nats; None where the source has too few groups to choose between
        words and characters.
    """
    scores = np.zeros(len(target))
    folds = int(fold.max()) + 1
    for k in range(folds):
        rows = np.flatnonzero((judged_by == k) | (judged_by < 0))
        train = np.flatnonzero(fold != k)
        if not len(rows):
            continue
        joined = Concept(
            target.name,
            target.dimension,
            tuple(source.statements[row] for row in train)
            + tuple(target.statements[row] for row in rows),
            np.concatenate([source.labels[train], target.labels[rows]]),
            tuple(source.groups[row] for row in train) + tuple(target.groups[row] for row in rows),
        )
        try:
            floor = text_floor(joined, fold=np.repeat([-1, 0], [len(train), len(rows)]), seed=seed)
        except ValueError:
            # The folds themselves are sound: a probe was fitted on them.
            return None
        text_log_odds = floor.score[len(train) :]
        scores[rows] += np.where(judged_by[rows] < 0, text_log_odds / folds, text_log_odds)
    return scores
