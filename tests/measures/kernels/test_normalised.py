"""Normalised HSIC: the paper's formula, its low-rank form with a bound, and its traps."""

import numpy as np
import pytest
import torch

from tlens_trust.measures import NormalisedHSIC, linear_normalised_hsic, tracingllm_information
from tlens_trust.measures.kernels.kernel import GaussianKernel, LinearKernel
from tlens_trust.measures.kernels.low_rank import pivoted_cholesky
from tlens_trust.measures.kernels.tracingllm_dependence import (
    tracingllm_features,
    tracingllm_low_rank,
)


def representations(n=150, d=12, seed=0, noise=0.3):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    x = x * torch.arange(1, d + 1) ** -0.5
    w = torch.randn(d, d, generator=generator, dtype=torch.float64)
    return x, torch.tanh(x @ w) + noise * torch.randn(n, d, generator=generator).double()


def straightforward(x, y, sigma=50.0, epsilon=1e-5):
    """As the reference code has it, in float64: kernels centred from one side, two inverses."""
    m = len(x)
    H = torch.eye(m).double() - torch.ones(m, m).double() / m
    eye = torch.eye(m).double()
    R = []
    for values in (x.double(), y.double()):
        squared = (values[:, None] - values[None]).square().sum(2)
        K = torch.exp(-squared / (2 * sigma * sigma * values.shape[1])) @ H
        R.append(K @ torch.linalg.inv(K + epsilon * m * eye))
    return float((R[0] * R[1].T).sum())


@pytest.mark.parametrize(("n", "d"), [(150, 12), (40, 90)])
def test_the_papers_estimator_is_its_formula_to_a_millionth(n, d):
    x, t = (tracingllm_features(v) for v in representations(n, d))
    label = (torch.arange(len(x)) % 2).double().unsqueeze(1)
    for y in (x, t, label):
        exact = straightforward(x, y)
        assert tracingllm_information(x, y) == pytest.approx(exact, rel=1e-6)
    assert tracingllm_information(x, t) != pytest.approx(
        straightforward(x, t, sigma=40.0), rel=0.01
    )


def test_features_are_standardised_over_all_rows_and_cut_at_four_fifths():
    x, _ = representations(50, 3)
    x[40:] += 5
    scaled = tracingllm_features(x)
    expected = ((x - x.mean(0)) / x.std(0))[:40]
    assert torch.allclose(scaled, expected)
    assert abs(float(scaled.mean())) > 0.1
    constant = torch.cat([x, torch.full((50, 1), 0.1).double()], dim=1)
    assert torch.equal(tracingllm_features(constant)[:, 3], torch.zeros(40).double())


def test_random_labels_give_a_value_that_falls_with_the_number_of_rows():
    # .117, .029, .016, .006 at 200, 800, 1,600 and 3,200 rows on the paper's activations: a level
    # of tr(R_x) tr(R_y) / (n - 1), and no information.
    value = {}
    for n in (100, 400):
        samples = []
        for seed in range(12):
            generator = torch.Generator().manual_seed(seed)
            x = torch.randn(n, 30, generator=generator) * torch.arange(1, 31) ** -0.3
            labels = torch.randint(0, 2, (n, 1), generator=generator).double()
            samples.append(tracingllm_information(tracingllm_features(x), labels[: int(0.8 * n)]))
        value[n] = np.mean(samples)
    assert 2.5 * value[400] < value[100] < 6 * value[400]


def test_an_invertible_map_moves_the_papers_estimate_severalfold_and_no_information():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(400, 60, generator=generator, dtype=torch.float64)
    rotation, _ = torch.linalg.qr(torch.randn(60, 60, generator=generator, dtype=torch.float64))
    value = []
    for decay in (3.0, 1.0, 0.0, 1.0, 3.0):
        t = (z * torch.arange(1, 61) ** -decay) @ rotation
        value.append(tracingllm_information(tracingllm_features(z), tracingllm_features(t)))
    assert value[2] > 3 * value[0]
    assert value[1] == pytest.approx(value[3])
    assert value[0] == pytest.approx(value[4])
    assert value[0] < value[1] < value[2]


