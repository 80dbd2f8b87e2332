"""What making the spectrum flat undoes, and what it does not."""

import pytest
import torch

from tlens_trust.measures import CKA, flatten_spectrum
from tlens_trust.measures.kernels.components import PrincipalComponents
from tlens_trust.measures.kernels.spectrum_matching import default_components


def base(n=300, d=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, d, generator=generator, dtype=torch.float64)
    rotation, _ = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))
    return z, rotation


def span(flat):
    return flat @ flat.T / len(flat)


def test_every_direction_has_variance_one_and_no_correlation():
    z, rotation = base()
    flat = flatten_spectrum(z * torch.logspace(0, -4, 20) @ rotation, components=12)
    covariance = flat.T @ flat / len(flat)
    assert torch.allclose(covariance, torch.eye(12).double(), atol=1e-9)
    assert float(flat.mean(0).abs().max()) < 1e-8


@pytest.mark.parametrize("least", [-2, -6])
def test_an_invertible_map_is_undone_down_to_a_millionth(least):
    z, rotation = base()
    t = (z * torch.logspace(0, least, 20, dtype=torch.float64)) @ rotation + 3.0
    assert torch.allclose(
        span(flatten_spectrum(t, components=20)),
        span(flatten_spectrum(z, components=20)),
        atol=1e-6,
    )


def test_float32_keeps_what_its_rounding_leaves_of_a_small_direction():
    z, rotation = base()
    scales = torch.ones(20, dtype=torch.float64)
    scales[-1] = 1e-6
    flat = flatten_spectrum((z * scales @ rotation).float(), components=20)
    assert flat.shape[1] == 20
    dimensions = span(flat) @ z[:, -1]
    # Most of the direction is there, and some is rounding.
    share = float(dimensions.square().sum() / (z[:, -1] - z[:, -1].mean()).square().sum())
    assert 0.9 < share <= 1.0 + 1e-9
    scales[-1] = 1e-9
    assert flatten_spectrum((z * scales @ rotation).float(), components=20).shape[1] == 19


def test_a_map_that_is_not_invertible_is_not_undone():
    z, rotation = base()
    scales = torch.ones(20, dtype=torch.float64)
    scales[10:] = 0
    flat = flatten_spectrum(z * scales @ rotation, components=20)
    assert flat.shape[1] == 10
    assert CKA()(flat, flatten_spectrum(z, components=20)) < 0.8


def test_the_trap_a_change_of_spectrum_vanishes_and_noise_does_not():
    z, rotation = base(n=500)
    generator = torch.Generator().manual_seed(5)
    raw, flat, noisy = [], [], []
    x = flatten_spectrum(z, components=20)
    for decay in (2.0, 1.0, 0.0, 1.0, 2.0):
        t = (z * torch.arange(1, 21) ** -decay) @ rotation
        raw.append(CKA()(t, z))
        flat.append(CKA()(flatten_spectrum(t, components=20), x))
        noise = torch.randn(500, 20, generator=generator).double() * (2.0 - decay)
        noisy.append(CKA()(flatten_spectrum(z + noise, components=20), x))
    assert max(raw) - min(raw) > 0.2
    assert max(flat) - min(flat) < 1e-6
    assert noisy[0] > noisy[1] + 0.2 > noisy[2] + 0.2


def test_fewer_components_undo_a_map_that_leaves_their_span():
    z, _ = base(d=30)
    z = z * torch.logspace(0, -2, 30)
    about = PrincipalComponents.of(z, standardise=False)
    stretched = about.vectors * torch.linspace(2, 1, 30)
    spans = [
        span(flatten_spectrum(v, components=8, standardise=False))
        for v in (about.vectors * about.shares.sqrt(), stretched)
    ]
    assert torch.allclose(*spans, atol=1e-8)
    transformed = about.vectors * torch.linspace(1, 2, 30)
    second = span(flatten_spectrum(transformed, components=8, standardise=False))
    assert not torch.allclose(spans[0], second, atol=1e-2)


@pytest.mark.parametrize(("n", "d", "rank"), [(40, 100, 39), (100, 40, 40)])
def test_few_rows_constant_features_and_duplicates_span_what_they_span(n, d, rank):
    z, _ = base(n, d)
    assert flatten_spectrum(z, components=500).shape[1] == rank
    constant = torch.cat([z, torch.full((n, 3), 7.0).double()], dim=1)
    assert torch.allclose(
        span(flatten_spectrum(constant, components=10)), span(flatten_spectrum(z, components=10))
    )
    copied = torch.cat([z, z], dim=1)
    assert flatten_spectrum(copied, components=500).shape[1] == rank
    assert flatten_spectrum(copied.float(), components=500).shape[1] == rank
    assert flatten_spectrum(torch.ones(n, d)).shape == (n, 0)


def test_components_are_as_many_as_rows_and_width_allow():
    assert default_components(80, 1000) == 10
    assert default_components(5, 3) == 1
    with pytest.raises(ValueError, match="`components`"):
        flatten_spectrum(torch.zeros(5, 2), components=0)
