import pytest
import torch

from tlens_trust.checkpoints import CheckpointSeries, Loading
from tlens_trust.checkpoints import published_runs as published_module
from tlens_trust.checkpoints.hooked_model import HookedModel
from tlens_trust.checkpoints.plain_model import PlainModel


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch):
    """Whoever asks the hub here fails."""

    def refuse(*_args, **_kwargs):
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", refuse)
    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_refs", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


def listing(monkeypatch, *revisions):
    monkeypatch.setattr(published_module, "list_revisions", lambda model: revisions)


def test_a_known_schedule_asks_nothing_of_the_hub():
    series = CheckpointSeries.from_hub("EleutherAI/pythia-160m", steps="all")
    assert len(series) == 154
    assert series.tokens == tuple(step * 2_097_152 for step in series.steps)
    assert [c.revision for c in series] == [f"step{step}" for step in series.steps]


def test_an_unknown_model_does_ask_the_hub():
    with pytest.raises(AssertionError, match="the hub was asked"):
        CheckpointSeries.from_hub("somebody/model")


@pytest.mark.parametrize(
    ("model", "run", "expected"),
    [
        ("EleutherAI/pythia-160m", "seed3", "EleutherAI/pythia-160m-seed3"),
        ("EleutherAI/pythia-160m", "data-seed2", "EleutherAI/pythia-160m-data-seed2"),
        ("EleutherAI/pythia-1b", "deduped", "EleutherAI/pythia-1b-deduped"),
        ("EleutherAI/pythia-1b", "v0", "EleutherAI/pythia-1b-v0"),
        (
            "stanford-crfm/alias-gpt2-small-x21",
            "battlestar",
            "stanford-crfm/battlestar-gpt2-small-x49",
        ),
        (
            "stanford-crfm/arwen-gpt2-medium-x21",
            "eowyn",
            "stanford-crfm/eowyn-gpt2-medium-x777",
        ),
    ],
)
def test_a_run_that_has_a_repository_of_its_own_is_found(model, run, expected):
    series = CheckpointSeries.from_hub(model, run=run, steps=[1000, 2000])
    assert {checkpoint.model for checkpoint in series} == {series.model} == {expected}


@pytest.mark.parametrize(
    ("model", "run", "says"),
    [
        ("EleutherAI/pythia-160m", "seed12", r"Choose among seed1, .*deduped-v0"),
        ("EleutherAI/pythia-160m-seed1", "seed2", "names a run already"),
        ("stanford-crfm/alias-gpt2-small-x21", "eowyn", "Choose among alias, battlestar"),
        ("LLM360/Amber", "seed1", "has only one run"),
    ],
)
def test_an_unknown_run_names_the_runs_that_there_are(model, run, says):
    with pytest.raises(ValueError, match=says):
        CheckpointSeries.from_hub(model, run=run)


def test_the_early_steps_are_missing_in_pythia_v0():
    with pytest.raises(ValueError, match=r"No step 512 .* nearest is 1000"):
        CheckpointSeries.from_hub("EleutherAI/pythia-160m-v0", steps=[512])


def test_an_unknown_step_names_its_nearest_neighbours():
    with pytest.raises(ValueError, match=r"No step 1500 .* nearest are 1000 and 2000"):
        CheckpointSeries.from_hub("EleutherAI/pythia-160m", steps=[1000, 1500])


def test_ambers_last_checkpoint_is_its_main_branch():
    series = CheckpointSeries.from_hub("LLM360/Amber", steps="all")
    assert [series[0].revision, series[358].revision] == ["ckpt_000", "ckpt_358"]
    assert (series[-1].revision, series[-1].step) == ("main", 359)
    assert CheckpointSeries.from_hub("LLM360/Amber")[-1].revision == "main"


def test_multiberts_have_a_repository_per_checkpoint():
    series = CheckpointSeries.from_hub("google/multiberts", run="seed_2", steps=[0, 20_000])
    assert [c.model for c in series] == [
        "google/multiberts-seed_2-step_0k",
        "google/multiberts-seed_2-step_20k",
    ]
    assert [c.revision for c in series] == [None, None]
    assert len({c.name for c in series}) == 2
    assert CheckpointSeries.from_hub("google/multiberts-seed_2", steps="all").steps[-1] == 2_000_000
    with pytest.raises(ValueError, match="Give `run` as one of seed_0"):
        CheckpointSeries.from_hub("google/multiberts")


