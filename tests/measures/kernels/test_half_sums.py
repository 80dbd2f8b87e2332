"""HSIC on half samples, whose spread is the sampling error, and the sums that it is made of."""

import numpy as np
import pytest
import torch

from tlens_trust.measures import CKA, HSIC
from tlens_trust.measures.kernels.components import (
    PrincipalComponents,
    influence,
    linearised_halves,
    shared_directions,
)
from tlens_trust.measures.kernels.half_sums import HalfSums
from tlens_trust.measures.kernels.hsic import centre
from tlens_trust.measures.kernels.kernel import GaussianKernel
from tlens_trust.measures.resampling import HalfSamples


def representations(n, seed, noise=1.0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    y = x + noise * torch.randn(n, 3, generator=generator, dtype=torch.float64)
    return x, y


def test_sums_on_halves_are_hsic_of_the_halves():
    x, y = representations(40, 0)
    halves = HalfSamples.draw([str(i) for i in range(40)], resamples=5, seed=0)
    weights = halves.weights()
    kernel = GaussianKernel(1.5)
    sides = [HalfSums.of(centre(kernel.between(v, v)).float(), weights) for v in (x, y)]
    values_of_halves = sides[0].hsic(sides[1], weights)
    for half, value in zip(halves.members, values_of_halves, strict=True):
        rows = torch.from_numpy(half)
        assert value == pytest.approx(HSIC(kernel)(x[rows], y[rows]), rel=1e-4)


def test_the_spread_of_half_samples_is_that_of_new_samples():
    kernel = GaussianKernel(2.0)
    estimate = CKA(kernel)
    n = 120
    fresh = [estimate(*representations(n, seed)) for seed in range(150)]
    spreads = []
    for seed in range(25):
        x, y = representations(n, seed)
        halves = HalfSamples.draw([str(i) for i in range(n)], resamples=40, seed=seed)
        on_halves = np.array(
            [
                estimate(x[torch.from_numpy(half)], y[torch.from_numpy(half)])
                for half in halves.members
            ]
        )
        replicates = halves.replicates_about(0.5, on_halves)
        assert replicates.mean() == pytest.approx(0.5)
        spreads.append(replicates.std(ddof=1))
    assert np.mean(spreads) == pytest.approx(np.std(fresh), rel=0.2)


def test_influences_are_the_change_that_a_little_more_weight_makes():
    x, y = representations(60, 0)
    x_components, y_components = PrincipalComponents.of(x), PrincipalComponents.of(y)
    influences = influence(x_components, y_components, x_components.overlap(y_components), 0.1)
    assert float(influences.sum()) == pytest.approx(0, abs=1e-5)

    def weighted(v, w):
        v = (v - v.mean(0)) / v.std(0, correction=0)
        v = v - (w @ v) / w.sum()
        return v * w.sqrt()[:, None]

    def value(w):
        R = []
        for v in (x, y):
            f = weighted(v, w)
            K = f @ f.T / 3
            R.append(K @ torch.linalg.inv(K + 0.1 * w.sum() * torch.eye(60).double()))
        return float((R[0] * R[1]).sum())

    even = torch.ones(60, dtype=torch.float64)
    base = shared_directions(x_components, y_components, x_components.overlap(y_components), 0.1)
    assert value(even) == pytest.approx(base, rel=1e-9)
    for row in (0, 7, 33):
        perturbed = even.clone()
        perturbed[row] += 1e-5
        slope = (value(perturbed) - base) / 1e-5
        assert slope == pytest.approx(float(influences[row]), rel=1e-3, abs=1e-4)


def test_linearised_halves_spread_as_new_samples_do():
    n = 200
    fresh, spreads = [], []
    for seed in range(150):
        x, y = representations(n, seed)
        x_components, y_components = PrincipalComponents.of(x), PrincipalComponents.of(y)
        overlap = x_components.overlap(y_components)
        fresh.append(shared_directions(x_components, y_components, overlap, 0.05))
        halves = HalfSamples.draw([str(i) for i in range(n)], resamples=40, seed=seed)
        influences = linearised_halves(influence(x_components, y_components, overlap, 0.05), halves)
        spreads.append(halves.replicates_about(0.0, influences).std(ddof=1))
    assert np.mean(spreads) == pytest.approx(np.std(fresh), rel=0.2)


def test_intervals_cover_the_truth_at_their_rate():
    kernel = GaussianKernel(2.0)
    truth = np.mean([HSIC(kernel)(*representations(400, 1000 + seed)) for seed in range(40)])
    covered = 0
    for seed in range(60):
        x, y = representations(80, seed)
        halves = HalfSamples.draw([str(i) for i in range(80)], resamples=32, seed=seed)
        weights = halves.weights()
        sides = [HalfSums.of(centre(kernel.between(v, v)).float(), weights) for v in (x, y)]
        value = HSIC(kernel)(x, y)
        low, high = halves.interval(
            value, halves.replicates_about(value, sides[0].hsic(sides[1], weights))
        )
        covered += low <= truth <= high
    assert covered >= 50
