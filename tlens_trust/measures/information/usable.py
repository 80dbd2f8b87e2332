"""What activations tell of labels that the text does not tell as it stands.

A probe may read what the words alone give away. Usable information asks how much a family of
readers gains; conditional usable information, how much it gains from activations where it has the
text already.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

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
    classifier reads gains nothing.

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
        known_text, known = features(k)
        for other in (None, *range(count)):
            if other == k:
                continue
            # Without `other`, for the interval: its labels have no say in what scores `k`.
            train = ~members[k] if other is None else ~members[k] & ~members[other]
            score_text, score = features(other)
            found = _gain(known_text, known, labels, train, score_text, score, members[k])
            if other is None:
                gain[members[k]] = found
            else:
                fewer[other, members[k]] = found
    return held.mean(gain, fewer)


def _gain(
    text: Float[np.ndarray, "one example"],
    scores: Float[np.ndarray, "site example"],
    labels: Int[np.ndarray, " example"],
    train: Bool[np.ndarray, " example"],
    judged_text: Float[np.ndarray, "one example"],
    judged_scores: Float[np.ndarray, "site example"],
    judged: Bool[np.ndarray, " example"],
) -> Float[np.ndarray, "judged site"]:
    """By how much less the judged statements' labels surprise where activations are known too."""
    sites = len(scores)
    wide = np.repeat(text[:, train], sites, axis=0)
    by_text = combine_scores(text[:, train, None], labels[train])
    by_both = combine_scores(np.stack([wide, scores[:, train]], axis=2), labels[train])
    signs = np.where(labels[judged] == 1, 1.0, -1.0)

    def surprise(
        weights: Float[np.ndarray, "batch weight"], parts: Sequence[np.ndarray]
    ) -> Float[np.ndarray, "batch judged"]:
        log_odds = weights[:, -1:] + sum(
            weights[:, [number]] * part for number, part in enumerate(parts)
        )
        surprised: np.ndarray = np.logaddexp(0.0, -signs * log_odds)
        return surprised

    without = surprise(by_text, [judged_text[:, judged]])
    both = surprise(by_both, [judged_text[:, judged], judged_scores[:, judged]])
    gained: np.ndarray = (without - both).T
    return gained


def combine_scores(
    scores: Float[np.ndarray, "batch example score"], labels: Int[np.ndarray, " example"]
) -> Float[np.ndarray, "batch weight"]:
    """Weights of scores, and an intercept, that tell labels best together.

    Minimises `Σᵢ ln(1 + exp(-sᵢ(Σ_j w_j z_ij + c))) + ½ Σ_j (w_j r_j)²`, with `r` the scores' root
    mean squares: logistic regression with a penalty worth about one statement, by Newton's method.

    Args:
        scores: For each of a batch of problems.
        labels: 0 or 1, the same for all.

    Returns:
        The weights, and last the intercept.
    """
    batch, rows, count = scores.shape
    unit = np.sqrt((scores**2).mean(axis=1))
    unit = np.where(unit > 0, unit, 1.0)
    z = np.concatenate([scores / unit[:, None], np.ones((batch, rows, 1))], axis=2)
    penalty = np.diag([_RIDGE] * count + [1e-9])
    weights = np.zeros((batch, count + 1))
    moving = np.arange(batch)
    for _ in range(_STEPS):
        own, at = z[moving], weights[moving]
        log_odds = np.einsum("bnk,bk->bn", own, at)
        p = 1 / (1 + np.exp(-np.clip(log_odds, -500, 500)))
        gradient = np.einsum("bnk,bn->bk", own, p - labels) + at @ penalty
        hessian = np.einsum("bnk,bn,bnl->bkl", own, p * (1 - p), own) + penalty
        step = np.linalg.solve(hessian, gradient[..., None])[..., 0]
        # A full step may overshoot where labels are nearly told apart.
        length = np.abs(step).max(axis=1, keepdims=True)
        weights[moving] = at - step * np.minimum(1.0, 2.0 / np.maximum(length, 1e-300))
        moving = moving[length[:, 0] > 1e-8]
        if not len(moving):
            break
    weights[:, :count] /= unit
    return weights
