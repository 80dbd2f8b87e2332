import numpy as np
import pytest
import xarray as xr

from tlens_trust.analysis import compare_onsets
from tlens_trust.analysis.onset.steering_onsets import (
    OnsetLevels,
    expression_onset,
    steering_onset,
)
from tlens_trust.checkpoints import Checkpoint
from tlens_trust.steering import (
    EstimationOptions,
    ForcedChoice,
    Intervention,
    SamplingOptions,
    SteeringTasks,
)
from tlens_trust.steering.quantities import Quantity
from tlens_trust.steering.random_directions import RandomDirections
from tlens_trust.steering.target_evaluation import TargetResult
from tlens_trust.views import draw_onsets

CHOICE = ForcedChoice("answer", "{statement}", (" w62",), (" w63",))
NEUTRAL = [" ".join(f"w{(k * 7 + i * 5) % 60}" for i in range(8)) for k in range(6)]
# What is planted at each step: nothing, what can be read, what can be read and written.
STEPS = {0: (False, False), 8: (True, False), 64: (True, True)}


@pytest.fixture(scope="module")
def onsets(plant, planted_concept):
    series = []
    for step, (readable, writable) in STEPS.items():
        model, tokenizer, _ = plant(readable=readable, writable=writable)
        series.append(
            Checkpoint("planted", f"step{step}", step=step, in_memory=model, tokenizer=tokenizer)
        )
    return compare_onsets(
        series,
        planted_concept(groups=40),
        EstimationOptions(sites=1, store=None),
        intervention=Intervention(target_kl=0.05),
        tasks=SteeringTasks(choices=[CHOICE], neutral_text=NEUTRAL),
        sampling=SamplingOptions(draws=19, confidence=0.8, resamples=300),
        effect="answer_log_odds",
        expression="answer_accuracy",
        # Of statements that differ in one word a classifier of the text alone reads everything.
        floor=False,
        progress=False,
    )


def test_what_is_read_first_and_written_later_has_its_onsets_in_that_order(onsets):
    assert onsets.onset_step.sel(kind=["readable", "writable"]).values.tolist() == [8.0, 64.0]
    assert onsets.onset_step_ci.sel(kind="readable").values.tolist() == [0.0, 8.0]
    assert onsets.lasting_step.sel(kind="writable") == 64.0
    assert onsets.writable_p.values[2] == pytest.approx(1 / 20)
    assert onsets.writable_p.values[:2].min() > 0.05
    assert onsets["kind"].values.tolist() == ["readable", "writable", "expressed"]
    assert onsets.attrs["effect"] == "answer_log_odds"


def test_three_onsets_are_drawn_on_one_axis(onsets):
    figure = draw_onsets(onsets)
    axes = {trace.xaxis for trace in figure.data}
    assert len(axes) == 4
    assert figure.layout.xaxis4.type == "log"
    diamonds = [t for t in figure.data if t.mode == "markers" and t.marker.symbol == "diamond"]
    assert len(diamonds) == int((onsets.onset_checkpoint != "").sum())


def test_a_figure_of_something_else_is_refused(onsets):
    with pytest.raises(ValueError, match="compare_onsets"):
        draw_onsets(xr.Dataset({"accuracy": 0.5}))
    with pytest.raises(ValueError, match="No training axis"):
        draw_onsets(onsets, x="loss")


def test_onsets_survive_a_file(onsets, tmp_path):
    onsets.to_netcdf(tmp_path / "onsets.nc", engine="netcdf4")
    with xr.open_dataset(tmp_path / "onsets.nc", engine="netcdf4") as read:
        xr.testing.assert_identical(read.load(), onsets)


def quantity(name, values, units="nats"):
    groups = tuple(str(i) for i in range(len(values)))
    return Quantity(name, np.asarray(values, dtype=float), groups, units, name)


def results(generator, shifts, *, examples=60, draws=99, drift=0.0, known=None):
    """Checkpoints whose vectors move each example by a shift, and random directions by noise."""
    found = []
    for number, shift in enumerate(shifts):
        before = generator.normal(size=examples)
        moved = before + shift + 0.3 * generator.normal(size=examples)
        if known is not None and not known[number]:
            moved = np.full(examples, np.nan)
        random = [
            {"effect": quantity("effect", before + size + 0.3 * generator.normal(size=examples))}
            for size in drift + 0.5 * generator.normal(size=draws)
        ]
        found.append(
            TargetResult(
                {"effect": quantity("effect", before)},
                [{"effect": quantity("effect", moved)}],
                [],
                np.ones(1),
                RandomDirections(random, np.ones(draws)),
            )
        )
    return found


