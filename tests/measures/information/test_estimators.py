"""Neighbours, critics and codes against what is known, and against nothing."""

from math import log

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tlens_trust.measures import InfoNCE, NearestNeighbours, OnlineCoding
from tlens_trust.measures.information.infonce import deal_groups
from tlens_trust.measures.information.neighbours import ksg, leading_components, ross


def pair(d: int, rho: float, *, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng([seed, d])
    x = generator.standard_normal((n, d))
    return x, rho * x + np.sqrt(1 - rho**2) * generator.standard_normal((n, d))


def labelled(distance: float, *, n: int, d: int = 1, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    x[:, 0] += distance * labels
    return x, labels


@pytest.mark.slow
@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("rho", [0.0, 0.3, 0.6, 0.9])
def test_neighbours_find_the_information_of_gaussians_in_one_and_two_dimensions(d, rho):
    truth = -d / 2 * np.log(1 - rho**2)
    mean = np.mean([ksg(*pair(d, rho, n=2000, seed=seed), 3) for seed in range(20)])
    assert abs(mean - truth) <= max(0.02, 0.05 * truth)


@pytest.mark.slow
def test_neighbours_are_as_far_too_low_in_many_dimensions_as_the_documentation_says():
    for d, documented in ((3, 2.279), (10, 3.049)):
        samples = [pair(d, 0.9, n=2000, seed=seed) for seed in range(8)]
        parts = [
            [leading_components(torch.from_numpy(s), d)[0] for s in sides] for sides in samples
        ]
        assert np.mean([ksg(*sides, 3) for sides in parts]) == pytest.approx(documented, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("d", "truth", "documented"), [(1, 1, 1.02), (3, 4, 3.47), (5, 2, 1.49), (20, 4, 0.84)]
)
def test_the_table_of_biases_in_the_documentation_holds(d, truth, documented):
    rho = np.sqrt(1 - np.exp(-2 * truth / d))
    samples = [pair(d, rho, n=2000, seed=seed) for seed in range(8)]
    parts = [[leading_components(torch.from_numpy(s), d)[0] for s in sides] for sides in samples]
    assert np.mean([ksg(*sides, 3) for sides in parts]) == pytest.approx(documented, rel=0.05)


def test_neighbours_find_the_information_of_gaussians_and_nothing_where_there_is_none():
    for rho in (0.0, 0.8):
        truth = -np.log(1 - rho**2) / 2
        mean = np.mean([ksg(*pair(1, rho, n=500, seed=seed), 3) for seed in range(12)])
        assert mean == pytest.approx(truth, abs=0.04)


def test_an_estimate_by_neighbours_may_be_negative():
    values = [ksg(*pair(1, 0.0, n=200, seed=seed), 3) for seed in range(12)]
    assert min(values) < 0 < max(values)


def test_ross_finds_the_information_of_two_gaussians():
    values = []
    for seed in range(12):
        x, labels = labelled(2.0, n=600, seed=seed)
        values.append(ross(x.numpy(), labels.numpy(), 3))
    assert np.mean(values) == pytest.approx(0.3368, abs=0.03)  # By quadrature.
    x, labels = labelled(0.0, n=600)
    assert ross(x.numpy(), labels.numpy(), 3) == pytest.approx(0, abs=0.08)


@pytest.mark.slow
@pytest.mark.parametrize(
    # By quadrature, .337 and .6 nats.
    ("distance", "d", "documented"),
    [(2.0, 5, 0.34), (2.0, 20, 0.28), (2.0, 50, 0.21), (3.602, 20, 0.57), (3.602, 50, 0.51)],
)
def test_the_table_of_labels_in_the_documentation_holds(distance, d, documented):
    samples = [labelled(distance, n=2000, d=d, seed=seed) for seed in range(8)]
    values = [ross(leading_components(x, d)[0], labels.numpy(), 3) for x, labels in samples]
    assert np.mean(values) == pytest.approx(documented, abs=0.015)


def test_rotation_shift_and_scale_leave_neighbours_as_they_are():
    x, y = (torch.from_numpy(side) for side in pair(3, 0.7, n=200, seed=0))
    x = x * torch.tensor([3.0, 2.0, 1.0])
    turned = torch.linalg.qr(
        torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    )[0]
    original = NearestNeighbours(components=3)(x, y, resamples=4)
    transformed = NearestNeighbours(components=3)(50 * (x @ turned) + 1, 0.1 * y, resamples=4)
    assert transformed.value == pytest.approx(original.value, abs=1e-6)
    labels = (y[:, 0] > 0).long()
    values = [
        NearestNeighbours()(features, labels, resamples=4).value
        for features in (x, 9 * x @ turned - 5)
    ]
    assert values[0] == pytest.approx(values[1], abs=1e-6)
    stretched = x * torch.tensor([1.0, 1.0, 50.0])
    assert NearestNeighbours(components=3)(stretched, y, resamples=4).value != pytest.approx(
        original.value, abs=1e-3
    )


def test_neighbours_warn_of_dimensions_components_and_equal_rows():
    x, y = (torch.from_numpy(side) for side in pair(8, 0.5, n=100, seed=0))
    warnings_of_many = NearestNeighbours(components=8)(x, y, resamples=4).warnings
    assert any("too low" in warning for warning in warnings_of_many)
    # With what was measured where there are about as many.
    assert any(
        "10 dimensions a side it found 0.64 of 1.44 nats and 3.05" in warning
        for warning in warnings_of_many
    )
    labels = (x[:, 0] > 0).long()
    wide = torch.cat([x, x.flip(0)], dim=1)
    by_label = NearestNeighbours(components=16)(wide, labels, resamples=4).warnings
    assert any("20 dimensions it found 0.28 of 0.34 nats" in warning for warning in by_label)
    assert not any(
        "found" in warning for warning in NearestNeighbours()(x, labels, resamples=4).warnings
    )
    warnings_of_one = NearestNeighbours(components=1)(x, y, resamples=4).warnings
    assert any("% of the variance" in warning for warning in warnings_of_one)
    assert not any("too low" in warning for warning in warnings_of_one)
    tied = NearestNeighbours(components=1)(x[:, :1].round(), y[:, :1], resamples=4).warnings
    assert any("equal" in warning for warning in tied)
    with pytest.raises(ValueError, match="less than half of the 100"):
        NearestNeighbours(neighbours=50)(x, y)


def test_a_critic_never_claims_more_than_the_logarithm_of_how_many_it_chose_among():
    x = torch.randn(160, 1, generator=torch.Generator().manual_seed(0))
    values = InfoNCE(folds=2, batch=16, epochs=80)(x, x)  # Infinite, in truth.
    assert 1.0 < values.value < log(16)
    assert f"{log(16):.3f}" in values.warnings[0]


def test_a_critic_finds_less_than_there_is_and_nothing_where_there_is_none():
    x, y = (torch.from_numpy(side).float() for side in pair(1, 0.9, n=400, seed=0))
    critic = InfoNCE(folds=2, batch=100, epochs=60)
    truth = -np.log(1 - 0.9**2) / 2
    values = critic(x, y)
    assert 0.4 * truth < values.value < truth + 0.1
    nothing = critic(x, y[torch.randperm(400, generator=torch.Generator().manual_seed(1))])
    assert nothing.interval[0] < 0.02
    assert nothing.value < 0.02


def test_a_critic_is_judged_on_groups_it_has_not_seen():
    groups = [str(row // 4) for row in range(200)]
    fold = deal_groups(groups, folds=5, seed=0)
    assert all(len(set(fold[start : start + 4])) == 1 for start in range(0, 200, 4))
    # What is shared by a group alone, and by no two groups, cannot be learnt.
    generator = torch.Generator().manual_seed(0)
    x_of_groups = torch.randn(50, 8, generator=generator).repeat_interleave(4, dim=0)
    y_of_groups = torch.randn(50, 8, generator=generator).repeat_interleave(4, dim=0)
    assert InfoNCE(folds=2, epochs=20)(x_of_groups, y_of_groups, groups=groups).value < 0.1


def test_a_code_is_short_where_labels_are_told_and_uniform_where_they_are_not():
    x, labels = labelled(6.0, n=200, d=3)
    warning = OnlineCoding()(x, labels)
    assert warning.uniform == pytest.approx(200 * log(2))
    assert warning.compression > 3
    assert warning.bits == pytest.approx(warning.value / log(2))
    assert warning.interval[0] < warning.value < warning.interval[1]
    noise, labels = labelled(0.0, n=200, d=3)
    untold = OnlineCoding()(noise, labels)
    assert untold.compression == pytest.approx(1, abs=0.1)
    assert (untold.value >= untold.uniform) == any(
        "uniform" in warning for warning in untold.warnings
    )


def test_a_code_pays_for_learning():
    x, labels = labelled(2.0, n=400)
    length = OnlineCoding()(x, labels).value / 400
    assert log(2) - 0.3368 < length < log(2)
    # In many dimensions it takes longer to learn as much.
    wide, labels = labelled(2.0, n=400, d=40)
    assert OnlineCoding()(wide, labels).value / 400 > length


def test_a_code_keeps_groups_together():
    # Each pair has its own direction: with the twin at hand, the label would be known.
    generator = torch.Generator().manual_seed(0)
    x_of_groups = torch.randn(60, 60, generator=generator).repeat_interleave(2, dim=0)
    labels = (torch.arange(60) % 2).repeat_interleave(2)
    groups = [str(row // 2) for row in range(120)]
    together = OnlineCoding()(x_of_groups, labels, groups=groups).compression
    alone = OnlineCoding()(x_of_groups, labels).compression
    assert together < 1.05
    assert alone > together + 0.1


def test_blocks_that_do_not_end_with_all_statements_are_refused():
    with pytest.raises(ValueError, match="ascend"):
        OnlineCoding(fractions=(0.5, 0.9))
    with pytest.raises(ValueError, match="at least 8 groups"):
        OnlineCoding()(torch.zeros(6, 1), torch.arange(6) % 2)


def test_groups_too_unequal_for_an_interval_are_told():
    x = torch.randn(63, 1, generator=torch.Generator().manual_seed(0))
    groups = ["large"] * 60 + ["a", "b", "c"]
    with pytest.raises(ValueError, match="groups are very unequal"):
        NearestNeighbours()(x, 2 * x, groups=groups)
    assert NearestNeighbours()(x, x + 1).value > 0


def near_twins(*, groups: int, width: int) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Two rows a group, one of each label, which hardly differ; the groups differ much."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(groups, 1, width, generator=generator)
    x = x + 1e-4 * torch.randn(groups, 2, width, generator=generator)
    labels = torch.arange(2 * groups) % 2
    return x.flatten(0, 1), labels, [str(row // 2) for row in range(2 * groups)]


def test_near_twins_are_sent_as_scikit_learn_would_send_them():
    """The first blocks' means and scales are far from those of all rows."""
    x, labels, groups = near_twins(groups=40, width=32)
    coding = OnlineCoding(fractions=(0.025, 0.1, 0.5, 1.0), C=(0.1,), orders=1)
    place = np.empty(40, dtype=np.int64)
    names = np.unique(groups)
    place[np.random.default_rng([0, 3]).permutation(40)] = np.arange(40)
    place = place[np.searchsorted(names, groups)]
    expected = np.full(80, np.log(2))
    for start, stop in ((1, 4), (4, 20), (20, 40)):
        sent, block = place < start, (place >= start) & (place < stop)
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, tol=1e-10))
        probe.fit(x.double().numpy()[sent], labels.numpy()[sent])
        log_odds = probe.decision_function(x.double().numpy()[block])
        expected[block] = np.logaddexp(0, np.where(labels.numpy()[block] == 1, -1, 1) * log_odds)
    lengths = coding.lengths(x.unsqueeze(1), labels, groups)[:, 0]
    np.testing.assert_allclose(lengths, expected, rtol=0.02, atol=0.02)


def test_near_twins_have_a_code_length_at_every_penalty():
    x, labels, groups = near_twins(groups=60, width=64)
    assert np.isfinite(OnlineCoding()(x, labels, groups=groups).value)
