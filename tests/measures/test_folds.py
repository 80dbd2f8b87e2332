import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlens_trust.measures.folds import assign_folds


def twins(count: int) -> tuple[np.ndarray, list[str]]:
    return np.tile([0, 1], count), [f"pair {index // 2}" for index in range(2 * count)]


def test_a_group_is_never_divided():
    labels, groups = twins(53)
    fold = assign_folds(labels, groups, seed=3)
    for group in set(groups):
        rows = [row for row, name in enumerate(groups) if name == group]
        assert len(set(fold[rows])) == 1


def test_folds_do_not_depend_on_the_order_of_rows():
    generator = np.random.default_rng(0)
    labels = generator.integers(2, size=300)
    groups = [f"g{number}" for number in generator.integers(70, size=300)]
    order = generator.permutation(300)
    straight = assign_folds(labels, groups, seed=0)
    shuffled = assign_folds(labels[order], [groups[row] for row in order], seed=0)
    assert (straight[order] == shuffled).all()


def test_another_seed_deals_other_folds_and_the_same_seed_the_same():
    labels, groups = twins(60)
    first = assign_folds(labels, groups, seed=1)
    assert (first == assign_folds(labels, groups, seed=1)).all()
    assert (first != assign_folds(labels, groups, seed=2)).any()


def test_pairs_are_dealt_evenly():
    labels, groups = twins(61)
    fold = assign_folds(labels, groups, seed=0)
    rows = np.bincount(fold)
    assert rows.max() - rows.min() <= 2
    assert (np.bincount(fold, weights=labels) * 2 == rows).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6))
def test_uneven_groups_still_fill_every_fold_with_a_like_share_of_each_label(seed: int):
    generator = np.random.default_rng(seed)
    sizes = generator.integers(1, 8, size=120)
    groups = [f"g{group}" for group, size in enumerate(sizes) for _ in range(size)]
    labels = (generator.random(len(groups)) < 0.3).astype(int)
    fold = assign_folds(labels, groups, seed=seed)
    for label in (0, 1):
        share = np.bincount(fold[labels == label], minlength=5) / (labels == label).sum()
        assert abs(share - 0.2).max() < 0.03


def test_fewer_groups_than_folds_is_an_error_that_says_how_many_fit():
    labels, groups = twins(4)
    with pytest.raises(ValueError, match=r"4 groups .* 5 folds.*at most 4"):
        assign_folds(labels, groups, seed=0)


def test_a_label_held_by_too_few_groups_is_an_error():
    labels = np.array([1] * 3 + [0] * 20)
    groups = ["ones"] * 3 + [f"g{row}" for row in range(20)]
    with pytest.raises(ValueError, match=r"no statement with label 1.* 1 of 21 groups"):
        assign_folds(labels, groups, seed=0)


def test_groups_of_another_length_are_an_error():
    with pytest.raises(ValueError, match=r"each of the 4 labels, got 3"):
        assign_folds(np.array([0, 1, 0, 1]), ["a", "b", "c"], folds=2, seed=0)