def locate(found, *, resamples=800):
    return steering_onset(found, "effect", OnsetLevels(0.025, resamples, 0), margin=0.5)


def test_a_change_is_located_where_it_comes_about():
    made = results(np.random.default_rng(0), [0.0, 0.0, 0.0, 3.0, 3.0])
    located, p = locate(made)
    assert located.established == 3
    assert located.lasting == 3
    assert located.members.tolist() == [False, False, True, True, False]
    assert (p[3:] == 0.01).all()
    assert located.value == pytest.approx([0, 0, 0, 3, 3], abs=0.3)


def test_a_change_to_the_other_side_is_no_onset():
    located, p = locate(results(np.random.default_rng(1), [0.0, -3.0, -3.0]))
    assert located.established is None
    assert (p[1:] == 0.01).all()


def test_a_change_that_random_directions_make_too_is_no_onset():
    # Shown by its groups at every checkpoint, and yet nothing of the concept's own.
    located, p = locate(results(np.random.default_rng(2), [0.6] * 5, drift=0.2))
    assert (located.value > 0.2).all()
    assert located.established is None
    assert p.min() > 0.05


@pytest.mark.slow
def test_an_onset_of_nothing_is_claimed_no_more_often_than_is_said():
    # Vectors that are themselves random directions, at five checkpoints.
    claimed = 0
    for seed in range(200):
        generator = np.random.default_rng(seed)
        made = results(generator, 0.5 * generator.normal(size=5), examples=40)
        claimed += locate(made, resamples=400)[0].established is not None
    assert claimed / 200 <= 0.025 + 2 * np.sqrt(0.025 * 0.975 / 200)


def test_a_checkpoint_whose_dose_is_not_reached_is_neither_shown_nor_excluded():
    known = [False, True, True, True]
    made = results(np.random.default_rng(3), [0.0, 0.0, 3.0, 3.0], known=known)
    located, p = locate(made)
    assert located.established == 2
    assert located.members.tolist() == [True, True, True, False]
    assert np.isnan(p[0])
    assert np.isnan(located.bounds[0]).all()


def test_expression_is_held_against_one_half_where_it_is_a_fraction():
    def at(share):
        right = (np.arange(200) < 200 * share).astype(float)
        held = quantity("mc1", right, units="fraction of groups")
        return TargetResult({"mc1": held}, [], [], np.ones(1), RandomDirections([], np.ones(0)))

    levels = OnsetLevels(0.025, 800, 0)
    located = expression_onset([at(0.3), at(0.5), at(0.9)], "mc1", levels, margin=0.15)
    assert located.value == pytest.approx([-0.2, 0.0, 0.4])
    assert located.established == 2
    never = expression_onset([at(0.3), at(0.5)], "mc1", levels, margin=0.15)
    assert never.established is None


def test_quantities_that_are_not_there_and_too_few_draws_are_refused(plant, planted_concept):
    model, tokenizer, _ = plant()
    one = Checkpoint("planted", "step8", step=8, in_memory=model, tokenizer=tokenizer)
    tasks = SteeringTasks(neutral_text=NEUTRAL)

    def compare(estimation, sampling, **options):
        return compare_onsets(
            [one],
            planted_concept(),
            estimation,
            sampling=sampling,
            progress=False,
            **({"tasks": tasks} | options),
        )

    at_site = EstimationOptions(sites=1, store=None)
    with pytest.raises(ValueError, match="Take at least 79"):
        compare(at_site, SamplingOptions(draws=50))
    few = SamplingOptions(draws=4, confidence=0.2, resamples=100)
    with pytest.raises(ValueError, match="`effect` got 'answer_log_odds'"):
        compare(at_site, few, effect="answer_log_odds")
    with pytest.raises(ValueError, match="compared at one site"):
        compare(EstimationOptions(sites="resid_post", store=None), few)
    with pytest.raises(ValueError, match="`compare_onsets` generates no text"):
        compare(at_site, few, tasks=SteeringTasks(prompts=["w1"]))
