import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlens_trust.concepts.grouping import group_near_duplicates, join_groups

WORDS = st.sampled_from(["ash", "birch", "cedar", "elm", "fir", "oak", "pine", "yew"])
TEXTS = st.lists(st.lists(WORDS, min_size=1, max_size=5).map(" ".join), min_size=1, max_size=8)


def together(first):
    """Which pairs share a group."""
    first = np.asarray(first)
    return first[:, None] == first[None, :]


def jaccard(a, b):
    return len(set(a.split()) & set(b.split())) / len(set(a.split()) | set(b.split()))


@settings(deadline=None)  # the first example imports scipy
@given(TEXTS)
def test_statements_as_alike_as_asked_for_are_together(texts):
    pairs = together(group_near_duplicates(texts, similarity=0.6))
    for i, a in enumerate(texts):
        for j, b in enumerate(texts):
            if jaccard(a, b) >= 0.6:
                assert pairs[i, j]


@settings(deadline=None)  # the first example imports scipy
@given(TEXTS)
def test_a_group_hangs_together_by_links_and_holds_nothing_else(texts):
    first = group_near_duplicates(texts, similarity=0.6)
    for i, text in enumerate(texts):
        others = [b for j, b in enumerate(texts) if j != i and first[j] == first[i]]
        assert not others or max(jaccard(text, other) for other in others) >= 0.6


@settings(deadline=None)
@given(TEXTS, st.randoms())
def test_the_order_of_statements_and_of_their_words_does_not_matter(texts, random):
    order = list(range(len(texts)))
    random.shuffle(order)
    shuffled = [" ".join(random.sample(texts[i].split(), len(texts[i].split()))) for i in order]
    there = together(group_near_duplicates(texts))
    assert (together(group_near_duplicates(shuffled)) == there[np.ix_(order, order)]).all()


def test_groups_are_named_after_their_first_statement_across_blocks():
    texts = [f"statement number{i} of{i} many{i}" for i in range(700)]
    texts[650] = texts[3]
    first = group_near_duplicates(texts)
    assert first[650] == 3
    assert np.delete(first, 650).tolist() == [i for i in range(700) if i != 650]


def test_statements_without_a_word_are_together_only_if_identical():
    assert group_near_duplicates(["?!", "...", "?!"]).tolist() == [0, 1, 0]


@pytest.mark.parametrize("similarity", [0.0, -1.0, 1.5])
def test_a_similarity_that_is_no_share_is_refused(similarity):
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        group_near_duplicates(["a"], similarity=similarity)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=8))
def test_joined_groups_keep_together_what_either_keeps_together(rows):
    one, other = zip(*rows, strict=True)
    joined = together(join_groups(one, other))
    assert joined[together(one)].all()
    assert joined[together(other)].all()
    assert (together(join_groups(one)) == together(one)).all()
