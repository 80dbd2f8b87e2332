"""HSIC and CKA against their formulas, and what must not move them."""

import math

import numpy as np
import pytest
import torch

from tlens_trust.measures import CKA, HSIC
from tlens_trust.measures.kernels.hsic import centre, hsic_biased, hsic_unbiased
from tlens_trust.measures.kernels.kernel import (
    DeltaKernel,
    GaussianKernel,
    LinearKernel,
    label_column,
    median_distance,
)


def dependent(n=60, d=3, seed=0, noise=0.5):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    y = x.square() @ torch.ones(d, 2).double()
    return x, y + noise * torch.randn(n, 2, generator=generator, dtype=torch.float64)


def gaussian_matrix(x, multiple=1.0):
    n = len(x)
    distances = torch.stack([torch.stack([(a - b).norm() for b in x]) for a in x])
    median = np.sort(distances.numpy()[np.triu_indices(n, 1)])[(n * (n - 1) // 2 - 1) // 2]
    return torch.exp(-distances.square() / (2 * (multiple * median) ** 2))


def straightforward_biased(K, L):
    n = len(K)
    H = torch.eye(n).double() - 1 / n
    return float(torch.trace(K @ H @ L @ H)) / (n - 1) ** 2


def straightforward_unbiased(K, L):
    n = len(K)
    K, L = K - torch.diag(K.diag()), L - torch.diag(L.diag())
    one = torch.ones(n, dtype=torch.float64)
    return float(
        torch.trace(K @ L)
        + (one @ K @ one) * (one @ L @ one) / ((n - 1) * (n - 2))
        - 2 / (n - 2) * (one @ K @ L @ one)
    ) / (n * (n - 3))


@pytest.mark.parametrize("block", [7, 60, 2048])
def test_hsic_is_its_formula_whatever_the_block(block):
    x, y = dependent()
    K, L = gaussian_matrix(x), gaussian_matrix(y, 1.0)
    biased = HSIC(estimator="biased", block=block)(x, y)
    assert biased == pytest.approx(straightforward_biased(K, L), rel=1e-10)
    assert HSIC(block=block)(x, y) == pytest.approx(straightforward_unbiased(K, L), rel=1e-9)


def test_unbiased_hsic_is_the_mean_over_all_quadruples():
    x, y = dependent(n=9)
    K, L = gaussian_matrix(x), gaussian_matrix(y)
    total, count = 0.0, 0
    for i in range(9):
        for j in range(9):
            for q in range(9):
                for r in range(9):
                    if len({i, j, q, r}) == 4:
                        total += float(K[i, j] * (L[i, j] + L[q, r] - 2 * L[i, q]))
                        count += 1
    assert hsic_unbiased(x, y) == pytest.approx(total / count, rel=1e-9)


def test_linear_hsic_of_centred_data_is_the_squared_cross_covariance():
    x, y = dependent()
    covariance = (x - x.mean(0)).T @ (y - y.mean(0)) / (len(x) - 1)
    value = HSIC(LinearKernel(), estimator="biased")(x, y)
    assert value == pytest.approx(float(covariance.square().sum()), rel=1e-10)
    # A mean of a million costs digits in the data alone.
    shifted = HSIC(LinearKernel(), estimator="biased")(x + 1e6, y - 1e6)
    assert shifted == pytest.approx(value, rel=1e-8)


def test_linear_cka_is_that_of_kornblith_and_debiased_that_of_murphy():
    x, y = dependent()
    a, b = x - x.mean(0), y - y.mean(0)
    norms = float((a.T @ a).norm() * (b.T @ b).norm())
    cka = CKA(LinearKernel(), debiased=False)(x, y)
    assert cka == pytest.approx(float((a.T @ b).square().sum()) / norms, rel=1e-10)
    K, L = centre(a @ a.T), centre(b @ b.T)
    ratio = float((K * L).sum() / (K.square().sum() * L.square().sum()).sqrt())
    assert CKA(LinearKernel())(x, y) == pytest.approx(ratio, rel=1e-10)


@pytest.mark.parametrize(
    "estimate",
    [HSIC(), HSIC(estimator="biased"), CKA(), CKA(LinearKernel()), CKA(debiased=False)],
    ids=lambda e: e.name,
)
def test_rotation_shift_and_common_scale_move_nothing(estimate):
    x, y = dependent()
    rotation, _ = torch.linalg.qr(
        torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    )
    turned = 7.0 * (x @ rotation) + 100.0
    assert estimate(turned, y) == pytest.approx(estimate(x, y), rel=1e-8)
    # The law is about rotations: a stretch is none.
    stretched = x * torch.tensor([10.0, 1.0, 0.1])
    assert abs(estimate(stretched, y) - estimate(x, y)) > 1e-3 * abs(estimate(x, y))
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(2))
    assert estimate(x[order], y[order]) == pytest.approx(estimate(x, y), rel=1e-9)


def test_a_fixed_width_sees_a_common_scale_which_the_median_does_not():
    x, y = dependent()
    fixed = HSIC(GaussianKernel(2.0))
    assert fixed(3 * x, y) != pytest.approx(fixed(x, y), rel=1e-2)
    assert GaussianKernel(multiple=2.0).fitted(x).width == pytest.approx(2 * median_distance(x))


def test_biased_cka_of_unrelated_representations_rises_with_width_and_debiased_cka_does_not():
    generator = torch.Generator().manual_seed(0)
    biased, debiased = [], []
    for d in (2, 200):
        x, y = (torch.randn(100, d, generator=generator) for _ in range(2))
        biased.append(CKA(LinearKernel(), debiased=False)(x, y))
        debiased.append(CKA(LinearKernel())(x, y))
    assert biased[0] < 0.1 < 0.5 < biased[1]
    assert max(map(abs, debiased)) < 0.05


def test_unbiased_hsic_of_unrelated_representations_is_zero_on_average_and_biased_is_not():
    unbiased, biased = [], []
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        x, y = (torch.randn(20, 2, generator=generator) for _ in range(2))
        kernel = GaussianKernel(1.0)
        unbiased.append(HSIC(kernel)(x, y))
        biased.append(HSIC(kernel, estimator="biased")(x, y))
    error = np.std(unbiased) / math.sqrt(len(unbiased))
    assert abs(np.mean(unbiased)) < 3 * error
    assert np.mean(biased) > 10 * error


def test_the_delta_kernel_compares_labels():
    labels = label_column(np.array([0, 1, 1, 0]))
    expected = [[1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 1, 0], [1, 0, 0, 1]]
    assert DeltaKernel().between(labels, labels).tolist() == expected
    x, _ = dependent()
    label = (x[:, :1] > 0).double()
    K, L = gaussian_matrix(x), (label == label.T).double()
    value = HSIC(other_kernel=DeltaKernel())(x, label)
    assert value == pytest.approx(straightforward_unbiased(K, L), rel=1e-9)
    assert HSIC(other_kernel=DeltaKernel())(x, 1 - label) == pytest.approx(value, rel=1e-12)


def test_float32_few_rows_duplicates_and_constant_features_are_no_obstacle():
    x, y = dependent(n=12, d=40)
    # As it was given: the number is that of the rounded data, not of rounded sums.
    assert hsic_unbiased(x.float(), y.float()) == pytest.approx(
        hsic_unbiased(x.float().double(), y.float().double()), rel=1e-12
    )
    with_constant = torch.cat([x, torch.full((12, 5), 3.0).double()], dim=1)
    assert CKA()(with_constant, y) == pytest.approx(CKA()(x, y), rel=1e-10)
    twice = torch.cat([x] * 3)
    assert math.isfinite(hsic_biased(twice, torch.cat([y] * 3)))
    mostly = torch.cat([x[:1]] * 30 + [x])
    assert median_distance(mostly) > 0


def test_what_no_dependence_can_be_estimated_of_is_refused_or_unknown():
    x, y = dependent()
    with pytest.raises(ValueError, match="at least 4"):
        HSIC()(x[:3], y[:3])
    with pytest.raises(ValueError, match="`y` holds a NaN"):
        CKA()(x, y.log())
    assert math.isnan(CKA()(x, torch.ones(60, 1)))
    with pytest.raises(ValueError, match="All examples are the same"):
        HSIC()(torch.ones(60, 2), y)
    with pytest.raises(ValueError, match="positive"):
        GaussianKernel(-1.0)


@pytest.mark.slow  # Importing it compiles for half a minute.
@pytest.mark.filterwarnings("ignore")
def test_hyppo_agrees():
    independence = pytest.importorskip("hyppo.independence")
    x, y = dependent()
    width = median_distance(x)
    ours = HSIC(GaussianKernel(width), GaussianKernel(median_distance(y)))
    gammas = [1 / (2 * w**2) for w in (width, median_distance(y))]
    from sklearn.metrics.pairwise import rbf_kernel

    K, L = (rbf_kernel(v.numpy(), gamma=g) for v, g in zip((x, y), gammas, strict=True))
    # Theirs is the correlation: HSIC by its geometric mean, its root where biased.
    biased = independence.Hsic(compute_kernel=None, bias=True).statistic(K, L)
    cka = CKA(ours.kernel, ours.other_kernel, debiased=False)
    assert cka(x, y) == pytest.approx(float(biased) ** 2, rel=1e-6)
    debiased = independence.Hsic(compute_kernel=None, bias=False).statistic(K, L)
    assert CKA(ours.kernel, ours.other_kernel)(x, y) == pytest.approx(float(debiased), rel=1e-6)
