"""The covariance between folds, which naive variances of cross-validated scores leave out.

The probe that scores one fold was fitted on the other folds, and their probes on that one. A draw
of statements that makes the probe of one fold look good therefore changes the other probes too. The
scores of two folds are not independent, although each is a fair test. Where labels are easy to
decode, probes hardly change with one fold more or less, and the covariance is small. Near chance it
more than doubles the variance.

For folds `A` and `B` let `e_A` be the score of `A` by the probe without `A`, less what that probe
is worth on fresh statements, and `e_A⁻` the same by the probe without `A` and `B`. Then
`E[e_A e_B⁻] = E[e_A⁻ e_B] = E[e_A⁻ e_B⁻] = 0`, since in each product one factor has mean zero
given the rows that the other rests on, and so

    `Cov(e_A, e_B) = E[(e_A - e_A⁻)(e_B - e_B⁻)]`.

The probes without two folds exist already where a penalty is chosen inside the training folds. The
average gain from the larger training set is left in, so that intervals are rather too wide.
"""

from collections.abc import Mapping
from itertools import combinations

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import rankdata


def cross_fold_variance(
    scores: Float[np.ndarray, "example site"],
    fewer: Float[np.ndarray, "fold example site"],
    labels: Int[np.ndarray, " example"],
    fold: Int[np.ndarray, " example"],
) -> Mapping[str, Float[np.ndarray, " site"]]:
    """Estimate what the covariance between folds adds to the variance of each held-out score.

    `Σ_{A≠B} (s_A - s_A⁻)(s_B - s_B⁻)`, with `s_A` what fold `A` contributes to the score and `s_A⁻`
    what it would contribute if its probe had not seen `B` either. An unbiased estimate is negative
    at times, where it is taken as 0.

    Args:
        scores: Log-odds of label 1, in nats, by the probe without the statement's fold.
        fewer: The same by the probe without that fold and one more, the first axis; anything where
            the two are one.
        labels: 0 or 1 for each statement.
        fold: The fold of each statement, from 0.

    Returns:
        Variances, for `accuracy`, `balanced_accuracy`, `auroc` and `cross_entropy`.
    """
    contributions = fold_parts(scores, labels, fold)
    without = [fold_parts(np.nan_to_num(part), labels, fold) for part in fewer]
    return {
        name: covariance_between_folds(parts, np.stack([part[name] for part in without]))
        for name, parts in contributions.items()
    }


def covariance_between_folds(
    parts: Float[np.ndarray, "fold site"], without: Float[np.ndarray, "other fold site"]
) -> Float[np.ndarray, " site"]:
    """The estimate, for any score that is a sum over folds.

    Args:
        parts: What each fold contributes.
        without: What it would contribute if its probe had not seen another fold either.
    """
    change = parts - without
    products = [
        2 * change[other, one] * change[one, other]
        for one, other in combinations(range(len(parts)), 2)
    ]
    total: np.ndarray = np.maximum(np.sum(products, axis=0), 0.0)
    return total


def mean_covariance(
    rows: Float[np.ndarray, "example site"],
    fewer: Float[np.ndarray, "fold example site"] | None,
    fold: Int[np.ndarray, " example"],
) -> Float[np.ndarray, " site"] | float:
    """The estimate, for the mean of any number that each statement has.

    Args:
        rows: The number of each statement, by the probe without its fold.
        fewer: The same by the probe without that fold and one more, the first axis; None where
            that is not known, which adds nothing.
        fold: The fold of each statement, from 0.
    """
    if fewer is None:
        return 0.0
    member = (fold == np.arange(len(fewer))[:, None]) / len(fold)
    without = np.stack([member @ np.nan_to_num(part) for part in fewer])
    return covariance_between_folds(member @ rows, without)


def fold_parts(
    scores: Float[np.ndarray, "example site"],
    labels: Int[np.ndarray, " example"],
    fold: Int[np.ndarray, " example"],
) -> dict[str, Float[np.ndarray, "fold site"]]:
    """Split each score into the contributions of the folds, which add up to it."""
    folds = int(fold.max()) + 1
    member = (fold == np.arange(folds)[:, None]).astype(np.float64)
    signs = np.where(labels == 1, 1.0, -1.0)[:, None]
    correct = ((scores > 0) == (signs > 0)).astype(np.float64)
    share = 1 / (2 * np.bincount(labels, minlength=2)[labels])
    areas = []
    for number in range(folds):
        rows = fold == number
        won, _ = placements(scores[rows], labels[rows])
        areas.append(won.mean(axis=0) / folds)
    return {
        "accuracy": member @ correct / len(labels),
        "balanced_accuracy": (member * share) @ correct,
        "auroc": np.stack(areas),
        "cross_entropy": member @ np.logaddexp(0.0, -signs * scores) / len(labels),
    }


def placements(
    scores: Float[np.ndarray, "example site"], labels: Int[np.ndarray, " example"]
) -> tuple[Float[np.ndarray, "positive site"], Float[np.ndarray, "negative site"]]:
    """Return, for each statement, the share of the other label that it is on the right side of.

    The mean over the statements of either label is the area under the ROC curve. Ties count half.

    Examples:
        >>> won, lost = placements(np.array([[3.0], [1.0], [2.0]]), np.array([1, 1, 0]))
        >>> won.ravel().tolist(), lost.ravel().tolist()
        ([1.0, 0.0], [0.5])
    """
    high, low = scores[labels == 1], scores[labels == 0]
    ranks = rankdata(np.concatenate([high, low]), axis=0)
    won = (ranks[: len(high)] - rankdata(high, axis=0)) / len(low)
    lost = 1 - (ranks[len(high) :] - rankdata(low, axis=0)) / len(high)
    return won, lost
