import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tlens_trust.concepts.benchmarks.sst2 import flip_case

LONG = (
    "one hour photo is an intriguing snapshot of one man and his delusions ; it 's just too bad ."
)
SENTENCES = st.text(st.characters(max_codepoint=0x17F), min_size=1, max_size=300)


@settings(deadline=None)
@given(SENTENCES, st.integers(0, 5))
def test_only_the_case_changes_and_it_always_does(sentence, seed):
    cased = [c for c in sentence if len(c.swapcase()) == 1 and c.swapcase().swapcase() == c]
    assume(any(c.swapcase() != c for c in cased))
    flipped = flip_case(sentence, seed=seed)
    assert flipped != sentence
    assert flipped.casefold() == sentence.casefold()
    assert len(flipped) == len(sentence)


@settings(deadline=None)
@given(st.text("abcdefgh .", min_size=20, max_size=300), st.integers(0, 5))
def test_as_few_letters_are_flipped_as_in_the_papers_file(sentence, seed):
    assume(sentence[0] != " " and sentence[0] != ".")
    flipped = flip_case(sentence, seed=seed)
    flips = sum(a != b for a, b in zip(sentence, flipped, strict=True))
    assert 1 <= flips <= max(len(sentence) // 20 - 1, 0) + 1


def test_the_seed_decides_and_nothing_else_does():
    assert flip_case(LONG, seed=1) == flip_case(LONG, seed=1)
    assert len({flip_case(LONG, seed=seed) for seed in range(10)}) > 5


def test_a_sentence_without_letters_is_refused():
    with pytest.raises(ValueError, match="has a case to flip"):
        flip_case("1 2 3 .", seed=0)


def test_the_papers_own_flips_follow_the_same_rule(paper_folder):
    from tlens_trust.concepts import load_concepts

    concept = load_concepts("sst2", path=paper_folder)["sst2"]
    twins = {}
    for text, label, group in zip(
        concept.statements, concept.labels.tolist(), concept.groups, strict=True
    ):
        twins.setdefault(group, {})[label] = text
    for pair in twins.values():
        capitalised = pair[1][0].upper() + pair[1][1:]
        flips = sum(a != b for a, b in zip(capitalised, pair[0], strict=True))
        assert flips <= max(len(pair[1]) // 20 - 1, 0)
