"""What a trace claims is corrected for all that it holds, and held against the text."""

from dataclasses import dataclass

import numpy as np
import pytest
import xarray as xr

from tlens_trust.measures import mass_mean_probe
from tlens_trust.measures.multiplicity import benjamini_hochberg
from tlens_trust.tracing import Trace


@dataclass(frozen=True)
class GivenP:
    """p-values that are made up, another for each cell and site."""

    name: str = "given"
    identity: str = "given"
    unknown: tuple[str, int] | None = None

    def __call__(self, activations, concept, *, seed):
        step = activations.checkpoint.step
        drawn = np.random.default_rng([step, len(concept.name), len(self.name)])
        p = drawn.random(len(activations.sites)) * 0.05
        if self.unknown == (concept.name, step):
            p[:] = np.nan
        described = {"units": "1", "long_name": "p", "permutations": 99}
        return xr.Dataset(
            {
                "reading": ("site", p + 0.5, {"units": "1", "long_name": "reading"}),
                "reading_p_best": ("site", p, described),
            },
            coords={"site": list(activations.sites)},
        )


def test_the_best_sites_are_corrected_for_all_concepts_and_checkpoints(sweep):
    trace = sweep(measures=GivenP())
    least = trace.data.reading_p_best.min("site")
    assert trace.data.reading_q.dims == ("concept", "checkpoint")
    np.testing.assert_allclose(trace.data.reading_q, benjamini_hochberg(least.values))
    assert (trace.data.reading_q.values > least.values).any()
    assert trace.data.reading_q.attrs["permutations"] == 99
    assert "reading_q" not in trace.quantities


def test_each_probe_is_a_family_of_its_own_and_what_is_unknown_is_no_claim(sweep):
    measures = [GivenP(unknown=("truth", 8)), GivenP(name="another")]
    both = sweep(measures=measures).data
    for measure in measures:
        alone = sweep(measures=measure).data
        np.testing.assert_array_equal(both.reading_q.sel(probe=measure.name), alone.reading_q)
    lost = both.reading_q.sel(probe="given").isnull()
    assert int(lost.sum()) == 1
    assert bool(lost.sel(concept="truth").values[1])


def test_the_correction_is_taken_anew_when_a_run_goes_on(sweep, checkpoints, tmp_path):
    sweep(checkpoints[:1], measures=GivenP(), out=tmp_path)
    first = Trace.load(tmp_path).data
    sweep(checkpoints, measures=GivenP(), out=tmp_path)
    whole = Trace.load(tmp_path).data
    np.testing.assert_array_equal(whole.reading_p_best[:, :1], first.reading_p_best)
    assert (whole.reading_q[:, :1].values != first.reading_q.values).any()
    np.testing.assert_allclose(
        whole.reading_q, benjamini_hochberg(whole.reading_p_best.min("site").values)
    )


def test_a_probe_s_trace_holds_its_levels_and_says_where_it_is_above_the_text(
    sweep, quick_probe, tmp_path
):
    trace = sweep(measures=[quick_probe, mass_mean_probe(folds=3, resamples=20, permutations=50)])
    levels = {
        *("accuracy_ci", "accuracy_n", "accuracy_null", "accuracy_p", "accuracy_p_best"),
        *("accuracy_q", "accuracy_chance", "accuracy_floor", "accuracy_floor_ci"),
        *("accuracy_above_floor", "accuracy_above_floor_ci"),
    }
    assert levels <= set(trace.data.data_vars)
    assert not levels & set(trace.quantities)
    above = trace.above_floor()
    low = trace.data.accuracy_above_floor_ci.sel(bound="low")
    assert above.dims == trace.data.accuracy.dims
    np.testing.assert_array_equal(above, low > 0)
    # The word that tells the label is in the text: nothing is above it.
    assert (trace.data.accuracy_floor > 0.8).all()
    assert not above.any()
    # The floor knows nothing of checkpoints.
    assert (trace.data.accuracy_floor == trace.data.accuracy_floor.isel(checkpoint=0)).all()
    best = trace.sel(probe="logistic").best_site()
    assert {"accuracy_null", "accuracy_q", "accuracy_floor_ci"} <= set(best.data_vars)
    trace.save(tmp_path / "trace.nc")
    assert Trace.load(tmp_path / "trace.nc") == trace


def test_a_trace_without_a_floor_says_so(trace):
    with pytest.raises(ValueError, match=r"no floor of 'accuracy'.*floor=False"):
        trace.above_floor()
