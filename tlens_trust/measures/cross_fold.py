"""The covariance between folds, which naive variances of cross-validated scores ignore.

The probe that scores one fold is fitted on the other folds, and the probes of the others are fitted
on that fold. A sample of statements that makes the probe of one fold look good therefore changes
the other probes too. Thus the scores of two folds are not independent, although each of them is
unbiased. If labels are easy to decode, probes hardly change with one fold more or less, and the
covariance is small. Near chance it more than doubles the variance.

For folds `A` and `B`, let `e_A` be the error of the score of `A`: the score by the probe without
`A`, minus the expected score of that probe on new statements. Let `e_A⁻` be the same by the probe
without `A` and `B`. Then `E[e_A e_B⁻] = E[e_A⁻ e_B] = E[e_A⁻ e_B⁻] = 0`. In each product, one
factor has mean zero given the rows that the other factor depends on. Therefore

    `Cov(e_A, e_B) = E[(e_A - e_A⁻)(e_B - e_B⁻)]`.

If a penalty is chosen inside the training folds, the probes without two folds exist already. The
average gain from the larger training set is not removed, so that intervals are too wide rather than
too narrow.
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

    The estimate is `Σ_{A≠B} (s_A - s_A⁻)(s_B - s_B⁻)`. Here `s_A` is the contribution of fold `A`
    to the score, and `s_A⁻` is its contribution by a probe without `A` and `B`. The estimate is
    unbiased and can be negative. Negative values are replaced by 0.

    Args:
        scores: Log-odds of label 1, in nats, by the probe without the statement's fold.
        fewer: The same by the probe without that fold and the fold along the first axis. Values
            where both are the same fold are not used.
        labels: 0 or 1 for each statement.
        fold: The fold of each statement, from 0.

    Returns:
        Variances for `accuracy`, `balanced_accuracy`, `auroc` and `cross_entropy`.
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
    """Estimate the covariance for any score that is a sum over folds.

    Args:
        parts: The contribution of each fold.
        without: The contribution of each fold by a probe that is fitted without one more fold.
    """
    change = parts - without
    products = [2 * change[b, a] * change[a, b] for a, b in combinations(range(len(parts)), 2)]
    total: np.ndarray = np.maximum(np.sum(products, axis=0), 0.0)
    return total


def mean_covariance(
    rows: Float[np.ndarray, "example site"],
    fewer: Float[np.ndarray, "fold example site"] | None,
    fold: Int[np.ndarray, " example"],
) -> Float[np.ndarray, " site"] | float:
    """Estimate the covariance for the mean of any number per statement.

    Args:
        rows: The number of each statement, by the probe without its fold.
        fewer: The same by the probe without that fold and the fold along the first axis. If it is
            None, the result is 0.
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
    """Split each score into contributions of the folds, whose sum is the score."""
    folds = int(fold.max()) + 1
    member = (fold == np.arange(folds)[:, None]).astype(np.float64)
    signs = np.where(labels == 1, 1.0, -1.0)[:, None]
    correct = ((scores > 0) == (signs > 0)).astype(np.float64)
    share = 1 / (2 * np.bincount(labels, minlength=2)[labels])
    areas = []
    for number in range(folds):
        rows = fold == number
        positive_shares, _ = placements(scores[rows], labels[rows])
        areas.append(positive_shares.mean(axis=0) / folds)
    return {
        "accuracy": member @ correct / len(labels),
        "balanced_accuracy": (member * share) @ correct,
        "auroc": np.stack(areas),
        "cross_entropy": member @ np.logaddexp(0.0, -signs * scores) / len(labels),
    }


def placements(
    scores: Float[np.ndarray, "example site"], labels: Int[np.ndarray, " example"]
) -> tuple[Float[np.ndarray, "positive site"], Float[np.ndarray, "negative site"]]:
    """Compute the share of correctly ranked pairs of each statement with those of the other label.

    A pair is ranked correctly if the statement of label 1 has the higher score. Ties count half.
    The mean over the statements of either label is the area under the ROC curve.

    Returns:
        The shares of the statements of label 1, and those of label 0.

    Examples:
        >>> ones, zeros = placements(np.array([[3.0], [1.0], [2.0]]), np.array([1, 1, 0]))
        >>> ones.ravel().tolist(), zeros.ravel().tolist()
        ([1.0, 0.0], [0.5])
    """
    positive, negative = scores[labels == 1], scores[labels == 0]
    # The rank among all minus the rank within the own label is the number of the other label below.
    ranks = rankdata(np.concatenate([positive, negative]), axis=0)
    positive_shares = (ranks[: len(positive)] - rankdata(positive, axis=0)) / len(negative)
    negative_shares = 1 - (ranks[len(positive) :] - rankdata(negative, axis=0)) / len(positive)
    return positive_shares, negative_shares
