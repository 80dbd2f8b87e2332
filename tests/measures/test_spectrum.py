import numpy as np
import pytest
import torch

from tlens_trust.activations import Activations
from tlens_trust.concepts import Concept
from tlens_trust.measures import Measure
from tlens_trust.measures.geometry import (
    isoscore,
    mean_cosine,
    participation_ratio,
    rankme,
    spectrum_exponent,
)
from tlens_trust.measures.spectrum import spectrum

NAMES = (
    "rankme", "participation_ratio", "spectrum_exponent", "isoscore", "mean_cosine", "norm_mean",
    "norm_rms", "norm_sd",
)  # fmt: skip


def concept_of(n, in_group=2):
    return Concept(
        "truth",
        "reliability",
        tuple(f"Statement {i}." for i in range(n)),
        np.arange(n) % 2,
        tuple(f"group {i // in_group}" for i in range(n)),
    )


def draw(n, d=40, seed=0, mean=0.5, in_group=1):
    """Statements of one group are the same but for a little."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.arange(1, d + 1) ** -0.6
    of_group = torch.randn(n // in_group, d, generator=generator).repeat_interleave(in_group, 0)
    own = torch.randn(n, d, generator=generator)
    z = of_group if in_group > 1 else own
    return (z + 0.05 * own) * scale + mean


def measured(x, in_group=2, **parameters):
    sites = tuple(f"blocks.{i}.hook_resid_post" for i in range(x.shape[1]))
    read = Activations(x, sites, n_layers=len(sites))
    return spectrum(**parameters)(read, concept_of(len(x), in_group), seed=0)


def test_it_is_a_measure_with_units_names_and_counts():
    measure = spectrum()
    assert isinstance(measure, Measure)
    assert spectrum(first=5).identity != measure.identity != spectrum(resamples=8).identity
    data = measured(torch.stack([draw(80), draw(80, seed=1)], dim=1))
    assert all("units" in v.attrs and "long_name" in v.attrs for v in data.data_vars.values())
    for name in NAMES:
        assert data[name].dims == ("site",)
        assert data[f"{name}_ci"].dims == ("site", "bound")
        assert (data[f"{name}_n"] == 80).all()
        assert (data[f"{name}_ci"].sel(bound="low") <= data[name]).all()


def test_it_gives_what_the_functions_give():
    x = draw(120)
    data = measured(x[:, None]).isel(site=0)
    assert float(data.rankme) == pytest.approx(rankme(x), rel=1e-6)
    assert float(data.participation_ratio) == pytest.approx(participation_ratio(x), rel=1e-6)
    assert float(data.isoscore) == pytest.approx(isoscore(x), rel=1e-6)
    assert float(data.mean_cosine) == pytest.approx(mean_cosine(x), rel=1e-6)
    law = spectrum_exponent(x)
    assert float(data.spectrum_exponent) == pytest.approx(law.exponent, rel=1e-6)
    assert float(data.spectrum_exponent_r2) == pytest.approx(law.r2, rel=1e-6)
    assert float(data.spectrum_exponent_last) == law.last == 20
    norms = x.norm(dim=1)
    assert float(data.norm_mean) == pytest.approx(float(norms.mean()), rel=1e-5)
    assert float(data.norm_rms) == pytest.approx(float(norms.square().mean().sqrt()), rel=1e-5)


@pytest.mark.parametrize("in_group", [1, 4])
def test_intervals_are_as_wide_as_fresh_statements_would_move_the_values(in_group):
    fresh = torch.stack([draw(480, seed=s, in_group=in_group) for s in range(60)], dim=1)
    data = measured(fresh, in_group=in_group)
    for name in NAMES:
        spread = float(data[name].std(ddof=1))
        half = (data[f"{name}_ci"].sel(bound="high") - data[f"{name}_ci"].sel(bound="low")) / 2
        told = float((half / 2.04).mean())
        # 60 draws tell a standard deviation to about 9%. Where eigenvalues lie closer together than
        # they err, as with 3 groups a direction, the first order is too wide.
        assert 0.7 * spread < told < (1.4 if in_group == 1 else 2.4) * spread, name


def test_intervals_that_ignore_groups_would_be_too_narrow():
    fresh = torch.stack([draw(480, seed=s, in_group=4) for s in range(60)], dim=1)
    blind = measured(fresh, in_group=1)
    half = (blind.norm_mean_ci.sel(bound="high") - blind.norm_mean_ci.sel(bound="low")) / 2
    assert float((half / 2.04).mean()) < 0.7 * float(blind.norm_mean.std(ddof=1))


def test_what_does_not_vary_is_unknown():
    data = measured(torch.ones(40, 1, 8)).isel(site=0)
    assert np.isnan([float(data[name]) for name in ("rankme", "spectrum_exponent")]).all()
    assert np.isnan(data.rankme_ci).all()
    assert float(data.norm_mean) == pytest.approx(8**0.5)


def test_fewer_statements_than_directions_are_measured_alike():
    x = draw(30, d=40)
    data = measured(x[:, None]).isel(site=0)
    assert float(data.rankme) == pytest.approx(rankme(x), rel=1e-6)
    assert float(data.rankme) < 29


def test_activations_of_other_statements_are_refused():
    read = Activations(torch.randn(8, 1, 4), ("blocks.0.hook_resid_post",), n_layers=1)
    with pytest.raises(ValueError, match="hold 8 statements, but concept"):
        spectrum()(read, concept_of(10), seed=0)


def test_too_few_resamples_are_refused():
    with pytest.raises(ValueError, match="`resamples` must be a whole number from 2"):
        spectrum(resamples=1)
