import numpy as np
import pytest

from tlens_trust.analysis import find_phases, information_plane
from tlens_trust.analysis.phases.phase_records import Phases
from tlens_trust.tracing import Trace

FLAT = np.full(13, 0.5)
UP = np.linspace(0.2, 0.9, 13)
UP_AND_DOWN = np.concatenate([np.linspace(0.2, 0.9, 7), np.linspace(0.8, 0.3, 6)])


def phases_of(trace, **arguments):
    arguments = {"draws": 1000, **arguments}
    return find_phases(information_plane(trace), **arguments)


def told(phases, quantity="I(T;X)"):
    return [phase.verdict for phase in phases if phase.quantity == quantity]


def test_fitting_and_compression_that_survive_every_control_are_claimed(make_trace):
    phases = phases_of(make_trace(UP_AND_DOWN, UP))
    assert told(phases) == ["rises", "falls"]
    rise, fall = phases.sel(quantity="I(T;X)")
    assert rise.last == fall.first
    assert rise.change_ci[0] < 0.7 < rise.change_ci[1]
    assert fall.first_step_ci[0] <= 32 <= fall.first_step_ci[1]
    assert "as it does in the rank-matched variant, at width 0.5 and at width 2" in fall.reason
    assert "with X = text it falls too" in fall.reason
    assert set(told(phases, "I(T;Y)")) == {"rises"}


def test_a_fall_that_vanishes_with_a_flat_spectrum_is_a_change_of_spectrum(make_trace):
    phases = phases_of(make_trace(UP_AND_DOWN, FLAT, matched_x=FLAT))
    assert set(told(phases)) == {"no claim"}
    fall = phases.sel(quantity="I(T;X)").phases[-1]
    assert fall.blocked_by == ("rank-matched",)
    assert "a change of spectrum, not compression" in fall.reason
    assert fall.change_ci[1] < 0


def test_a_fall_that_is_seen_at_one_width_only_is_a_change_of_spectrum(make_trace):
    phases = phases_of(make_trace(UP_AND_DOWN, FLAT, wide_x=UP))
    fall = phases.sel(quantity="I(T;X)").phases[-1]
    assert fall.verdict == "no claim"
    assert fall.blocked_by == ("width 2",)
    assert "a change of spectrum, not compression" in fall.reason


def test_a_control_that_is_too_noisy_to_tell_is_told_apart_from_one_that_contradicts(make_trace):
    data = make_trace(UP_AND_DOWN, FLAT).data
    matched = {"variant": "rank_matched"}
    data["nhsic"].loc[matched] += 2.0
    data["nhsic_draws"].loc[matched] += 30 * (
        data["nhsic_draws"].sel(matched) - data["nhsic"].sel(matched)
    )
    fall = phases_of(Trace(data)).sel(quantity="I(T;X)").phases[-1]
    assert fall.blocked_by == ("rank-matched",)
    assert "it cannot be told from a change of spectrum" in fall.reason
    assert "not compression" not in fall.reason


def test_a_change_that_permuted_pairs_show_too_is_not_claimed(make_trace):
    phases = phases_of(make_trace(UP, FLAT, null=UP - 0.2, matched_null=UP - 0.2))
    assert set(told(phases)) == {"no claim"}
    assert phases.phases[0].blocked_by == ("null",)
    assert "permuted pairs" in phases.phases[0].reason


def test_noise_alone_is_not_claimed(make_trace):
    phases = phases_of(make_trace(FLAT, FLAT))
    assert {phase.verdict for phase in phases} == {"no claim"}
    assert all(phase.blocked_by == ("noise",) for phase in phases)


def test_a_change_of_no_size_is_not_claimed_however_sure(make_trace):
    slight = 0.5 + np.linspace(0, 0.01, 13)
    phases = phases_of(make_trace(slight, FLAT, noise=1e-5))
    assert phases.phases[0].blocked_by == ("size",)
    assert "too small to matter" in phases.phases[0].reason
    assert told(phases_of(make_trace(slight, FLAT, noise=1e-5), min_share=0.001))[0] == "rises"


def test_nothing_is_claimed_where_too_few_directions_are_matched(make_trace):
    partly = make_trace(UP_AND_DOWN, UP, share=0.3)
    phases = phases_of(partly)
    assert {phase.verdict for phase in phases} == {"no claim"}
    assert phases.phases[0].blocked_by == ("too few statements",)
    assert "holds 30% of the directions" in phases.phases[0].reason
    assert told(phases_of(partly, min_matched_share=0.3)) == ["rises", "falls"]


def test_nothing_is_claimed_of_x_without_a_rank_matched_variant(make_trace):
    data = make_trace(UP_AND_DOWN, UP).data
    phases = phases_of(Trace(data.sel(variant=["raw"])))
    assert phases.phases[0].blocked_by == ("rank-matched missing",)
    assert "was not measured" in phases.phases[0].reason


def test_a_control_that_is_unknown_somewhere_counts_as_missing(make_trace):
    data = make_trace(UP_AND_DOWN, UP).data
    data["nhsic"].loc[{"variant": "rank_matched", "checkpoint": "planted@step64"}] = np.nan
    assert phases_of(Trace(data)).phases[0].blocked_by == ("rank-matched missing",)


def test_another_input_that_disagrees_is_told_and_blocks_nothing(make_trace):
    data = make_trace(UP_AND_DOWN, UP).data
    generator = np.random.default_rng(1)
    own = 0.5 + 0.02 * generator.standard_normal(13)
    apart = data["nhsic_draws"].sel(against="text") - data["nhsic"].sel(against="text")
    data["nhsic"].loc[{"against": "text"}] = own[None, :, None, None, None]
    data["nhsic_draws"].loc[{"against": "text"}] = data["nhsic"].sel(against="text") + apart
    fall = phases_of(Trace(data)).sel(quantity="I(T;X)").phases[-1]
    assert fall.verdict == "falls"
    assert "with X = text no change is shown" in fall.reason


