"""The text-only baseline ("text floor"): how well the words alone predict the labels."""

from itertools import combinations
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from tlens_trust.concepts.concept import Concept
from tlens_trust.concepts.floor_scores import KINDS, Kind, TextFloor
from tlens_trust.concepts.folds import assign_folds

_ANALYSERS: dict[str, dict[str, Any]] = {
    "words": {"analyzer": "word", "ngram_range": (1, 2), "token_pattern": r"(?u)\b\w+\b"},
    # Single characters and their case are among them: in SST-2 a capital letter tells all.
    "characters": {"analyzer": "char", "ngram_range": (1, 5), "lowercase": False},
}
_LEAST_STATEMENTS = 2
_MOST_GRAMS = 50_000
_C = 10.0
_INNER_FOLDS = 3


def text_floor(
    concept: Concept,
    *,
    fold: Int[np.ndarray, " example"] | None = None,
    folds: int = 5,
    seed: int = 0,
    fewer: bool = False,
) -> TextFloor:
    """Classify the statements of a concept by their text alone, on given folds.

    The text is taken in two ways: as words, single and in twos, in lower case; and as runs of one
    to five characters, with case and blanks. Each gives TF-IDF features: `1 + ln tf` times
    `ln((1 + n) / (1 + df)) + 1`, rows scaled to length 1. The n-grams are those that occur in at
    least two statements of the training rows, at most the 50,000 most widespread; vocabulary and
    `df` come from the training rows. The classifier is scikit-learn's `LogisticRegression` with
    C = 10. C is fixed: on the paper's five files no value from 1 to 100 is more than .01 better.
    Grouped 3-fold cross-validation within the training rows chooses between words and characters.

    Args:
        concept: The statements.
        fold: The fold of each statement, the probe's own for a fair comparison; below 0 where a
            statement is only ever trained on, as for one sequential split. None: the folds that
            `assign_folds(concept.labels, concept.groups, folds=folds, seed=seed)` of
            `tlens_trust.measures.folds` gives.
        folds: How many folds, where `fold` is not given.
        seed: Draws the folds, and those within the training rows. Nothing else is random.
        fewer: Whether to fit without every two folds as well, for `TextFloor.fewer`.

    Raises:
        ValueError: `fold` is of another length, scores nothing, or leaves one label to train on;
            or there are too few groups to deal into folds, or fewer than 3 with `fewer`.

    Source:
        Salton and Buckley (1988), Term-weighting approaches in automatic text retrieval.

    Examples:
        >>> said = [f"{x} {w}." for x in ("It was", "I am", "We are") for w in ("good", "bad")]
        >>> names = tuple(f"group {i}" for i in range(12) for _ in range(2))
        >>> labels = np.array([1, 0] * 12)
        >>> text_floor(Concept("mood", "mood", tuple(said * 4), labels, names)).accuracy()
        1.0
    """
    labels = np.array(concept.labels)
    dealt = (
        assign_folds(labels, concept.groups, folds=folds, seed=seed)
        if fold is None
        else np.array(fold)
    )
    _check_folds(dealt, labels)
    if fewer and len(set(dealt.tolist())) < 3:
        raise ValueError(
            "Leaving out two folds takes at least 3 folds, so that one is left to train on. Deal "
            "more folds, or leave `fewer` off."
        )
    counts = {kind: _count(concept.statements, kind) for kind in KINDS}
    groups = np.array(concept.groups, dtype=object)
    scores = {kind: np.full(len(labels), np.nan) for kind in (*KINDS, "majority")}
    chosen: dict[int, Kind] = {}
    for number in sorted({int(f) for f in dealt if f >= 0}):
        held = dealt == number
        train = np.flatnonzero(~held)
        try:
            inner = assign_folds(
                labels[train], groups[train].tolist(), folds=_INNER_FOLDS, seed=seed
            )
        except ValueError as error:
            error.add_note(
                f"This was to choose between words and characters within the training rows of "
                f"fold {number}."
            )
            raise
        right = {}
        for kind in KINDS:
            scores[kind][held] = _held_out(counts[kind], labels, ~held, held)
            right[kind] = 0
            for part in range(_INNER_FOLDS):
                fitted, judged = (
                    _rows(train[inner != part], held),
                    _rows(train[inner == part], held),
                )
                score = _held_out(counts[kind], labels, fitted, judged)
                right[kind] += int(((score > 0) == (labels[judged] == 1)).sum())
        chosen[number] = "characters" if right["characters"] > right["words"] else "words"
        ones = labels[~held].mean()
        scores["majority"][held] = np.log(ones / (1 - ones))
    return TextFloor(
        labels=labels,
        fold=dealt,
        words=scores["words"],
        characters=scores["characters"],
        majority=scores["majority"],
        chosen=MappingProxyType(chosen),
        fewer=_without_two_folds(counts, labels, dealt, chosen) if fewer else None,
    )


