"""Bounds of the information of activations on labels, from a probe's held-out scores.

Each bound is at most `I(T; Y)`, apart from sampling error. There are three:

- Barber and Agakov: `H(Y) - CE`. A probe's cross-entropy is at least `H(Y | T)`.
- Fano: `H(Y) - h(e)` for a probe with error rate `e` (two labels). An answer that is seldom wrong
  leaves little uncertainty.
- The answers: `I(Ŷ; Y)` from the table of answers and labels. The answers are computed from `T`.

The first bound uses the whole score, so an overconfident probe lowers it. The other two use only
the answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from tlens_trust.arguments import checked_count
from tlens_trust.measures.cross_fold import mean_covariance
from tlens_trust.measures.intervals import fraction_interval, stretched_interval
from tlens_trust.measures.resampling import GroupBootstrap, HalfSamples


@dataclass(frozen=True, eq=False)
class Bound:
    """An amount of information at every site.

    Attributes:
        value: In nats.
        interval: The 95% interval, in nats.
        draws: Half-sample replicates (see `HalfSamples`), in nats.
    """

    value: Float[np.ndarray, " site"]
    interval: Float[np.ndarray, "site bound"]
    draws: Float[np.ndarray, "site resample"]


@dataclass(frozen=True, eq=False)
class HeldOutScores:
    """Held-out scores of a probe, with the resamples that intervals need.

    Attributes:
        scores: Log-odds of label 1, in nats.
        labels: 0 or 1.
        fold: The fold in which each statement was held out, from 0.
        fewer: The scores by probes fitted without one more fold (first axis); None where they are
            not known (see `score_dataset`).
        bootstrap: Bootstrap resamples of the groups.
        halves: Half samples of the groups.
    """

    scores: Float[np.ndarray, "example site"]
    labels: Int[np.ndarray, " example"]
    fold: Int[np.ndarray, " example"]
    fewer: Float[np.ndarray, "fold example site"] | None
    bootstrap: GroupBootstrap
    halves: HalfSamples

    @classmethod
    def of(
        cls,
        scores: Float[np.ndarray, "example site"],
        labels: Int[np.ndarray, " example"],
        fold: Int[np.ndarray, " example"],
        groups: Sequence[str],
        *,
        fewer: Float[np.ndarray, "fold example site"] | None = None,
        seed: int,
        resamples: int = 1000,
        halves: int = 32,
    ) -> "HeldOutScores":
        """Draw the resamples for a probe's held-out scores.

        Args:
            scores: Log-odds of label 1, in nats.
            labels: 0 or 1.
            fold: The fold in which each statement was held out, from 0.
            groups: The group of each statement.
            fewer: The scores by probes fitted without one more fold, or None.
            seed: Draws resamples and half samples.
            resamples: The number of bootstrap resamples.
            halves: The number of half samples.
        """
        return cls(
            scores,
            np.asarray(labels),
            fold,
            fewer,
            GroupBootstrap.draw(groups, seed=seed, resamples=resamples),
            HalfSamples.draw(groups, resamples=halves, seed=seed, labels=np.asarray(labels)),
        )

    def mean(
        self,
        rows: Float[np.ndarray, "example site"],
        fewer: Float[np.ndarray, "fold example site"] | None,
    ) -> Bound:
        """Average a quantity over the statements, with interval and replicates.

        Interval and replicates allow for the training rows that the folds share.

        Args:
            rows: The quantity for each statement.
            fewer: The same quantity by probes fitted without one more fold.
        """
        value = rows.mean(axis=0)
        bootstrap_means = self.bootstrap.means(rows)
        added_variance = mean_covariance(rows, fewer, self.fold)
        groups = self.bootstrap.groups
        interval = stretched_interval(value, bootstrap_means, groups, added=added_variance)
        on_halves = ((self.halves.members @ rows) / self.halves.members.sum(axis=1)[:, None]).T
        draws = self.halves.replicates_about(value, on_halves)
        return Bound(value, interval, _widened(value, draws, bootstrap_means, added_variance))


def _widened(
    value: Float[np.ndarray, " site"],
    draws: Float[np.ndarray, "site half"],
    bootstrap_values: Float[np.ndarray, "resample site"],
    added_variance: Float[np.ndarray, " site"] | float,
) -> Float[np.ndarray, "site half"]:
    """Widen replicates by the variance that half samples of the same fits do not show."""
    variance = bootstrap_values.var(axis=0)
    added_share = np.divide(
        added_variance * np.ones_like(variance),
        variance,
        out=np.zeros_like(variance),
        where=variance > 0,
    )
    centre: np.ndarray = value[:, None]
    replicates: np.ndarray = centre + np.sqrt(1 + added_share)[:, None] * (draws - centre)
    return replicates


def label_entropy(labels: Int[np.ndarray, " example"]) -> float:
    """Compute the entropy of the label shares, in nats.

    No activations can hold more information about the labels.

    Examples:
        >>> round(label_entropy(np.array([0, 1, 1, 0])), 4)
        0.6931
    """
    shares = np.unique(labels, return_counts=True)[1] / len(labels)
    return float(-(shares * np.log(shares)).sum())


def fano_information(
    error: Float[np.ndarray, "..."] | float, entropy: float, *, classes: int = 2
) -> Float[np.ndarray, "..."]:
    """Bound information from below by an error rate, with Fano's inequality.

    The bound is `H(Y) - h(e) - e ln(K - 1)`, with `h(e) = -e ln e - (1 - e) ln(1 - e)`. Where the
    labels are not balanced, the bound is negative near chance and says nothing there.

    Args:
        error: The error rate, from 0 to 1.
        entropy: `H(Y)`, in nats.
        classes: `K`, the number of labels.

    Returns:
        The bound in nats.

    Raises:
        ValueError: A rate lies outside 0 to 1, or there are fewer than 2 classes.

    Source:
        Fano (1961), Transmission of Information; Cover and Thomas, Elements of Information Theory,
        theorem 2.10.1.

    Examples:
        >>> bits = fano_information(np.array([0.3, 0.2, 0.1, 0.05]), np.log(2)) / np.log(2)
        >>> bits.round(3).tolist()
        [0.119, 0.278, 0.531, 0.714]
    """
    rate = np.asarray(error, dtype=np.float64)
    if not ((rate >= 0) & (rate <= 1)).all():
        raise ValueError(f"`error` must be a rate from 0 to 1, got {error!r}.")
    classes = checked_count("classes", classes, least=2)
    doubt = -_x_ln_x(rate) - _x_ln_x(1 - rate) + rate * np.log(classes - 1)
    information: np.ndarray = np.asarray(entropy - doubt)
    return information


def fano_interval(
    error: Float[np.ndarray, "... bound"], entropy: float
) -> Float[np.ndarray, "... bound"]:
    """Compute the range of Fano's bound over an interval of the error rate, for two labels.

    The low end is what can be claimed. It lies at the upper limit of the error rate. If the
    interval includes one half, the low end is the bound at one half, where it is smallest.

    Args:
        error: The low and high limit of the error rate, along the last axis.
        entropy: `H(Y)`, in nats.
    """
    ends = fano_information(error, entropy)
    low, high = ends.min(axis=-1), ends.max(axis=-1)
    # For two labels `h(e)` is largest at one half, so the bound is smallest there.
    includes_one_half = (error[..., 0] <= 0.5) & (error[..., 1] >= 0.5)
    low = np.where(includes_one_half, entropy - np.log(2), low)
    return np.stack([low, high], axis=-1)


def confusion_information(
    counts: Float[np.ndarray, "... label answer"], *, corrected: bool = True
) -> Float[np.ndarray, "..."]:
    """Estimate `I(Ŷ; Y)` from a table of labels and answers.

    For independent examples the plug-in estimate is too high on average by
    `(K_Y - 1)(K_Ŷ - 1) / 2n`, or `1 / 2n` nats for two labels. Miller and Madow's correction
    subtracts this. An uninformative answer then comes to about zero, and sometimes below.

    The bias is larger where examples come in groups, or where answers come from folds that share
    training rows. Compare the value with its null there.

    Args:
        counts: How often each answer was given to each label.
        corrected: Whether to apply the correction; if not, the plug-in estimate is returned.

    Returns:
        The information in nats; NaN for an empty table.

    Source:
        Miller (1955), Note on the bias of information estimates.

    Examples:
        >>> always_right = np.array([[50.0, 0.0], [0.0, 50.0]])
        >>> round(float(confusion_information(always_right, corrected=False)), 4)
        0.6931
    """
    total = counts.sum(axis=(-2, -1))
    occupied_cells = [
        (counts > 0).sum(axis=(-2, -1)),
        (counts.sum(axis=-1) > 0).sum(axis=-1),
        (counts.sum(axis=-2) > 0).sum(axis=-1),
    ]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = counts / total[..., None, None]
        information = _x_ln_x(share).sum(axis=(-2, -1))
        for axis in (-2, -1):
            information = information - _x_ln_x(share.sum(axis=axis)).sum(axis=-1)
        if corrected:
            information = information + (
                occupied_cells[1] + occupied_cells[2] - occupied_cells[0] - 1
            ) / (2 * total)
    estimate: np.ndarray = np.asarray(information)
    return estimate


def _x_ln_x(x: Float[np.ndarray, "..."] | float) -> Float[np.ndarray, "..."]:
    amount = np.asarray(x, dtype=np.float64)
    # `x ln x` goes to 0 as `x` does, where NumPy would give NaN.
    product: np.ndarray = np.asarray(amount * np.log(np.where(amount > 0, amount, 1.0)))
    return product


def barber_agakov(held_out: HeldOutScores) -> Bound:
    """Bound information by `I(T; Y) ≥ H(Y) - CE`, with the cross-entropy of a probe.

    `CE = -(1/n) Σ ln q(yᵢ | tᵢ)` over held-out statements. `H(Y)` is the entropy of the label
    shares. A negative bound is reported as it is: the probe then predicts worse than the label
    shares alone.

    Source:
        Barber and Agakov (2003), The IM algorithm; Choi et al. (2023), arXiv:2312.10019, for
        probes.
    """
    labels = held_out.labels
    shares = np.bincount(labels, minlength=2) / len(labels)
    surprise = -np.log(shares[labels])[:, None]
    signs = np.where(labels == 1, 1.0, -1.0)[:, None]

    def gain(scores: Float[np.ndarray, "example site"]) -> Float[np.ndarray, "example site"]:
        difference: np.ndarray = surprise - np.logaddexp(0.0, -signs * scores)
        return difference

    fewer = None
    if held_out.fewer is not None:
        # NaN marks statements of the left-out fold, which `mean` never uses.
        fewer = np.stack([gain(np.nan_to_num(part)) for part in held_out.fewer])
    return held_out.mean(gain(held_out.scores), fewer)


def fano(held_out: HeldOutScores) -> Bound:
    """Bound information by Fano's inequality at the held-out error rate.

    The low end of the interval is what can be claimed. The limits of the error rate come from a
    bootstrap of groups. Where every answer is right, they are Clopper and Pearson's limits for the
    number of groups.
    """
    positive = (held_out.labels == 1)[:, None]
    is_error = ((held_out.scores > 0) != positive).astype(np.float64)
    fewer = None
    if held_out.fewer is not None:
        fewer = np.stack([((part > 0) != positive).astype(np.float64) for part in held_out.fewer])
    error = held_out.mean(is_error, fewer)
    limits = fraction_interval(
        error.value, error.interval, held_out.bootstrap.means(is_error), held_out.bootstrap.groups
    )
    entropy = label_entropy(held_out.labels)
    return Bound(
        fano_information(error.value, entropy),
        fano_interval(limits, entropy),
        fano_information(error.draws.clip(0, 1), entropy),
    )


def answer_information(held_out: HeldOutScores) -> Bound:
    """Estimate `I(Ŷ; Y)` of the probe's answers, corrected for bias (see `confusion_information`).

    The answers are those to held-out statements, by the probes of all folds.
    """
    labels = held_out.labels
    cell = 2 * labels[:, None] + (held_out.scores > 0)
    table = (cell[:, :, None] == np.arange(4)).astype(np.float64)

    def estimate(counts: Float[np.ndarray, "... cell"]) -> Float[np.ndarray, "..."]:
        return confusion_information(counts.reshape(*counts.shape[:-1], 2, 2))

    value = estimate(table.sum(axis=0))
    bootstrap_values = estimate(held_out.bootstrap.sums(table))
    # A bootstrap resample adds the plug-in bias a second time; centring removes it.
    bootstrap_values = bootstrap_values + value - np.nanmean(bootstrap_values, axis=0)
    added_variance = _answers_covariance(held_out, cell, table)
    groups = held_out.bootstrap.groups
    interval = stretched_interval(value, bootstrap_values, groups, added=added_variance)
    on_halves = estimate(
        np.einsum("re,esc->src", held_out.halves.members.astype(np.float64), table)
    )
    draws = held_out.halves.replicates_about(value, on_halves)
    return Bound(value, interval, _widened(value, draws, bootstrap_values, added_variance))


def _answers_covariance(
    held_out: HeldOutScores,
    cell: Int[np.ndarray, "example site"],
    table: Float[np.ndarray, "example site cell"],
) -> Float[np.ndarray, " site"] | float:
    """Compute the variance that shared training rows add, to first order."""
    if held_out.fewer is None:
        return 0.0
    share = (table.sum(axis=0) / len(table)).reshape(-1, 2, 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        pointwise = np.log(share / share.sum(axis=1, keepdims=True) / share.sum(2, keepdims=True))
    # An empty cell has an infinite logarithm, but no statement to contribute it.
    pointwise = np.where(np.isfinite(pointwise), pointwise, 0.0).reshape(-1, 4)
    site = np.arange(cell.shape[1])
    fewer = np.stack(
        [pointwise[site, 2 * held_out.labels[:, None] + (part > 0)] for part in held_out.fewer]
    )
    return mean_covariance(pointwise[site, cell], fewer, held_out.fold)
