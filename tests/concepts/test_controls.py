from collections import Counter

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer

from tlens_trust.concepts import load_concepts
from tlens_trust.concepts.controls.controls import CONTROLS
from tlens_trust.concepts.controls.words import AGENTS, VERBS, WEATHER

MATCHED = ["tense", "number", "topic"]
PLAIN = ["tense_plain", "number_plain", "topic_plain"]


@pytest.fixture(scope="module")
def controls():
    return load_concepts("controls")


def pairs(concept):
    """Statements that exchange what differs, the one with label 1 first: neighbours in a group."""
    couples = zip(concept.statements[::2], concept.statements[1::2], strict=True)
    return [
        couple if label else couple[::-1]
        for couple, label in zip(couples, concept.labels[::2].tolist(), strict=True)
    ]


def counts(statements, **how):
    return CountVectorizer(**how).fit_transform(statements).toarray()


def test_controls_is_a_name_for_all_six_and_each_has_its_own(controls):
    assert list(controls) == [*MATCHED, *PLAIN] == list(CONTROLS)
    assert load_concepts("tense") == {"tense": controls["tense"]}
    assert list(load_concepts(["toxicity", "controls"])) == ["toxicity", *CONTROLS]
    assert not set(CONTROLS) & set(load_concepts())


def test_a_control_is_read_from_no_file_and_no_hub():
    with pytest.raises(ValueError, match="'tense' is embedded"):
        load_concepts("tense", path="somewhere")
    with pytest.raises(ValueError, match="no meaning for embedded"):
        load_concepts("controls", revision="main")
    with pytest.raises(ValueError, match="Did you mean 'tense'"):
        load_concepts("tens")


@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_has_200_statements_in_100_balanced_groups_and_no_polarity(controls, name):
    concept = controls[name]
    assert len(concept) >= 200
    assert len(set(concept.groups)) >= 100
    assert len(set(concept.statements)) == len(concept)
    held = Counter(zip(concept.groups, concept.labels.tolist(), strict=True))
    assert set(held.values()) == {2 if name in MATCHED else 1}
    assert len(held) == 2 * len(set(concept.groups))
    assert concept.groups[::2] == concept.groups[1::2]
    assert (concept.labels[::2] != concept.labels[1::2]).all()
    assert not concept.polarity
    assert concept.dimension == "control"
    assert not [s for s in concept.statements if "{" in s or not s[0].isupper() or s[-1] != "."]


@pytest.mark.parametrize("name", MATCHED)
def test_the_two_of_a_matched_pair_hold_the_same_words_and_runs_of_characters(controls, name):
    ones, zeros = zip(*pairs(controls[name]), strict=True)
    for how in (
        {"ngram_range": (1, 2), "token_pattern": r"\w+"},
        {"analyzer": "char", "ngram_range": (1, 5), "lowercase": False},
    ):
        both = counts([*ones, *zeros], **how)
        assert (both[: len(ones)] == both[len(ones) :]).all()
    # They are told apart by longer runs, that is by their order.
    longer = {"analyzer": "char", "ngram_range": (20, 20)}
    both = counts([*ones, *zeros], **longer)
    assert (both[: len(ones)] != both[len(ones) :]).any(axis=1).all()


@pytest.mark.parametrize("name", PLAIN)
def test_the_two_of_a_plain_group_differ_in_one_word_only(controls, name):
    for one, zero in pairs(controls[name]):
        words = list(zip(one.split(), zero.split(), strict=True))
        assert sum(a != b for a, b in words) == 1


@pytest.mark.parametrize(
    ("name", "marked"),
    [
        ("tense", {past for past, _ in VERBS}),
        ("number", {f"{agent}s" for agent in AGENTS}),
        ("topic", set(WEATHER)),
    ],
)
def test_which_of_the_exchanged_words_comes_first_does_not_tell_the_label(controls, name, marked):
    concept = controls[name]
    clauses = [statement.split(",") for statement in concept.statements]
    assert all(len(parts) == 2 for parts in clauses)
    in_first = np.array([bool(marked & set(first.split())) for first, _ in clauses])
    in_second = np.array([bool(marked & set(last.strip(".").split())) for _, last in clauses])
    assert (in_first != in_second).all()
    told = in_first == (concept.labels == 1)
    # Within every group, so that it does not in any part of them either.
    for group in set(concept.groups):
        assert told[np.array(concept.groups) == group].mean() == 0.5


def test_matched_controls_leave_nothing_to_lint_and_plain_ones_their_text_floor(controls):
    for name in MATCHED:
        report = controls[name].lint()
        assert report.findings == ()
        assert report.floor.accuracy("words") == 0.5
        assert report.floor.accuracy("characters") == 0.5
    for name in PLAIN:
        report = controls[name].lint()
        assert "text-floor" in report.rules
        assert report.floor.accuracy() > 0.9
        assert "duplicates" not in report.rules


def test_matched_controls_are_as_long_as_the_embedded_sets(controls):
    def words(concept):
        return np.mean([len(statement.split()) for statement in concept.statements])

    embedded = [words(concept) for concept in load_concepts().values()]
    for name in MATCHED:
        assert min(embedded) - 2 < words(controls[name]) < max(embedded) + 2


def test_loading_twice_gives_the_same_concepts_in_a_dictionary_of_ones_own(controls):
    again = load_concepts("controls")
    assert again == controls
    assert [c.fingerprint for c in again.values()] == [c.fingerprint for c in controls.values()]
    again.pop("tense")
    assert "tense" in load_concepts("controls")
