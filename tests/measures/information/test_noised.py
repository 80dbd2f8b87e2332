"""What noise leaves of the input, against closed forms."""

from math import log

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from tlens_trust.measures import NoisedEstimator
from tlens_trust.measures.information.noised import information_under_noise, length_of
from tlens_trust.measures.kernels.spectrum_matching import flatten_spectrum
from tlens_trust.measures.resampling import HalfSamples


def normal(n: int, d: int, *, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_two_points_under_noise_tell_as_much_as_a_mixture_of_two_gaussians():
    apart = torch.tensor([[-1.0], [1.0]]).repeat(300, 1)
    noise = 0.8  # Of a length of 1.

    def density(t: float) -> float:
        parts = np.exp(-((t - 1) ** 2) / 2 / noise**2) + np.exp(-((t + 1) ** 2) / 2 / noise**2)
        return float(0.5 * parts / np.sqrt(2 * np.pi) / noise)

    entropy = quad(lambda t: -density(t) * np.log(density(t)), -6, 6, limit=200)[0]
    truth = entropy - 0.5 * np.log(2 * np.pi * np.e * noise**2)
    result = NoisedEstimator(noise=noise, draws=20)(apart)
    assert result.value == pytest.approx(truth, abs=0.01)


def test_many_gaussian_points_tell_what_a_gaussian_channel_carries():
    x = normal(2000, 2)
    x = (x - x.mean(dim=0)) / x.std(dim=0, correction=0)
    for noise in (0.3, 1.0):
        truth = 2 * 0.5 * log(1 + 1 / (2 * noise**2))  # The length is √2.
        result = NoisedEstimator(noise=noise, draws=2)(x)
        assert result.value == pytest.approx(truth, rel=0.05)


def test_without_much_noise_all_rows_are_told_apart_and_with_much_none():
    x = normal(100, 5)
    quiet, loud = NoisedEstimator(noise=0.001)(x), NoisedEstimator(noise=100.0)(x)
    assert quiet.value == pytest.approx(log(100), abs=1e-6)
    assert any("cap" in warning for warning in quiet.warnings)
    assert loud.value == pytest.approx(0, abs=1e-3)
    assert not any("cap" in warning for warning in loud.warnings)
    assert "100 times" in loud.warnings[0]


def test_it_falls_with_noise_and_stays_below_its_ceiling():
    x = normal(300, 8) * torch.logspace(0, -2, 8)
    halves = HalfSamples.draw([str(row) for row in range(300)], resamples=8, seed=0)
    result = information_under_noise(x, [0.05, 0.2, 0.8], halves, seed=0, draws=4)
    assert result.value[0] > result.value[1] > result.value[2]
    assert (result.value < result.ceiling + 0.02).all()
    assert (result.on_halves <= log(150) + 1e-9).all()


def test_shift_scale_and_row_order_change_nothing_and_rotation_only_the_draw():
    x = normal(200, 6) * torch.tensor([5.0, 3.0, 2.0, 1.0, 0.5, 0.1])
    original = NoisedEstimator(draws=8)(x).value
    assert NoisedEstimator(draws=8)(40 * x + 7).value == pytest.approx(original, abs=1e-4)
    turned = torch.linalg.qr(normal(6, 6, seed=1))[0]
    assert NoisedEstimator(draws=8)(x @ turned).value == pytest.approx(original, abs=0.05)
    # Stretching one direction is no rotation.
    stretched = x * torch.tensor([10.0, 1, 1, 1, 1, 1])
    assert NoisedEstimator(draws=8)(stretched).value < original - 0.3


def test_whitening_undoes_an_invertible_map():
    x = normal(200, 6)
    mapped = x @ (normal(6, 6, seed=2) * torch.logspace(0, -2, 6))
    raw = [NoisedEstimator(draws=4)(features).value for features in (x, mapped)]
    flat = [
        NoisedEstimator(draws=4)(flatten_spectrum(features, components=6)).value
        for features in (x, mapped)
    ]
    assert raw[1] < raw[0] - 0.3
    assert flat[1] == pytest.approx(flat[0], abs=0.05)


def test_the_same_rows_always_give_zero():
    assert NoisedEstimator()(torch.ones(20, 3)).value == 0
    assert length_of(torch.ones(20, 3)) == 0


def test_noise_has_to_be_some():
    with pytest.raises(ValueError, match="positive"):
        NoisedEstimator(noise=0.0)(normal(20, 2))
