"""What activations tell of labels that the text does not tell as it stands.

A probe may read what the words alone give away. Usable information asks how much a family of
readers gains; conditional usable information, how much it gains from activations where it has the
text already.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Int8

from tlens_trust.measures.information.label_bounds import Bound, HeldOutScores

_RIDGE = 1.0
_STEPS = 25


def usable_beyond_text(
    held: HeldOutScores,
    text: Float[np.ndarray, " example"],
    text_fewer: Float[np.ndarray, "fold example"],
) -> Bound:
    """`CE(Y | text) - CE(Y | text, T)` on held-out statements, in nats.

    The readers `q(y | text, t)` are the logistic functions of `a·s(text) + b·s(t) + c`, with
    `s(text)` the log-odds of the text classifier and `s(t)` those of the probe; without
    activations `b = 0`, as a family of readers has to allow. For each fold, classifier, probe and
    `a`, `b`, `c` (with a slight penalty, so that they exist where labels are told apart) are
    fitted without it: the latter on scores of the other folds' statements that were held out too,
    by probes without both folds. So a probe whose scores are ill calibrated, or a text classifier
    whose scores are, gives itself no advantage, and a probe that reads nothing but what the
    classifier reads gains nothing. A score beyond those that a reader was fitted to counts as the
    most extreme of them: one far outlier would cost it more than all the rest.

    It may be negative. It is no bound of `I(T; Y | text)`, which is zero, since activations are
    computed from the text: it is what these readers gain, and a better reader of the text would
    leave less to be gained. Its interval allows for what folds have in common.

    Args:
        held: The probe's scores; `fewer` is needed.
        text: The text classifier's held-out log-odds on the same folds, in nats.
        text_fewer: The same without one more fold, the first axis.

    Raises:
        ValueError: `held.fewer` is None.

    Source:
        Xu et al. (2020), arXiv:2002.10689, on usable information and its families; Hewitt et al.
        (2021), arXiv:2109.09234, on its conditional form; Wolpert (1992), Neural Networks 5, on
        combining held-out scores.
    """
    if held.fewer is None:
        raise ValueError(
            "Usable information beyond the text needs scores without one more fold. Take a probe "
            "that gives them, as `logistic_probe()`, with at least 3 folds."
        )
    labels, fold = held.labels, held.fold
    count, sites = len(held.fewer), held.scores.shape[1]
    members = fold == np.arange(count)[:, None]

    def features(
        left_out: int | None,
    ) -> tuple[Float[np.ndarray, "one example"], Float[np.ndarray, "site example"]]:
        if left_out is None or held.fewer is None:
            return text[None], held.scores.T
        return text_fewer[left_out][None], held.fewer[left_out].T

    gain = np.empty((len(labels), sites))
    fewer = np.full((count, len(labels), sites), np.nan)
    for k in range(count):
        train_text, train_scores = features(k)
        for other in (None, *range(count)):
            if other == k:
                continue
            # Without `other`, for the interval: its labels have no say in what scores `k`.
            train = ~members[k] if other is None else ~members[k] & ~members[other]
            score_text, score = features(other)
            found = _gain(train_text, train_scores, labels, train, score_text, score, members[k])
            if other is None:
                gain[members[k]] = found
            else:
                fewer[other, members[k]] = found
    return held.mean(gain, fewer)


def _gain(
    text: Float[np.ndarray, "texts example"],
    scores: Float[np.ndarray, "problem example"],
    labels: Int[np.ndarray, " example"] | Float[np.ndarray, "problem example"],
    train: Bool[np.ndarray, " example"],
    judged_text: Float[np.ndarray, "texts example"],
    judged_scores: Float[np.ndarray, "problem example"],
    judged: Bool[np.ndarray, " example"],
) -> Float[np.ndarray, "judged problem"]:
    """By how much less the judged statements' labels surprise where activations are known too."""
    problems = len(scores)
    train_text, train_scores = text[:, train], scores[:, train]
    wide = np.broadcast_to(train_text, (problems, train_text.shape[1]))
    by_text = combine_scores(train_text[..., None], labels[..., train])
    by_both = combine_scores(np.stack([wide, train_scores], axis=2), labels[..., train])
    signs = np.where(labels[..., judged] == 1, 1.0, -1.0)

    def surprise(
        weights: Float[np.ndarray, "batch weight"], parts: Sequence[np.ndarray]
    ) -> Float[np.ndarray, "batch judged"]:
        log_odds = weights[:, -1:] + sum(
            weights[:, [number]] * part for number, part in enumerate(parts)
        )
        surprised: np.ndarray = np.logaddexp(0.0, -signs * log_odds)
        return surprised

    seen_text, seen = (
        np.clip(new[:, judged], old.min(axis=1, keepdims=True), old.max(axis=1, keepdims=True))
        for new, old in ((judged_text, train_text), (judged_scores, train_scores))
    )
    without = surprise(by_text, [seen_text])
    both = surprise(by_both, [seen_text, seen])
    gained: np.ndarray = (without - both).T
    return gained


