"""Whether log-odds mean what they say, and what they can be used for."""

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

_GAP = "probability"


@dataclass(frozen=True)
class CalibrationError:
    """How far stated probabilities lie from frequencies.

    Attributes:
        rms: Root-mean-square gap between stated probability and frequency over the bins, without
            the part that chance gives it: the root of an unbiased estimate of its square, with the
            sign of that estimate. Zero on average for calibrated scores, and then negative half of
            the time.
        low: Lower end of its interval.
        high: Upper end.
        ece: Expected calibration error, the mean absolute gap over the bins, as it is usually
            given: chance gaps included.
        ece_null: What `ece` would be on average if the scores were calibrated.
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
    """Gaps between the probabilities that log-odds state and the frequencies that come about.

    Statements are put into bins of equal number by their stated probability `p` of label 1 (not
    by that of the label guessed, so that a lean to one label is not cancelled by a lean to the
    other). With `m_b` the mean of `p - y` in bin `b`, and `n_b` its statements of `n`,

        `ece = Σ_b (n_b/n) |m_b|`,        `rms² = Σ_b (n_b/n) (m_b² - Var m_b)`.

    The former is never zero, however good the scores, and grows with the number of bins;
    `ece_null = Σ_b (n_b/n) √(2 Var m_b / π)` says how much of it is to be expected of calibrated
    scores. The latter is unbiased and may be negative. Its interval is from the estimate's
    variance, `2 tr(AA) + 4 mᵀA W m` with `A = W Cov(m)`, `W = diag(n_b/n)`. The covariance of the
    `m_b` is taken over groups, whose statements need not be independent; what folds that share
    training rows have in common is added to it for the interval, where `fewer` tells it.

    What varies within a bin is not seen, so both are lower bounds of the error without bins.

    Args:
        scores: Held-out log-odds of label 1, in nats.
        labels: 0 or 1 for each statement.
        groups: The group of each statement; None where every one stands for itself.
        bins: How many. Equal scores stay in one bin.
        fold: The fold in which each statement was held out; with `fewer`.
        fewer: Log-odds by the probes without the statement's fold and one more fold, the first
            axis (see `score_dataset`). None where scores are no cross-validated ones, or these are
            not known.
        confidence: Of the interval of `rms`.

    Returns:
        Both errors, as probabilities.

    Raises:
        ValueError: `bins` is less than 1, or there are fewer than two groups.

    Source:
        Guo et al. (2017), arXiv:1706.04599, for the error; Kumar, Liang and Ma (2019),
        arXiv:1909.10155, for taking chance off its square.

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
            "A calibration error needs at least two groups, to tell chance from error, got "
            f"{number}. Give more statements, or `groups` that hold fewer each."
        )
    stated = expit(scores)
    place, sizes = bin_by_probability(stated, bins)
    gap = stated - labels
    means = np.bincount(place, gap, minlength=len(sizes)) / sizes
    within = np.zeros((number, len(sizes)))
    np.add.at(within, (group, place), (gap - means[place]) / sizes[place])
    covariance = within.T @ within * number / (number - 1)
    share = sizes / sizes.sum()
    variances = np.diag(covariance)
    square = float(share @ (means**2 - variances))
    if fold is not None and fewer is not None:
        # For the interval alone: it errs upwards, and would take too much off the error itself.
        covariance = covariance + _shared_covariance(stated, expit(fewer), place, sizes, fold)
    weighted = share[:, None] * covariance
    noise = float(np.trace(weighted @ weighted))
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
    stated: Float[np.ndarray, " example"],
    fewer: Float[np.ndarray, "fold example"],
    place: Int[np.ndarray, " example"],
    sizes: Float[np.ndarray, " bin"],
    fold: Int[np.ndarray, " example"],
) -> Float[np.ndarray, "bin bin"]:
    """What the covariance between folds adds to that of the bins' mean gaps.

    As `cross_fold_variance`, for several means at once: `Σ_{A≠B} (m_A - m_A⁻)(m_B - m_B⁻)ᵀ`, of
    which only the part is kept that a covariance can have.
    """
    bins = (place[:, None] == np.arange(len(sizes))) / sizes
    member = fold == np.arange(len(fewer))[:, None]
    change = np.stack([member @ (bins * (stated - np.nan_to_num(part))[:, None]) for part in fewer])
    added = np.zeros((len(sizes), len(sizes)))
    for one, other in combinations(range(len(fewer)), 2):
        product = np.outer(change[other, one], change[one, other])
        added += product + product.T
    spread, axes = np.linalg.eigh(added)
    kept: np.ndarray = (axes * spread.clip(min=0)) @ axes.T
    return kept


