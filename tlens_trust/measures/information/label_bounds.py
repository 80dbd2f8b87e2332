"""How much a probe's held-out scores show that activations tell of labels.

All of it is about `I(T; Y)`, and each is at most that, but for its sampling error:

- Barber and Agakov: `H(Y) - CE`, since a probe's cross-entropy is at least `H(Y | T)`;
- Fano: `H(Y) - h(e)` for a probe that errs at the rate `e` (two labels), since an answer that is
  seldom wrong leaves little doubt;
- the answer itself: `I(Ŷ; Y)` from the table of answers and labels, since the answer is computed
  from `T`.

The first takes the whole score and pays for scores that are too sure; the others take the answer
alone.
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
        interval: Of 95%, in nats.
        draws: Half-sample replicates (see `HalfSamples`), in nats.
    """

    value: Float[np.ndarray, " site"]
    interval: Float[np.ndarray, "site bound"]
    draws: Float[np.ndarray, "site resample"]


@dataclass(frozen=True, eq=False)
class HeldOutScores:
    """Scores of statements by probes that have not seen them, and what intervals take.

    Attributes:
        scores: Log-odds of label 1, in nats.
        labels: 0 or 1.
        fold: In which each statement was held out, from 0.
        fewer: The scores by probes without one more fold, the first axis; None where not known
            (see `score_dataset`).
        bootstrap: Resamples of the groups.
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
        """Draw the resamples.

        Args:
            scores: Log-odds of label 1, in nats.
            labels: 0 or 1.
            fold: In which each statement was held out, from 0.
            groups: The group of each statement.
            fewer: The scores by probes without one more fold, or None.
            seed: Draws resamples and halves.
            resamples: How many bootstrap resamples.
            halves: How many half samples.
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
        """The mean of what each statement comes to, with its interval and replicates.

        Both allow for the folds' having training rows in common.

        Args:
            rows: What each statement comes to.
            fewer: The same by probes without one more fold.
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
    """Replicates with the variance that halves of the same fits do not show."""
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
    """Entropy of the labels' shares, in nats: no activation can tell more of them.

    Examples:
        >>> round(label_entropy(np.array([0, 1, 1, 0])), 4)
        0.6931
    """
    shares = np.unique(labels, return_counts=True)[1] / len(labels)
    return float(-(shares * np.log(shares)).sum())


def fano_information(
    error: Float[np.ndarray, "..."] | float, entropy: float, *, classes: int = 2
) -> Float[np.ndarray, "..."]:
    """What an answer that is wrong at a rate tells at least, by Fano's inequality.

    `H(Y) - h(e) - e ln(K - 1)`, with `h(e) = -e ln e - (1 - e) ln(1 - e)`. Where the labels are not
    balanced it is negative near chance: the bound says nothing there.

    Args:
        error: The rate, from 0 to 1.
        entropy: `H(Y)`, in nats.
        classes: `K`.

    Returns:
        In nats.

    Raises:
        ValueError: A rate lies outside 0 to 1, or there are fewer than 2 classes.

    Source:
        Fano (1961), Transmission of Information; Cover and Thomas, Elements of Information
        Theory, theorem 2.10.1.

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
    """The least and the most that Fano's inequality gives for two labels within error limits.

    The least is what can be claimed. It is at the upper limit of the error, unless that lies
    above one half, where an answer is as good as its opposite.

    Args:
        error: Low and high limit of the rate, along the last axis.
        entropy: `H(Y)`, in nats.
    """
    ends = fano_information(error, entropy)
    low, high = ends.min(axis=-1), ends.max(axis=-1)
    includes_one_half = (error[..., 0] <= 0.5) & (error[..., 1] >= 0.5)
    low = np.where(includes_one_half, entropy - np.log(2), low)
    return np.stack([low, high], axis=-1)


def confusion_information(
    counts: Float[np.ndarray, "... label answer"], *, corrected: bool = True
) -> Float[np.ndarray, "..."]:
    """`I(Ŷ; Y)` from a table of labels and answers.

    The plug-in estimate is too high by `(K_Y - 1)(K_Ŷ - 1) / 2n` on average where examples are
    independent, for two labels `1 / 2n` nats; Miller and Madow's correction takes this off, so that
    an answer that tells nothing comes to about zero and now and then below. Where examples come in
    groups, or answers from folds that share training rows, there is more bias than that: hold the
    value against its null.

    Args:
        counts: How often each answer was given to each label.
        corrected: Whether to correct; else the plug-in estimate.

    Returns:
        In nats; NaN for a table of nothing.

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
    product: np.ndarray = np.asarray(amount * np.log(np.where(amount > 0, amount, 1.0)))
    return product


def barber_agakov(held_out: HeldOutScores) -> Bound:
    """`I(T; Y) ≥ H(Y) - CE`: what the labels' entropy loses by knowing a probe's scores.

    `CE = -(1/n) Σ ln q(yᵢ | tᵢ)` on held-out statements. It may be negative, where a probe is worse
    than knowing the labels' shares, and is reported so. `H(Y)` is that of the shares.

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
        # What is NaN there is never looked at.
        fewer = np.stack([gain(np.nan_to_num(part)) for part in held_out.fewer])
    return held_out.mean(gain(held_out.scores), fewer)


def fano(held_out: HeldOutScores) -> Bound:
    """Fano's inequality at the held-out error; the interval's low end is what can be claimed.

    The limits of the error are those of a bootstrap of groups, or, where every answer is right,
    Clopper and Pearson's on the number of groups.
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
    """`I(Ŷ; Y)` of the probe's answers, corrected for its bias (see `confusion_information`).

    Answers are those to held-out statements, by the probes of all folds.
    """
    labels = held_out.labels
    cell = 2 * labels[:, None] + (held_out.scores > 0)
    table = (cell[:, :, None] == np.arange(4)).astype(np.float64)

    def estimate(counts: Float[np.ndarray, "... cell"]) -> Float[np.ndarray, "..."]:
        return confusion_information(counts.reshape(*counts.shape[:-1], 2, 2))

    value = estimate(table.sum(axis=0))
    bootstrap_values = estimate(held_out.bootstrap.sums(table))
    # Each resample is biased once more than the value itself.
    bootstrap_values = bootstrap_values + value - np.nanmean(bootstrap_values, axis=0)
    added_variance = _answers_covariance(held_out, cell, table)
    groups = held_out.bootstrap.groups
    interval = stretched_interval(value, bootstrap_values, groups, added=added_variance)
    # A resample that happens to lack a label tells nothing.
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
    """What folds have in common adds, by what each statement's cell adds to first order."""
    if held_out.fewer is None:
        return 0.0
    share = (table.sum(axis=0) / len(table)).reshape(-1, 2, 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        pointwise = np.log(share / share.sum(axis=1, keepdims=True) / share.sum(2, keepdims=True))
    # A cell that no held-out answer is in has no say.
    pointwise = np.where(np.isfinite(pointwise), pointwise, 0.0).reshape(-1, 4)
    site = np.arange(cell.shape[1])
    fewer = np.stack(
        [pointwise[site, 2 * held_out.labels[:, None] + (part > 0)] for part in held_out.fewer]
    )
    return mean_covariance(pointwise[site, cell], fewer, held_out.fold)
