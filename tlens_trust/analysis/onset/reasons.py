"""Reasons why a run has no onset: the words that data, tables and reports share.

The reasons ask for different next steps. The bounds behind the onset tell them apart:

- *Too few statements*: the run cannot tell. Even a probe that classifies every statement correctly
  would not be shown to be above chance. Or some checkpoint allows a gain larger than the margin,
  and none is shown either. Or the accuracy is high and the permutation test does not find the
  labels: then statements are few, or few of them can exchange their labels.
- *Text alone*: every checkpoint is shown to gain at most the margin, and the text-only baseline
  bounds the gain. The null alone is exceeded, or may be.
- *The null*: every checkpoint is shown to gain at most the margin over always naming the larger
  class.

As statements grow in number, the first reason gives way to an onset or to one of the others.
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float

from tlens_trust.analysis.onset.crossings import ResampledMeans, first_crossing
from tlens_trust.analysis.onset.outcomes import SiteOutcomes
from tlens_trust.measures.resampling import GroupBootstrap

TEXT_ALONE = "text alone reaches as much"
TOO_FEW = "too few statements"
NOT_ABOVE_NULL = "not above the null"
NOT_MEASURED = "not measured"
NOT_DECODABLE_AT_END = "not decodable at the last checkpoint"
STILL_RISING = "not level before the last checkpoint"

EXPLANATIONS = {
    TEXT_ALONE: (
        "a text-only baseline (text floor) comes within {margin:g} of the held-out accuracy, or "
        "exceeds it, wherever the null is exceeded"
    ),
    TOO_FEW: (
        "no gain is shown, and a gain above {margin:g} is not excluded or could not be shown; more "
        "statements would decide"
    ),
    NOT_ABOVE_NULL: (
        "held-out accuracy is at most {margin:g} above chance, the share of the larger class, at "
        "every checkpoint"
    ),
    NOT_MEASURED: "no checkpoint has scores and p-values",
    NOT_DECODABLE_AT_END: "there is no level to reach",
    STILL_RISING: (
        "no earlier checkpoint is shown to come within {margin:g} of the last checkpoint's accuracy"
    ),
}
"""What each reason means; `margin` is that of the question."""


def find_reason(
    outcomes: SiteOutcomes,
    means: ResampledMeans,
    bootstrap: GroupBootstrap,
    q: Float[np.ndarray, " checkpoint"],
    *,
    margin: float,
    level: float,
) -> str:
    """Say why there is no onset, by the bounds that it would have rested on.

    Args:
        outcomes: Outcomes by checkpoint and statement.
        means: The gain over chance and, where the text is a reference too, over the text.
        bootstrap: Resamples of the statements.
        q: The p-values, corrected over the checkpoints.
        margin: The gain that counts as hardly any.
        level: The error rate of each end of the onset.

    Returns:
        One of the reasons above.
    """
    if np.isnan(outcomes.p).all():
        return NOT_MEASURED
    half_level = level / 2
    if not can_be_shown(outcomes, bootstrap, half_level):
        return TOO_FEW
    above_all = means.lower(half_level, over="all") > 0
    above_each = means.lower(half_level, over="each") > 0
    is_excluded: Bool[np.ndarray, "reference checkpoint"] = (
        means.upper(level, over="references") <= margin
    )
    if not is_excluded.any(axis=0).all():
        return TOO_FEW
    null_exceeded = first_crossing(
        above_all[0] & (q <= half_level), above_each[0] & (outcomes.p <= half_level), is_excluded[0]
    )
    if null_exceeded.established is None and is_excluded[0].all():
        return NOT_ABOVE_NULL
    return TEXT_ALONE


def can_be_shown(outcomes: SiteOutcomes, bootstrap: GroupBootstrap, level: float) -> bool:
    """Whether an accuracy of 1 would be shown to be above chance with this number of groups.

    One checkpoint by itself asks the least. What cannot be shown there cannot be shown at any
    number of checkpoints.

    Args:
        outcomes: Outcomes with statements, groups and labels.
        bootstrap: Resamples of the statements.
        level: The error rate of a bound, and of a p-value.
    """
    if outcomes.least_p > level:
        return False
    all_correct = np.ones((1, outcomes.correct.shape[1]), dtype=bool)
    perfect = replace(outcomes, correct=all_correct, fewer=None, p=outcomes.p[:1])
    means = perfect.resampled_means([perfect.above_chance()], bootstrap)
    return bool(means.lower(level, over="each")[0, 0] > 0)
