"""The first of many checkpoints at which something holds, as a set with a known error rate.

Many checkpoints mean many tests. Of fifteen independent estimates of nothing, one lies above its
95% interval in nearly a third of all runs. And no checkpoint before a change shows that nothing has
changed, since a very small change cannot be excluded. So the answer is a set with two ends. Each
end errs in at most a share `level` of runs.

*Upper end.* The first checkpoint at which the quantity is shown to be above zero. There are two
ways to show it, with half of the level each:

- At any checkpoint, by lower bounds that hold for all checkpoints and references at once (max-t).
  The critical value is that of the largest deviation over them, in standard deviations, over the
  resamples. Where nothing is there, a checkpoint is named no more often than the level allows.
- From the last checkpoint back as long as every single one shows it, by bounds for one checkpoint
  each. That needs no correction. To name a checkpoint too early takes an error at one checkpoint:
  the last at which it does not hold.

*Lower end.* From the first checkpoint on as long as every single one shows the quantity to be at
most a margin, again by bounds for one checkpoint each. Only an error at one checkpoint matters: the
first above the margin.

Resamples draw whole groups of statements, the same ones at every checkpoint and for every
reference, so that bounds allow for their correlation. Shared training folds
(`tlens_trust.measures.cross_fold`) make the bounds wider.

Source:
    Romano and Wolf (2005), Econometrica 73, for simultaneous bounds from resamples. Hsu and Berger
    (1999), Journal of the American Statistical Association 94, for steps in a fixed order that
    need no correction (there for doses: the smallest effective one).
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import norm
from scipy.stats import t as student

from tlens_trust.measures.cross_fold import covariance_between_folds
from tlens_trust.measures.intervals import unseen_share
from tlens_trust.measures.resampling import GroupBootstrap

Over: TypeAlias = Literal["all", "references", "each"]


@dataclass(frozen=True, eq=False)
class ResampledMeans:
    """Means of gains over one or more references, at every checkpoint, with their resamples.

    Attributes:
        mean: The mean over the statements.
        error: Its standard error, with the variance that shared folds add.
        deviations: Deviations of the resamples, in standard deviations.
        groups: Number of groups that were resampled.
    """

    mean: Float[np.ndarray, "reference checkpoint"]
    error: Float[np.ndarray, "reference checkpoint"]
    deviations: Float[np.ndarray, "resample reference checkpoint"]
    groups: int

    @classmethod
    def of(
        cls,
        values: Float[np.ndarray, "reference checkpoint example"],
        fewer: Float[np.ndarray, "fold reference checkpoint example"] | None,
        fold: Int[np.ndarray, " example"],
        bootstrap: GroupBootstrap,
    ) -> "ResampledMeans":
        """Resample the means of values that every statement has.

        Args:
            values: By reference, checkpoint and statement.
            fewer: The same by probes that were fitted without one more fold, the first axis.
                Arbitrary where that is the statement's own fold. None where there are no such
                probes; the variance of shared folds is then left out.
            fold: The fold of each statement, from 0.
            bootstrap: Resamples of the statements.
        """
        mean = values.mean(axis=-1)
        deviations = bootstrap.means(np.moveaxis(values, -1, 0)) - mean
        spread = deviations.std(axis=0)
        groups = bootstrap.groups
        added = 0.0 if fewer is None else _shared_by_folds(values, fewer, fold)
        error = np.sqrt(groups / max(groups - 1, 1) * spread**2 + added)
        scaled = np.divide(deviations, spread, out=np.zeros_like(deviations), where=spread > 1e-12)
        return cls(mean, error, scaled, groups)

    def lower(self, level: float, *, over: Over) -> Float[np.ndarray, "reference checkpoint"]:
        """Bounds that lie below the truth, except in a share `level` of runs.

        Args:
            level: The share of runs in which one of the bounds that hold together may fail.
            over: Which bounds hold together: `"all"`, the `"references"` of one checkpoint, or
                `"each"` one by itself.
        """
        lower: np.ndarray = self.mean - self._reach(self.deviations, level, over)
        return lower

    def upper(self, level: float, *, over: Over) -> Float[np.ndarray, "reference checkpoint"]:
        """Bounds that lie above the truth; see `lower`."""
        upper: np.ndarray = self.mean + self._reach(-self.deviations, level, over)
        return upper

    def _reach(
        self,
        deviations: Float[np.ndarray, "resample reference checkpoint"],
        level: float,
        over: Over,
    ) -> Float[np.ndarray, "reference checkpoint"]:
        """The distance of a bound from the mean.

        Student's distribution takes the place of the normal one, since the spread of few groups is
        itself an estimate. Where hardly a group shows any deviation, resampling shows little. So no
        bound lies nearer than that on a share of groups of which none was seen.
        """
        together = {"all": (1, 2), "references": (1,), "each": ()}[over]
        largest = deviations.max(axis=together, keepdims=True) if together else deviations
        tail = np.minimum(norm.sf(np.quantile(largest, 1 - level, axis=0)), level)
        unseen = unseen_share(self.groups, tail)
        critical = student.isf(tail, max(self.groups - 1, 1))
        reach: np.ndarray = np.maximum(critical * self.error, unseen)
        return reach


@dataclass(frozen=True)
class FirstCrossing:
    """The first checkpoint at which something holds, with the set that it lies in.

    Attributes:
        established: The checkpoint by which it is shown to hold; None for never.
        earliest: The first checkpoint at which it may have held. The number of checkpoints where
            there is none.
        lasting: The checkpoint from which on every single one shows it; None for never.
        checkpoints: The number of checkpoints.
    """

    established: int | None
    earliest: int
    lasting: int | None
    checkpoints: int

    @property
    def before(self) -> int:
        """The checkpoint before the earliest; the first one where there is none before it."""
        return max(self.earliest - 1, 0)

    @property
    def members(self) -> Bool[np.ndarray, " checkpoint"]:
        """The checkpoints of the set, with the one before them."""
        numbers = np.arange(self.checkpoints)
        last_number = self.checkpoints - 1 if self.established is None else self.established
        is_member: np.ndarray = (numbers >= self.before) & (numbers <= last_number)
        return is_member


def first_crossing(
    anywhere: Bool[np.ndarray, " checkpoint"],
    by_itself: Bool[np.ndarray, " checkpoint"],
    excluded: Bool[np.ndarray, " checkpoint"],
) -> FirstCrossing:
    """Put the ends of the set together.

    Args:
        anywhere: Where it is shown to hold, for all checkpoints at once, at half the level.
        by_itself: Where it is shown to hold, for one checkpoint by itself, at half the level.
        excluded: Where it is shown to be at most a margin, for one checkpoint by itself.

    Examples:
        >>> no, yes = False, True
        >>> found = first_crossing(
        ...     np.array([no, no, no, yes, yes]), np.array([no, yes, no, no, yes]),
        ...     np.array([yes, yes, no, no, no]))
        >>> found.earliest, found.established, found.lasting
        (2, 3, 4)
        >>> found.members.tolist()
        [False, True, True, True, False]
    """
    trailing = np.logical_and.accumulate(by_itself[::-1])[::-1]
    lasting = int(trailing.argmax()) if trailing.any() else None
    is_shown = anywhere | trailing
    established = int(is_shown.argmax()) if is_shown.any() else None
    earliest = len(excluded) if excluded.all() else int(excluded.argmin())
    if established is not None:
        # A gain may be shown to be above zero and below the margin: small, but there.
        earliest = min(earliest, established)
    return FirstCrossing(established, earliest, lasting, len(is_shown))


def _shared_by_folds(
    values: Float[np.ndarray, "reference checkpoint example"],
    fewer: Float[np.ndarray, "fold reference checkpoint example"],
    fold: Int[np.ndarray, " example"],
) -> Float[np.ndarray, "reference checkpoint"]:
    """Variance of the mean that comes from training rows which folds share."""
    folds, references, checkpoints, examples = fewer.shape
    fold_weights = (fold == np.arange(folds)[:, None]) / examples
    parts = fold_weights @ values.reshape(-1, examples).T
    parts_without_fold = np.stack(
        [fold_weights @ scores.reshape(-1, examples).T for scores in fewer]
    )
    covariance: np.ndarray = covariance_between_folds(parts, parts_without_fold)
    return covariance.reshape(references, checkpoints)