def test_rotation_shift_and_common_scale_move_no_estimate_that_does_not_standardise():
    x, t = representations()
    rotation, _ = torch.linalg.qr(
        torch.randn(12, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    )
    turned = 7.0 * (x @ rotation) + 100.0
    general = NormalisedHSIC()
    assert general(turned, t) == pytest.approx(general(x, t), rel=1e-8)
    unscaled = linear_normalised_hsic(x, t, standardise=False)
    assert linear_normalised_hsic(turned, t, standardise=False) == pytest.approx(unscaled, rel=1e-8)
    # Where each feature is brought to variance 1, their axes matter; scale and shift do not.
    assert linear_normalised_hsic(7 * x + 100, t) == pytest.approx(
        linear_normalised_hsic(x, t), rel=1e-8
    )
    assert linear_normalised_hsic(turned, t) != pytest.approx(
        linear_normalised_hsic(x, t), rel=1e-3
    )
    stretched = x * torch.linspace(1, 5, 12)
    assert general(stretched, t) != pytest.approx(general(x, t), rel=1e-3)


def test_the_linear_form_is_the_papers_estimator_but_for_its_width():
    x, t = representations(300, 20)
    exact = NormalisedHSIC(GaussianKernel(50 * 20**0.5), epsilon=1e-5)
    standard = [(v - v.mean(0)) / v.std(0, correction=0) for v in (x, t)]
    linear = linear_normalised_hsic(x, t)
    assert linear == pytest.approx(exact(*standard), rel=2e-3)
    narrow = NormalisedHSIC(GaussianKernel(2 * 20**0.5), epsilon=1e-5)
    assert abs(linear - narrow(*standard)) > 0.1
    wider = linear_normalised_hsic(x, t, ridge=0.1)
    assert wider == pytest.approx(
        NormalisedHSIC(GaussianKernel(100 * 20**0.5), epsilon=1e-5)(*standard), rel=2e-3
    )


def test_the_linear_form_is_its_formula_with_more_features_than_rows_too():
    for n, d in ((80, 10), (30, 70)):
        x, t = representations(n, d)
        R = []
        for values in (x, t):
            v = (values - values.mean(0)) / values.std(0, correction=0)
            K = v @ v.T / d
            R.append(K @ torch.linalg.inv(K + 0.025 * n * torch.eye(n).double()))
        assert linear_normalised_hsic(x, t) == pytest.approx(float((R[0] * R[1]).sum()), rel=1e-8)
        # The same with a linear kernel in the general form.
        scaled = [(v - v.mean(0)) / v.std(0, correction=0) / d**0.5 for v in (x, t)]
        general = NormalisedHSIC(LinearKernel(), epsilon=0.025)(*scaled)
        assert general == pytest.approx(linear_normalised_hsic(x, t), rel=1e-8)


@pytest.mark.parametrize("rank", [5, 20, 80, 149])
@pytest.mark.parametrize("epsilon", [1e-3, 1e-1])
def test_a_low_rank_value_lies_below_the_exact_one_and_within_its_bound(rank, epsilon):
    x, t = representations()
    estimator = NormalisedHSIC(epsilon=epsilon)
    exact, low = estimator(x, t), estimator.low_rank(x, t, rank=rank)
    assert low.value <= exact * (1 + 1e-9)
    assert exact <= low.value + low.bound
    assert low.ranks[0] <= rank


def test_the_bound_of_the_low_rank_value_shrinks_to_nothing():
    x, t = representations(n=400, d=3)
    # A smooth kernel of three features is of low rank.
    estimator = NormalisedHSIC(GaussianKernel(multiple=2.0), epsilon=1e-3)
    bounds = [estimator.low_rank(x, t, rank=rank).bound for rank in (20, 80, 320)]
    assert bounds[0] > 100 * bounds[1] > bounds[2]
    assert bounds[2] < 1e-4
    paper = tracingllm_low_rank(x, t)
    assert paper.bound < 1e-3 * paper.value
    assert paper.value == pytest.approx(tracingllm_information(x, t), abs=paper.bound + 1e-7)


def test_the_residual_is_the_trace_of_what_a_factor_leaves_out():
    x, _ = representations()
    K = GaussianKernel().fitted(x).between(x, x)
    for rank in (10, 60, 150):
        low = pivoted_cholesky(GaussianKernel(), x, rank=rank)
        residual = K - low.factor @ low.factor.T
        assert low.residual == pytest.approx(float(residual.trace()) / len(x), abs=1e-9)
        assert float(torch.linalg.eigvalsh(residual)[0]) > -1e-9
    again = pivoted_cholesky(GaussianKernel(), x, rank=60, seed=0)
    assert torch.equal(again.factor, pivoted_cholesky(GaussianKernel(), x, rank=60).factor)


def test_duplicates_end_a_factorisation_early():
    x, _ = representations(n=20)
    low = pivoted_cholesky(GaussianKernel(), torch.cat([x] * 10), rank=150)
    assert low.rank <= 20
    assert low.residual < 1e-9


def test_unrelated_representations_give_the_product_of_traces_over_the_rows_and_not_zero():
    value = []
    for seed in range(30):
        generator = torch.Generator().manual_seed(seed)
        x, y = (torch.randn(60, 4, generator=generator) for _ in range(2))
        value.append(linear_normalised_hsic(x, y))
    rho = 0.25 / (0.25 + 0.025)
    expected = (4 * rho) ** 2 / 59
    assert np.mean(value) == pytest.approx(expected, rel=0.15)


def test_a_wrong_epsilon_or_ridge_is_refused():
    x, y = representations(20, 3)
    with pytest.raises(ValueError, match="`epsilon`"):
        NormalisedHSIC(epsilon=0.0)
    with pytest.raises(ValueError, match="`ridge`"):
        linear_normalised_hsic(x, y, ridge=-1.0)
    with pytest.raises(ValueError, match="`sigma`"):
        tracingllm_information(x, y, sigma=float("inf"))
    with pytest.raises(ValueError, match="`rank`"):
        pivoted_cholesky(GaussianKernel(), x, rank=0)
