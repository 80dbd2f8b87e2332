"""Intervals of paired differences, with the variance that shared training folds add.

See `tlens_trust.measures.cross_fold`: near chance, a cross-validated score varies more than the
resampling of its statements shows. Where only an interval is left, it tells how much.
"""

import numpy as np
from jaxtyping import Float
from scipy.stats import t as student

from tlens_trust.measures.intervals import difference_interval, stretched_interval
from tlens_trust.measures.resampling import GroupBootstrap


def paired_interval(
    difference: Float[np.ndarray, "example site"],
    bootstrap: GroupBootstrap,
    *,
    added: Float[np.ndarray, " site"] | float = 0.0,
    confidence: float = 0.95,
) -> Float[np.ndarray, "site bound"]:
    """An interval over groups of a mean difference, statement by statement.

    Where all groups differ alike, it allows for groups that were not seen (`difference_interval`).

    Args:
        difference: The difference of each statement.
        bootstrap: Resamples of the groups.
        added: Variance that resampling does not show.
        confidence: The confidence of the interval.

    Examples:
        >>> bootstrap = GroupBootstrap.draw(list("abcdefghij"), seed=0, resamples=10)
        >>> paired_interval(np.zeros((10, 1)), bootstrap).round(2).tolist()
        [[-0.31, 0.31]]
    """
    mean = difference.mean(axis=0)
    resampled = bootstrap.means(difference)
    interval = stretched_interval(
        mean, resampled, bootstrap.groups, added=added, confidence=confidence
    )
    return difference_interval(mean, interval, resampled, bootstrap.groups, confidence=confidence)


def widened_interval(
    value: Float[np.ndarray, "..."],
    interval: Float[np.ndarray, "... bound"],
    added: Float[np.ndarray, "..."],
    *,
    groups: int,
    confidence: float = 0.95,
) -> Float[np.ndarray, "... bound"]:
    """Stretch an interval about its value by a variance that it leaves out.

    Args:
        value: The value at the middle.
        interval: Low and high, as `stretched_interval` gives them without that variance.
        added: The variance.
        groups: Number of groups that were resampled.
        confidence: The confidence of the interval.

    Examples:
        >>> narrow = np.array([[0.4, 0.6]])
        >>> wide = widened_interval(np.array([0.5]), narrow, np.array([1.0]), groups=100)
        >>> bool(wide[0, 1] - wide[0, 0] > 3.9)
        True
    """
    spread = _variance(interval, groups, confidence)
    variance_ratio = np.divide(spread + added, spread, out=np.ones_like(spread), where=spread > 0)
    centre = np.asarray(value)[..., None]
    stretched: np.ndarray = centre + np.sqrt(variance_ratio)[..., None] * (interval - centre)
    return stretched


def shared_variance(
    interval: Float[np.ndarray, "... bound"],
    resampled: Float[np.ndarray, "..."],
    *,
    groups: int,
    confidence: float = 0.95,
) -> Float[np.ndarray, "..."]:
    """The variance behind an interval beyond what resampling groups shows; at least 0.

    Args:
        interval: Low and high, as `score_dataset` gives them.
        resampled: The variance over resampled groups.
        groups: Number of groups that were resampled.
        confidence: The confidence of the interval.
    """
    excess = _variance(interval, groups, confidence) - groups / max(groups - 1, 1) * resampled
    # Without spread, the interval was made in another way (Clopper and Pearson) and says nothing
    # about folds.
    shared: np.ndarray = np.where(resampled > 1e-12, np.maximum(excess, 0.0), 0.0)
    return shared


def _variance(
    interval: Float[np.ndarray, "... bound"], groups: int, confidence: float
) -> Float[np.ndarray, "..."]:
    """Variance of the value of an interval that was made by Student's distribution."""
    half = (interval[..., 1] - interval[..., 0]) / 2
    quantile = student.ppf((1 + confidence) / 2, max(groups - 1, 1))
    return np.asarray(np.square(half / quantile))
