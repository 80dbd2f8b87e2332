"""Confidence intervals from resamples of groups, and what replaces them where resamples agree.

A bootstrap of groups in which all are alike gives an interval without width, although the next
group may differ. One rule covers this case: the interval of Clopper and Pearson on the number of
groups. `fraction_interval` applies the rule to a fraction, `difference_interval` to a difference of
two fractions.
"""

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import beta

from tlens_trust.measures.quantiles import normal_quantile, student_quantile

# Resampled means of equal numbers differ by rounding alone.
_ROUNDING = 1e-12


def percentile_interval(
    resampled: Float[np.ndarray, "resample ..."], confidence: float = 0.95
) -> Float[np.ndarray, "... bound"]:
    """The middle percentiles of resampled values, low and high along the last axis.

    NaN marks a resample that has no value. It is left out; the interval is NaN where all are.
    """
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    empty = np.isnan(resampled).all(axis=0)
    filled = np.where(empty, 0.0, resampled)
    interval: np.ndarray = np.moveaxis(np.nanquantile(filled, tails, axis=0), 0, -1)
    interval[empty] = np.nan
    return interval


def stretched_interval(
    value: Float[np.ndarray, " site"],
    resampled: Float[np.ndarray, "resample site"],
    groups: int,
    *,
    added: Float[np.ndarray, " site"] | float = 0.0,
    confidence: float = 0.95,
) -> Float[np.ndarray, "site bound"]:
    """Percentiles of a group bootstrap, stretched about the value that was resampled.

    The stretch is the ratio of Student's to the normal quantile, since the spread of few groups is
    itself an estimate.

    Args:
        value: The score itself.
        resampled: The score of each resample; NaN where it has none.
        groups: The number of groups that were resampled.
        added: Variance that resampling does not show.
        confidence: The share of repetitions in which the interval covers the score.
    """
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    percentiles: np.ndarray = np.nanquantile(resampled, tails, axis=0).T
    variance = np.nanvar(resampled, axis=0)
    if groups < 2:
        return percentiles
    unbiased = groups / (groups - 1) * variance
    more = np.divide(unbiased + added, variance, out=np.ones_like(variance), where=variance > 0)
    stretch = np.sqrt(more) * student_quantile(tails[1], groups - 1) / normal_quantile(tails[1])
    about = value[:, None]
    stretched: np.ndarray = about + stretch[:, None] * (percentiles - about)
    return stretched


def clopper_pearson(fraction: float, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval of a binomial probability.

    Args:
        fraction: The share of the trials that succeeded. Times `trials`, it need not be whole.
        trials: The number of independent trials; without any, the interval is 0 to 1.
        confidence: The share of repetitions in which the interval covers the probability.

    Source:
        Clopper and Pearson (1934), Biometrika 26.

    Examples:
        >>> low, high = clopper_pearson(1.0, 10)
        >>> round(low, 2), high
        (0.69, 1.0)
    """
    tails = (1 - confidence) / 2, (1 + confidence) / 2
    successes = fraction * trials
    low = beta.ppf(tails[0], successes, trials - successes + 1) if successes > 0 else 0.0
    high = beta.ppf(tails[1], successes + 1, trials - successes) if successes < trials else 1.0
    return float(low), float(high)


def unseen_share(
    groups: int, tail: Float[np.ndarray, "..."] | float = 0.025
) -> Float[np.ndarray, "..."] | float:
    """The largest share of groups that may differ although none in the sample does.

    This is the upper end of Clopper and Pearson's interval where nothing succeeded,
    `1 - tail^(1 / groups)`.

    Args:
        groups: The number of groups in the sample.
        tail: The probability of seeing none where the share is that large.

    Examples:
        >>> round(unseen_share(10), 2)
        0.31
    """
    return 1 - tail ** (1 / groups)


def has_no_spread(resampled: Float[np.ndarray, "resample ..."]) -> Bool[np.ndarray, "..."]:
    """Whether all resamples that have a value have the same one.

    NaN marks a resample that has no value. False where no resample has one.

    Examples:
        >>> resampled = np.array([[0.5, 0.2, np.nan], [np.nan, 0.3, np.nan]])
        >>> has_no_spread(resampled).tolist()
        [True, False, False]
    """
    # Unlike np.nanmax, fmax does not warn of a column without any value.
    spread = np.fmax.reduce(resampled, axis=0) - np.fmin.reduce(resampled, axis=0)
    return np.asarray(spread < _ROUNDING)


def fraction_interval(
    fraction: Float[np.ndarray, " site"],
    interval: Float[np.ndarray, "site bound"],
    resampled: Float[np.ndarray, "resample site"],
    groups: int | np.ndarray,
    *,
    confidence: float = 0.95,
) -> Float[np.ndarray, "site bound"]:
    """The interval of a fraction: as given, or Clopper and Pearson's where resamples agree.

    Args:
        fraction: The fraction itself, from 0 to 1.
        interval: Its interval by resampling groups.
        resampled: The fraction of each resample; NaN where it has none.
        groups: The number of groups behind the fraction; or one number a site.
        confidence: The share of repetitions in which the interval covers the fraction.

    Returns:
        The interval, clipped to the range from 0 to 1.
    """
    bounds: np.ndarray = interval.clip(0, 1)
    trials = np.broadcast_to(groups, len(fraction))
    for site in np.flatnonzero(has_no_spread(resampled)):
        value = float(fraction[site])
        if min(value, 1 - value) < _ROUNDING:  # a mean of means may miss 0 or 1 by rounding
            value = float(round(value))
        bounds[site] = clopper_pearson(value, int(trials[site]), confidence)
    return bounds


def difference_interval(
    difference: Float[np.ndarray, " site"],
    interval: Float[np.ndarray, "site bound"],
    resampled: Float[np.ndarray, "resample site"],
    groups: int,
    *,
    confidence: float = 0.95,
    unseen: float | None = None,
) -> Float[np.ndarray, "site bound"]:
    """The interval of a difference of two fractions: as given, or wider where resamples agree.

    Where all groups differ alike, there may be groups that differ by anything from -1 to 1. Their
    share is at most the upper end of Clopper and Pearson's interval where nothing succeeded.

    Args:
        difference: The difference itself, from -1 to 1.
        interval: Its interval by resampling groups.
        resampled: The difference of each resample; NaN where it has none.
        groups: The number of groups behind the difference.
        confidence: The share of repetitions in which the interval covers the difference.
        unseen: That share, where it is known already; None computes it from `groups`.
    """
    if unseen is None:
        unseen = clopper_pearson(0.0, groups, confidence)[1]
    # Rows in nats may differ by more than 1; their value is then the end of the interval.
    below, above = (1 + difference).clip(min=0), (1 - difference).clip(min=0)
    ends = np.stack([difference - unseen * below, difference + unseen * above], axis=-1)
    agree = has_no_spread(resampled)
    return np.where(agree[:, None], ends, interval)
