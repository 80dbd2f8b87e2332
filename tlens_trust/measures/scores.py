"""Scores of held-out log-odds, with confidence intervals over groups."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from tlens_trust.measures.cross_fold import cross_fold_variance, placements
from tlens_trust.measures.intervals import fraction_interval, stretched_interval
from tlens_trust.measures.labelled import Variables, labelled
from tlens_trust.measures.resampling import GroupBootstrap

_ACCURACY = "fraction of statements"


def score_dataset(
    scores: Float[np.ndarray, "example site"],
    labels: Int[np.ndarray, " example"],
    fold: Int[np.ndarray, " example"],
    groups: Sequence[str],
    *,
    sites: Sequence[str],
    seed: int,
    fewer: Float[np.ndarray, "fold example site"] | None = None,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> xr.Dataset:
    """Compute accuracy, balanced accuracy, AUROC and cross-entropy of held-out scores.

    The intervals describe the scores of the fitted probes on fresh groups. They come from a
    bootstrap that draws whole groups, the same ones for every site. The fits are not repeated. The
    percentiles are stretched about the score, because resampling scores misses two things. Folds
    share training rows (`cross_fold_variance`, which uses `fewer`). And the spread of few groups is
    itself an estimate (Student's distribution, `√(G / (G - 1))`).

    AUROC is computed within each fold, since the probes of different folds have different scales,
    and then averaged. Its resamples use its linearisation: the placement of each statement among
    those of the other label. Ranking every resample would cost more than the fits. Where all
    resamples agree (every statement is classified correctly, say), the interval is that of Clopper
    and Pearson on the number of groups. For AUROC it is on the number of disjoint pairs of groups.

    Args:
        scores: Held-out log-odds of label 1, in nats.
        labels: 0 or 1 for each statement.
        fold: The fold in which each statement was held out.
        groups: The group of each statement.
        sites: Names along the `site` axis.
        seed: Seed of the resamples.
        fewer: Log-odds from probes fitted without the statement's fold and one more fold, which is
            the first axis. Without them, the intervals of cross-validated scores are too narrow
            near chance (by a quarter to a third at chance itself).
        resamples: The number of bootstrap resamples.
        confidence: The confidence level of the intervals.

    Returns:
        For each of `accuracy`, `balanced_accuracy`, `auroc` and `cross_entropy`, along `site`: the
        value, `…_ci` along `bound` (low, high), and `…_n`, the number of statements. Then `score`
        by statement and site, and `fold` by statement. If `fewer` is given, it is returned as
        `score_fewer`, along `left_out` too.

    Source:
        Obuchowski (1997), Biometrics 53, for the clustered AUROC. Bayle et al. (2020),
        arXiv:2007.12671, for what an interval of a cross-validated score covers, and when the
        covariance between folds vanishes.
    """
    signs = np.where(labels == 1, 1.0, -1.0)[:, None]
    correct = ((scores > 0) == (signs > 0)).astype(np.float64)
    surprise = np.logaddexp(0.0, -signs * scores)
    positive, negative = (labels == 1)[:, None], (labels == 0)[:, None]
    auroc, influence = _auroc(scores, labels, fold)

    bootstrap = GroupBootstrap.draw(groups, seed=seed, resamples=resamples)
    resampled_sums = bootstrap.sums
    resample_sizes = resampled_sums(np.ones((len(labels), 1)))
    with np.errstate(invalid="ignore", divide="ignore"):
        # A resample may lack a label. It gives NaN, which nanquantile leaves out.
        resampled_recalls = [
            resampled_sums(correct * side) / resampled_sums(side.astype(float))
            for side in (positive, negative)
        ]
    recalls = [correct[side[:, 0]].mean(axis=0) for side in (positive, negative)]
    estimates = {
        "accuracy": (correct.mean(axis=0), resampled_sums(correct) / resample_sizes),
        "balanced_accuracy": (
            (recalls[0] + recalls[1]) / 2,
            (resampled_recalls[0] + resampled_recalls[1]) / 2,
        ),
        # To first order, a resample changes the AUROC by the change in the sum of influences.
        "auroc": (auroc, auroc + resampled_sums(influence) - influence.sum(axis=0)),
        "cross_entropy": (surprise.mean(axis=0), resampled_sums(surprise) / resample_sizes),
    }
    descriptions = {
        "accuracy": (_ACCURACY, "held-out accuracy"),
        "balanced_accuracy": (_ACCURACY, "held-out accuracy, mean over the labels"),
        "auroc": ("1", "area under the ROC curve, mean over the folds"),
        "cross_entropy": ("nats", "held-out cross-entropy of the labels"),
    }
    fold_variance = {} if fewer is None else cross_fold_variance(scores, fewer, labels, fold)
    variables: Variables = {}
    for name, (value, resampled) in estimates.items():
        units, long_name = descriptions[name]
        interval = stretched_interval(
            value,
            resampled,
            bootstrap.groups,
            added=fold_variance.get(name, 0.0),
            confidence=confidence,
        )
        if name != "cross_entropy":
            # A pair of groups, one of each label, is one trial of the ranking.
            trials = bootstrap.groups // 2 if name == "auroc" else bootstrap.groups
            interval = fraction_interval(value, interval, resampled, trials, confidence=confidence)
        variables |= labelled(
            name,
            value,
            units=units,
            long_name=long_name,
            interval=interval,
            n=len(labels),
            resampling={"resamples": resamples, "groups": bootstrap.groups},
            confidence=confidence,
        )
    variables["score"] = (
        ("example", "site"),
        scores.astype(np.float32),
        {"units": "nats", "long_name": "held-out log-odds of label 1"},
    )
    variables["fold"] = (
        ("example",),
        fold.astype(np.int16),
        {"units": "1", "long_name": "fold in which the statement was held out"},
    )
    data = xr.Dataset(variables, coords={"site": list(sites), "bound": ["low", "high"]})
    return data if fewer is None else data.assign(score_fewer=_without_folds(fewer, sites))


def _without_folds(
    fewer: Float[np.ndarray, "fold example site"], sites: Sequence[str]
) -> xr.DataArray:
    """Give the scores from probes fitted without one more fold as a variable.

    They are kept for each statement, since a comparison of two sites or checkpoints needs them.
    """
    return xr.DataArray(
        fewer.astype(np.float32),
        dims=("left_out", "example", "site"),
        coords={"left_out": np.arange(len(fewer)), "site": list(sites)},
        attrs={
            "units": "nats",
            "long_name": "held-out log-odds of label 1, by a probe that was fitted without one "
            "more fold",
        },
    )


def _auroc(
    scores: Float[np.ndarray, "example site"],
    labels: Int[np.ndarray, " example"],
    fold: Int[np.ndarray, " example"],
) -> tuple[Float[np.ndarray, " site"], Float[np.ndarray, "example site"]]:
    """Compute the AUROC averaged over folds, and the influence of each statement on it."""
    folds = np.unique(fold)
    total = np.zeros(scores.shape[1])
    influence = np.zeros(scores.shape)
    for number in folds:
        rows = np.flatnonzero(fold == number)
        placement_of_ones, placement_of_zeros = placements(scores[rows], labels[rows])
        area = placement_of_ones.mean(axis=0)
        total += area
        for label, placement in ((1, placement_of_ones), (0, placement_of_zeros)):
            # Deviations from a mean over the same few statements are too small on average.
            count = len(placement)
            correction = np.sqrt(count / max(count - 1, 1))
            influence[rows[labels[rows] == label]] = (
                correction * (placement - area) / count / len(folds)
            )
    return total / len(folds), influence