def test_a_listed_family_is_parsed_sorted_and_stripped_of_other_branches(monkeypatch):
    listing(
        monkeypatch, "main", "step2000-tokens8B", "step1000-tokens4B", "step10000-tokens42B", "dev"
    )
    series = CheckpointSeries.from_hub("allenai/OLMo-7B-hf", steps="all")
    assert series.steps == (1000, 2000, 10_000)
    assert series.tokens == (4 * 10**9, 8 * 10**9, 42 * 10**9)


OLMO_2 = (
    "main",
    "stage1-step1000-tokens5B",
    "stage1-step5000-tokens21B",
    "stage2-ingredient1-step1000-tokens5B",
    "stage2-ingredient2-step1000-tokens5B",
)


def test_the_first_of_several_stages_is_read_unless_another_is_named(monkeypatch):
    listing(monkeypatch, *OLMO_2)
    model = "allenai/OLMo-2-1124-7B"
    assert CheckpointSeries.from_hub(model).steps == (1000, 5000)
    second = CheckpointSeries.from_hub(model, stage="stage2", run="ingredient2")
    assert [c.revision for c in second] == ["stage2-ingredient2-step1000-tokens5B"]
    assert (second[0].stage, second[0].run) == ("stage2", "ingredient2")
    assert "stage stage2" in repr(second)
    assert CheckpointSeries.from_hub(model, stage=2, run="ingredient1")[0].run == "ingredient1"
    with pytest.raises(ValueError, match="several runs: ingredient1, ingredient2"):
        CheckpointSeries.from_hub(model, stage="stage2")


def test_datadecides_default_seed_is_read_unless_another_is_named(monkeypatch):
    listing(monkeypatch, "step0-seed-default", "step5-seed-default", "step5-seed-small-aux-2")
    model = "allenai/DataDecide-c4-6M"
    assert [c.run for c in CheckpointSeries.from_hub(model)] == ["default", "default"]
    other = CheckpointSeries.from_hub(model, run="small-aux-2")
    assert [c.revision for c in other] == ["step5-seed-small-aux-2"]
    with pytest.raises(ValueError, match="Choose among default, small-aux-2"):
        CheckpointSeries.from_hub(model, run="seed3")


def test_a_model_without_checkpoints_says_which_branches_it_has(monkeypatch):
    listing(monkeypatch, "main", "fp16")
    with pytest.raises(ValueError, match=r"There are main, fp16.*Checkpoint\.from_hub"):
        CheckpointSeries.from_hub("somebody/model")


def test_a_family_outside_the_table_is_read_by_any_of_its_schemes(monkeypatch):
    listing(monkeypatch, "main", "global_step10", "global_step9")
    assert CheckpointSeries.from_hub("somebody/model").steps == (9, 10)


def test_slices_are_series_and_items_are_checkpoints():
    series = CheckpointSeries.from_hub("EleutherAI/pythia-70m", steps=[0, 1, 512, 1000])
    assert series[1:3].steps == (1, 512)
    assert series[::-2].steps == (1000, 1)
    assert series[-1] == list(series)[-1]
    assert series[-1] in series
    assert series.at([512]).steps == (512,)
    assert series.at("log").steps[0] == 0
    with pytest.raises(ValueError, match="would be empty"):
        series[4:]
    with pytest.raises(ValueError, match="nearest are 1 and 512"):
        series.at([2])


def test_the_repr_says_what_is_in_a_series():
    series = CheckpointSeries.from_hub("EleutherAI/pythia-70m", steps=[0, 512, 1000])
    assert repr(series) == (
        "CheckpointSeries('EleutherAI/pythia-70m', 3 checkpoints, steps 0 to 1000, "
        "tokens 0 to 2097152000)"
    )
    assert repr(series[1]) == "Checkpoint('pythia-70m@step512', step=512, tokens=1073741824)"
    assert series.axis == "step"


def test_models_in_memory_make_a_series_in_the_order_of_their_steps(make_model, tokenizer):
    first, second = make_model("gpt2", seed=1), make_model("gpt_neox", seed=2)
    series = CheckpointSeries.from_models(
        {100: second, 20: first}, tokenizer=tokenizer, name="mine", tokens_per_step=3
    )
    assert series.steps == (20, 100)
    assert series.tokens == (60, 300)
    assert series[0].name == "mine@step20"
    loaded = series[0].load()
    assert isinstance(loaded, PlainModel)
    assert isinstance(loaded, HookedModel)
    assert loaded.model is first
    assert loaded.tokenizer is tokenizer


