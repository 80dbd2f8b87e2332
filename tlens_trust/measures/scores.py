"""How good held-out log-odds are, with intervals over groups."""

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
    """Accuracy, balanced accuracy, AUROC and cross-entropy of held-out scores.

    The intervals are those of the fitted probes' scores on fresh groups. They come from a bootstrap
    that draws whole groups, the same ones for every site; the fits are not repeated. Its
    percentiles are stretched about the score, for two things that resampling scores misses: that
    folds share training rows (`cross_fold_variance`, which takes `fewer`), and that the spread of
    few groups is itself an estimate (Student's distribution, `√(G / (G - 1))`).

    AUROC is taken within folds, whose probes have scales of their own, then averaged; its
    resamples use its linearisation (each statement's placement among those of the other label),
    since ranking anew for each would cost more than the fits. Where resampling shows no spread at
    all (every statement right), the interval is Clopper and Pearson's on the number of groups,
    for AUROC on the disjoint pairs of groups.

    Args:
        scores: Held-out log-odds of label 1, in nats.
        labels: 0 or 1 for each statement.
        fold: The fold in which each statement was held out.
        groups: The group of each statement.
        sites: Names along the `site` axis.
        seed: Draws the resamples.
        fewer: Log-odds by the probes without the statement's fold and one more fold, the first
            axis. None where they are not known; the intervals of cross-validated scores are then
            too narrow near chance (by a quarter to a third at chance itself).
        resamples: How many.
        confidence: Of the intervals.

    Returns:
        For each of `accuracy`, `balanced_accuracy`, `auroc`, `cross_entropy`: the value, `…_ci`
        along `bound` (low, high), and `…_n`, the statements that it rests on; all along `site`;
        then `score` by statement and site, `fold` by statement, and what was given as `fewer` as
        `score_fewer`, along `left_out` too.

    Source:
        Obuchowski (1997), Biometrics 53, for the clustered AUROC. Bayle et al. (2020),
        arXiv:2007.12671, for what an interval of a cross-validated score is about, and when the
        folds' covariance goes away.
    """
    signs = np.where(labels == 1, 1.0, -1.0)[:, None]
    correct = ((scores > 0) == (signs > 0)).astype(np.float64)
    surprise = np.logaddexp(0.0, -signs * scores)
    positive, negative = (labels == 1)[:, None], (labels == 0)[:, None]
    auroc, influence = _auroc(scores, labels, fold)

    bootstrap = GroupBootstrap.draw(groups, seed=seed, resamples=resamples)
    drawn = bootstrap.sums
    rows_drawn = drawn(np.ones((len(labels), 1)))
    with np.errstate(invalid="ignore", divide="ignore"):
        # A resample may lack a label; nanquantile leaves it out.
        recalls = [
            drawn(correct * side) / drawn(side.astype(float)) for side in (positive, negative)
        ]
    recall = [correct[side[:, 0]].mean(axis=0) for side in (positive, negative)]
    estimates = {
        "accuracy": (correct.mean(axis=0), drawn(correct) / rows_drawn),
        "balanced_accuracy": ((recall[0] + recall[1]) / 2, (recalls[0] + recalls[1]) / 2),
        "auroc": (auroc, auroc + drawn(influence) - influence.sum(axis=0)),
        "cross_entropy": (surprise.mean(axis=0), drawn(surprise) / rows_drawn),
    }
    described = {
        "accuracy": (_ACCURACY, "held-out accuracy"),
        "balanced_accuracy": (_ACCURACY, "held-out accuracy, mean over the labels"),
        "auroc": ("1", "area under the ROC curve, mean over the folds"),
        "cross_entropy": ("nats", "held-out cross-entropy of the labels"),
    }
    shared = {} if fewer is None else cross_fold_variance(scores, fewer, labels, fold)
    variables: Variables = {}
    for name, (value, resampled) in estimates.items():
        units, long_name = described[name]
        interval = stretched_interval(
            value, resampled, bootstrap.groups, added=shared.get(name, 0.0), confidence=confidence
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
    """Kept by statement, since it takes them to compare two sites or two checkpoints."""
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
    """AUROC averaged over folds, and what each statement adds to it to first order."""
    folds = np.unique(fold)
    total = np.zeros(scores.shape[1])
    influence = np.zeros(scores.shape)
    for number in folds:
        rows = np.flatnonzero(fold == number)
        won, lost = placements(scores[rows], labels[rows])
        area = won.mean(axis=0)
        total += area
        for label, share in ((1, won), (0, lost)):
            # Deviations from a mean over the same few statements are too small on average.
            few = np.sqrt(len(share) / max(len(share) - 1, 1))
            influence[rows[labels[rows] == label]] = few * (share - area) / len(share) / len(folds)
    return total / len(folds), influence
