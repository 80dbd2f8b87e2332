"""The solver's optimum is scikit-learn's, and its certificate can be believed."""

import numpy as np
import pytest
import torch
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from tlens_trust.measures.preconditioner import Hessians
from tlens_trust.measures.solver import solve_logistic

GRID = [0.01, 0.1, 1.0, 10.0, 100.0]


def residual_stream(
    rows: int, width: int, *, seed: int, signal: float = 0.3
) -> tuple[Tensor, Tensor]:
    """Activations with a heavy-tailed spectrum, a mean far from zero, and noisy labels."""
    generator = torch.Generator().manual_seed(seed)
    spectrum = torch.arange(1, width + 1) ** -0.8
    mixing = torch.linalg.qr(torch.randn(width, width, generator=generator)).Q
    latent = torch.randn(rows, width, generator=generator)
    noise = torch.randn(rows, generator=generator)
    labels = (signal * latent[:, : min(width, 20)].sum(1) + noise > 0).long()
    scales = torch.exp(torch.randn(width, generator=generator))
    return (latent * spectrum) @ mixing * scales + 5 * scales, labels


def leave_out(rows: int, folds: int) -> Tensor:
    return torch.stack([torch.arange(rows) % folds != fold for fold in range(folds)])


def objective(scaled: np.ndarray, labels: np.ndarray, C: float, w: np.ndarray, b: float) -> float:
    margins = (2 * labels - 1) * (scaled @ w + b)
    return 0.5 * w @ w + C * np.logaddexp(0, -margins).sum()


def scikit_learn_objective(values: np.ndarray, labels: np.ndarray, C: float) -> float:
    scaled = StandardScaler().fit_transform(values.astype(np.float64))
    fit = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-10, max_iter=1000)
    fit.fit(scaled, labels)
    return objective(scaled, labels, C, fit.coef_[0], fit.intercept_[0])


@pytest.mark.parametrize(
    ("rows", "width", "signal"),
    [
        pytest.param(400, 30, 0.3, id="noisy"),
        pytest.param(300, 100, 100.0, id="separable"),
        pytest.param(60, 150, 0.3, id="fewer rows than features"),
    ],
)
def test_every_fit_of_the_grid_reaches_the_optimum_of_scikit_learn(rows, width, signal):
    values, labels = residual_stream(rows, width, seed=0, signal=signal)
    train = leave_out(rows, 3)
    fits = solve_logistic(values.unsqueeze(1), labels, train=train, C=GRID)
    assert fits.converged.all()
    for fold in range(3):
        kept = values[train[fold]].numpy()
        kept_labels = labels[train[fold]].numpy()
        scaler = StandardScaler().fit(kept.astype(np.float64))
        scaled = scaler.transform(kept.astype(np.float64))
        for index, C in enumerate(GRID):
            w = fits.coef[0, fold, index].numpy()
            b = float(fits.intercept[0, fold, index])
            # Through the folded-back weights, so that the folding is tested with them.
            ours = objective(scaled, kept_labels, C, w * scaler.scale_, b + float(w @ scaler.mean_))
            best = scikit_learn_objective(kept, kept_labels, C)
            assert ours == pytest.approx(float(fits.objective[0, fold, index]), rel=1e-6)
            assert abs(ours - best) <= 1e-5 * best
            assert ours - float(fits.gap[0, fold, index]) <= best * (1 + 1e-9)


def test_rows_outside_the_training_fold_change_nothing():
    values, labels = residual_stream(120, 10, seed=1)
    train = leave_out(120, 4)[:1]
    before = solve_logistic(values.unsqueeze(1), labels, train=train, C=[1.0])
    values[~train[0]] = 1e3 * torch.randn(30, 10, generator=torch.Generator().manual_seed(2))
    labels[~train[0]] = 1 - labels[~train[0]]
    after = solve_logistic(values.unsqueeze(1), labels, train=train, C=[1.0])
    torch.testing.assert_close(after.coef, before.coef, rtol=2e-2, atol=1e-3)
    assert after.converged.all()
    values[train[0]] += torch.randn(90, 10, generator=torch.Generator().manual_seed(3))
    touched = solve_logistic(values.unsqueeze(1), labels, train=train, C=[1.0])
    assert not torch.allclose(touched.coef, before.coef, rtol=0.1)


def test_the_same_call_gives_the_same_bits():
    values, labels = residual_stream(200, 40, seed=4)
    first, second = (
        solve_logistic(values.unsqueeze(1), labels, train=leave_out(200, 5), C=GRID)
        for _ in range(2)
    )
    assert torch.equal(first.coef, second.coef)


