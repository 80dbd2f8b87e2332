import numpy as np
import pytest
import xarray as xr

from tlens_trust.tracing import Trace, combine_runs


def trace(steps, layers, *, fill=0.5, concepts=("truth",), tokens_per_step=1000, **coords):
    shape = len(concepts), len(steps), layers
    accuracy = np.full(shape, fill) + np.arange(layers) / 100
    dims = ("concept", "checkpoint", "site")
    described = {"units": "fraction", "long_name": "accuracy"}
    return Trace(
        xr.Dataset(
            {
                "accuracy": (dims, accuracy, described),
                "accuracy_n": (dims, np.full(shape, 200), {"units": "1", "long_name": "n"}),
            },
            coords={
                "concept": list(concepts),
                "checkpoint": [f"m@step{step}" for step in steps],
                "site": [f"blocks.{i}.hook_resid_post" for i in range(layers)],
                "step": ("checkpoint", np.array(steps)),
                "tokens": ("checkpoint", np.array(steps) * tokens_per_step),
                "layer": ("site", np.arange(layers)),
                "depth": ("site", (np.arange(layers) + 1) / layers),
                "revision": ("checkpoint", [f"r{fill}-{step}" for step in steps]),
                "loss": ("checkpoint", np.full(len(steps), fill)),
                "n_groups": ("concept", np.full(len(concepts), 30)),
                **coords,
            },
            attrs={"model": f"m{fill}"},
        )
    )


def test_checkpoints_of_the_same_step_stand_together_and_what_a_run_lacks_is_unknown():
    both = combine_runs({"a": trace([0, 8, 64], 2), "b": trace([0, 16, 64], 2, fill=0.7)})
    assert both.checkpoints == ("step0", "step8", "step16", "step64")
    assert both.steps == (0, 8, 16, 64)
    found = both.data.accuracy.sel(concept="truth").isel(site=0)
    np.testing.assert_array_equal(found.sel(run="a"), [0.5, 0.5, np.nan, 0.5])
    np.testing.assert_array_equal(found.sel(run="b"), [0.7, np.nan, 0.7, 0.7])
    assert both.data["n_groups"].dtype == np.int64


def test_a_run_can_be_taken_out_as_it_was():
    one, other = trace([0, 8], 2), trace([0, 8], 2, fill=0.7)
    again = combine_runs({"a": one, "b": other}).sel(run="b")
    np.testing.assert_array_equal(again.data.accuracy, other.data.accuracy)
    assert again.steps == other.steps
    assert again.data["revision"].values.tolist() == other.data["revision"].values.tolist()
    assert again.data["loss"].values.tolist() == other.data["loss"].values.tolist()


def test_sizes_keep_their_own_layers_and_depths():
    both = combine_runs({"small": trace([0, 8], 2), "large": trace([0, 8], 4, fill=0.7)})
    assert len(both.sites) == 4
    assert both.data["depth"].sel(run="large").values.tolist() == [0.25, 0.5, 0.75, 1.0]
    small = both.data["depth"].sel(run="small").values
    np.testing.assert_array_equal(small, [0.5, 1.0, np.nan, np.nan])
    assert bool(both.data.accuracy.sel(run="small").isel(site=3).isnull().all())


def test_a_coordinate_that_one_run_lacks_is_unknown_there():
    heads = trace([0, 8], 2, head=("site", np.array([3, 4])))
    both = combine_runs({"heads": heads, "blocks": trace([0, 8], 3)})
    np.testing.assert_array_equal(both.data["head"], [3, 4, np.nan])


def test_checkpoints_can_be_matched_by_tokens():
    runs = {"a": trace([0, 8], 2), "b": trace([0, 4], 2, tokens_per_step=2000)}
    by_tokens = combine_runs(runs, by="tokens")
    assert by_tokens.checkpoints == ("tokens0", "tokens8000")
    assert not by_tokens.data.accuracy.isnull().any()
    assert combine_runs(runs).data.accuracy.isnull().any()


def test_runs_side_by_side_survive_a_file(tmp_path):
    both = combine_runs({"a": trace([0, 8], 2), "b": trace([0, 16], 3, fill=0.7)})
    both.save(tmp_path / "both.nc")
    assert Trace.load(tmp_path / "both.nc") == both
    assert "runs       a, b" in repr(both)


@pytest.mark.parametrize(
    ("traces", "message"),
    [
        ({"a": trace([0], 1)}, "two or more"),
        (
            {"a": trace([0], 1), "b": trace([0], 1, step=("checkpoint", [np.nan]))},
            "In 'b' the step of some checkpoint is unknown",
        ),
    ],
)
def test_what_cannot_be_matched_is_refused(traces, message):
    with pytest.raises(ValueError, match=message):
        combine_runs(traces)


def test_two_checkpoints_of_the_same_step_are_refused():
    twice = trace([0, 8], 1, step=("checkpoint", [8, 8]))
    with pytest.raises(ValueError, match="two checkpoints have the same step"):
        combine_runs({"a": trace([0], 1), "b": twice})


def test_unlike_units_are_refused():
    other = trace([0], 1).data
    other["accuracy"].attrs["units"] = "percent"
    with pytest.raises(ValueError, match="'fraction' in 'a' and in 'percent' in 'b'"):
        combine_runs({"a": trace([0], 1), "b": Trace(other)})


def test_runs_are_not_combined_twice():
    both = combine_runs({"a": trace([0], 1), "b": trace([0], 1)})
    with pytest.raises(ValueError, match="holds the runs 'a', 'b' already"):
        combine_runs({"ab": both, "c": trace([0], 1)})


def test_a_run_that_is_not_there_is_answered_with_those_that_are():
    both = combine_runs({"a": trace([0], 1), "b": trace([0], 1)})
    with pytest.raises(ValueError, match="'c'"):
        both.sel(run="c")
    with pytest.raises(ValueError, match="no axis of runs"):
        trace([0], 1).sel(run="a")


@pytest.mark.parametrize("knows", ["a", "b"])
def test_a_text_that_one_run_lacks_is_unknown_there(knows):
    runs = {name: trace([0, 8], 1) for name in ("a", "b")}
    runs[knows] = trace([0, 8], 1, stage=("checkpoint", ["s", "s"]))
    both = combine_runs(runs)
    assert both.data.stage.dims == ("checkpoint",)
    assert both.data.stage.values.tolist() == ["s", "s"]