def test_a_hooked_model_in_memory_is_given_back_as_it_is(folders):
    from tlens_trust.checkpoints import Checkpoint

    hooked = Checkpoint.from_directory(folders["gpt2"]).loaded_with(device="cpu").load()
    series = CheckpointSeries.from_models({0: hooked})
    assert series[0].load() is hooked
    with series[0].loaded() as model:
        assert model is hooked
    # Only what was loaded here is released.
    assert all(weight.numel() for weight in hooked.parameters())


def test_reading_a_model_in_memory_by_another_backend_is_refused(make_model, tokenizer):
    series = CheckpointSeries.from_models({0: make_model("gpt2")}, tokenizer=tokenizer)
    with pytest.raises(ValueError, match="is in memory and is used as it is"):
        series[0].loaded_with(backend="bridge").load()


@pytest.mark.parametrize(
    ("models", "says"),
    [
        ({"last": None}, "whole number from 0, got 'last'"),
        ({-1: None}, "whole number from 0, got -1"),
        ({1: torch.nn.Linear(2, 2)}, "Step 1 is a Linear"),
        ({}, "at least one checkpoint"),
    ],
)
def test_what_cannot_be_read_is_refused(models, says):
    with pytest.raises(ValueError, match=says):
        CheckpointSeries.from_models(models)


def test_a_plain_model_without_a_tokenizer_is_refused(make_model):
    with pytest.raises(ValueError, match="Pass `tokenizer=`"):
        CheckpointSeries.from_models({0: make_model("gpt2")})


def test_a_plan_of_models_in_memory_fetches_nothing(make_model, tokenizer):
    model = make_model("gpt2")
    plan = CheckpointSeries.from_models({0: model, 1: model}, tokenizer=tokenizer).plan()
    assert (plan.n_checkpoints, plan.fetch_gb, plan.size_gb) == (2, 0.0, 0.0)


def test_a_plan_of_folders_is_all_here_and_names_the_same_weights(tmp_path, save_model):
    for step, seed in ((0, 1), (1, 2), (2, 1)):
        save_model(tmp_path / f"step{step}", "gpt2", seed)
    series = CheckpointSeries.from_directory(tmp_path)
    plan = series.plan()
    size = sum((c.folder / "model.safetensors").stat().st_size for c in series)
    assert plan.size_gb == plan.cached_gb == pytest.approx(size / 1e9)
    assert plan.fetch_gb == 0
    name = tmp_path.name
    assert plan.identical == ((f"{name}@step0", f"{name}@step2"),)
    assert f"identical weights: {name}@step0 = {name}@step2" in repr(plan)


def test_a_notebook_shows_what_is_known_of_each_checkpoint_and_no_more_rows_than_are_read():
    series = CheckpointSeries.from_hub("EleutherAI/pythia-160m", steps=[0, 512, 143000])
    page = series._repr_html_()
    assert "3 checkpoints" in page
    assert "143,000" in page
    assert "<th>tokens</th>" in page
    assert "<th>loss</th>" not in page
    assert page.count("<tr>") == 4
    long = CheckpointSeries.from_hub("EleutherAI/pythia-160m", steps="all")._repr_html_()
    assert "154 checkpoints" in long
    assert "135 more" in long
    assert "143,000" in long
    assert long.count("<tr>") == 21


def test_a_notebook_runs_nothing_of_a_name(make_model, tokenizer):
    named = CheckpointSeries.from_models(
        {0: make_model("gpt2")}, tokenizer=tokenizer, name="<script>1</script>"
    )
    assert "<script>" not in named._repr_html_()
    assert "1 checkpoint<" in named._repr_html_()


def test_a_series_says_once_how_its_checkpoints_are_loaded():
    series = CheckpointSeries.from_hub("EleutherAI/pythia-160m", steps=[0, 512])
    changed = series.loaded_with(dtype=torch.bfloat16).loaded_with(trust_remote_code=True)
    assert {checkpoint.loading for checkpoint in changed} == {
        Loading(dtype=torch.bfloat16, trust_remote_code=True)
    }
    assert changed.loaded_with(dtype=torch.float32)[0].loading == Loading(trust_remote_code=True)
    # The same weights, whatever number format they are loaded in.
    assert changed[0] == series[0]
    assert series[0].loading == Loading()


def test_a_model_in_memory_cannot_be_loaded_in_another_way(make_model, tokenizer):
    series = CheckpointSeries.from_models({0: make_model("gpt2")}, tokenizer=tokenizer)
    with pytest.raises(ValueError, match="is in memory and is used as it is"):
        series.loaded_with(device="cpu")
