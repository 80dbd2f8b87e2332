"""Permutations of representations and labels: what may change places, and what comes of it."""

from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import binom

from tlens_trust.measures.kernels.hsic import centre
from tlens_trust.measures.kernels.kernel import GaussianKernel
from tlens_trust.measures.kernels.permutation_test import permutation_test, permutation_test_labels
from tlens_trust.measures.kernels.precomputed_kernels import SignUnits
from tlens_trust.measures.kernels.rotations import Rotations, exchange_rows

GROUPINGS = {
    "singles": [str(i) for i in range(41)],
    "pairs": [str(i // 2) for i in range(40)],
    "sizes": [str(int(i**0.8)) for i in range(45)],
    "one large": ["all"] * 12 + [str(i) for i in range(20)],
}


def kernels(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rejections = []
    for d in (3, 1):
        x = torch.randn(n, d, generator=generator, dtype=torch.float64)
        rejections.append(centre(GaussianKernel(1.0).between(x, x)))
    return rejections


@pytest.mark.parametrize("groups", GROUPINGS.values(), ids=GROUPINGS)
def test_sums_for_all_rotations_are_those_of_each_permutation(groups):
    K, L = kernels(len(groups))
    rotations = Rotations.draw(groups, permutations=60, seed=1)
    sums = rotations.sums(rotations.transform(K), rotations.transform(L))
    for draw in range(len(sums)):
        order = torch.from_numpy(rotations.permutation(draw))
        assert sums[draw] == pytest.approx(float((K * L[order][:, order]).sum()), abs=1e-10)
    assert sums[0] == pytest.approx(float((K * L).sum()))
    assert np.ptp(sums) > 1e-3
    order = torch.from_numpy(rotations.order)
    seated = rotations.transform(K[order][:, order], seated=True)
    assert all(torch.equal(a, b) for a, b in zip(seated, rotations.transform(K), strict=True))


@pytest.mark.parametrize("scheme", ["rotations", "random"])
@pytest.mark.parametrize("groups", GROUPINGS.values(), ids=GROUPINGS)
def test_whole_groups_change_places_with_groups_of_their_size(groups, scheme):
    if scheme == "rotations":
        rotations = Rotations.draw(groups, permutations=20, seed=0)
        orders = [rotations.permutation(d) for d in range(1, len(rotations.shifts))]
    else:
        orders = list(exchange_rows(groups, permutations=20, seed=0))
    size = Counter(groups)
    for order in orders:
        assert sorted(order.tolist()) == list(range(len(groups)))
        came = {}
        for row, source in enumerate(order):
            came.setdefault(groups[row], set()).add(groups[source])
        assert all(len(sources) == 1 for sources in came.values())
        assert all(size[g] == size[next(iter(s))] for g, s in came.items())
    assert any((order != np.arange(len(groups))).mean() > 0.5 for order in orders)


def test_rotations_are_a_group_so_that_a_test_by_them_is_exact():
    rotations = Rotations.draw(GROUPINGS["pairs"], permutations=1000, seed=3)
    orders = {tuple(rotations.permutation(d).tolist()) for d in range(len(rotations.shifts))}
    assert len(orders) == 20
    for one in orders:
        for second in orders:
            assert tuple(np.array(one)[list(second)].tolist()) in orders


def test_the_same_seed_seats_groups_alike():
    one, is_equal, second = (
        Rotations.draw(GROUPINGS["sizes"], permutations=9, seed=s) for s in (0, 0, 1)
    )
    assert np.array_equal(one.order, is_equal.order)
    assert not np.array_equal(one.order, second.order)
    with pytest.raises(ValueError, match="can change places"):
        Rotations.draw(["a"], permutations=9, seed=0)
    with pytest.raises(ValueError, match="`permutations`"):
        Rotations.draw(["a", "b"], permutations=0, seed=0)


def test_quadratic_forms_in_signs_that_go_together_are_those_in_all_of_them():
    K, _ = kernels(40)
    generator = np.random.default_rng(0)
    pairs = generator.choice([-1.0, 1.0], size=(20, 50))
    # The two rows of a pair differ in sign, three further rows always agree.
    signs = np.concatenate([pairs[:10], -pairs[:10], pairs[10:], pairs[:1], pairs[:1]])
    n = len(signs)
    vectors = torch.from_numpy(signs).float()
    matrix = K[:n, :n].float()
    units = SignUnits.of(vectors)
    assert len(units.signs) == 20 < n
    expected = torch.einsum("nd,nm,md->d", vectors.double(), matrix.double(), vectors.double())
    assert np.allclose(units.quadratic_forms(matrix), expected.numpy(), rtol=1e-4, atol=1e-4)
    free = SignUnits.of(torch.from_numpy(generator.choice([-1.0, 1.0], size=(n, 50))).float())
    assert len(free.signs) == n


def test_label_permutations_give_the_hsic_of_the_permuted_labels():
    x = torch.randn(30, 2, generator=torch.Generator().manual_seed(0))
    labels = np.arange(30) % 2
    test = permutation_test_labels(x, labels, permutations=500, seed=0)
    K = centre(GaussianKernel().fitted(x).between(x, x))
    delta = torch.from_numpy((labels[:, None] == labels).astype(float))
    assert test.value == pytest.approx(float((K * centre(delta)).sum()) / (30 * 27), rel=1e-9)
    assert test.permutations == 500
    assert abs(test.null.mean()) < 5 * test.null.std() / 500**0.5
    assert test.band[0] < 0 < test.band[1]


@pytest.mark.parametrize("scheme", ["rotations", "random"])
def test_dependence_is_found_and_then_gone_when_one_representation_is_shuffled(scheme):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 2, generator=generator)
    y = x.square() + 0.2 * torch.randn(200, 2, generator=generator)
    test = permutation_test(x, y, scheme=scheme, permutations=199)
    assert test.p == pytest.approx(1 / 200)
    assert test.value > 3 * test.band[1]
    shuffled = y[torch.randperm(200, generator=generator)]
    assert permutation_test(x, shuffled, scheme=scheme, permutations=199).p > 0.05


def _rejections(scheme, level, runs, grouped):
    rejected = 0
    for seed in range(runs):
        generator = torch.Generator().manual_seed(seed)
        if grouped:
            # Rows of a group are all but copies in both representations, which are unrelated.
            x, y = (
                torch.randn(15, 2, generator=generator).repeat_interleave(3, 0)
                + 0.05 * torch.randn(45, 2, generator=generator)
                for _ in range(2)
            )
            groups = [str(i // 3) for i in range(45)]
        else:
            x, y = (torch.randn(40, 2, generator=generator) for _ in range(2))
            groups = None
        if scheme == "labels":
            labels = (y[:, 0] > 0).int().numpy()
            if grouped:
                labels = np.repeat(labels[::3], 3)
            test = permutation_test_labels(x, labels, groups=groups, permutations=99, seed=seed)
        else:
            test = permutation_test(x, y, groups=groups, scheme=scheme, permutations=99, seed=seed)
        rejected += test.p <= level
    return rejected


@pytest.mark.parametrize("grouped", [False, True], ids=["singles", "groups"])
@pytest.mark.parametrize("scheme", ["rotations", "random", "labels"])
def test_false_positives_come_at_the_nominal_rate(scheme, grouped):
    runs, level = 200, 0.1
    rejected = _rejections(scheme, level, runs, grouped)
    assert rejected <= binom.ppf(0.999, runs, level)
    # 15 groups have 14 rotations beside none: p is never below 1/15, and exact still.
    assert rejected >= binom.ppf(0.001, runs, 0.06)


def test_permuting_rows_alone_where_they_come_in_groups_finds_what_is_not_there():
    rejections = 0
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        x, y = (
            torch.randn(15, 2, generator=generator).repeat_interleave(3, 0)
            + 0.05 * torch.randn(45, 2, generator=generator)
            for _ in range(2)
        )
        rejections += permutation_test(x, y, scheme="random", permutations=99, seed=seed).p <= 0.1
    assert rejections > binom.ppf(0.999, 40, 0.1)