def test_many_questions_ask_more_of_each(make_trace):
    one = phases_of(make_trace(UP_AND_DOWN, UP))
    many = make_trace(FLAT, FLAT, concepts=tuple("abcdefgh")).data
    planted = make_trace(UP_AND_DOWN, UP, concepts=("a",)).data
    for name in ("nhsic", "nhsic_draws", "nhsic_null"):
        many[name].loc[{"concept": "a"}] = planted[name].sel(concept="a")
    among = phases_of(Trace(many))
    mine = [phase for phase in among if phase.concept == "a"]
    assert [phase.p for phase in mine] == pytest.approx([phase.p for phase in one], abs=0.01)
    assert all(phase.q >= other.q for phase, other in zip(mine, one, strict=True))


def test_whatever_is_not_claimed_names_what_blocked_it(make_trace):
    for noise in (0.02, 0.1, 0.2, 0.4):
        for phase in phases_of(make_trace(UP_AND_DOWN, UP, noise=noise)):
            assert (phase.verdict == "no claim") == bool(phase.blocked_by)
            assert phase.reason


def test_where_the_site_is_the_input_itself_nothing_is_said(make_trace):
    sites = ("blocks.0.hook_resid_post", "blocks.5.hook_resid_post")
    phases = phases_of(make_trace(UP_AND_DOWN, UP, sites=sites))
    assert {phase.site for phase in phases.sel(quantity="I(T;X)")} == {sites[1]}
    assert "X itself" in phases.unknown[0]
    against_text = find_phases(
        information_plane(make_trace(UP_AND_DOWN, UP, sites=sites), against="text"), draws=1000
    )
    assert not against_text.unknown


def test_unknown_checkpoints_are_left_out(make_trace):
    data = make_trace(UP_AND_DOWN, UP).data
    gone = {"checkpoint": "planted@step4"}
    for name in ("nhsic", "nhsic_draws", "nhsic_null"):
        data[name].loc[gone] = np.nan
    phases = phases_of(Trace(data))
    assert told(phases) == ["rises", "falls"]
    assert "planted@step4" not in {phase.first for phase in phases}


def test_two_checkpoints_tell_no_phase(make_trace):
    plane = information_plane(make_trace(UP_AND_DOWN, UP)).isel(checkpoint=[0, 6])
    phases = find_phases(plane, draws=1000)
    assert len(phases) == 0
    assert "a phase takes 3" in phases.unknown[0]


def test_the_order_of_checkpoints_does_not_matter(make_trace):
    plane = information_plane(make_trace(UP_AND_DOWN, UP))
    mixed = plane.isel(checkpoint=np.random.default_rng(0).permutation(13))
    assert str(find_phases(mixed, draws=500)) == str(find_phases(plane, draws=500))


def test_the_same_seed_gives_the_same_phases(make_trace):
    trace = make_trace(UP_AND_DOWN, UP)
    assert phases_of(trace).phases == phases_of(trace).phases


def test_a_part_of_a_plane_has_phases_of_its_own(make_trace):
    plane = information_plane(make_trace(UP_AND_DOWN, UP, concepts=("one", "two")))
    part = find_phases(plane.sel(concept="one"), draws=500, quantities=("x",))
    assert {(phase.concept, phase.quantity) for phase in part} == {("one", "I(T;X)")}


def test_phases_are_told_in_a_table_and_in_words(make_trace):
    phases = phases_of(make_trace(UP_AND_DOWN, UP))
    frame = phases.to_frame()
    assert len(frame) == len(phases)
    assert {"verdict", "change", "change_low", "change_high", "q", "reason"} <= set(frame)
    assert "2 of" in repr(phases) or "segments claimed" in repr(phases)
    assert "step 0 → step 32  rises: +0.7" in repr(phases)
    assert len(phases.sel(verdict="falls")) == 1
    with pytest.raises(ValueError, match="No phase has the concept 'other'"):
        phases.sel(concept="other")
    assert Phases((), {}, 0.95).to_frame().empty


def test_ruptures_may_search_instead(make_trace):
    pytest.importorskip("ruptures")
    phases = phases_of(make_trace(UP_AND_DOWN, UP), search="ruptures")
    assert told(phases)[0] == "rises"
    assert told(phases)[-1] == "falls"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"quantities": ("z",)}, "axes of the plane"),
        ({"max_turning_points": 9}, "turning points"),
        ({"min_steps": 0}, "at least 1"),
        ({"min_share": 1.0}, "a share"),
        ({"min_matched_share": 1.5}, "a share"),
        ({"confidence": 0.2}, "between 0.5 and 1"),
        ({"search": "guess"}, "'exact' or 'ruptures'"),
        ({"draws": 100}, "too few"),
    ],
)
def test_wrong_arguments_are_refused(make_trace, wrong, message):
    plane = information_plane(make_trace(UP_AND_DOWN, UP))
    with pytest.raises(ValueError, match=message):
        find_phases(plane, **wrong)


def test_what_is_no_plane_is_refused(make_trace):
    with pytest.raises(ValueError, match="information_plane"):
        find_phases(make_trace(UP, UP).data)


def test_a_notebook_shows_every_verdict_and_runs_no_name_of_a_concept(make_trace):
    phases = phases_of(make_trace(UP_AND_DOWN, UP, concepts=("<img src=x>",)))
    shown = phases._repr_html_()
    assert "<img" not in shown
    assert shown.count("&lt;img src=x&gt;") == len(phases)
    for phase in phases:
        assert phase.verdict in shown
