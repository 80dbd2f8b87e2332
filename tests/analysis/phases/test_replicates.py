"""Replicates in a byte each: what a trace holds, and what comes back."""

import numpy as np
import pytest
import xarray as xr

from tlens_trust.analysis import find_phases, information_plane
from tlens_trust.tracing import Trace
from tlens_trust.tracing.replicates import pack_replicates, unpack_replicates


def drawn(shape=(3, 5), resamples=32, scale=1.0, seed=0):
    generator = np.random.default_rng(seed)
    value = generator.standard_normal(shape)
    draws = value[..., None] + scale * generator.standard_normal((*shape, resamples))
    named = {"units": "nats", "long_name": "something"}
    return {
        "it": (("site", "noise"), value, named),
        "it_draws": (("site", "noise", "resample"), draws, named),
    }


def shortened(variables):
    return xr.Dataset(pack_replicates(variables))


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e6])
def test_what_comes_back_is_off_by_no_more_than_a_fortieth_of_the_standard_error(scale):
    variables = drawn(scale=scale)
    data = shortened(variables)
    assert data["it_draws"].dtype == np.int8
    found, true = unpack_replicates(data, "it"), variables["it_draws"][1]
    spread = true.std(axis=-1, ddof=1)
    assert (np.abs(found.values - true) <= 0.026 * spread[..., None] * (1 + 1e-6) + 1e-12).all()
    assert found.attrs["units"] == "nats"
    assert "standard error" in data["it_draws"].attrs["units"]


def test_the_standard_error_stands_beside_and_is_the_spread():
    variables = drawn(resamples=2000, scale=0.3)
    assert shortened(variables)["it_se"].values == pytest.approx(0.3, rel=0.1)


def test_what_is_unknown_stays_unknown():
    variables = drawn()
    variables["it"][1][0, 0] = np.nan
    variables["it_draws"][1][0, 0] = np.nan
    variables["it_draws"][1][1, 1, 20:] = np.nan  # Of a measure with fewer halves than another.
    found = unpack_replicates(shortened(variables), "it").values
    assert np.array_equal(np.isnan(found), np.isnan(variables["it_draws"][1]))


def test_replicates_that_are_all_alike_come_back_as_the_value():
    variables = drawn(scale=0.0)
    found = unpack_replicates(shortened(variables), "it")
    assert (found == variables["it"][1][..., None]).all()


def test_cells_hold_replicates_in_full_and_they_are_given_as_they_are():
    variables = drawn()
    assert np.array_equal(unpack_replicates(xr.Dataset(variables), "it"), variables["it_draws"][1])
    with pytest.raises(ValueError, match="no half-sample replicates of 'that'"):
        unpack_replicates(xr.Dataset(variables), "that")


def test_other_variables_stay_as_they_are():
    variables = drawn()
    alone = {"other_draws": variables["it_draws"], "it": variables["it"]}
    assert pack_replicates(alone) == alone


def test_phases_of_a_shortened_trace_are_those_of_the_whole_one(make_series):
    whole = make_series(0, n=160, d=16).destroyed(most=0.8).trace()
    data = whole.data
    short = pack_replicates({name: (v.dims, v.values, v.attrs) for name, v in data.items()})
    other = Trace(xr.Dataset(short, coords=data.coords, attrs=data.attrs))
    assert other.data["nhsic_draws"].nbytes * 4 <= data["nhsic_draws"].nbytes
    one, two = (find_phases(information_plane(trace)) for trace in (whole, other))
    assert [phase.verdict for phase in one] == [phase.verdict for phase in two]
    assert {phase.verdict for phase in one} == {"falls", "no claim"}
    assert [phase.blocked_by for phase in one] == [phase.blocked_by for phase in two]
