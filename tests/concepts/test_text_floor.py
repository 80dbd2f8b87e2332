import re
import subprocess
import sys

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from tlens_trust.concepts import Concept, text_floor
from tlens_trust.measures.folds import assign_folds

THINGS = ["lamp", "ladder", "barrel", "mirror", "chair", "bucket", "carpet", "kettle", "drum"]
PEOPLE = ["farmer", "baker", "driver", "singer", "plumber", "waiter", "pilot", "captain"]
DEEDS = ["took", "found", "lost", "kept", "hid", "moved"]


def sentences(n, seed=0):
    rng = np.random.default_rng(seed)
    return [
        f"The {rng.choice(PEOPLE)} {rng.choice(DEEDS)} the {rng.choice(THINGS)} of the "
        f"{rng.choice(PEOPLE)} in {rng.choice(['May', 'June', 'July'])} {i}."
        for i in range(n)
    ]


def concept(statements, labels, groups=None, **other):
    groups = [f"g{i}" for i in range(len(statements))] if groups is None else groups
    return Concept("x", "x", tuple(statements), np.array(labels), tuple(groups), **other)


@pytest.fixture(scope="module")
def noisy():
    """Statements whose words tell the label now and then."""
    said = sentences(100)
    rng = np.random.default_rng(1)
    labels = [int(("lamp" in s or "pilot" in s) != (rng.random() < 0.15)) for s in said]
    return concept(said, labels)


def test_scores_are_those_of_scikit_learns_own_pipeline_fitted_on_the_other_folds(noisy):
    fold = assign_folds(noisy.labels, noisy.groups, seed=3)
    floor = text_floor(noisy, fold=fold, seed=3)
    texts = np.array(noisy.statements, dtype=object)
    for scores, how in (
        (floor.words, {"ngram_range": (1, 2), "token_pattern": r"(?u)\b\w+\b"}),
        (floor.characters, {"analyzer": "char", "ngram_range": (1, 5), "lowercase": False}),
    ):
        for number in range(5):
            held = fold == number
            pipeline = make_pipeline(
                TfidfVectorizer(min_df=2, sublinear_tf=True, **how),
                LogisticRegression(C=10, max_iter=1000),
            ).fit(texts[~held], noisy.labels[~held])
            expected = pipeline.decision_function(texts[held])
            np.testing.assert_allclose(scores[held], expected, rtol=0.01, atol=0.01)


def test_scores_without_one_more_fold_are_those_where_its_statements_are_left_out(noisy):
    fold = assign_folds(noisy.labels, noisy.groups, seed=3)
    floor = text_floor(noisy, fold=fold, seed=3, fewer=True)
    assert floor.fewer.shape == (5, len(noisy))
    for other in range(5):
        kept = fold != other
        part = text_floor(noisy.take(kept), fold=fold[kept], seed=3)
        for number in set(range(5)) - {other}:
            expected = getattr(part, floor.chosen[number])[part.fold == number]
            found = floor.fewer[other, fold == number]
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
        assert np.isnan(floor.fewer[other, ~kept]).all()
    assert text_floor(noisy, fold=fold, seed=3).fewer is None
    with pytest.raises(ValueError, match="at least 3 folds"):
        text_floor(noisy, folds=2, fewer=True)


def test_without_folds_those_of_the_probe_are_taken(noisy):
    floor = text_floor(noisy, seed=7)
    assert (floor.fold == assign_folds(noisy.labels, noisy.groups, seed=7)).all()
    assert (floor.fold != assign_folds(noisy.labels, noisy.groups, seed=8)).any()
    assert floor.n == len(noisy)


def test_labels_of_the_held_rows_change_neither_their_scores_nor_the_choice(noisy):
    fold = assign_folds(noisy.labels, noisy.groups, seed=0)
    before = text_floor(noisy, fold=fold)
    turned = np.where(fold == 2, 1 - noisy.labels, noisy.labels)
    after = text_floor(concept(noisy.statements, turned), fold=fold)
    held = fold == 2
    for name in ("words", "characters", "majority", "score"):
        assert (getattr(before, name)[held] == getattr(after, name)[held]).all()
    assert before.chosen[2] == after.chosen[2]
    assert (before.words[~held] != after.words[~held]).all()


def test_the_text_of_one_held_row_changes_no_other_score_of_its_fold(noisy):
    fold = assign_folds(noisy.labels, noisy.groups, seed=0)
    before = text_floor(noisy, fold=fold)
    row = int(np.flatnonzero(fold == 1)[0])
    said = list(noisy.statements)
    said[row] = "Quite another statement: lamp lamp lamp zebra."
    after = text_floor(concept(said, noisy.labels), fold=fold)
    others = np.flatnonzero((fold == 1) & (np.arange(len(said)) != row))
    np.testing.assert_allclose(before.words[others], after.words[others], atol=1e-5)
    assert before.words[row] != after.words[row]