def _signed_root(square: float) -> float:
    return sqrt(square) if square >= 0 else -sqrt(-square)


def bin_by_probability(
    stated: Float[np.ndarray, " example"], bins: int
) -> tuple[Int[np.ndarray, " example"], Float[np.ndarray, " bin"]]:
    """The bin of each statement, and how many each holds; bins that ties leave empty are gone."""
    bins = checked_count("bins", bins)
    edges = np.quantile(stated, np.linspace(0, 1, bins + 1)[1:-1])
    _, place = np.unique(np.searchsorted(edges, stated, side="right"), return_inverse=True)
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
    """Stated probability against frequency, in bins of equal number.

    Args:
        scores: Held-out log-odds of label 1, in nats.
        labels: 0 or 1 for each statement.
        groups: The group of each statement; None where every one stands for itself.
        bins: How many; where ties leave fewer, the last are NaN with a number of 0.
        seed: Draws the resamples.
        resamples: How many resamples of the groups stand behind an interval.

    Returns:
        Along `bin`: `confidence`, the mean stated probability of label 1; `frequency`, the share
        of label 1, with `frequency_ci`; and `frequency_n`. Calibrated scores lie on the diagonal.

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
    stated = expit(scores)
    place, sizes = bin_by_probability(stated, bins)
    held = len(sizes)
    member = (place[:, None] == np.arange(held)).astype(np.float64)
    frequency = (member * labels[:, None]).sum(axis=0) / sizes
    with np.errstate(invalid="ignore"):
        # A resample may miss a bin; the interval leaves it out.
        resampled = bootstrap.sums(member * labels[:, None]) / bootstrap.sums(member)
    groups_in_bin = np.array(
        [len(np.unique(bootstrap.group[place == number])) for number in range(held)]
    )
    interval = fraction_interval(
        frequency, percentile_interval(resampled), resampled, groups_in_bin
    )
    confidence = (member * stated[:, None]).sum(axis=0) / sizes

    def padded(values: np.ndarray, empty: float | int) -> np.ndarray:
        filled = np.full((bins, *values.shape[1:]), empty, dtype=values.dtype)
        filled[:held] = values
        return filled

    variables = labelled(
        "confidence",
        padded(confidence, np.nan),
        units=_GAP,
        long_name="mean stated probability of label 1",
        dims=("bin",),
    )
    variables |= labelled(
        "frequency",
        padded(frequency, np.nan),
        units=_GAP,
        long_name="share of label 1 among statements of one stated probability",
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
    """Check how a threshold is to be chosen.

    Args:
        false_positive_rate: The share of the other label that may be called positive.
        positive: Which label counts as positive.

    Raises:
        ValueError: `false_positive_rate` is not between 0 and 1, or `positive` is neither label.
    """
    hint = "It is the share of the other label that may be called positive, 0.05 for one in twenty."
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
    """The threshold that keeps the false-positive rate of fresh statements within what is wanted.

    Takes the `⌈(1 - α)(n + 1)⌉`-th of the `n` scores of the other label, counted towards the
    positive side. A fresh statement of that label, exchangeable with these, passes it with a
    probability of at most `α`.

    Args:
        scores: Log-odds of label 1 of statements that the probe was not fitted on, in nats.
        labels: 0 or 1 for each.
        false_positive_rate: `α`: the share of the other label that may be called positive.
        positive: Which label counts as positive. With 1 a statement is called positive above the
            threshold; with 0 (an alarm that something is on the untrustworthy side) below.

    Returns:
        Log-odds of label 1, in nats; infinite, on the side where nothing is called positive, where
        there are too few statements to vouch for any threshold.

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
    others = np.sort(side * scores[labels != positive])
    # Guarded against (1 - α)(n + 1) that rounding puts a hair above a whole number.
    rank = int(np.ceil((1 - false_positive_rate) * (len(others) + 1) - 1e-9))
    return side * (float(others[rank - 1]) if rank <= len(others) else inf)
