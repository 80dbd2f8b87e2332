import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from tlens_trust import files
from tlens_trust.tracing import Trace
from tlens_trust.tracing.netcdf import dataset_from_bytes, dataset_to_bytes


def test_a_saved_trace_comes_back_bit_for_bit(trace, tmp_path):
    trace.save(tmp_path / "trace.nc")
    back = Trace.load(tmp_path / "trace.nc")
    assert back == trace
    assert back.data.identical(trace.data)
    for name, variable in trace.data.variables.items():
        assert back.data[name].dtype == variable.dtype, name
    assert np.isnan(back.data.accuracy.values[1, 2]).all()
    assert back.data.accuracy.attrs["resamples"] == 100
    assert type(back.data.accuracy.attrs["resamples"]) is int


def test_one_bit_or_one_attribute_makes_two_traces_differ_but_the_date_does_not(trace):
    nudged = trace.data.copy(deep=True)
    nudged.accuracy.values[0, 0, 0] = np.nextafter(nudged.accuracy.values[0, 0, 0], 1)
    assert Trace(nudged) != trace
    assert Trace(trace.data.assign_attrs(seed="1")) != trace
    assert Trace(trace.data.assign_attrs(created="2031-01-01T00:00:00+00:00")) == trace


letters = "ab_ 0é真🙂\u202e\n<&\"'\\"
plain = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)
    | st.text(letters + "\0\ud83d")
)  # fmt: skip
values = st.recursive(
    plain, lambda v: st.lists(v) | st.dictionaries(st.text(letters), v), max_leaves=4
)


@settings(max_examples=40, deadline=None)
@given(
    names=st.lists(st.text(letters, min_size=1), min_size=1, max_size=4, unique=True),
    attributes=st.dictionaries(st.sampled_from(["note", "made_by", "json"]), values),
    numbers=st.lists(st.floats(), min_size=1, max_size=4),
)
def test_any_names_attributes_and_numbers_survive_a_file(names, attributes, numbers):
    data = xr.Dataset(
        {"x": ("n", np.array(numbers), {**attributes, "units": "seconds since then"})},
        coords={"name": names},
        attrs=attributes,
    )
    back = dataset_from_bytes(dataset_to_bytes(data))
    assert back.identical(data)
    assert back.attrs == attributes
    assert [type(v) for v in back.attrs.values()] == [type(v) for v in attributes.values()]


@pytest.mark.parametrize("name", ["a\0b", "half \ud83d"])
def test_a_name_that_no_file_can_hold_is_refused(trace, name):
    with pytest.raises(ValueError, match="Rename it"):
        Trace(trace.data.assign_coords(concept=["truth", name]))


def test_a_failed_write_leaves_the_old_file_and_nothing_else(trace, tmp_path, monkeypatch):
    path = tmp_path / "trace.nc"
    trace.save(path)

    def fail(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        trace.sel(concept="truth").save(path)
    assert Trace.load(path) == trace
    assert [p.name for p in tmp_path.iterdir()] == ["trace.nc"]


@pytest.mark.parametrize("cut", [0, 100, 5000])
def test_a_torn_file_is_refused_by_name(trace, tmp_path, cut):
    path = tmp_path / "trace.nc"
    trace.save(path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"trace\.nc.*torn"):
        Trace.load(path)


def test_loading_what_is_not_there_says_what_can_be_loaded(tmp_path):
    with pytest.raises(ValueError, match=r"no file or folder.*run folder"):
        Trace.load(tmp_path / "nothing.nc")
    with pytest.raises(ValueError, match="is no run folder"):
        Trace.load(tmp_path)


def test_selection_keeps_the_axes_and_takes_what_it_names(trace):
    part = trace.sel(concept="truth", layer=1, step=8)
    assert part.concepts == ("truth",)
    assert part.steps == (8,)
    assert part.sites == ("blocks.1.hook_mlp_out", "blocks.1.hook_resid_post")
    np.testing.assert_array_equal(part.data.accuracy, trace.data.accuracy[:1, 1:2, 2:])
    assert trace.sel(step=slice(8, 64)).steps == (8, 64)
    assert trace.sel(step=[64, 0]).steps == (0, 64)
    assert trace.sel(stage="stage1", layer=np.int64(0)).checkpoints == ("m@step8", "m@step64")
    assert trace.sel() == trace


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"step": 10}, "no step 10 .*Nearest are 8 and 64"),
        ({"step": 100}, "no step 100 .*Nearest is 64"),
        ({"step": [0, 9]}, "no step 9 "),
        ({"layer": 5}, "no layer 5 .*It holds 0, 1"),
        ({"concept": "trth"}, "no concept 'trth' .*'truth', 'kindness <b>'"),
        ({"site": "blocks.7.hook_resid_post"}, "blocks.0.hook_mlp_out"),
        ({"probe": "logistic"}, "no axis of probes"),
        ({"layer": []}, "empty list"),
        ({"layer": 0, "site": "blocks.1.hook_mlp_out"}, "No site has site=.* and layer=0"),
        ({"step": slice(0, 64, 2)}, "one number to another"),
    ],
)
def test_choosing_what_is_not_there_tells_what_is(trace, choice, words):
    with pytest.raises(ValueError, match=words):
        trace.sel(**choice)


