import numpy as np
import pytest

from tlens_trust.analysis import find_phases, information_plane
from tlens_trust.tracing import Trace

UP = np.linspace(0.2, 0.9, 13)


@pytest.fixture(scope="module")
def trace(make_trace):
    return make_trace(UP, UP[::-1], concepts=("one", "two"), null=0.1)


def in_nats(trace):
    """The same numbers as if they were in nats, beside those that are not."""
    data = trace.data
    place = {"against": "text", "variant": "raw", "width": 1.0}
    for name in ("information_x", "information_ba", "information_fano"):
        for suffix in ("", "_ci", "_draws"):
            part = data[f"nhsic{suffix}"].sel(place, drop=True)
            data[f"{name}{suffix}"] = part.assign_attrs(units="nats", long_name=name)
    return Trace(data)


def test_both_axes_are_those_of_the_trace(trace):
    plane = information_plane(trace)
    raw = trace.data.nhsic.sel(variant="raw", width=1.0)
    assert np.array_equal(plane.x.values, raw.sel(against="first_block").values)
    assert np.array_equal(plane.y.values, raw.sel(against="label").values)
    assert plane.x_ci.dims == ("concept", "checkpoint", "site", "bound")
    assert plane.x_draws.dims == ("concept", "checkpoint", "site", "resample")
    assert plane.x.attrs["units"] == plane.attrs["units"] == "1"
    assert (plane.x_n == 500).all()
    assert "rankme" in plane


def test_the_text_can_stand_for_the_input(trace):
    plane = information_plane(trace, against="text", width=2.0)
    wanted = trace.data.nhsic.sel(against="text", variant="raw", width=2.0)
    assert np.array_equal(plane.x.values, wanted.values)
    assert plane.attrs["against"] == "text"


def test_controls_stand_beside_with_what_they_are(trace):
    plane = information_plane(trace)
    kinds = dict(
        zip(plane.x_control.values.tolist(), plane.x_control_kind.values.tolist(), strict=True)
    )
    assert kinds == {
        "rank-matched": "rank-matched",
        "width 0.5": "width",
        "width 2": "width",
        "X = text": "input",
    }
    assert "X = text" not in plane.y_control.values
    matched = plane.x_control_value.sel(x_control="rank-matched")
    wanted = trace.data.nhsic.sel(against="first_block", variant="rank_matched", width=1.0)
    assert np.array_equal(matched.transpose(*wanted.dims).values, wanted.values)


def test_the_untrained_level_is_that_of_step_0(trace, make_trace):
    plane = information_plane(trace)
    assert np.array_equal(plane.x_untrained.values, plane.x.isel(checkpoint=0).values)
    assert plane.x_untrained.attrs["untrained"] == "planted@step0"
    later = information_plane(Trace(trace.data.isel(checkpoint=slice(1, None))))
    assert later.x_untrained.isnull().all()
    assert "no step 0" in later.x_untrained.attrs["untrained"]


def test_positions_are_logarithmic_with_a_place_for_step_0(trace):
    position = information_plane(trace).position.values
    assert np.allclose(np.diff(position), np.log(2))
    assert position[1] == 0


def test_positions_fall_back_on_the_order_where_steps_are_unknown(trace):
    data = trace.data.assign_coords(step=("checkpoint", np.full(13, np.nan)))
    assert np.allclose(np.exp(information_plane(Trace(data)).position.values), np.arange(1, 14))


@pytest.mark.parametrize("pair", [("nhsic", "information_ba"), ("information_x", "nhsic")])
def test_what_is_in_nats_is_never_drawn_with_what_is_not(trace, pair):
    with pytest.raises(ValueError, match="have one unit"):
        information_plane(in_nats(trace), estimator=pair)


def test_nats_go_with_nats(trace):
    plane = information_plane(in_nats(trace), estimator="nats")
    assert plane.attrs["units"] == "nats"
    assert plane.attrs["against"] == ""
    assert plane.y_control_kind.values.tolist() == ["estimator"]


def test_an_estimate_that_was_not_measured_is_refused(trace):
    with pytest.raises(ValueError, match="no estimate 'cka'"):
        information_plane(trace, estimator="cka")


def test_an_input_that_was_not_read_is_refused_with_a_way_out(trace):
    data = trace.data
    data["nhsic"] = data["nhsic"].where(data["against"] != "first_block")
    with pytest.raises(ValueError, match="against='text'"):
        information_plane(Trace(data))


@pytest.mark.parametrize(
    ("wrong", "told"), [({"width": 3.0}, "no width 3"), ({"against": "label"}, "'first_block' or")]
)
def test_a_wrong_place_is_refused(trace, wrong, told):
    with pytest.raises(ValueError, match=told):
        information_plane(trace, **wrong)


def test_the_share_of_directions_is_that_of_the_fewer_of_both_readings(make_trace):
    sites = ("blocks.0.hook_resid_post", "blocks.5.hook_resid_post")
    data = make_trace(UP, UP, sites=sites).data
    data["rank_matched_share"][..., 0] = 0.4
    plane = information_plane(Trace(data))
    assert (plane.x_matched == 0.4).all()
    assert (plane.y_matched.isel(site=1) == 1).all()


def staged(make_trace, steps, tokens):
    """Two stages of pre-training, each of which counts its steps anew."""
    trace = make_trace(UP[:8], UP[:8], steps=np.arange(8))
    stages = ["stage1"] * 4 + ["stage2"] * 4
    names = [f"{stage}@{step}" for stage, step in zip(stages, steps, strict=True)]
    return Trace(
        trace.data.assign_coords(
            checkpoint=names,
            step=("checkpoint", np.asarray(steps, dtype=float)),
            stage=("checkpoint", stages),
            tokens=("checkpoint", tokens),
        )
    )


def test_stages_that_count_their_steps_anew_stand_one_after_the_other(make_trace):
    steps = [1000, 2000, 4000, 8000, 100, 200, 400, 800]
    tokens = np.array([1, 2, 4, 8, 8.1, 8.2, 8.4, 8.8]) * 1e9
    for known in (tokens, np.full(8, np.nan)):
        plane = information_plane(staged(make_trace, steps, known))
        assert (np.diff(plane.position) > 0).all()
        found = find_phases(plane, quantities=("y",)).to_frame()
        # By step alone the curve would go up and down four times.
        assert set(found.verdict) - {"no claim"} == {"rises"}


def test_a_later_stage_that_begins_at_step_0_is_not_taken_for_untrained_weights(make_trace):
    steps = [0, 2000, 4000, 8000, 0, 200, 400, 800]
    tokens = np.array([0, 2, 4, 8, 8.0, 8.2, 8.4, 8.8]) * 1e9
    trace = staged(make_trace, steps, tokens)
    plane = information_plane(trace)
    assert plane.x_untrained.values == pytest.approx(plane.x.isel(checkpoint=0).values)
    assert plane.x_untrained.attrs["untrained"] == "stage1@0"
    later = information_plane(Trace(trace.data.isel(checkpoint=slice(1, None))))
    assert np.isnan(later.x_untrained).all()
