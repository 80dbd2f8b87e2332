"""Held-out scores of classifiers that see the text and no model."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Int

NGramKind = Literal["words", "characters"]

NGRAM_KINDS: tuple[NGramKind, ...] = get_args(NGramKind)
_SCORES = ("chosen", *NGRAM_KINDS, "majority")


@dataclass(frozen=True, eq=False, repr=False)
class TextFloor:
    """Held-out scores of classifiers that see the text and no model.

    A score is the log-odds of label 1 in nats. Each statement is scored by a classifier that was
    fitted on other folds. It is NaN where a statement is only ever trained on.

    Attributes:
        labels: The labels to predict.
        fold: The fold of each statement; below 0 where it is only ever trained on.
        words: Scores by words, single and in twos.
        characters: Scores by runs of one to five characters.
        majority: Scores that are the log-odds of the labels in the training rows, whatever the
            text: the majority class.
        chosen: For each fold, which of `words` and `characters` did better within its training
            rows.
        fewer: Scores, as each fold chose, by classifiers that were fitted without one more fold.
            That fold is the first axis; NaN where it is the statement's own. None where they were
            not requested. They show how much the folds have in common.
    """

    labels: Int[np.ndarray, " example"]
    fold: Int[np.ndarray, " example"]
    words: Float[np.ndarray, " example"]
    characters: Float[np.ndarray, " example"]
    majority: Float[np.ndarray, " example"]
    chosen: MappingProxyType[int, NGramKind]
    fewer: Float[np.ndarray, "fold example"] | None = None

    @property
    def score(self) -> Float[np.ndarray, " example"]:
        """Scores by words or by characters, as each fold chose."""
        score = np.full(len(self.labels), np.nan)
        for fold, kind in self.chosen.items():
            rows = self.fold == fold
            score[rows] = getattr(self, kind)[rows]
        return score

    @property
    def n(self) -> int:
        """How many statements are scored."""
        return int((self.fold >= 0).sum())

    def accuracy(self, scores: str = "chosen", *, balanced: bool = False) -> float:
        """Share of the scored statements that are classified correctly.

        A score above 0 says label 1. `chosen` is an unbiased figure, since each fold's choice
        between words and characters is made without its rows. The higher of `words` and
        `characters` is slightly too high as an estimate, and so a slightly strict floor.

        Args:
            scores: Which scores: `chosen`, `words`, `characters` or `majority`.
            balanced: Whether to take the mean of the two labels' shares, whose chance level is
                one half whatever the balance.

        Raises:
            ValueError: There are no such scores, or `balanced` where one label alone is scored.
        """
        if scores not in _SCORES:
            raise ValueError(
                f"A text floor has no scores {scores!r}. Choose among "
                f"{', '.join(map(repr, _SCORES))}."
            )
        score = self.score if scores == "chosen" else getattr(self, scores)
        is_scored = self.fold >= 0
        labels = self.labels[is_scored]
        is_correct = (score[is_scored] > 0) == (labels == 1)
        if not balanced:
            return float(is_correct.mean())
        if len(set(labels.tolist())) < 2:
            raise ValueError(
                "Balanced accuracy needs both labels among the scored statements, got one. Take "
                "the plain accuracy, or other folds."
            )
        return float((is_correct[labels == 0].mean() + is_correct[labels == 1].mean()) / 2)

    def __repr__(self) -> str:
        shares = ", ".join(f"{name} {self.accuracy(name):.1%}" for name in _SCORES)
        return f"TextFloor({shares}; {self.n} statements in {len(self.chosen)} folds)"