def test_choosing_one_probe_leaves_a_trace_without_that_axis(trace):
    data = trace.data.drop_vars(["accuracy_ci", "accuracy_n", "bound"])
    both = data[["accuracy"]].expand_dims(probe=["logistic", "mass_mean"]).copy(deep=True)
    both.accuracy.values[1] += 1
    both = Trace(both.assign(rank=data["rank"]))
    one = both.sel(probe="mass_mean")
    assert "probe" not in one.data.dims
    np.testing.assert_array_equal(one.data.accuracy, both.data.accuracy.sel(probe="mass_mean"))
    assert both.sel(probe=["mass_mean"]).data.sizes["probe"] == 1
    frame = both.to_frame()
    assert len(frame) == 2 * 2 * 3 * 4
    assert frame.set_index(["probe", "concept", "checkpoint", "site"]).accuracy.loc[
        "mass_mean", "truth", "m@step8", "blocks.1.hook_mlp_out"
    ] == pytest.approx(both.data.accuracy.values[1, 0, 1, 2])


def test_every_number_stands_in_the_table_in_a_row_of_its_own(trace):
    frame = trace.to_frame()
    assert len(frame) == 2 * 3 * 4
    rows = frame.set_index(["concept", "step", "site"])
    for concept in trace.concepts:
        for step in trace.steps:
            for site in trace.sites:
                cell = trace.sel(concept=concept, step=step, site=site).data.squeeze()
                row = rows.loc[(concept, step, site)]
                expected = [cell.accuracy, *cell.accuracy_ci, cell["rank"], cell.layer, cell.tokens]
                found = row[
                    ["accuracy", "accuracy_low", "accuracy_high", "rank", "layer", "tokens"]
                ]
                np.testing.assert_array_equal(found.astype(float), [float(e) for e in expected])
    assert "bound" not in frame
    assert frame.accuracy_n.dtype.kind == "i"


def test_the_best_site_is_the_largest_value_of_each_concept_and_checkpoint(trace):
    best = trace.best_site("accuracy")
    values = trace.data.accuracy
    np.testing.assert_array_equal(best.accuracy, values.max("site"))
    for i in range(2):
        for j in range(3):
            site = str(best.site[i, j].values)
            if (i, j) == (1, 2):
                assert site == ""
                assert np.isnan([best.layer[i, j], best.accuracy_n[i, j]]).all()
                continue
            assert values[i, j].sel(site=site) == best.accuracy[i, j]
            assert best.layer[i, j] == int(site.split(".")[1])
            np.testing.assert_array_equal(
                best.accuracy_ci[i, j], trace.data.accuracy_ci[i, j].sel(site=site)
            )
    np.testing.assert_array_equal(
        trace.best_site("rank", lowest=True)["rank"], trace.data["rank"].min("site")
    )
    assert "optimistic" in best.attrs["note"]
    with pytest.raises(ValueError, match=r"no quantity 'acuracy'.*'accuracy', 'rank'"):
        trace.best_site("acuracy")


def test_what_a_trace_says_of_itself_names_what_is_in_it_and_what_is_unknown(trace):
    text = repr(trace)
    for word in ("m <i>", "truth", "0 … 64", "accuracy (fraction of statements)", "rank"):
        assert word in text
    assert "1 of 6 concepts × checkpoints" in text
    assert "neither label is the trustworthy side: kindness <b>" in text
    assert "unknown" not in repr(trace.sel(concept="truth"))


def test_names_are_escaped_before_they_become_html(trace):
    html = trace._repr_html_()
    assert "kindness &lt;b&gt;" in html
    assert "m &lt;i&gt;" in html
    assert "kindness <b>" not in html
    assert "m <i>" not in html


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda d: d.isel(site=0), "has the dimensions .*'site'"),
        (lambda d: d.drop_vars("concept"), "'concept' of a trace is labelled by texts"),
        (lambda d: d.assign_coords(checkpoint=[0, 1, 2]), "labelled by texts"),
        (lambda d: d.assign_coords(concept=["a", "a"]), "concept 'a' stands twice"),
        (lambda d: d.drop_vars("step"), "numbers 'step' along 'checkpoint'"),
        (lambda d: d.assign_coords(layer=("site", list("abcd"))), "numbers 'layer'"),
        (lambda d: d.assign_coords(bound=["high", "low"]), "'low', 'high'"),
        (lambda d: d.drop_vars("accuracy"), "interval of a variable 'accuracy'"),
        (lambda d: d.drop_vars(list(d.data_vars)), "at least one variable"),
        (lambda d: d.assign(s=("example", [1.0], {"units": "1", "long_name": "s"})), "load_scores"),
        (lambda d: d.assign(x=(("site",), [0.0] * 4, {"long_name": "x"})), "'x' has no 'units'"),
        (lambda d: d.assign(x=(("site",), [0.0] * 4, {"units": "1"})), "'x' has no 'long_name'"),
        (lambda d: d.assign(x=(("site",), list("abcd"), {"units": "1"})), "holds numbers"),
    ],
)
def test_a_data_set_that_is_no_trace_is_refused_with_the_reason(trace, spoil, words):
    with pytest.raises(ValueError, match=words):
        Trace(spoil(trace.data))


def test_a_trace_does_not_follow_changes_of_the_data_set_it_was_made_from(trace):
    data = trace.data.copy()
    made = Trace(data)
    del data["rank"]
    assert "rank" in made.quantities
    with pytest.raises(AttributeError):
        made.data = data


def test_what_has_further_axes_is_laid_out_only_when_it_is_asked_for(trace):
    swept = trace.data.accuracy.expand_dims(width=[0.5, 1.0, 2.0]).assign_attrs(
        units="1", long_name="a dependence"
    )
    wider = Trace(trace.data.assign(dependence=swept))
    assert wider.to_frame().equals(trace.to_frame())
    frame = wider.to_frame("dependence")
    assert len(frame) == 3 * len(trace.to_frame())
    assert {"concept", "checkpoint", "site", "width", "step", "layer", "dependence"} <= set(frame)
    with pytest.raises(ValueError, match=r"no variable 'dependance'.*'dependence'"):
        wider.to_frame("dependance")