def test_labels_can_differ_from_fold_to_fold():
    values, labels = residual_stream(120, 10, seed=12)
    swapped = torch.stack([labels, 1 - labels, labels.flip(0)])
    everything = torch.ones(3, 120, dtype=torch.bool)
    together = solve_logistic(values.unsqueeze(1), swapped, train=everything, C=GRID)
    assert together.converged.all()
    for fold in range(3):
        alone = solve_logistic(
            values.unsqueeze(1), swapped[fold], train=everything[:1], C=GRID
        ).objective[0, 0]
        torch.testing.assert_close(together.objective[0, fold], alone, rtol=2e-5, atol=0)
    torch.testing.assert_close(together.coef[:, 0], -together.coef[:, 1], rtol=2e-2, atol=1e-3)
    assert (together.objective[0, 2] > 1.05 * together.objective[0, 0]).all()


def test_sites_solved_together_are_those_solved_alone(monkeypatch):
    sites = [residual_stream(90, 12, seed=seed)[0] for seed in range(4)]
    values, (_, labels) = torch.stack(sites, dim=1), residual_stream(90, 12, seed=0)
    train = leave_out(90, 3)
    together = solve_logistic(values, labels, train=train, C=GRID)
    monkeypatch.setattr("tlens_trust.measures.solver._TOGETHER", 1)
    alone = solve_logistic(values, labels, train=train, C=GRID)
    assert together.converged.all()
    assert alone.converged.all()
    torch.testing.assert_close(together.objective, alone.objective, rtol=2e-5, atol=0)
    assert len(set(alone.passes.tolist())) > 1
    assert len(set(together.passes.tolist())) == 1


def test_a_hessian_of_its_own_takes_a_fit_to_the_same_optimum_in_half_the_passes(monkeypatch):
    values, labels = residual_stream(300, 60, seed=0, signal=100.0)
    train = leave_out(300, 3)
    alone = solve_logistic(values.unsqueeze(1), labels, train=train, C=GRID)
    monkeypatch.setattr("tlens_trust.measures.solver._NARROW", 0)
    shared = solve_logistic(values.unsqueeze(1), labels, train=train, C=GRID)
    assert alone.converged.all()
    assert shared.converged.all()
    torch.testing.assert_close(alone.objective, shared.objective, rtol=2e-5, atol=0)
    assert int(alone.passes) < 0.5 * int(shared.passes)


@pytest.mark.parametrize("at_once", [1, 2**22])
def test_the_hessian_of_a_fit_is_the_derivative_of_its_gradient(monkeypatch, at_once):
    monkeypatch.setattr("tlens_trust.measures.preconditioner._AT_ONCE", at_once)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 30, 4, generator=generator, dtype=torch.float64)
    ratio = 0.5 + torch.rand(2, 3, 4, generator=generator, dtype=torch.float64)
    cost = torch.rand(2, 3, 30, generator=generator, dtype=torch.float64)
    cost[:, 1, :10] = 0
    sign = torch.randint(2, (30,), generator=generator) * 2.0 - 1
    weights = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)

    def gradient(site: int, fit: int, at: Tensor) -> tuple[Tensor, Tensor]:
        """With the bias at its best, by bisection; and the curvature of each row."""
        z, c = features[site] * ratio[site, fit], cost[site, fit]
        low, high = torch.tensor(-50.0).double(), torch.tensor(50.0).double()
        for _ in range(80):
            middle = (low + high) / 2
            pull = c * sign * torch.sigmoid(-sign * (z @ at + middle))
            low, high = (middle, high) if pull.sum() > 0 else (low, middle)
        return at - pull @ z, c * torch.sigmoid(z @ at + low) * torch.sigmoid(-z @ at - low)

    curvature = torch.zeros_like(cost)
    expected = torch.empty(2, 3, 4, 4, dtype=torch.float64)
    for site in range(2):
        for fit in range(3):
            at = weights[site, fit]
            curvature[site, fit] = gradient(site, fit, at)[1]
            for axis in range(4):
                move = 1e-5 * torch.eye(4, dtype=torch.float64)[axis]
                ahead, behind = (gradient(site, fit, at + s * move)[0] for s in (1, -1))
                expected[site, fit, axis] = (ahead - behind) / 2e-5
    hessians = Hessians.of(features, curvature, ratio)
    identity = torch.eye(4, dtype=torch.float64).expand(2, 3, 4, 4)
    torch.testing.assert_close(hessians.inverses @ expected, identity, rtol=1e-6, atol=1e-6)
    # Rows that a fit is not trained on have no say.
    features[:, :10] += 1
    changed = Hessians.of(features, curvature, ratio)
    torch.testing.assert_close(changed.inverses[:, 1], hessians.inverses[:, 1])
    assert not torch.allclose(changed.inverses[:, 0], hessians.inverses[:, 0])


def test_too_few_passes_are_reported_and_not_hidden():
    values, labels = residual_stream(200, 40, seed=5)
    fits = solve_logistic(
        values.unsqueeze(1), labels, train=leave_out(200, 2), C=[100.0], max_passes=2
    )
    assert not fits.converged.any()
    assert (fits.gap > 1e-5 * fits.objective).all()


