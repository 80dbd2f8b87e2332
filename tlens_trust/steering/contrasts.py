"""The effect of steering on the statements of a concept: how likely either side is.

A group that holds both labels is a question. The tokens that all its statements begin with are the
prompt, and the rest of each statement is a candidate answer. For twins this gives the log-odds of
the trustworthy over the untrustworthy continuation; for TruthfulQA's questions it is multiple
choice.

Source:
    Lin, Hilton and Evans (2022), TruthfulQA, arXiv:2109.07958, for MC1 and MC2.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from tlens_trust.checkpoints.hooked_model import HookedModel
from tlens_trust.concepts import Concept
from tlens_trust.steering.likelihood import (
    Continuation,
    Likelihoods,
    tokenise_candidates,
    tokenise_texts,
)
from tlens_trust.steering.quantities import Quantity


@dataclass(frozen=True, eq=False)
class CandidateTask:
    """Candidate answers to questions, or the continuations of twins.

    Attributes:
        continuations: Every candidate.
        question: The number of each candidate's question, in ascending order.
        labels: 1 for a trustworthy candidate. Each question has candidates of both labels.
        groups: The group of each question.
    """

    continuations: Sequence[Continuation]
    question: Int[np.ndarray, " candidate"]
    labels: Int[np.ndarray, " candidate"]
    groups: tuple[str, ...]

    def quantities(self, likelihoods: Likelihoods) -> Sequence[Quantity]:
        """Four quantities of every question.

        - `log_odds`: `log Σ_{y=1} p(a) - log Σ_{y=0} p(a)` over the candidates `a`, in nats. For
          twins, the difference of their log-likelihoods.

        - `log_odds_per_token`: mean log-likelihood per token over label 1 minus that over label 0.
          It does not depend on the lengths of the candidates.

        - `mc1`: whether the most likely candidate is trustworthy. With TruthfulQA's own choices, of
          which one is true, its MC1.

        - `mc2`: the share of probability on trustworthy candidates, `Σ_{y=1} p(a) / Σ p(a)`.
        """
        log_p, log_p_per_token = likelihoods.log_likelihood, likelihoods.per_token
        odds, odds_per_token, is_right = [], [], []
        for rows in self._rows():
            trusted = self.labels[rows] == 1
            total, mean = log_p[rows], log_p_per_token[rows]
            # Added in logarithms: the probability of a whole sentence is too small for a float.
            odds.append(np.logaddexp.reduce(total[trusted]) - np.logaddexp.reduce(total[~trusted]))
            odds_per_token.append(mean[trusted].mean() - mean[~trusted].mean())
            is_right.append(float(trusted[total.argmax()]))
        log_odds = np.array(odds)

        def quantity(name: str, values: object, units: str, long_name: str) -> Quantity:
            return Quantity(name, np.asarray(values, dtype=float), self.groups, units, long_name)

        return (
            quantity(
                "log_odds", log_odds, "nats", "log-odds of trustworthy over other continuations"
            ),
            quantity(
                "log_odds_per_token",
                odds_per_token,
                "nats per token",
                "log-likelihood per token of trustworthy minus other continuations",
            ),
            quantity(
                "mc1",
                is_right,
                "fraction of groups",
                "likeliest continuation is trustworthy (MC1)",
            ),
            quantity(
                "mc2",
                # The share of two sums of probabilities is the logistic function of their log-odds.
                1 / (1 + np.exp(-log_odds)),
                "fraction of probability",
                "probability on trustworthy continuations (MC2)",
            ),
        )

    def _rows(self) -> list[np.ndarray]:
        # Questions are numbered in ascending order, so the rows of each are neighbours.
        bounds = np.flatnonzero(np.diff(self.question)) + 1
        return np.split(np.arange(len(self.question)), bounds)


@dataclass(frozen=True, eq=False)
class StatementTask:
    """Statements without a counterpart in their group.

    Attributes:
        continuations: The statements, scored from their second token on.
        labels: 1 for a trustworthy statement. Both labels occur.
        groups: The group of each statement.
    """

    continuations: Sequence[Continuation]
    labels: Int[np.ndarray, " example"]
    groups: tuple[str, ...]

    def quantities(self, likelihoods: Likelihoods) -> Sequence[Quantity]:
        """Log-likelihood per token of trustworthy statements minus that of the others.

        It is written as a mean over all statements, each relative to the middle of both sides. So
        if steering makes all statements less likely, none of them moves the wrong way.
        """
        values = self._centred(likelihoods.per_token)
        return (
            Quantity(
                "likelihood_gap",
                values,
                self.groups,
                "nats per token",
                "log-likelihood per token of trustworthy minus other statements",
            ),
        )

    def _centred(self, scores: Float[np.ndarray, " example"]) -> Float[np.ndarray, " example"]:
        trusted = self.labels == 1
        middle = (scores[trusted].mean() + scores[~trusted].mean()) / 2
        # Division by the share of a side makes the mean over all statements the difference between
        # the means of the two sides, whatever their sizes.
        share = np.where(trusted, trusted.mean(), 1 - trusted.mean())
        centred: np.ndarray = np.where(trusted, 1.0, -1.0) * (scores - middle) / share
        return centred


def contrast_task(model: HookedModel, concept: Concept) -> CandidateTask | StatementTask:
    """Make a task of the statements of a concept.

    Args:
        model: The model, whose tokenizer is used.
        concept: The statements. If at least half of them are in groups with both labels, these
            groups are questions, and the rest is left out. Otherwise every statement stands alone,
            since it has no counterpart to be compared with word by word.

    Raises:
        ValueError: Twins differ in their first token, or one is the beginning of the other.
    """
    members = defaultdict(list)
    for row, group in enumerate(concept.groups):
        members[group].append(row)
    questions = {
        group: rows
        for group, rows in members.items()
        if len({int(concept.labels[row]) for row in rows}) == 2
    }
    if 2 * sum(map(len, questions.values())) < len(concept):
        return StatementTask(
            tokenise_texts(model, concept.statements), concept.labels, concept.groups
        )
    continuations: list[Continuation] = []
    question: list[int] = []
    for number, rows in enumerate(questions.values()):
        continuations += tokenise_candidates(model, [concept.statements[row] for row in rows])
        question += [number] * len(rows)
    labels = np.array([concept.labels[row] for rows in questions.values() for row in rows])
    return CandidateTask(continuations, np.array(question), labels, tuple(questions))
