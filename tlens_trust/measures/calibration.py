"""Calibration of log-odds: calibration errors, reliability curves and thresholds."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import inf, pi, sqrt

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from scipy.special import expit
from scipy.stats import norm

from tlens_trust.arguments import checked_count, checked_share
from tlens_trust.measures.intervals import fraction_interval, percentile_interval
from tlens_trust.measures.labelled import labelled
from tlens_trust.measures.resampling import GroupBootstrap

_PROBABILITY = "probability"


@dataclass(frozen=True)
class CalibrationError:
    """The distance of predicted probabilities from frequencies.

    Attributes:
        rms: Root-mean-square gap between predicted probability and frequency over the bins, without
            the gap that chance alone gives. It is the root of an unbiased estimate of the square,
            with the sign of this estimate. For calibrated scores it is zero on average, and
            negative about half of the time.
        low: Lower end of the interval of `rms`.
        high: Upper end of the interval of `rms`.
        ece: Expected calibration error: the mean absolute gap over the bins. As usual, it includes
            the gaps that chance gives.
        ece_null: The mean of `ece` if the scores were calibrated.
    """

    rms: float
    low: float
    high: float
    ece: float
    ece_null: float


def calibration_error(
    scores: Float[np.ndarray, " example"],
    labels: Int[np.ndarray, " example"],
    groups: Sequence[str] | None = None,
    *,
    bins: int = 10,
    fold: Int[np.ndarray, " example"] | None = None,
    fewer: Float[np.ndarray, "fold example"] | None = None,
    confidence: float = 0.95,
) -> CalibrationError:
    """Compute the gaps between predicted probabilities and frequencies.

    Statements are sorted into bins of equal size by their predicted probability `p` of label 1. The
    probability of the predicted label would not do: a bias towards one label could cancel a bias
    towards the other. Let `m_b` be the mean of `p - y` in bin `b`, which holds `n_b` of the `n`
    statements. Then

        `ece = Σ_b (n_b/n) |m_b|`,        `rms² = Σ_b (n_b/n) (m_b² - Var m_b)`.

    `ece` is above zero even for perfectly calibrated scores, and grows with the number of bins.
    `ece_null = Σ_b (n_b/n) √(2 Var m_b / π)` is its expected value for calibrated scores. `rms²` is
    unbiased and may be negative. Its interval uses the variance of the estimate,
    `2 tr(AA) + 4 mᵀA W m` with `A = W Cov(m)` and `W = diag(n_b/n)`. The covariance of the `m_b` is
    over groups, since statements of one group may depend on each other. If `fewer` is given, the
    interval includes the covariance of folds, which share training rows.

    Variation within a bin is not measured. So both are lower bounds of the error without bins.

    Args:
        scores: Held-out log-odds of label 1, in nats.
        labels: 0 or 1 for each statement.
        groups: The group of each statement. Without it, each statement is a group.
        bins: The number of bins. Equal scores stay in one bin.
        fold: The fold in which each statement was held out. Needed with `fewer`.
        fewer: Log-odds from probes fitted without the statement's fold and one more fold, which is
            the first axis (see `score_dataset`).
        confidence: The confidence level of the interval of `rms`.

    Returns:
        Both errors, as probabilities.

    Raises:
        ValueError: `bins` is less than 1, or there are fewer than two groups.

    Source:
        Guo et al. (2017), arXiv:1706.04599, for the error; Kumar, Liang and Ma (2019),
        arXiv:1909.10155, for the unbiased estimate of its square.

    Examples:
        >>> generator = np.random.default_rng(0)
        >>> scores = 2 * generator.standard_normal(4000)
        >>> labels = (generator.random(4000) < expit(scores)).astype(int)
        >>> good, bad = (calibration_error(factor * scores, labels) for factor in (1, 3))
        >>> good.low < 0 < good.high, bad.low > 0.05
        (True, True)
    """
    confidence = checked_share("confidence", confidence, hint="The usual one is 0.95.")
    names = np.arange(len(scores)) if groups is None else np.asarray(groups, dtype=str)
    _, group = np.unique(names, return_inverse=True)
    number = int(group.max(initial=-1)) + 1
    if number < 2:
        raise ValueError(
            "A calibration error needs at least two groups, to separate error from chance, got "
            f"{number}. Give more statements, or smaller `groups`."
        )
    predicted = expit(scores)
    place, sizes = bin_by_probability(predicted, bins)
    gap = predicted - labels
    means = np.bincount(place, gap, minlength=len(sizes)) / sizes
    within = np.zeros((number, len(sizes)))
    np.add.at(within, (group, place), (gap - means[place]) / sizes[place])
    covariance = within.T @ within * number / (number - 1)
    share = sizes / sizes.sum()
    variances = np.diag(covariance)
    square = float(share @ (means**2 - variances))
    if fold is not None and fewer is not None:
        # For the interval alone. This estimate errs upwards, and would bias `rms` downwards.
        covariance = covariance + _shared_covariance(predicted, expit(fewer), place, sizes, fold)
    weighted = share[:, None] * covariance
    noise = float(np.trace(weighted @ weighted))
    # The quadratic form of the estimated means is too high by `tr(AA)` on average.
    slope = float((share * means) @ covariance @ (share * means)) - noise
    spread = sqrt(2 * noise + 4 * max(slope, 0.0))
    reach = float(norm.ppf((1 + confidence) / 2)) * spread
    return CalibrationError(
        rms=_signed_root(square),
        low=_signed_root(square - reach),
        high=_signed_root(square + reach),
        ece=float(share @ np.abs(means)),
        ece_null=float(share @ np.sqrt(2 * variances / pi)),
    )


def _shared_covariance(
    predicted: Float[np.ndarray, " example"],
    fewer: Float[np.ndarray, "fold example"],
    place: Int[np.ndarray, " example"],
    sizes: Float[np.ndarray, " bin"],
    fold: Int[np.ndarray, " example"],
) -> Float[np.ndarray, "bin bin"]:
    """Compute what the covariance between folds adds to the covariance of the mean gaps.

    This is `cross_fold_variance` for several means at once, `Σ_{A≠B} (m_A - m_A⁻)(m_B - m_B⁻)ᵀ`.
    Negative eigenvalues are set to 0, since a covariance has none.
    """
    bins = (place[:, None] == np.arange(len(sizes))) / sizes
    member = fold == np.arange(len(fewer))[:, None]
    change = np.stack(
        [member @ (bins * (predicted - np.nan_to_num(part))[:, None]) for part in fewer]
    )
    added = np.zeros((len(sizes), len(sizes)))
    for first_fold, second_fold in combinations(range(len(fewer)), 2):
        product = np.outer(change[second_fold, first_fold], change[first_fold, second_fold])
        added += product + product.T
    spread, axes = np.linalg.eigh(added)
    nearest: np.ndarray = (axes * spread.clip(min=0)) @ axes.T
    return nearest


def _signed_root(square: float) -> float:
    return sqrt(square) if square >= 0 else -sqrt(-square)


def bin_by_probability(
    probability: Float[np.ndarray, " example"], bins: int
) -> tuple[Int[np.ndarray, " example"], Float[np.ndarray, " bin"]]:
    """Sort statements into bins of equal size, and count the statements in each bin.

    Equal probabilities share a bin. Bins that are empty because of ties are left out.
    """
    bins = checked_count("bins", bins)
    edges = np.quantile(probability, np.linspace(0, 1, bins + 1)[1:-1])
    _, place = np.unique(np.searchsorted(edges, probability, side="right"), return_inverse=True)
    return place, np.bincount(place).astype(np.float64)


def reliability_curve(
    scores: Float[np.ndarray, " example"],
    labels: Int[np.ndarray, " example"],
    groups: Sequence[str] | None = None,
    *,
    bins: int = 10,
    seed: int = 0,
    resamples: int = 1000,
) -> xr.Dataset:
    """Compute the frequency of label 1 by predicted probability, in bins of equal size.

    Args:
        scores: Held-out log-odds of label 1, in nats.
        labels: 0 or 1 for each statement.
        groups: The group of each statement. Without it, each statement is a group.
        bins: The number of bins. If ties leave fewer, the last bins are NaN and have 0 statements.
        seed: Seed of the resamples.
        resamples: The number of bootstrap resamples behind an interval.

    Returns:
        Along `bin`: `confidence`, the mean predicted probability of label 1; `frequency`, the share
        of label 1, with `frequency_ci`; and `frequency_n`. Calibrated scores are on the diagonal.

    Raises:
        ValueError: `bins` is less than 1.

    Source:
        Guo et al. (2017), arXiv:1706.04599.

    Examples:
        >>> scores, labels = np.array([-2.0, -1.0, 1.0, 2.0]), np.array([0, 0, 1, 1])
        >>> curve = reliability_curve(scores, labels, bins=2)
        >>> curve.frequency.values.tolist(), curve.frequency_n.values.tolist()
        ([0.0, 1.0], [2, 2])
    """
    names = [str(row) for row in range(len(scores))] if groups is None else groups
    bootstrap = GroupBootstrap.draw(names, seed=seed, resamples=resamples)
    predicted = expit(scores)
    place, sizes = bin_by_probability(predicted, bins)
    filled_bins = len(sizes)
    member = (place[:, None] == np.arange(filled_bins)).astype(np.float64)
    frequency = (member * labels[:, None]).sum(axis=0) / sizes
    with np.errstate(invalid="ignore"):
        # A resample may miss a bin. It gives NaN, which the interval leaves out.
        resampled = bootstrap.sums(member * labels[:, None]) / bootstrap.sums(member)
    groups_in_bin = np.array(
        [len(np.unique(bootstrap.group[place == number])) for number in range(filled_bins)]
    )
    interval = fraction_interval(
        frequency, percentile_interval(resampled), resampled, groups_in_bin
    )
    confidence = (member * predicted[:, None]).sum(axis=0) / sizes

    def padded(values: np.ndarray, empty: float | int) -> np.ndarray:
        all_bins = np.full((bins, *values.shape[1:]), empty, dtype=values.dtype)
        all_bins[:filled_bins] = values
        return all_bins

    variables = labelled(
        "confidence",
        padded(confidence, np.nan),
        units=_PROBABILITY,
        long_name="mean predicted probability of label 1",
        dims=("bin",),
    )
    variables |= labelled(
        "frequency",
        padded(frequency, np.nan),
        units=_PROBABILITY,
        long_name="share of label 1 among statements of similar predicted probability",
        dims=("bin",),
        interval=padded(interval, np.nan),
        n=padded(sizes.astype(np.int64), 0),
        resampling={"resamples": resamples, "groups": bootstrap.groups},
    )
    return xr.Dataset(
        variables,
        coords={"bin": np.arange(bins), "bound": ["low", "high"]},
    )


def check_threshold(false_positive_rate: object, positive: object) -> tuple[float, int]:
    """Check the arguments that choose a threshold.

    Args:
        false_positive_rate: The share of the other label that may be classified as positive.
        positive: The label that counts as positive.

    Raises:
        ValueError: `false_positive_rate` is not between 0 and 1, or `positive` is neither label.
    """
    hint = "It is the share of the other label that may be classified as positive, such as 0.05."
    rate = checked_share("false_positive_rate", false_positive_rate, hint=hint)
    if isinstance(positive, bool) or positive not in (0, 1):
        raise ValueError(f"`positive` must be a label, 0 or 1, got {positive!r}.")
    return rate, checked_count("positive", positive, least=0)


def choose_threshold(
    scores: Float[np.ndarray, " example"],
    labels: Int[np.ndarray, " example"],
    *,
    false_positive_rate: float,
    positive: int = 1,
) -> float:
    """Choose a threshold that bounds the false-positive rate on new statements.

    The threshold is the `⌈(1 - α)(n + 1)⌉`-th of the `n` scores of the other label, in the order
    towards the positive side. A new statement of that label, exchangeable with these, exceeds it
    with a probability of at most `α`.

    Args:
        scores: Log-odds of label 1 of statements that the probe was not fitted on, in nats.
        labels: 0 or 1 for each statement.
        false_positive_rate: `α`, the share of the other label that may be classified as positive.
        positive: The label that counts as positive. With 1, statements above the threshold are
            positive. With 0 (an alarm for the untrustworthy side), those below it are.

    Returns:
        Log-odds of label 1, in nats. If statements are too few for any threshold, it is infinite,
        on the side where no statement is positive.

    Raises:
        ValueError: `false_positive_rate` is not between 0 and 1, or `positive` is neither label.

    Source:
        Vovk, Gammerman and Shafer (2005), Algorithmic learning in a random world.

    Examples:
        >>> scores = np.array([0.1, 0.2, 0.3, 0.4, 5.0, 6.0])
        >>> choose_threshold(scores, np.array([0, 0, 0, 0, 1, 1]), false_positive_rate=0.2)
        0.4
    """
    false_positive_rate, positive = check_threshold(false_positive_rate, positive)
    side = 1.0 if positive == 1 else -1.0
    negatives = np.sort(side * scores[labels != positive])
    # Rounding may put (1 - α)(n + 1) just above a whole number, which would give the next rank.
    rank = int(np.ceil((1 - false_positive_rate) * (len(negatives) + 1) - 1e-9))
    return side * (float(negatives[rank - 1]) if rank <= len(negatives) else inf)
