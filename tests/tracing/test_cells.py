import numpy as np
import pytest
import torch
import xarray as xr

from tlens_trust.activations import Activations
from tlens_trust.tracing.cells import cell_seed, measure_cell

SITES = ("blocks.0.hook_resid_post", "blocks.1.hook_resid_post")


@pytest.fixture
def reading(concepts):
    values = torch.randn(len(concepts[0]), 2, 8, generator=torch.Generator().manual_seed(0))
    return Activations(values, SITES, concept=concepts[0], n_layers=4)


def given(**variables):
    """A measure that gives these variables, whatever it reads."""

    class Given:
        name = "given"
        identity = "given"

        def __call__(self, activations, concept, *, seed):
            coords = {"site": list(variables.pop("sites", activations.sites))}
            return xr.Dataset(variables, coords=coords)

    return Given()


def test_what_several_measures_give_stands_along_probe_and_the_rest_does_not(
    reading, concepts, norm_measure
):
    pair = [norm_measure(), norm_measure(name="other", variable="spread")]
    cell = measure_cell(reading, concepts[0], pair, seed=0)
    assert cell["drawn"].dims == ("probe", "site")
    assert cell["score"].dims == ("probe", "example", "site")
    assert cell["probe"].values.tolist() == ["norm", "other"]
    assert cell["norm"].dims == cell["spread"].dims == ("site",)
    assert cell["spread"].attrs["measure"] == "other"
    for measure in pair:
        alone = measure_cell(reading, concepts[0], [measure], seed=0)
        assert "probe" not in alone.dims
        np.testing.assert_array_equal(cell["drawn"].sel(probe=measure.name), alone["drawn"])


def test_a_measure_that_lacks_what_two_others_share_is_nan_there(reading, concepts, norm_measure):
    lone = norm_measure(name="lone", variable="norm")
    described = {"units": "activation", "long_name": "norm"}
    third = given(norm=("site", [1.0, 2.0], described))
    cell = measure_cell(reading, concepts[0], [norm_measure(), lone, third], seed=0)
    assert cell["norm"].sizes["probe"] == 3
    assert cell["norm"].sel(probe="given").values.tolist() == [1.0, 2.0]
    assert np.isnan(cell["drawn"].sel(probe="given")).all()
    assert np.isfinite(cell["drawn"].sel(probe=["norm", "lone"])).all()


def test_a_cell_knows_layer_and_depth_of_its_sites(reading, concepts, norm_measure):
    cell = measure_cell(reading, concepts[0], [norm_measure()], seed=0)
    assert cell["layer"].values.tolist() == [0, 1]
    assert cell["depth"].values.tolist() == [0.25, 0.5]


def test_the_seed_of_a_cell_follows_the_sweeps_seed_and_the_content_but_not_the_name(
    concepts, another_concept
):
    truth, kindness = concepts
    assert cell_seed(0, truth) == cell_seed(0, another_concept("renamed", 0))
    assert len({cell_seed(0, truth), cell_seed(1, truth), cell_seed(0, kindness)}) == 3
    assert 0 <= cell_seed(5, truth) < 2**32
    with pytest.raises(ValueError, match="`seed` must be a whole number from 0, got -5"):
        cell_seed(-5, truth)


def described(array=(1.0, 2.0), dims="site", **attributes):
    return (dims, list(array), {"units": "1", "long_name": "x", **attributes})


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"x": ("site", [1.0, 2.0], {"units": "1"})}, "'x' of the measure 'given'.*'long_name'"),
        ({"x": ("site", [1.0, 2.0], {"long_name": "x"})}, "must have 'units'"),
        ({"layer": described()}, "'layer', which is the name of an axis"),
        ({"x": described(array=("a", "b"))}, "must hold numbers"),
        ({"x": described(), "sites": SITES[::-1]}, "in their order"),
        ({"x": described(dims="example")}, "2 examples for the 24 statements of 'truth'"),
        ({}, "at least one variable"),
    ],
)
def test_a_measure_that_gives_what_no_trace_can_hold_is_named(reading, concepts, variables, words):
    with pytest.raises(ValueError, match=words):
        measure_cell(reading, concepts[0], [given(**variables)], seed=0)


def test_two_measures_may_not_give_one_variable_in_two_units(reading, concepts, norm_measure):
    pair = [norm_measure(), norm_measure(name="other", units="nats")]
    with pytest.raises(ValueError, match="'norm' in different units: 'activation', 'nats'"):
        measure_cell(reading, concepts[0], pair, seed=0)
