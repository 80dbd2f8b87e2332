import json
import os
import shutil
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest

from tlens_trust.checkpoints import Checkpoint
from tlens_trust.tracing import Trace, load_scores
from tlens_trust.tracing.netcdf import dataset_from_bytes, dataset_to_bytes
from tlens_trust.tracing.run_folder import RunFolder


@pytest.fixture
def counting(norm_measure):
    """A measure that notes where it was called, and can be told to stop at the nth call."""

    class Counting(norm_measure):
        made: ClassVar = []
        stop_at: ClassVar = None

        def __call__(self, activations, concept, *, seed):
            if len(self.made) == self.stop_at:
                raise KeyboardInterrupt
            self.made.append((activations.checkpoint.name, concept.name))
            return super().__call__(activations, concept, seed=seed)

    return Counting


def cell_files(folder, checkpoint, concept):
    """The cell and its commit record."""
    found = [
        path
        for path in folder.glob("cells/*/*.json")
        if path.name != "checkpoint.json"
        and json.loads(path.read_text())["checkpoint"] == checkpoint
        and json.loads(path.read_text())["concept"] == concept
    ]
    (record,) = found
    return record.with_suffix(".nc"), record


@pytest.mark.parametrize("stop_at", [0, 1, 2, 5])
def test_an_interrupted_sweep_ends_as_an_uninterrupted_one_bit_for_bit(
    sweep, counting, tmp_path, stop_at
):
    whole = sweep(measures=counting(), out=tmp_path / "whole")
    counting.made.clear()
    counting.stop_at = stop_at
    with pytest.raises(KeyboardInterrupt):
        sweep(measures=counting(), out=tmp_path / "run")
    counting.stop_at = None
    resumed = sweep(measures=counting(), out=tmp_path / "run")
    assert len(counting.made) == 6  # no cell was made twice
    assert resumed == whole
    assert Trace.load(tmp_path / "run") == whole
    assert Trace.load(tmp_path / "run" / "trace.nc") == whole
    for concept in whole.concepts:
        scores = load_scores(tmp_path / "run", concept)
        assert scores.identical(load_scores(tmp_path / "whole", concept))