def test_a_list_of_strengths_per_site_and_fold_gives_the_fits_of_the_grid():
    values, labels = residual_stream(150, 12, seed=6)
    stacked = torch.stack([values, values.flip(1)], dim=1)
    train = leave_out(150, 3)
    grid = solve_logistic(stacked, labels, train=train, C=GRID)
    picks = torch.tensor([[0, 1, 2], [3, 4, 0]])
    single = solve_logistic(stacked, labels, train=train, C=torch.tensor(GRID)[picks].unsqueeze(-1))
    expected = torch.gather(grid.objective, 2, picks.unsqueeze(-1))
    torch.testing.assert_close(single.objective, expected, rtol=2e-5, atol=0)


def test_a_constant_feature_gets_no_weight():
    values, labels = residual_stream(100, 6, seed=7)
    values[:, 2] = 1234.5
    fits = solve_logistic(values.unsqueeze(1), labels, train=leave_out(100, 2), C=[1.0])
    assert fits.coef[..., 2].abs().max() < 1e-6
    assert fits.coef[..., 1].abs().min() > 1e-3


def test_a_feature_that_varies_outside_the_training_rows_alone_gets_no_weight_there():
    values, labels = residual_stream(200, 6, seed=7)
    values[:, 2] = 0
    values[5, 2] = 1e6
    train = leave_out(200, 5)
    fits = solve_logistic(values.unsqueeze(1), labels, train=train, C=GRID)
    assert fits.converged.all()
    assert (fits.coef[0, 0, :, 2] == 0).all()
    assert (fits.coef[0, 1, :, 2] != 0).all()


def test_one_feature_per_row_matches_a_one_dimensional_newton_method():
    x = torch.tensor([-2.0, -1.0, 0.0, 0.5, 1.0, 3.0])
    labels = torch.tensor([0, 1, 0, 0, 1, 1])
    everything = torch.ones(1, 6, dtype=torch.bool)
    fits = solve_logistic(
        x.reshape(-1, 1, 1), labels, train=everything, C=[2.0], standardise=False, tolerance=1e-12
    )
    w = float(fits.coef)
    residual = expit(w * x.numpy() + float(fits.intercept)) - labels.numpy()
    assert w + 2 * residual @ x.numpy() == pytest.approx(0, abs=1e-4)
    assert residual.sum() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_activations_that_are_not_finite_are_an_error(wrong):
    values, labels = residual_stream(20, 3, seed=8)
    values[4, 1] = wrong
    with pytest.raises(ValueError, match="must be finite"):
        solve_logistic(values.unsqueeze(1), labels, train=leave_out(20, 2), C=[1.0])


def test_a_fold_without_one_of_the_labels_is_an_error_that_counts():
    values, labels = residual_stream(20, 3, seed=9)
    labels[:] = 1
    with pytest.raises(ValueError, match=r"both 0 and 1.*\{0: 0, 1: 10\}.*fold 0"):
        solve_logistic(values.unsqueeze(1), labels, train=leave_out(20, 2), C=[1.0])


def test_a_strength_that_is_not_positive_is_an_error():
    values, labels = residual_stream(20, 3, seed=10)
    with pytest.raises(ValueError, match=r"`C` must be positive, got 0\.0"):
        solve_logistic(values.unsqueeze(1), labels, train=leave_out(20, 2), C=[1.0, 0.0])


def test_a_fold_without_training_rows_is_an_error():
    values, labels = residual_stream(20, 3, seed=11)
    with pytest.raises(ValueError, match="both 0 and 1"):
        solve_logistic(
            values.unsqueeze(1), labels, train=torch.zeros(1, 20, dtype=torch.bool), C=[1.0]
        )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_on_a_gpu_the_optimum_is_the_same():
    values, labels = residual_stream(400, 60, seed=0)
    both = torch.stack([values, values.flip(0)], dim=1)
    train = leave_out(400, 5)
    here = solve_logistic(both, labels, train=train, C=GRID)
    there = solve_logistic(both.cuda(), labels, train=train, C=GRID)
    assert there.coef.device.type == "cuda"
    assert bool(there.converged.all())
    torch.testing.assert_close(there.objective.cpu(), here.objective, rtol=1e-4, atol=0)


def test_training_rows_far_from_those_of_other_folds_are_not_an_obscure_error():
    """Two rows that hardly differ: their fit may come out unconverged, and the others do not."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(120, 1, 64, generator=generator)
    x[1] = x[0] + 1e-4 * torch.randn(1, 64, generator=generator)
    train = torch.stack([torch.arange(120) < rows for rows in (2, 12, 60)])
    fits = solve_logistic(x, torch.arange(120) % 2, train=train, C=[0.01, 1.0, 100.0])
    assert bool(torch.isfinite(fits.coef).all())
    assert bool(fits.converged[:, 1:].all())
