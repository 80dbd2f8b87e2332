"""The text-only baseline ("text floor"): how well the words alone predict the labels."""

from itertools import combinations
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from tlens_trust.concepts.concept import Concept
from tlens_trust.concepts.floor_scores import NGRAM_KINDS, NGramKind, TextFloor
from tlens_trust.concepts.folds import assign_folds

_ANALYSERS: dict[str, dict[str, Any]] = {
    "words": {"analyzer": "word", "ngram_range": (1, 2), "token_pattern": r"(?u)\b\w+\b"},
    # Single characters and their case are among them: in SST-2 a capital letter tells all.
    "characters": {"analyzer": "char", "ngram_range": (1, 5), "lowercase": False},
}
# `text_floor` describes these settings, and says why C is fixed.
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
            `tlens_trust.concepts.folds` gives.
        folds: How many folds, where `fold` is not given.
        seed: Draws the folds, and those within the training rows. Nothing else is random.
        fewer: Whether to fit without every two folds as well, for `TextFloor.fewer`.

    Raises:
        ValueError: `fold` is of another length, scores nothing, or leaves one label to train on.
            Or there are too few groups to deal into folds, or fewer than 3 folds with `fewer`.

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
    fold_of_row = (
        assign_folds(labels, concept.groups, folds=folds, seed=seed)
        if fold is None
        else np.array(fold)
    )
    _check_folds(fold_of_row, labels)
    if fewer and len(set(fold_of_row.tolist())) < 3:
        raise ValueError(
            "Leaving out two folds takes at least 3 folds, so that one is left to train on. Deal "
            "more folds, or leave `fewer` off."
        )
    # Counting looks at one statement at a time, so no held-out row has a part in another's counts.
    counts = {kind: _count(concept.statements, kind) for kind in NGRAM_KINDS}
    groups = np.array(concept.groups, dtype=object)
    scores = {kind: np.full(len(labels), np.nan) for kind in (*NGRAM_KINDS, "majority")}
    kind_by_fold: dict[int, NGramKind] = {}
    for number in sorted({int(f) for f in fold_of_row if f >= 0}):
        is_held_out = fold_of_row == number
        train = np.flatnonzero(~is_held_out)
        try:
            # Within the training rows, so that the held-out fold has no say in the choice.
            inner = assign_folds(
                labels[train], groups[train].tolist(), folds=_INNER_FOLDS, seed=seed
            )
        except ValueError as error:
            error.add_note(
                f"This was to choose between words and characters within the training rows of "
                f"fold {number}."
            )
            raise
        n_correct = {}
        for kind in NGRAM_KINDS:
            scores[kind][is_held_out] = _held_out(counts[kind], labels, ~is_held_out, is_held_out)
            n_correct[kind] = 0
            for part in range(_INNER_FOLDS):
                inner_train = _rows(train[inner != part], is_held_out)
                inner_test = _rows(train[inner == part], is_held_out)
                score = _held_out(counts[kind], labels, inner_train, inner_test)
                n_correct[kind] += int(((score > 0) == (labels[inner_test] == 1)).sum())
        better_by_characters = n_correct["characters"] > n_correct["words"]
        kind_by_fold[number] = "characters" if better_by_characters else "words"
        ones = labels[~is_held_out].mean()
        scores["majority"][is_held_out] = np.log(ones / (1 - ones))
    return TextFloor(
        labels=labels,
        fold=fold_of_row,
        words=scores["words"],
        characters=scores["characters"],
        majority=scores["majority"],
        chosen=MappingProxyType(kind_by_fold),
        fewer=_without_two_folds(counts, labels, fold_of_row, kind_by_fold) if fewer else None,
    )


def _without_two_folds(
    counts: dict[NGramKind, Any],
    labels: Int[np.ndarray, " example"],
    fold: Int[np.ndarray, " example"],
    kind_by_fold: dict[int, NGramKind],
) -> Float[np.ndarray, "fold example"]:
    scores = np.full((max(kind_by_fold) + 1, len(labels)), np.nan)
    for pair in combinations(kind_by_fold, 2):
        # One classifier scores both folds where they chose the same kind, since it saw neither.
        for kind in {kind_by_fold[number] for number in pair}:
            scored_folds = [number for number in pair if kind_by_fold[number] == kind]
            is_scored = np.isin(fold, scored_folds)
            score = _held_out(counts[kind], labels, ~np.isin(fold, pair), is_scored)
            for number in scored_folds:
                left_out = pair[1] if number == pair[0] else pair[0]
                scores[left_out, fold == number] = score[fold[is_scored] == number]
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
        training_labels = set(labels[fold != number].tolist())
        if len(training_labels) < 2:
            raise ValueError(
                f"Outside fold {number} there must be statements with 0 and with 1 to train on, "
                f"got {sorted(training_labels) or 'none'}. Deal the folds with "
                "`tlens_trust.concepts.folds.assign_folds`."
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
    # A column that one statement alone has is used in no fold, and most columns are such.
    counts = counts[:, np.bincount(counts.indices, minlength=counts.shape[1]) >= _LEAST_STATEMENTS]
    counts.data = 1 + np.log(counts.data)
    return counts


def _held_out(
    counts: Any,
    labels: Int[np.ndarray, " example"],
    train: Bool[np.ndarray, " example"],
    test: Bool[np.ndarray, " example"],
) -> Float[np.ndarray, " test"]:
    """Log-odds of label 1 of the test rows, by a classifier fitted on the training rows."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import normalize

    n = int(train.sum())
    # From the training rows alone, as all that is fitted.
    n_statements = np.bincount(counts[train].indices, minlength=counts.shape[1])
    columns = np.flatnonzero(n_statements >= _LEAST_STATEMENTS)
    if len(columns) > _MOST_GRAMS:
        # A stable sort, so that columns of equal spread are chosen in a fixed order.
        widest = np.argsort(-n_statements[columns], kind="stable")[:_MOST_GRAMS]
        # In their own order, since the order of the columns changes the last bits of the sums.
        columns = np.sort(columns[widest])
    if not len(columns):
        # Without features, what is left is the share of the labels.
        ones = labels[train].mean()
        return np.full(int(test.sum()), np.log(ones / (1 - ones)))
    weights = np.log((1 + n) / (1 + n_statements[columns])) + 1
    features = counts[:, columns].multiply(weights.astype(np.float32)).tocsr()
    features = normalize(features, copy=False)
    classifier = LogisticRegression(C=_C, max_iter=1000).fit(features[train], labels[train])
    score: np.ndarray = classifier.decision_function(features[test])
    return score.astype(np.float64)