def test_a_sweep_that_stopped_short_says_which_checkpoints_it_owes(
    sweep, counting, checkpoints, tmp_path
):
    names = [checkpoint.name for checkpoint in checkpoints]
    counting.stop_at = 3
    with pytest.raises(KeyboardInterrupt):
        sweep(measures=counting(), out=tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    owed = run.unfinished()
    assert owed
    assert owed == names[-len(owed) :]
    assert [*Trace.load(run.path).checkpoints, *owed] == names
    counting.stop_at = None
    sweep(measures=counting(), out=run.path)
    assert run.unfinished() == []
    # One by one, as where the disk is small: nothing is owed that nobody has asked for.
    sweep(checkpoints[0], measures=counting(), out=tmp_path / "one")
    assert RunFolder(tmp_path / "one").unfinished() == []


def test_a_run_folder_changes_no_number(sweep, tmp_path):
    assert sweep(out=tmp_path) == sweep()


def test_a_finished_sweep_loads_no_model_and_asks_once_who_the_weights_are(
    sweep, saved, loads, tmp_path, monkeypatch, digest
):
    first = sweep(saved, out=tmp_path)
    loads.clear()
    asked = []
    identity = Checkpoint.identity
    monkeypatch.setattr(
        Checkpoint, "identity", property(lambda c: asked.append(c.name) or identity.fget(c))
    )
    before = digest(tmp_path / "cells")
    assert sweep(saved, out=tmp_path) == first
    assert loads == []
    assert asked == [checkpoint.name for checkpoint in saved]
    assert digest(tmp_path / "cells") == before


def truncate(cell, record):
    cell.write_bytes(cell.read_bytes()[:-50])


def flip_one_number(cell, record):
    data = dataset_from_bytes(cell.read_bytes())
    data["norm"][0] += 1
    cell.write_bytes(dataset_to_bytes(data))


def remove_record(cell, record):
    record.unlink()


def truncate_record(cell, record):
    record.write_bytes(record.read_bytes()[:20])


def remove_cell(cell, record):
    cell.unlink()


def put_another_cell_there(cell, record):
    other = next(path for path in cell.parent.glob("*.nc") if path != cell)
    shutil.copy(other, cell)
    shutil.copy(other.with_suffix(".json"), record)


@pytest.mark.parametrize(
    "spoil",
    [
        truncate,
        flip_one_number,
        remove_record,
        truncate_record,
        remove_cell,
        put_another_cell_there,
    ],
)
def test_a_torn_or_altered_cell_is_made_again_and_no_other(sweep, counting, tmp_path, spoil):
    first = sweep(measures=counting(), out=tmp_path)
    files = cell_files(tmp_path, "tiny@step8", "truth")
    others = {p: p.stat().st_mtime_ns for p in tmp_path.glob("cells/*/*") if p not in files}
    spoil(*files)
    counting.made.clear()
    assert sweep(measures=counting(), out=tmp_path) == first
    assert counting.made == [("tiny@step8", "truth")]
    assert {p: p.stat().st_mtime_ns for p in others} == others


def test_a_torn_cell_is_left_out_of_what_is_loaded_and_told_of(sweep, tmp_path):
    whole = sweep(out=tmp_path)
    flip_one_number(*cell_files(tmp_path, "tiny@step8", "truth"))
    (tmp_path / "trace.nc").unlink()
    with pytest.warns(UserWarning, match=r"truth at tiny@step8.*to measure them again"):
        loaded = Trace.load(tmp_path)
    assert np.isnan(loaded.sel(concept="truth", step=8).data["norm"]).all()
    for part in ({"concept": "kindness"}, {"concept": "truth", "step": [0, 64]}):
        np.testing.assert_array_equal(
            loaded.sel(**part).data["norm"], whole.sel(**part).data["norm"]
        )
    assert "1 of 6 concepts × checkpoints" in repr(loaded)


def test_an_altered_trace_is_not_read_but_put_together_from_its_cells(sweep, tmp_path):
    whole = sweep(out=tmp_path)
    path = tmp_path / "trace.nc"
    altered = whole.data.copy(deep=True)
    altered["norm"][0] += 1
    path.write_bytes(dataset_to_bytes(altered))
    assert Trace.load(path) != whole  # alone, the file cannot know
    assert Trace.load(tmp_path) == whole


def test_other_weights_under_the_same_name_are_traced_anew(
    sweep, run_of_checkpoints, save_weights, counting, tmp_path
):
    series = tmp_path / "tiny0"
    shutil.copytree(run_of_checkpoints, series)
    checkpoints = [Checkpoint.from_directory(series / f"step{step}") for step in (0, 8)]
    before = sweep(checkpoints, measures=counting(), out=tmp_path / "run")
    counting.made.clear()
    save_weights(series / "step8", seed=99)
    after = sweep(checkpoints, measures=counting(), out=tmp_path / "run")
    assert counting.made == [("tiny0@step8", "truth"), ("tiny0@step8", "kindness")]
    assert after == sweep(checkpoints, measures=counting())
    assert (after.sel(step=8).data["norm"] != before.sel(step=8).data["norm"]).all()
    np.testing.assert_array_equal(after.sel(step=0).data["norm"], before.sel(step=0).data["norm"])
    assert Trace.load(tmp_path / "run") == after


def test_another_tokenizer_with_the_same_weights_is_traced_anew(sweep, saved, counting, tmp_path):
    from transformers import PreTrainedTokenizerFast

    sweep(saved[:1], measures=counting(), out=tmp_path)
    own = saved[0].load_tokenizer()
    rules = json.loads(own.backend_tokenizer.to_str())
    words = rules["model"]["vocab"]
    words["w4"], words["w5"] = words["w5"], words["w4"]
    (tmp_path / "other.json").write_text(json.dumps(rules))
    other = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "other.json"), unk_token="<unk>")
    counting.made.clear()
    sweep([replace(saved[0], tokenizer=other)], measures=counting(), out=tmp_path)
    assert len(counting.made) == 2
    sweep([replace(saved[0], tokenizer=own)], measures=counting(), out=tmp_path)
    assert len(counting.made) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 1}, "seed was 0 and is now 1"),
        ({"position": "mean"}, "position was 'last' and is now 'mean'"),
        ({"sites": [0]}, r"sites was 'resid_post' and is now \[0\]"),
        ({"bos": False}, "bos was None and is now False"),
        (
            {"measures": "other"},
            "of the measures, it alone has norm, and this call alone has other",
        ),
    ],
)
def test_other_settings_are_refused_by_name_and_nothing_is_lost(
    sweep, norm_measure, tmp_path, digest, change, words
):
    whole = sweep(out=tmp_path)
    before = digest(tmp_path)
    if "measures" in change:
        change = {"measures": norm_measure(name="other")}
    with pytest.raises(ValueError, match=f"{words}.*another folder"):
        sweep(out=tmp_path, **change)
    assert digest(tmp_path) == before
    assert Trace.load(tmp_path) == whole


