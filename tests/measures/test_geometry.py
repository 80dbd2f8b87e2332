import numpy as np
import pytest
import torch

from tlens_trust.measures.geometry import (
    isoscore,
    mean_cosine,
    participation_ratio,
    rankme,
    spectrum_exponent,
)

SCALARS = [
    rankme,
    participation_ratio,
    isoscore,
    mean_cosine,
    lambda x: spectrum_exponent(x).exponent,
]


def cloud(n=400, d=48, power=0.7, seed=0, mean=0.0):
    generator = torch.Generator().manual_seed(seed)
    scale = torch.arange(1, d + 1, dtype=torch.float64) ** -power
    z = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return z * scale + mean


def rotation(d, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))[0]


@pytest.mark.parametrize("of", SCALARS)
def test_a_rotation_and_a_common_scale_change_nothing_but_norms(of):
    x = cloud(mean=0.3)
    assert of(x @ rotation(48) * 7.5) == pytest.approx(of(x), rel=1e-9)


@pytest.mark.parametrize("of", SCALARS)
def test_stretching_some_directions_does(of):
    x = cloud(mean=0.3)
    stretched = x * torch.linspace(1, 9, 48)
    assert of(stretched) != pytest.approx(of(x), rel=1e-3)


@pytest.mark.parametrize("of", [rankme, participation_ratio, isoscore])
def test_a_common_shift_changes_nothing_that_is_centred(of):
    x = cloud()
    assert of(x + 100.0) == pytest.approx(of(x), rel=1e-8)
    assert mean_cosine(x + 100.0) > 0.99 > 0.1 > abs(mean_cosine(x))
    assert rankme(x + 100.0, centre=False) < 2 < rankme(x, centre=False)


@pytest.mark.parametrize("filled", [1, 3, 20])
def test_effective_ranks_count_directions_that_are_alike(filled):
    axes = rotation(24)[:filled]
    x = torch.cat([axes, -axes])
    assert rankme(x) == pytest.approx(filled)
    assert participation_ratio(x) == pytest.approx(filled)
    assert isoscore(x) == pytest.approx((filled - 1) / 23)


def test_an_outlier_direction_brings_the_participation_ratio_down_before_rankme():
    x = cloud(power=0.0) * torch.tensor([40.0] + [1.0] * 47)
    assert participation_ratio(x) < 1.2
    assert rankme(x) > 15


def test_isoscore_is_what_the_seven_steps_of_its_authors_give():
    x = cloud(power=0.4).numpy()
    n = x.shape[1]
    centred = x - x.mean(axis=0)
    axes = np.linalg.svd(centred, full_matrices=False)[2]
    diagonal = np.diag(np.cov(centred @ axes.T, rowvar=False))
    normalised = np.sqrt(n) * diagonal / np.linalg.norm(diagonal)
    defect = np.linalg.norm(normalised - 1) / np.sqrt(2 * (n - np.sqrt(n)))
    share = (n - defect**2 * (n - np.sqrt(n))) ** 2 / n**2
    assert isoscore(torch.from_numpy(x)) == pytest.approx((n * share - 1) / (n - 1), rel=1e-9)


def test_rankme_is_the_exponential_of_the_entropy_of_singular_values():
    x = cloud()
    lengths = torch.linalg.svdvals(x)
    p = lengths / lengths.sum()
    assert rankme(x, centre=False) == pytest.approx(float(torch.exp(-(p * p.log()).sum())))


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_the_exponent_of_a_planted_power_law_is_found(alpha):
    k = torch.arange(1, 121, dtype=torch.float64)
    x = torch.cat([torch.diag(k ** (-alpha / 2)), -torch.diag(k ** (-alpha / 2))]) @ rotation(120)
    law = spectrum_exponent(x)
    assert law.exponent == pytest.approx(alpha, abs=1e-6)
    assert law.r2 == pytest.approx(1)
    assert law.standard_error < 1e-6
    assert (law.first, law.last) == (11, 60)


def test_a_spectrum_that_is_no_power_law_says_so_by_its_r2():
    k = torch.arange(1, 121, dtype=torch.float64)
    steps = torch.where(k % 20 < 10, 1.0, 0.3).double()
    law = spectrum_exponent(torch.cat([torch.diag(steps), -torch.diag(steps)]))
    # Sorted, it is a single step.
    assert law.r2 < 0.9 or law.exponent < 1e-6


def test_wide_activations_have_the_same_shape_by_either_product():
    x = cloud(n=60, d=48)
    wide = torch.cat([x, torch.zeros(60, 40, dtype=torch.float64)], dim=1)
    assert rankme(wide) == pytest.approx(rankme(x))
    assert participation_ratio(wide) == pytest.approx(participation_ratio(x))


def test_what_does_not_vary_is_unknown_and_not_zero():
    x = torch.ones(10, 4)
    assert np.isnan([rankme(x), participation_ratio(x), isoscore(x)]).all()
    assert np.isnan(spectrum_exponent(x).exponent)
    assert mean_cosine(x) == pytest.approx(1)
    assert np.isnan(mean_cosine(x[:1]))
    assert np.isnan(isoscore(torch.randn(9, 1)))


def test_too_few_eigenvalues_give_no_exponent():
    assert np.isnan(spectrum_exponent(cloud(d=20)).exponent)
    assert np.isfinite(spectrum_exponent(cloud(d=20), first=3).exponent)


@pytest.mark.parametrize(
    ("first", "last", "message"),
    [(0, 5, "`first` must be a whole number from 1"), (9, 8, "`first` must not be above `last`")],
)
def test_a_range_of_eigenvalues_that_is_none_is_refused(first, last, message):
    with pytest.raises(ValueError, match=message):
        spectrum_exponent(cloud(), first=first, last=last)