def test_a_telling_word_is_found_and_labels_drawn_at_random_are_not():
    said = sentences(200)
    telling = concept(said, [int(" took " in s or " lost " in s) for s in said])
    assert text_floor(telling).accuracy() > 0.97
    drawn = np.random.default_rng(0).integers(0, 2, len(said))
    assert 0.35 < text_floor(concept(said, drawn)).accuracy() < 0.65


def test_a_cue_in_the_case_of_letters_is_found_by_characters_and_chosen():
    said = [s.upper() if i % 2 else s for i, s in enumerate(sentences(120))]
    floor = text_floor(concept(said, [0, 1] * 60))
    assert floor.accuracy("characters") == 1
    assert set(floor.chosen.values()) == {"characters"}
    assert floor.accuracy("chosen") == floor.accuracy("characters")
    assert floor.accuracy("words") < 0.7


def test_turning_the_labels_round_turns_every_score_round(noisy):
    fold = assign_folds(noisy.labels, noisy.groups, seed=0)
    turned = text_floor(concept(noisy.statements, 1 - noisy.labels), fold=fold)
    floor = text_floor(noisy, fold=fold)
    np.testing.assert_allclose(turned.words, -floor.words, atol=0.01)
    np.testing.assert_allclose(turned.majority, -floor.majority, atol=1e-12)


def test_the_order_of_rows_does_not_matter(noisy):
    order = np.random.default_rng(5).permutation(len(noisy))
    shuffled = concept(
        [noisy.statements[i] for i in order], noisy.labels[order], [noisy.groups[i] for i in order]
    )
    there, here = text_floor(shuffled), text_floor(noisy)
    np.testing.assert_allclose(there.words, here.words[order], atol=0.01)
    assert dict(there.chosen) == dict(here.chosen)


def test_the_same_seed_gives_the_same_scores_bit_for_bit(noisy):
    assert (text_floor(noisy, seed=2).score == text_floor(noisy, seed=2).score).all()


def test_rows_below_fold_0_are_trained_on_and_never_scored(noisy):
    cut = int(0.8 * len(noisy))
    fold = np.where(np.arange(len(noisy)) < cut, -1, 0)
    floor = text_floor(noisy, fold=fold)
    assert floor.n == len(noisy) - cut
    for name in ("words", "characters", "majority", "score"):
        assert np.isnan(getattr(floor, name)[:cut]).all()
        assert np.isfinite(getattr(floor, name)[cut:]).all()
    assert floor.accuracy() > 0.6


def test_the_majority_class_is_that_of_the_training_rows():
    said = sentences(60)
    floor = text_floor(concept(said, [1] * 45 + [0] * 15))
    assert floor.accuracy("majority") == 0.75
    assert floor.accuracy("majority", balanced=True) == 0.5
    np.testing.assert_allclose(floor.majority, np.log(3))


def test_two_statements_with_the_same_pairs_of_words_get_one_score():
    form = "Now the {} we saw is old, and the {} we saw is new."
    pairs = [(form.format(a, b), form.format(b, a)) for a in PEOPLE for b in THINGS]
    said = [s for pair in pairs for s in pair]
    groups = [f"pair {i // 2}" for i in range(len(said))]
    floor = text_floor(concept(said, [0, 1] * len(pairs), groups))
    assert (floor.words[0::2] == floor.words[1::2]).all()
    assert floor.accuracy("words") == 0.5


def test_statements_without_a_word_are_scored_by_the_training_share():
    said = ["?!" * (1 + i % 3) + "." * (i % 2) for i in range(40)]
    floor = text_floor(concept(said, [0, 1] * 20, [f"g{i}" for i in range(40)]))
    np.testing.assert_allclose(floor.words, 0.0)
    assert floor.accuracy("characters") == 1


def test_it_says_its_figures_in_a_line(noisy):
    text = repr(text_floor(noisy))
    assert text.startswith("TextFloor(chosen ")
    assert "100 statements in 5 folds" in text


@pytest.mark.parametrize(
    ("fold", "message"),
    [
        ([0, 1] * 4, "one fold for each of the 10 statements"),
        ([-1] * 10, "scores no statement"),
        ([0, 1] * 5, r"Outside fold 0 there must be .* got \[1\]"),
        ([0] * 10, "got none"),
        ([0] * 10, re.escape("`tlens_trust.concepts.folds.assign_folds`")),
        ([0] * 5 + [1] * 5, "choose between words and characters"),
    ],
)
def test_folds_that_cannot_do_are_refused(fold, message):
    ten = concept(sentences(10), [0, 1] * 5, [f"g{i // 5}" for i in range(10)])
    with pytest.raises(ValueError, match="fold") as caught:
        text_floor(ten, fold=np.array(fold))
    said = " ".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    assert re.search(message, said)


def test_scores_that_a_floor_has_not_are_refused(noisy):
    with pytest.raises(ValueError, match=r"'letters'.*'chosen', 'words', 'characters'"):
        text_floor(noisy).accuracy("letters")


def test_importing_concepts_imports_neither_scikit_learn_nor_scipy_nor_pandas():
    code = (
        "import sys, tlens_trust.concepts\n"
        "print({'sklearn', 'scipy', 'pandas', 'torch', 'datasets'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