def test_what_does_not_change_a_number_may_change_in_between(sweep, counting, tmp_path):
    first = sweep(measures=counting(), out=tmp_path)
    counting.made.clear()
    again = sweep(measures=counting(), out=tmp_path, batch_tokens=1024)
    assert counting.made == []
    assert again.data.drop_attrs().identical(first.data.drop_attrs())


def test_further_concepts_and_checkpoints_extend_the_folder(
    sweep, checkpoints, concepts, counting, another_concept, tmp_path
):
    third = another_concept("third", 2)
    every = [*concepts, third]
    sweep(checkpoints[2:], concepts[:1], measures=counting(), out=tmp_path)
    sweep(checkpoints[:2], concepts[1:], measures=counting(), out=tmp_path)
    partly = Trace.load(tmp_path)
    assert partly.checkpoints == tuple(checkpoint.name for checkpoint in checkpoints)
    assert np.isnan(partly.data["norm"]).any("site").values.tolist() == [
        [True, True, False],
        [False, False, True],
    ]
    part = sweep(checkpoints[1], third, measures=counting(), out=tmp_path)
    assert part.concepts == ("third",)
    assert part.steps == (8,)
    counting.made.clear()
    whole = sweep(checkpoints, every, measures=counting(), out=tmp_path)
    assert len(counting.made) == 9 - 4
    assert whole == sweep(checkpoints, every, measures=counting())
    assert Trace.load(tmp_path) == whole


def test_another_concept_under_a_name_that_is_there_is_refused(
    sweep, concepts, another_concept, tmp_path, digest
):
    sweep(out=tmp_path)
    before = digest(tmp_path)
    with pytest.raises(ValueError, match=r"another concept named 'truth'.*'truth-2'"):
        sweep(wanted=another_concept("truth", 5), out=tmp_path)
    with pytest.raises(ValueError, match="another concept named 'truth'"):
        sweep(wanted=replace(concepts[0], polarity=False), out=tmp_path)
    assert digest(tmp_path) == before


HOSTILE = [
    "../../../etc/passwd",
    "/absolute",
    "..",
    "NUL",
    "a:b*c?d|e<f>g",
    "line\nbreak",
    "x" * 500,
    "Truth",
    "truth",
    "правда 真相 🙂",
    "<script>alert(1)</script>",
    "x.nc",
]


def test_hostile_names_stay_in_the_folder_and_apart(sweep, checkpoints, concepts, tmp_path):
    wanted = {name: concepts[i % 2] for i, name in enumerate(HOSTILE)}
    series = replace(checkpoints[0], model="../../../up", revision="..\\..\\x y")
    run = tmp_path / "deep" / "run"
    trace = sweep(series, wanted, out=run)
    assert trace.concepts == tuple(HOSTILE)
    assert trace == sweep(series, wanted)
    assert Trace.load(run) == trace
    assert [p.name for p in tmp_path.iterdir()] == ["deep"]
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["run"]
    names = [p.name for p in run.rglob("*")]
    assert all(len(name) < 80 and name.isascii() and "/" not in name for name in names)
    assert len({name.casefold() for name in names}) == len(names)
    assert load_scores(run, HOSTILE[0]).sizes["example"] == 24
    assert "<script>alert" not in trace._repr_html_()


