"""Usable information: what activations say about the labels beyond the text.

A probe may decode only what the words alone show. Usable information is how much a family of
predictors gains from an input. Conditional usable information is how much it gains from activations
when it already has the text.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Int8

from tlens_trust.measures.information.label_bounds import Bound, HeldOutScores

# Penalty on standardised scores: about one statement's weight, enough for separable labels.
_RIDGE = 1.0
# The most Newton steps; a problem stops before that once its steps are below 1e-6.
_STEPS = 25


def usable_beyond_text(
    held_out: HeldOutScores,
    text: Float[np.ndarray, " example"],
    text_fewer: Float[np.ndarray, "fold example"],
) -> Bound:
    """Compute `CE(Y | text) - CE(Y | text, T)` on held-out statements, in nats.

    The predictors `q(y | text, t)` are logistic functions of `a·s(text) + b·s(t) + c`. Here
    `s(text)` are the log-odds of the text classifier and `s(t)` those of the probe. Without
    activations `b = 0`; a predictive family must allow this.

    For each fold, the classifier, the probe and `a`, `b`, `c` are fitted without it. The
    coefficients have a slight penalty, so that they exist where the labels are separable. They are
    fitted to scores of the other folds' statements, which were held out too: they come from probes
    fitted without both folds.

    So poorly calibrated scores, of the probe or of the text classifier, give no advantage. A probe
    that decodes only what the classifier decodes gains nothing. A score outside the range that a
    predictor was fitted to is clipped to that range, because a single outlier could outweigh all
    other statements.

    The value may be negative. It is no bound of `I(T; Y | text)`, which is zero because activations
    are computed from the text. It is the gain of these predictors, and a better text classifier
    would leave less to gain. The interval allows for the training rows that folds share.

    Args:
        held_out: The probe's scores; `fewer` is needed.
        text: The text classifier's held-out log-odds on the same folds, in nats.
        text_fewer: The same without one more fold (first axis).

    Raises:
        ValueError: `held_out.fewer` is None.

    Source:
        Xu et al. (2020), arXiv:2002.10689, on usable information and its families; Hewitt et al.
        (2021), arXiv:2109.09234, on its conditional form; Wolpert (1992), Neural Networks 5, on
        combining held-out scores.
    """
    if held_out.fewer is None:
        raise ValueError(
            "Usable information beyond the text needs scores without one more fold. Take a probe "
            "that gives them, as `logistic_probe()`, with at least 3 folds."
        )
    labels, fold = held_out.labels, held_out.fold
    count, sites = len(held_out.fewer), held_out.scores.shape[1]
    members = fold == np.arange(count)[:, None]

    def features(
        left_out: int | None,
    ) -> tuple[Float[np.ndarray, "one example"], Float[np.ndarray, "site example"]]:
        if left_out is None or held_out.fewer is None:
            return text[None], held_out.scores.T
        return text_fewer[left_out][None], held_out.fewer[left_out].T

    gain = np.empty((len(labels), sites))
    fewer = np.full((count, len(labels), sites), np.nan)
    for k in range(count):
        train_text, train_scores = features(k)
        for second_fold in (None, *range(count)):
            if second_fold == k:
                continue
            # Without the second fold, for the interval: its labels do not affect the scores of `k`.
            train = ~members[k] if second_fold is None else ~members[k] & ~members[second_fold]
            score_text, score = features(second_fold)
            fold_gain = _gain(
                train_text, train_scores, labels, train, score_text, score, members[k]
            )
            if second_fold is None:
                gain[members[k]] = fold_gain
            else:
                fewer[second_fold, members[k]] = fold_gain
    return held_out.mean(gain, fewer)


def _gain(
    text: Float[np.ndarray, "texts example"],
    scores: Float[np.ndarray, "problem example"],
    labels: Int[np.ndarray, " example"] | Float[np.ndarray, "problem example"],
    train: Bool[np.ndarray, " example"],
    judged_text: Float[np.ndarray, "texts example"],
    judged_scores: Float[np.ndarray, "problem example"],
    judged: Bool[np.ndarray, " example"],
) -> Float[np.ndarray, "judged problem"]:
    """Compute how much the activations reduce the cross-entropy of each held-out statement."""
    problems = len(scores)
    train_text, train_scores = text[:, train], scores[:, train]
    wide_text = np.broadcast_to(train_text, (problems, train_text.shape[1]))
    text_weights = combine_scores(train_text[..., None], labels[..., train])
    joint_weights = combine_scores(np.stack([wide_text, train_scores], axis=2), labels[..., train])
    signs = np.where(labels[..., judged] == 1, 1.0, -1.0)

    def surprise(
        weights: Float[np.ndarray, "batch weight"], parts: Sequence[np.ndarray]
    ) -> Float[np.ndarray, "batch judged"]:
        log_odds = weights[:, -1:] + sum(
            weights[:, [number]] * part for number, part in enumerate(parts)
        )
        nats: np.ndarray = np.logaddexp(0.0, -signs * log_odds)
        return nats

    clipped_text, clipped_scores = (
        np.clip(
            judged_values[:, judged],
            training_values.min(axis=1, keepdims=True),
            training_values.max(axis=1, keepdims=True),
        )
        for judged_values, training_values in (
            (judged_text, train_text),
            (judged_scores, train_scores),
        )
    )
    text_cost = surprise(text_weights, [clipped_text])
    joint_cost = surprise(joint_weights, [clipped_text, clipped_scores])
    gain: np.ndarray = (text_cost - joint_cost).T
    return gain


def usable_under_permutation(
    text: tuple[Float[np.ndarray, "example draw"], Float[np.ndarray, "fold example draw"]],
    probe: tuple[Float[np.ndarray, "example draw"], Float[np.ndarray, "fold example draw"]],
    labels: Int8[np.ndarray, "draw example"],
    fold: Int[np.ndarray, " example"],
) -> Float[np.ndarray, " draw"]:
    """Compute the usable information beyond the text for permuted labels.

    Args:
        text: Scores of each draw of labels by the text, and without one more fold.
        probe: The same by the activations.
        labels: The draws of labels.
        fold: The fold of each statement.
    """
    target = labels.astype(np.float64)
    gains = np.zeros(len(labels))
    for k in range(len(text[1])):
        judged = fold == k
        gain = _gain(text[1][k].T, probe[1][k].T, target, ~judged, text[0].T, probe[0].T, judged)
        gains += gain.sum(axis=0)
    mean: np.ndarray = gains / len(fold)
    return mean


def combine_scores(
    scores: Float[np.ndarray, "batch example score"],
    labels: Int[np.ndarray, " example"] | Float[np.ndarray, "batch example"],
) -> Float[np.ndarray, "batch weight"]:
    """Fit a logistic regression of the labels on a few scores, for a batch of problems.

    Minimises `Σᵢ ln(1 + exp(-sᵢ(Σ_j w_j z_ij + c))) + ½ Σ_j (w_j r_j)²` by Newton's method, with
    `r` the standard deviations of the scores. The penalty weighs about as much as one statement.

    Args:
        scores: The scores, for each problem of the batch.
        labels: 0 or 1, the same for all problems or separate for each.

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
    # The intercept is not penalised, but for what keeps the Hessian invertible.
    penalty = np.diag([_RIDGE] * count + [1e-9])
    weights = np.zeros((batch, count + 1))
    active = np.arange(batch)
    for _ in range(_STEPS):
        # While all problems are active, indexing would only copy.
        all_active = len(active) == batch
        active_z, active_weights, active_target = (
            (z, weights, target) if all_active else (z[active], weights[active], target[active])
        )
        log_odds = (active_z @ active_weights[..., None])[..., 0]
        p = 1 / (1 + np.exp(-np.clip(log_odds, -500, 500)))
        transposed = active_z.transpose(0, 2, 1)
        gradient = (transposed @ (p - active_target)[..., None])[..., 0] + active_weights @ penalty
        hessian = transposed @ ((p * (1 - p))[..., None] * active_z) + penalty
        step = np.linalg.solve(hessian, gradient[..., None])[..., 0]
        # A full Newton step may overshoot where labels are nearly separable.
        length = np.abs(step).max(axis=1, keepdims=True)
        weights[active] = active_weights - step * np.minimum(1.0, 2.0 / np.maximum(length, 1e-300))
        active = active[length[:, 0] > 1e-6]
        if not len(active):
            break
    weights[:, :count] /= unit
    weights[:, count] -= (weights[:, :count] * mean).sum(axis=1)
    return weights
