"""Confidence intervals from resamples of groups, and their replacement if all resamples agree.

If all groups of a sample are alike, a bootstrap gives an interval without width, although the next
group may differ. One rule covers this case: the interval of Clopper and Pearson on the number of
groups. `fraction_interval` applies the rule to a fraction, `difference_interval` to a difference of
two fractions.
"""

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import beta

from tlens_trust.measures.quantiles import normal_quantile, student_quantile

# Resampled means of equal numbers differ by less than this, by rounding alone.
_ROUNDING = 1e-12


def percentile_interval(
    resampled: Float[np.ndarray, "resample ..."], confidence: float = 0.95
) -> Float[np.ndarray, "... bound"]:
    """Compute the middle percentiles of resampled values, low and high along the last axis.

    NaN marks a resample without a value, which is left out. If no resample has a value, the
    interval is NaN.
    """
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    empty = np.isnan(resampled).all(axis=0)
    # Without the zeros, nanquantile would warn of columns that hold NaN alone.
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
    """Compute percentiles of a group bootstrap, stretched about the score.

    The stretch includes the ratio of Student's quantile to the normal quantile, since the spread of
    few groups is itself an estimate.

    Args:
        value: The score itself.
        resampled: The score of each resample. NaN marks a resample without a score.
        groups: The number of groups that were resampled.
        added: Variance that resampling does not show.
        confidence: The confidence level: the share of repetitions in which the interval covers the
            score.
    """
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    percentiles: np.ndarray = np.nanquantile(resampled, tails, axis=0).T
    variance = np.nanvar(resampled, axis=0)
    if groups < 2:
        return percentiles
    # The bootstrap divides by the number of groups, which is too small by `(groups - 1) / groups`.
    unbiased = groups / (groups - 1) * variance
    ratio = np.divide(unbiased + added, variance, out=np.ones_like(variance), where=variance > 0)
    stretch = np.sqrt(ratio) * student_quantile(tails[1], groups - 1) / normal_quantile(tails[1])
    centre = value[:, None]
    stretched: np.ndarray = centre + stretch[:, None] * (percentiles - centre)
    return stretched


def clopper_pearson(fraction: float, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Compute the exact interval of a binomial probability.

    Args:
        fraction: The share of the trials that succeeded. Times `trials`, it need not be whole.
        trials: The number of independent trials. If there are none, the interval is 0 to 1.
        confidence: The confidence level: the share of repetitions in which the interval covers the
            probability.

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
    """Compute the largest share of groups that may differ if none in the sample does.

    This is `1 - tail^(1 / groups)`, the upper end of the interval of Clopper and Pearson if no
    trial succeeded.

    Args:
        groups: The number of groups in the sample.
        tail: The probability that a sample has no such group if the share is that large.

    Examples:
        >>> round(unseen_share(10), 2)
        0.31
    """
    return 1 - tail ** (1 / groups)


def has_no_spread(resampled: Float[np.ndarray, "resample ..."]) -> Bool[np.ndarray, "..."]:
    """Test whether all resamples with a value have the same value, to within rounding.

    NaN marks a resample without a value. The result is False if no resample has one.

    Examples:
        >>> resampled = np.array([[0.5, 0.2, np.nan], [np.nan, 0.3, np.nan]])
        >>> has_no_spread(resampled).tolist()
        [True, False, False]
    """
    # Unlike np.nanmax, fmax does not warn if a column has no value.
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
    """Replace the interval of a fraction by that of Clopper and Pearson if all resamples agree.

    Args:
        fraction: The fraction itself, from 0 to 1.
        interval: Its interval from resampled groups.
        resampled: The fraction of each resample. NaN marks a resample without a value.
        groups: The number of groups behind the fraction, for all sites or for each.
        confidence: The confidence level: the share of repetitions in which the interval covers the
            fraction.

    Returns:
        The interval, clipped to the range from 0 to 1.
    """
    bounds: np.ndarray = interval.clip(0, 1)
    trials = np.broadcast_to(groups, len(fraction))
    for site in np.flatnonzero(has_no_spread(resampled)):
        value = float(fraction[site])
        # A mean of means may miss 0 or 1 by rounding, and would get an interval on both sides.
        if min(value, 1 - value) < _ROUNDING:
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
    """Replace the interval of a difference of two fractions by a wider one if all resamples agree.

    If all groups have the same difference, other groups may differ by anything from -1 to 1. Their
    share is at most the upper end of the interval of Clopper and Pearson if no trial succeeded.

    Args:
        difference: The difference itself, from -1 to 1.
        interval: Its interval from resampled groups.
        resampled: The difference of each resample. NaN marks a resample without a value.
        groups: The number of groups behind the difference.
        confidence: The confidence level: the share of repetitions in which the interval covers the
            difference.
        unseen: The largest share of such groups. None computes it from `groups`.
    """
    if unseen is None:
        unseen = clopper_pearson(0.0, groups, confidence)[1]
    # Differences in nats may exceed 1. The value is then the end of the interval.
    below, above = (1 + difference).clip(min=0), (1 - difference).clip(min=0)
    ends = np.stack([difference - unseen * below, difference + unseen * above], axis=-1)
    agree = has_no_spread(resampled)
    return np.where(agree[:, None], ends, interval)
