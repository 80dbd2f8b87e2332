import json
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tlens_trust.checkpoints import Checkpoint, CheckpointSeries
from tlens_trust.checkpoints.families import RevisionName, format_template


def hollow(folder):
    """A folder that looks as if a model had been saved to it."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    return folder


@pytest.mark.parametrize(
    "template",
    ["step{step}", "checkpoint-{step}", "ckpt_{step:03}", "step{step:07}", "global_step{step}"],
)
def test_folders_come_in_the_order_of_training_and_not_of_the_alphabet(tmp_path, template):
    steps = [9, 10, 100, 11, 2000, 0]
    for step in steps:
        hollow(tmp_path / format_template(template, RevisionName(step)))
    series = CheckpointSeries.from_directory(tmp_path)
    assert series.steps == tuple(sorted(steps))
    alphabetical = sorted(path.name for path in tmp_path.iterdir())
    assert "{step:0" in template or [c.revision for c in series] != alphabetical


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(st.sets(st.integers(0, 10**7), min_size=1, max_size=8))
def test_every_folder_is_found_whatever_its_step(tmp_path, steps):
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    for step in steps:
        hollow(tmp_path / "run" / f"checkpoint-{step}")
    assert CheckpointSeries.from_directory(tmp_path / "run").steps == tuple(sorted(steps))


def test_a_trainers_output_brings_its_loss_and_tokens(tmp_path):
    for step, seen in ((500, 4096), (1000, 0)):
        folder = hollow(tmp_path / f"checkpoint-{step}")
        history = [{"step": n, "loss": 10.0 - n / 100} for n in range(100, step + 1, 100)]
        history.append({"step": step, "eval_loss": 99.0})
        state = {"global_step": step, "log_history": history, "num_input_tokens_seen": seen}
        (folder / "trainer_state.json").write_text(json.dumps(state))
    (tmp_path / "runs").mkdir()
    hollow_root = {"config.json": "{}", "training_args.bin": ""}
    for name, content in hollow_root.items():
        (tmp_path / name).write_text(content)
    series = CheckpointSeries.from_directory(tmp_path)
    assert [checkpoint.loss for checkpoint in series] == [5.0, 0.0]
    # 0 is what the Trainer writes when it does not count.
    assert series.tokens == (4096, None)
    assert series.ignored == ("runs",)


def test_the_start_of_a_run_that_counts_its_tokens_has_seen_none(tmp_path):
    hollow(tmp_path / "checkpoint-0")
    assert CheckpointSeries.from_directory(tmp_path).tokens == (None,)
    state = {"global_step": 500, "log_history": [], "num_input_tokens_seen": 4096}
    (hollow(tmp_path / "checkpoint-500") / "trainer_state.json").write_text(json.dumps(state))
    hollow(tmp_path / "checkpoint-1000")
    assert CheckpointSeries.from_directory(tmp_path).tokens == (0, 4096, None)


def test_a_series_file_brings_tokens_and_loss(tmp_path):
    for step in (0, 8):
        hollow(tmp_path / f"step{step}")
    notes = {"tokens_per_step": 1024, "loss": {"0": 6.5, "8": 5.25}, "seed": 0}
    (tmp_path / "series.json").write_text(json.dumps(notes))
    series = CheckpointSeries.from_directory(tmp_path)
    assert series.tokens == (0, 8192)
    assert [checkpoint.loss for checkpoint in series] == [6.5, 5.25]


def test_tokens_a_step_can_be_given(tmp_path):
    hollow(tmp_path / "step10")
    assert CheckpointSeries.from_directory(tmp_path).tokens == (None,)
    assert CheckpointSeries.from_directory(tmp_path, tokens_per_step=7).tokens == (70,)


def test_foreign_folders_are_passed_over_and_named(tmp_path):
    hollow(tmp_path / "step1")
    (tmp_path / "logs").mkdir()
    (tmp_path / "step2").mkdir()
    sharded = hollow(tmp_path / "step3")
    (sharded / "model.safetensors").rename(sharded / "model-00001-of-00002.safetensors")
    series = CheckpointSeries.from_directory(tmp_path)
    assert series.steps == (1,)
    assert series.ignored == ("logs", "step2 (incomplete model)", "step3 (incomplete model)")
    assert "ignored logs, step2 (incomplete model)" in repr(series)
    assert series[:1].ignored == series.ignored


def test_a_model_under_a_name_that_tells_no_step_is_an_error(tmp_path):
    hollow(tmp_path / "step1")
    hollow(tmp_path / "best")
    with pytest.raises(ValueError, match=r"'best' in .* no known naming scheme.*step\{step\}"):
        CheckpointSeries.from_directory(tmp_path)


@pytest.mark.parametrize("names", [("step10", "checkpoint-10"), ("step1000000", "step-1000000")])
def test_two_folders_of_one_step_are_an_error(tmp_path, names):
    for name in names:
        hollow(tmp_path / name)
    with pytest.raises(ValueError, match="are both of step"):
        CheckpointSeries.from_directory(tmp_path)


def test_stages_whose_steps_begin_anew_are_read_one_at_a_time(tmp_path):
    for name in ("stage1-step10", "stage1-step20", "stage2-step5", "stage2-step15"):
        hollow(tmp_path / name)
    assert CheckpointSeries.from_directory(tmp_path).steps == (10, 20)
    second = CheckpointSeries.from_directory(tmp_path, stage=2)
    assert second.steps == (5, 15)
    assert {checkpoint.stage for checkpoint in second} == {"stage2"}
    with pytest.raises(ValueError, match="Choose among stage1, stage2"):
        CheckpointSeries.from_directory(tmp_path, stage="stage3")


def test_stages_that_are_counted_on_are_read_as_one_run(tmp_path):
    for name in ("stage1-step-10", "stage1-step-20", "stage2-step-25", "stage3-step-30"):
        hollow(tmp_path / name)
    assert CheckpointSeries.from_directory(tmp_path).steps == (10, 20, 25, 30)
    assert CheckpointSeries.from_directory(tmp_path, stage="stage2").steps == (25,)


def test_an_empty_folder_and_a_folder_that_is_one_model_say_what_they_are(tmp_path):
    with pytest.raises(ValueError, match="holds no checkpoint"):
        CheckpointSeries.from_directory(tmp_path)
    with pytest.raises(ValueError, match="No folder"):
        CheckpointSeries.from_directory(tmp_path / "nowhere")
    single = hollow(tmp_path / "model")
    with pytest.raises(ValueError, match="is one model"):
        CheckpointSeries.from_directory(single)
    assert Checkpoint.from_directory(single).name == "model"


def test_a_torn_series_file_is_named(tmp_path):
    hollow(tmp_path / "step1")
    (tmp_path / "series.json").write_text("{")
    with pytest.raises(ValueError, match=r"series\.json' is not valid JSON"):
        CheckpointSeries.from_directory(tmp_path)


def test_a_single_folder_is_named_after_its_series_where_its_name_tells_a_step(tmp_path):
    checkpoint = Checkpoint.from_directory(hollow(tmp_path / "run" / "step512"))
    assert (checkpoint.name, checkpoint.step) == ("run@step512", 512)
    assert checkpoint == CheckpointSeries.from_directory(tmp_path / "run")[0]
    with pytest.raises(ValueError, match="No folder"):
        Checkpoint.from_directory(tmp_path / "nowhere")
    (tmp_path / "bare").mkdir()
    with pytest.raises(ValueError, match="No weights"):
        Checkpoint.from_directory(tmp_path / "bare")
    (tmp_path / "bare" / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"No config\.json"):
        Checkpoint.from_directory(tmp_path / "bare")
