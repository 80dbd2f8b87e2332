"""Effect on the statements of a concept: how likely a model finds either side.

Groups that hold both labels are asked about as they are: the tokens that all statements of a group
begin with are the question, and what follows are its candidate answers. With twins that is the
log-odds of the trustworthy over the untrustworthy continuation; with TruthfulQA's questions it is
multiple choice.

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
    """Candidate answers to questions, or continuations of what twins begin with.

    Attributes:
        continuations: Every candidate.
        question: The number of the question that each belongs to, in ascending order.
        labels: 1 for a trustworthy candidate; each question has candidates of either label.
        groups: The group of each question.
    """

    continuations: Sequence[Continuation]
    question: Int[np.ndarray, " candidate"]
    labels: Int[np.ndarray, " candidate"]
    groups: tuple[str, ...]

    def quantities(self, likelihoods: Likelihoods) -> Sequence[Quantity]:
        """Four readings of every question.

        `log_odds`: `log Σ_{y=1} p(a) - log Σ_{y=0} p(a)` over the candidates `a`, in nats; with
        twins, the difference of their summed log-likelihoods. `log_odds_per_token`: mean over
        label 1 minus mean over label 0 of the log-likelihoods per token, which a candidate's
        length does not decide. `mc1`: whether the likeliest candidate is a trustworthy one (with
        TruthfulQA's own choices, of which one is true, its MC1). `mc2`: the share of probability
        on trustworthy candidates, `Σ_{y=1} p(a) / Σ p(a)`.
        """
        total, per_token = likelihoods.log_likelihood, likelihoods.per_token
        odds, odds_per_token, first = [], [], []
        for rows in self._rows():
            trusted = self.labels[rows] == 1
            own, mean = total[rows], per_token[rows]
            odds.append(np.logaddexp.reduce(own[trusted]) - np.logaddexp.reduce(own[~trusted]))
            odds_per_token.append(mean[trusted].mean() - mean[~trusted].mean())
            first.append(float(trusted[own.argmax()]))
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
                "mc1", first, "fraction of groups", "likeliest continuation is trustworthy (MC1)"
            ),
            quantity(
                "mc2",
                1 / (1 + np.exp(-log_odds)),
                "fraction of probability",
                "probability on trustworthy continuations (MC2)",
            ),
        )

    def _rows(self) -> list[np.ndarray]:
        bounds = np.flatnonzero(np.diff(self.question)) + 1
        return np.split(np.arange(len(self.question)), bounds)


@dataclass(frozen=True, eq=False)
class StatementTask:
    """Statements that stand alone, each with one label.

    Attributes:
        continuations: The statements, scored from their second token on.
        labels: 1 for a trustworthy one; both occur.
        groups: What belongs together.
    """

    continuations: Sequence[Continuation]
    labels: Int[np.ndarray, " example"]
    groups: tuple[str, ...]

    def quantities(self, likelihoods: Likelihoods) -> Sequence[Quantity]:
        """Log-likelihood per token of trustworthy statements minus that of the others.

        Written as a mean over all statements, each counting against the middle of both sides, so
        that steering which makes every statement less likely moves none the wrong way.
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
        share = np.where(trusted, trusted.mean(), 1 - trusted.mean())
        centred: np.ndarray = np.where(trusted, 1.0, -1.0) * (scores - middle) / share
        return centred


def contrast_task(model: HookedModel, concept: Concept) -> CandidateTask | StatementTask:
    """Ask a model about the statements of a concept.

    Args:
        model: Whose tokenizer reads them.
        concept: What to ask about. Where at least half of the statements stand in groups with both
            labels, these groups are questions, and the rest is left out; else statements stand
            alone, since there is nothing that they could be compared with word by word.

    Raises:
        ValueError: Twins differ in their first token, or one begins the other.
    """
    members = defaultdict(list)
    for row, group in enumerate(concept.groups):
        members[group].append(row)
    both = {
        group: rows
        for group, rows in members.items()
        if len({int(concept.labels[row]) for row in rows}) == 2
    }
    if 2 * sum(map(len, both.values())) < len(concept):
        return StatementTask(
            tokenise_texts(model, concept.statements), concept.labels, concept.groups
        )
    continuations: list[Continuation] = []
    question: list[int] = []
    for number, rows in enumerate(both.values()):
        continuations += tokenise_candidates(model, [concept.statements[row] for row in rows])
        question += [number] * len(rows)
    labels = np.array([concept.labels[row] for rows in both.values() for row in rows])
    return CandidateTask(continuations, np.array(question), labels, tuple(both))
