import numpy as np
import pytest
import torch
import xarray as xr

from tlens_trust.activations import ActivationStore, collect_activations
from tlens_trust.checkpoints import Checkpoint, model_cache
from tlens_trust.checkpoints.loading_options import Loading
from tlens_trust.steering import (
    EstimationOptions,
    ForcedChoice,
    Intervention,
    SamplingOptions,
    SteeringTasks,
    evaluate_steering,
    extract_steering_vector,
    steering_matrix,
    training_rows,
)
from tlens_trust.steering.evaluated_model import EvaluatedModel

SITE = 1
CHOICE = ForcedChoice("answer", "{statement}", (" w62",), (" w63",))
NEUTRAL = [" ".join(f"w{(k * 7 + i * 5) % 60}" for i in range(8)) for k in range(6)]
# What is planted at each step: nothing, what can be read, what can be read and written.
STEPS = {0: (False, False), 8: (True, False), 64: (True, True)}


@pytest.fixture(scope="module")
def series(plant, tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    found = []
    for step, (readable, writable) in STEPS.items():
        model, tokenizer, _ = plant(readable=readable, writable=writable)
        model.save_pretrained(folder / f"step{step}")
        tokenizer.save_pretrained(folder / f"step{step}")
        found.append(Checkpoint.from_directory(folder / f"step{step}"))
    return found


@pytest.fixture(scope="module")
def in_memory(series):
    """The same, which are read without waiting for TransformerLens."""
    from transformers import AutoModelForCausalLM

    return [
        Checkpoint(
            "planted",
            each.revision,
            step=each.step,
            in_memory=AutoModelForCausalLM.from_pretrained(each.folder),
            tokenizer=each.load_tokenizer(),
        )
        for each in series
    ]


@pytest.fixture(scope="module")
def concept(planted_concept):
    return planted_concept(groups=30)


DOSE = Intervention(target_kl=0.05)
TASKS = SteeringTasks(choices=[CHOICE], neutral_text=NEUTRAL, everyday=False)


def make(
    sources,
    targets,
    concept,
    *,
    intervention=DOSE,
    tasks=TASKS,
    draws=19,
    rows=None,
    store=None,
    **options,
):
    return steering_matrix(
        sources,
        targets,
        concept,
        EstimationOptions(sites=SITE, rows=rows, store=store),
        intervention=intervention,
        tasks=tasks,
        sampling=SamplingOptions(draws=draws, resamples=300),
        progress=False,
        **options,
    )


@pytest.fixture(scope="module")
def matrix(in_memory, concept):
    return make(in_memory, in_memory, concept, opposite=True)


@pytest.fixture
def counts(monkeypatch):
    """Which checkpoints were loaded, and how many passes of evaluation were made, by kind."""
    seen = {"loads": [], "full": 0, "effects": 0}
    load, run_pass = Checkpoint.load, EvaluatedModel.evaluate

    def counted_load(self, **arguments):
        seen["loads"].append(self.name)
        return load(self, **arguments)

    def counted_pass(self, *arguments, effects_only=False):
        seen["effects" if effects_only else "full"] += 1
        return run_pass(self, *arguments, effects_only=effects_only)

    monkeypatch.setattr(Checkpoint, "load", counted_load)
    monkeypatch.setattr(EvaluatedModel, "evaluate", counted_pass)
    return seen


def test_a_target_is_loaded_once_and_each_cell_takes_one_pass(series, concept, counts, tmp_path):
    store = ActivationStore(tmp_path)
    for source in series:
        collect_activations(source, concept, sites=SITE, store=store)
    counts["loads"].clear()
    found = make(series, series, concept, draws=2, store=store)
    assert counts["loads"] == [each.name for each in series]
    cells, targets = 9, 3
    assert counts["full"] == cells + targets
    assert counts["effects"] == 2 * targets
    assert found.log_odds_change.shape == (3, 3)


def test_a_source_whose_activations_are_not_kept_is_loaded_for_its_vector(
    series, concept, counts, tmp_path
):
    store = ActivationStore(tmp_path)
    make(series[:2], series[2:], concept, draws=1, store=store)
    assert counts["loads"] == [each.name for each in series]
    counts["loads"].clear()
    make(series[:2], series[2:], concept, draws=1, store=store)
    assert counts["loads"] == [series[2].name]
    # What was read of a model that stayed loaded is found again where only the checkpoint is named.
    make(series[2:], series[2:], concept, draws=1, store=store)
    counts["loads"].clear()
    collect_activations(series[2], concept, sites=SITE, store=store)
    assert counts["loads"] == []


@pytest.fixture(scope="module")
def ten(tmp_path_factory, make_model, tokenizer):
    """Ten checkpoints of one run, of random weights."""
    folder = tmp_path_factory.mktemp("runs") / "ten"
    for step in range(10):
        make_model("gpt_neox", seed=step).save_pretrained(folder / f"step{step}")
        tokenizer.save_pretrained(folder / f"step{step}")
    return [Checkpoint.from_directory(folder / f"step{step}") for step in range(10)]


def test_ten_sources_on_themselves_take_ten_loads_and_one_pass_a_cell(
    ten, planted_concept, counts, tmp_path, monkeypatch
):
    # Loads and passes are counted; looking for the dose would take most of the time.
    monkeypatch.setattr(
        EvaluatedModel,
        "at_dose",
        lambda self, vector, intervention, **_: intervention.at_strength(1.0),
    )
    store = ActivationStore(tmp_path)  # empty
    few = planted_concept(groups=8)
    tasks = SteeringTasks(neutral_text=NEUTRAL[:2], everyday=False)
    found = make(ten, ten, few, store=store, tasks=tasks, draws=1)
    assert sorted(counts["loads"]) == sorted(each.name for each in ten)
    cells, targets = 100, 10
    assert counts["full"] == cells + targets
    assert counts["effects"] == targets
    assert np.isfinite(found.log_odds_change.values).all()


@pytest.fixture(scope="module")
def loaded_once(series, concept):
    return make(series, series, concept, draws=1)


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_what_may_not_stay_loaded_is_loaded_again_and_tells_the_same(
    at_once, series, concept, loaded_once, counts, monkeypatch
):
    held, most = set(), 0
    load, release = Checkpoint.load, model_cache.release

    def counted_load(self, **arguments):
        nonlocal most
        model = load(self, **arguments)
        held.add(id(model))
        most = max(most, len(held))
        return model

    def counted_release(model):
        held.remove(id(model))
        release(model)

    monkeypatch.setattr(Checkpoint, "load", counted_load)
    monkeypatch.setattr(model_cache, "release", counted_release)
    found = make(series, series, concept, draws=1, loaded_at_once=at_once)
    assert len(counts["loads"]) == 2 * len(series) - at_once
    assert most == at_once
    assert not held
    xr.testing.assert_identical(found, loaded_once)


def test_without_free_memory_one_checkpoint_at_a_time_is_loaded(
    series, concept, counts, monkeypatch
):
    monkeypatch.setattr(model_cache, "free_memory", lambda loading: 0)
    make(series, series[:2], concept, draws=1)
    # The one that is not wanted again comes first, and the last one read is still there.
    assert counts["loads"] == [series[k].name for k in (2, 0, 1, 0)]


def test_free_memory_is_that_of_the_machine_or_of_its_container(tmp_path):
    assert 0 < model_cache.free_memory(Loading(device="cpu")) < 1 << 50
    assert model_cache._container_memory(tmp_path) == 1 << 62
    for name, said in (("max", "1000"), ("current", "900"), ("stat", "file 5\ninactive_file 300")):
        (tmp_path / f"memory.{name}").write_text(said)
    assert model_cache._container_memory(tmp_path) == 400
    (tmp_path / "memory.max").write_text("max")
    assert model_cache._container_memory(tmp_path) == 1 << 62


def test_nothing_stays_loaded_after_an_error(series, concept, monkeypatch):
    loaded, load = [], Checkpoint.load

    def kept_load(self, **arguments):
        loaded.append(load(self, **arguments))
        return loaded[-1]

    monkeypatch.setattr(Checkpoint, "load", kept_load)
    two_tokens = Intervention(target_kl=0.05, positions={"w1 w2"})
    with pytest.raises(ValueError, match="is 2 tokens"):
        make(series, series, concept, draws=1, intervention=two_tokens)
    assert len(loaded) == 3
    assert all(weight.numel() == 0 for model in loaded for weight in model.parameters())


def test_what_can_be_read_and_written_is_steered_by_what_can_be_read_alone(matrix):
    last = matrix.isel(target=2)
    for source in (1, 2):
        here = last.isel(source=source)
        assert float(here.answer_log_odds_change_ci.sel(bound="low")) > 0
        assert float(here.answer_log_odds_over_random_ci.sel(bound="low")) > 0
        assert float(here.answer_log_odds_p) == pytest.approx(1 / 20)
        assert float(here.answer_log_odds_opposite) < 0
        assert float(here.answer_log_odds_wrong_way) == 0.0
    # Where nothing is read there is nothing to steer by, and what is not written cannot be steered.
    assert float(last.answer_log_odds_p.isel(source=0)) > 0.05
    assert float(matrix.answer_log_odds_p.isel(source=1, target=1)) > 0.05


def test_every_cell_is_at_the_dose(matrix):
    assert matrix.kl_change.values == pytest.approx(np.full((3, 3), 0.05), rel=0.01)
    assert matrix.kl_random.values == pytest.approx(np.full((3, 19), 0.05), rel=0.011)
    assert np.ptp(matrix.strength.values) > 0


def test_a_cell_is_what_evaluating_that_vector_on_that_target_gives(matrix, in_memory, concept):
    vector = extract_steering_vector(
        in_memory[1], concept, site=SITE, rows=training_rows(concept), store=None
    )
    found = evaluate_steering(
        in_memory[2],
        vector,
        concept,
        intervention=DOSE,
        tasks=TASKS,
        sampling=SamplingOptions(draws=2, resamples=300),
        controls="equal_kl",
    )
    cell = matrix.isel(source=1, target=2)
    for name in ("answer_log_odds", "log_odds", "neutral_loss"):
        steered = found.sel(condition="steered")
        assert float(cell[f"{name}_change"]) == pytest.approx(
            float(steered[f"{name}_change"]), rel=1e-3
        )
        assert cell[f"{name}_change_ci"].values == pytest.approx(
            steered[f"{name}_change_ci"].values, rel=1e-2, abs=1e-3
        )


def test_the_mean_of_what_is_kept_of_each_example_is_the_change(matrix):
    kept = matrix.answer_log_odds_of_example.mean("answer_log_odds_example")
    assert kept.values == pytest.approx(matrix.answer_log_odds_change.values)
    drawn = matrix.answer_log_odds_random_of_example.mean("answer_log_odds_example")
    assert drawn.values == pytest.approx(matrix.answer_log_odds_random.values)


def test_a_vector_points_along_itself(matrix):
    assert np.diag(matrix.cosine.values) == pytest.approx(np.ones(3), abs=1e-5)
    assert float(matrix.cosine.isel(source=1, other_source=2)) > 0.9
    assert abs(float(matrix.cosine.isel(source=0, other_source=2))) < 0.8


def test_a_matrix_survives_a_file(matrix, tmp_path):
    matrix.to_netcdf(tmp_path / "matrix.nc", engine="netcdf4")
    with xr.open_dataset(tmp_path / "matrix.nc", engine="netcdf4") as read:
        xr.testing.assert_identical(read.load(), matrix)


def test_a_cell_whose_dose_is_not_reached_is_unknown(in_memory, concept, plant):
    made, tokenizer, _ = plant()
    with torch.no_grad():
        # The same prediction whatever is read.
        made.gpt_neox.final_layer_norm.weight.zero_()
    deaf = Checkpoint("planted", "deaf", in_memory=made, tokenizer=tokenizer)
    found = make([in_memory[2]], [deaf, in_memory[2]], concept, draws=2)
    for name in ("answer_log_odds_change", "answer_log_odds_p", "strength", "neutral_loss_change"):
        unknown = np.isnan(found[name].values)
        assert unknown.tolist() == [[True, False]], name
    assert np.isnan(found.answer_log_odds_over_random_ci.values[0, 0]).all()
    assert np.isfinite(found.answer_log_odds_unsteered.values).all()


def test_a_target_of_another_run_warns_once_and_of_the_same_run_never(in_memory, concept):
    other = Checkpoint(
        "org/other", in_memory=in_memory[2].in_memory, tokenizer=in_memory[2].tokenizer
    )
    tasks = SteeringTasks(neutral_text=NEUTRAL, everyday=False)
    sources, options = in_memory[1:], {"draws": 1, "tasks": tasks}
    with pytest.warns(UserWarning, match="'org/other' is another model") as seen:
        make(sources, [other, in_memory[2]], concept, **options)
    assert len(seen) == 1
    make(sources, [other], concept, **options, other_model="allow")
    with pytest.raises(ValueError, match="'org/other' is another model"):
        make(sources, [other], concept, **options, other_model="refuse")
    with pytest.raises(ValueError, match="`other_model` is 'warn', 'allow' or 'refuse'"):
        make(sources, [other], concept, **options, other_model="never")


@pytest.mark.parametrize("what", ["sources", "targets"])
def test_checkpoints_of_one_name_are_refused(in_memory, concept, what):
    twice = [in_memory[0], in_memory[0]]
    axes = (twice, in_memory) if what == "sources" else (in_memory, twice)
    with pytest.raises(ValueError, match=f"`{what}` holds two checkpoints"):
        make(*axes, concept, draws=1)


def test_what_is_no_checkpoint_is_refused(in_memory, concept):
    with pytest.raises(ValueError, match="got none"):
        make([], in_memory, concept, draws=1)
    for none in (0, -1, True):
        with pytest.raises(ValueError, match="`loaded_at_once` must be a whole number from 1"):
            make(in_memory, in_memory, concept, draws=1, loaded_at_once=none)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"intervention": Intervention(strength=1.0)}, "compared at one dose"),
        ({"tasks": SteeringTasks(prompts=["w1"])}, "`steering_matrix` generates no text"),
        ({"other_model": "never"}, "`other_model` is"),
        ({"loaded_at_once": 0}, "`loaded_at_once` must be a whole number from 1"),
        ({"seed": -1}, "`seed`"),
        ({"rows": range(60)}, "does not hold both labels"),
        ({"rows": [0, 0]}, "names a statement twice"),
    ],
)
def test_arguments_are_checked_before_a_checkpoint_is_loaded(
    options, message, series, concept, counts
):
    with pytest.raises(ValueError, match=message):
        make(series, series, concept, **options)
    assert not counts["loads"]