def _without_two_folds(
    counts: dict[Kind, Any],
    labels: Int[np.ndarray, " example"],
    fold: Int[np.ndarray, " example"],
    chosen: dict[int, Kind],
) -> Float[np.ndarray, "fold example"]:
    scores = np.full((max(chosen) + 1, len(labels)), np.nan)
    for one, other in combinations(chosen, 2):
        for kind in {chosen[one], chosen[other]}:
            judged = [number for number in (one, other) if chosen[number] == kind]
            held = np.isin(fold, judged)
            score = _held_out(counts[kind], labels, ~np.isin(fold, (one, other)), held)
            for number in judged:
                rest = one if number == other else other
                scores[rest, fold == number] = score[fold[held] == number]
    return scores


def _check_folds(fold: np.ndarray, labels: np.ndarray) -> None:
    if fold.shape != labels.shape:
        raise ValueError(
            f"`fold` must give one fold for each of the {len(labels)} statements, got an array of "
            f"shape {fold.shape}."
        )
    if not (fold >= 0).any():
        raise ValueError(
            "`fold` scores no statement: every entry is below 0. Give the statements to score a "
            "fold from 0 on."
        )
    for number in np.unique(fold[fold >= 0]).tolist():
        held = set(labels[fold != number].tolist())
        if len(held) < 2:
            raise ValueError(
                f"Outside fold {number} there must be statements with 0 and with 1 to train on, "
                f"got {sorted(held) or 'none'}. Deal the folds with `measures.assign_folds`."
            )


def _rows(positions: np.ndarray, like: np.ndarray) -> Bool[np.ndarray, " example"]:
    rows = np.zeros_like(like, dtype=bool)
    rows[positions] = True
    return rows


def _count(statements: tuple[str, ...], kind: str) -> Any:
    """How often each n-gram occurs in each statement, `1 + ln` of it, as a sparse matrix.

    Counting looks at one statement at a time, so that it can be done once for all folds.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    counter = CountVectorizer(dtype=np.float32, **_ANALYSERS[kind])
    try:
        counts = counter.fit_transform(statements)
    except ValueError:  # no word at all, as in "?!"
        from scipy.sparse import csr_matrix

        return csr_matrix((len(statements), 0), dtype=np.float32)
    # A column that one statement alone has is none in any fold, and most columns are such.
    counts = counts[:, np.bincount(counts.indices, minlength=counts.shape[1]) >= _LEAST_STATEMENTS]
    counts.data = 1 + np.log(counts.data)
    return counts


def _held_out(
    counts: Any,
    labels: Int[np.ndarray, " example"],
    train: Bool[np.ndarray, " example"],
    held: Bool[np.ndarray, " example"],
) -> Float[np.ndarray, " held"]:
    """Log-odds of label 1 of the held rows, by a classifier fitted on the training rows."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import normalize

    n = int(train.sum())
    occurs = np.bincount(counts[train].indices, minlength=counts.shape[1])
    columns = np.flatnonzero(occurs >= _LEAST_STATEMENTS)
    if len(columns) > _MOST_GRAMS:
        widest = np.argsort(-occurs[columns], kind="stable")[:_MOST_GRAMS]
        columns = np.sort(columns[widest])
    if not len(columns):
        ones = labels[train].mean()
        return np.full(int(held.sum()), np.log(ones / (1 - ones)))
    weights = np.log((1 + n) / (1 + occurs[columns])) + 1
    features = counts[:, columns].multiply(weights.astype(np.float32)).tocsr()
    features = normalize(features, copy=False)
    classifier = LogisticRegression(C=_C, max_iter=1000).fit(features[train], labels[train])
    score: np.ndarray = classifier.decision_function(features[held])
    return score.astype(np.float64)