def usable_under_permutation(
    text: tuple[Float[np.ndarray, "example draw"], Float[np.ndarray, "fold example draw"]],
    probe: tuple[Float[np.ndarray, "example draw"], Float[np.ndarray, "fold example draw"]],
    labels: Int8[np.ndarray, "draw example"],
    fold: Int[np.ndarray, " example"],
) -> Float[np.ndarray, " draw"]:
    """What `usable_beyond_text` comes to for labels that mean nothing.

    Args:
        text: Scores of draws of labels by the text, and without one more fold.
        probe: Likewise by the activations.
        labels: The draws.
        fold: The fold of each statement.
    """
    target = labels.astype(np.float64)
    gained = np.zeros(len(labels))
    for k in range(len(text[1])):
        judged = fold == k
        gain = _gain(text[1][k].T, probe[1][k].T, target, ~judged, text[0].T, probe[0].T, judged)
        gained += gain.sum(axis=0)
    mean: np.ndarray = gained / len(fold)
    return mean


def combine_scores(
    scores: Float[np.ndarray, "batch example score"],
    labels: Int[np.ndarray, " example"] | Float[np.ndarray, "batch example"],
) -> Float[np.ndarray, "batch weight"]:
    """Weights of scores, and an intercept, that tell labels best together.

    Minimises `Σᵢ ln(1 + exp(-sᵢ(Σ_j w_j z_ij + c))) + ½ Σ_j (w_j r_j)²`, with `r` the scores'
    standard deviations: logistic regression with a penalty worth about one statement, by Newton's
    method.

    Args:
        scores: For each of a batch of problems.
        labels: 0 or 1, the same for all problems or of each.

    Returns:
        The weights, and last the intercept.
    """
    batch, rows, count = scores.shape
    mean = scores.mean(axis=1)
    unit = scores.std(axis=1)
    unit = np.where(unit > 1e-12 * np.abs(mean), unit, np.inf)
    standardised = (scores - mean[:, None]) / unit[:, None]
    z = np.concatenate([standardised, np.ones((batch, rows, 1))], axis=2)
    target = np.broadcast_to(labels, (batch, rows))
    penalty = np.diag([_RIDGE] * count + [1e-9])
    weights = np.zeros((batch, count + 1))
    moving = np.arange(batch)
    for _ in range(_STEPS):
        # All of them move at first, and then there is nothing to copy.
        whole = len(moving) == batch
        own, at, aim = (
            (z, weights, target) if whole else (z[moving], weights[moving], target[moving])
        )
        log_odds = (own @ at[..., None])[..., 0]
        p = 1 / (1 + np.exp(-np.clip(log_odds, -500, 500)))
        turned = own.transpose(0, 2, 1)
        gradient = (turned @ (p - aim)[..., None])[..., 0] + at @ penalty
        hessian = turned @ ((p * (1 - p))[..., None] * own) + penalty
        step = np.linalg.solve(hessian, gradient[..., None])[..., 0]
        # A full step may overshoot where labels are nearly told apart.
        length = np.abs(step).max(axis=1, keepdims=True)
        weights[moving] = at - step * np.minimum(1.0, 2.0 / np.maximum(length, 1e-300))
        moving = moving[length[:, 0] > 1e-6]
        if not len(moving):
            break
    weights[:, :count] /= unit
    weights[:, count] -= (weights[:, :count] * mean).sum(axis=1)
    return weights
