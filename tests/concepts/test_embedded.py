import re
import subprocess
import sys
from collections import defaultdict

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline

from tlens_trust.concepts import Concept
from tlens_trust.concepts.embedded.sets import embedded_concepts

DIMENSIONS = ("reliability", "privacy", "toxicity", "fairness", "robustness")
SURFACES = {"words": ("word", (1, 2)), "characters": ("char", (2, 5))}


@pytest.fixture(scope="module")
def concepts():
    return embedded_concepts()


def pairs(concept):
    """The statement of label 1 and that of label 0 of every group."""
    groups = defaultdict(dict)
    for statement, label, group in zip(
        concept.statements, concept.labels, concept.groups, strict=True
    ):
        groups[group][int(label)] = statement
    return [(sides[1], sides[0]) for sides in groups.values()]


def text_accuracies(concept, surface):
    analyzer, ngrams = SURFACES[surface]
    return [
        cross_val_score(
            make_pipeline(
                TfidfVectorizer(analyzer=analyzer, ngram_range=ngrams),
                LogisticRegression(C=c, max_iter=2000),
            ),
            list(concept.statements),
            concept.labels,
            groups=concept.groups,
            cv=StratifiedGroupKFold(5, shuffle=True, random_state=seed),
        ).mean()
        for c in (1.0, 100.0)
        for seed in (0, 1)
    ]


def test_there_is_one_set_for_each_dimension(concepts):
    assert tuple(concepts) == DIMENSIONS
    assert all(c.name == c.dimension == name for name, c in concepts.items())
    assert all(c.polarity and c.provenance["label 1"] for c in concepts.values())


@pytest.mark.parametrize("name", DIMENSIONS)
def test_a_set_is_balanced_and_large_enough(concepts, name):
    concept = concepts[name]
    assert len(concept) >= 200
    assert len(set(concept.groups)) >= 100
    assert concept.labels.mean() == 0.5
    assert len(set(concept.statements)) == len(concept)


@pytest.mark.parametrize("name", DIMENSIONS)
def test_a_group_holds_one_statement_of_each_label(concepts, name):
    concept = concepts[name]
    labels = defaultdict(list)
    for label, group in zip(concept.labels, concept.groups, strict=True):
        labels[group].append(int(label))
    assert all(sorted(of_group) == [0, 1] for of_group in labels.values())


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("name", DIMENSIONS)
def test_both_statements_of_a_group_hold_the_same_runs_of_text(concepts, name, surface):
    analyzer, ngrams = SURFACES[surface]
    counter = CountVectorizer(analyzer=analyzer, ngram_range=ngrams)
    trustworthy, untrustworthy = zip(*pairs(concepts[name]), strict=True)
    counter.fit(trustworthy + untrustworthy)
    difference = counter.transform(trustworthy) - counter.transform(untrustworthy)
    assert difference.nnz == 0 or not difference.data.any()


def test_exchanging_neighbouring_words_changes_the_runs_of_text():
    counter = CountVectorizer(ngram_range=(1, 2))
    one, other = counter.fit_transform(
        ["the sparrow is some bird", "the sparrow some is bird"]
    ).toarray()
    assert (one != other).any()


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("name", DIMENSIONS)
def test_text_alone_does_not_give_the_label_away(concepts, name, surface):
    for accuracy in text_accuracies(concepts[name], surface):
        assert 0.40 <= accuracy <= 0.60


@pytest.mark.parametrize("surface", SURFACES)
def test_a_planted_cue_gives_the_label_away(concepts, surface):
    concept = concepts["reliability"]
    planted = Concept(
        "planted",
        "reliability",
        tuple(
            f"Indeed, {statement}" if label else f"Perhaps, {statement}"
            for statement, label in zip(concept.statements, concept.labels, strict=True)
        ),
        concept.labels,
        concept.groups,
    )
    assert min(text_accuracies(planted, surface)) > 0.9


@pytest.mark.parametrize("surface", SURFACES)
def test_a_cue_that_turns_round_from_group_to_group_leaves_the_band(surface):
    # Each word is right once and wrong once, in different groups: what training rows say of it
    # is the contrary of what the held-out row does.
    words = [f"word{letter}{other}" for letter in "abcdefghij" for other in "klmnopqrst"]
    statements, labels, groups = [], [], []
    for i, word in enumerate(words):
        statements += [f"this is {word} here", f"this is {words[i - 1]} here"]
        labels += [1, 0]
        groups += [f"group {i}"] * 2
    turned = Concept("turned", "reliability", tuple(statements), np.array(labels), tuple(groups))
    assert max(text_accuracies(turned, surface)) < 0.40


@pytest.mark.parametrize("name", DIMENSIONS)
def test_statements_are_sentences(concepts, name):
    for statement in concepts[name].statements:
        assert re.fullmatch(r"[A-Z][A-Za-z',]*( [A-Za-z',]+)+\.", statement), statement


@pytest.mark.parametrize("name", ["reliability", "privacy", "fairness", "robustness"])
def test_which_of_two_things_comes_first_does_not_tell_the_label(concepts, name):
    concept = concepts[name]
    first = [
        group.split("/")[2] in statement[: len(statement) // 2]
        for statement, label, group in zip(
            concept.statements, concept.labels, concept.groups, strict=True
        )
        if label
    ]
    assert 0.3 < np.mean(first) < 0.7


def test_the_sets_are_the_same_in_every_process(concepts):
    code = (
        "from tlens_trust.concepts.embedded.sets import embedded_concepts\n"
        "for concept in embedded_concepts().values(): print(concept.fingerprint)"
    )
    for hash_seed in ("1", "2"):
        printed = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": hash_seed},
        ).stdout.split()
        assert printed == [concept.fingerprint for concept in concepts.values()]