def test_file_names_tell_checkpoint_and_concept(sweep, tmp_path):
    sweep(out=tmp_path)
    cell, _ = cell_files(tmp_path, "tiny@step64", "kindness")
    assert cell.parent.name.startswith("tiny_step64-")
    assert cell.name.startswith("kindness-")


def test_a_torn_manifest_is_made_again_and_no_cell(sweep, counting, tmp_path):
    first = sweep(measures=counting(), out=tmp_path)
    counting.made.clear()
    manifest = tmp_path / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:30])
    with pytest.warns(UserWarning, match=r"torn, and is made again. 6 of 6 cells"):
        assert sweep(measures=counting(), out=tmp_path) == first
    assert counting.made == []
    assert Trace.load(tmp_path) == first


def test_a_torn_manifest_keeps_concepts_that_the_next_call_leaves_out(
    sweep, checkpoints, concepts, tmp_path
):
    first = sweep(out=tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.warns(UserWarning, match="6 of 6 cells"):
        sweep(checkpoints[:1], wanted=concepts[1:], out=tmp_path)
    whole = Trace.load(tmp_path)
    assert set(whole.concepts) == set(first.concepts)
    assert whole.checkpoints == first.checkpoints


def test_a_torn_manifest_is_not_made_again_for_cells_of_other_settings(sweep, digest, tmp_path):
    first = sweep(out=tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    before = digest(tmp_path)
    with pytest.raises(ValueError, match=r"torn, and none of the 6 cells .* these settings"):
        sweep(out=tmp_path, seed=1)
    assert digest(tmp_path) == before
    with pytest.warns(UserWarning, match="made again"):
        assert sweep(out=tmp_path) == first


def test_a_sweep_that_failed_before_its_first_cell_can_be_corrected(
    sweep, another_concept, tmp_path
):
    with pytest.raises(ValueError, match="nonsense"):
        sweep(sites="nonsense", out=tmp_path)
    other = another_concept("truth", 3)
    corrected = sweep(wanted=[other], out=tmp_path)
    assert corrected == sweep(wanted=[other])
    assert Trace.load(tmp_path) == corrected
    assert corrected.concepts == ("truth",)
    # With a cell in it, it is held to its settings again.
    with pytest.raises(ValueError, match="made with other settings"):
        sweep(sites="mlp_out", out=tmp_path)


def test_a_folder_taken_by_another_sweep_gets_no_cell_of_the_first(concepts, tmp_path):
    def begin(seed):
        RunFolder(tmp_path).begin(
            {"seed": seed}, {c.name: c for c in concepts}, arguments={}, versions={}
        )

    begin(0)
    assert RunFolder(tmp_path).cell_key({}, "truth", settings={"seed": 0})
    begin(1)
    with pytest.raises(ValueError, match="seed was 1 and is now 0"):
        RunFolder(tmp_path).cell_key({}, "truth", settings={"seed": 0})


@pytest.mark.parametrize(
    ("held", "given", "told"),
    [
        (
            ["logistic(folds=5)", "spectrum(first=11)"],
            ["spectrum(first=11)", "kernel(width=2)"],
            "it alone has logistic, and this call alone has kernel. ",
        ),
        (["logistic(folds=5)"], ["logistic(folds=5)", "kernel()"], "it alone has none, and this"),
        (
            ["logistic(folds=5)", "spectrum(first=11)"],
            ["logistic(folds=3)", "spectrum(first=11)"],
            "it alone has logistic(folds=5), and this call alone has logistic(folds=3). ",
        ),
    ],
)
def test_of_other_measures_only_those_that_differ_are_told(concepts, tmp_path, held, given, told):
    truth = {concepts[0].name: concepts[0]}
    folder = RunFolder(tmp_path)
    folder.begin({"measures": held}, truth, arguments={}, versions={})
    with pytest.raises(ValueError, match="made with other settings") as caught:
        folder.cell_key({}, "truth", settings={"measures": given})
    assert f"of the measures, {told}" in str(caught.value)


def test_a_folder_with_other_things_in_it_is_not_written_to(sweep, tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="neither empty nor a run folder"):
        sweep(out=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(ValueError, match="is a file"):
        sweep(out=tmp_path / "thesis.txt")


def test_a_run_of_another_format_is_not_read(sweep, tmp_path):
    sweep(out=tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "format": "of tomorrow"}))
    with pytest.raises(ValueError, match="not of the format"):
        Trace.load(tmp_path)
    with pytest.raises(ValueError, match="not of the format"):
        sweep(out=tmp_path)


def test_reading_a_run_in_which_nothing_is_finished_says_how_to_go_on(sweep, counting, tmp_path):
    counting.stop_at = 0
    with pytest.raises(KeyboardInterrupt):
        sweep(measures=counting(), out=tmp_path)
    with pytest.raises(ValueError, match=r"Nothing .* is finished yet"):
        Trace.load(tmp_path)
    with pytest.raises(ValueError, match=r"Nothing of 'truth' .* is finished yet"):
        load_scores(tmp_path, "truth")


def test_a_failure_at_one_checkpoint_keeps_what_was_done_before(
    sweep, checkpoints, counting, tmp_path
):
    broken = replace(checkpoints[1], in_memory=None, folder=tmp_path / "nowhere")
    with pytest.raises((ValueError, OSError)) as caught:
        sweep([checkpoints[0], broken], measures=counting(), out=tmp_path / "run")
    assert any("step8" in note for note in caught.value.__notes__)
    assert Trace.load(tmp_path / "run").steps == (0,)
    counting.made.clear()
    sweep(checkpoints[:2], measures=counting(), out=tmp_path / "run")
    assert counting.made == [("tiny@step8", "truth"), ("tiny@step8", "kindness")]


def test_scores_that_are_not_there_are_refused_with_those_that_are(sweep, tmp_path):
    sweep(out=tmp_path)
    with pytest.raises(ValueError, match=r"no concept 'toxicity'.*'truth', 'kindness'"):
        load_scores(tmp_path, "toxicity")
    with pytest.raises(ValueError, match=r"no 'scores' by statement.*'score'"):
        load_scores(tmp_path, "truth", variable="scores")


def test_altered_statements_are_not_put_beside_scores(sweep, tmp_path):
    sweep(out=tmp_path)
    (path,) = tmp_path.glob("concepts/truth-*.json")
    stored = json.loads(path.read_text())
    stored["labels"][:2] = [1, 0]
    path.write_text(json.dumps(stored))
    with pytest.raises(ValueError, match=r"'truth'.*altered"):
        load_scores(tmp_path, "truth")
    sweep(out=tmp_path)
    assert load_scores(tmp_path, "truth")["label"].values[:2].tolist() == [0, 1]


def test_scores_of_several_probes_stand_side_by_side(sweep, norm_measure, tmp_path):
    sweep(measures=[norm_measure(), norm_measure(name="other")], out=tmp_path)
    scores = load_scores(tmp_path, "kindness")
    assert scores.dims == ("checkpoint", "probe", "site", "example")
    assert scores["fold"].values.tolist() == [i % 3 for i in range(24)]


def test_a_file_that_was_never_finished_is_removed_after_a_day(sweep, tmp_path):
    sweep(out=tmp_path)
    old, young = (tmp_path / "cells" / name for name in (".a.tmp", ".b.tmp"))
    for path in (old, young):
        path.write_bytes(b"")
    os.utime(old, (0, 0))
    sweep(out=tmp_path)
    assert not old.exists()
    assert young.exists()
