"""What a report takes up from a run folder, beside the trace."""

import json
import shutil

import pytest
import torch
from markupsafe import escape

from tlens_trust import CheckpointSeries, load_concepts, trace_checkpoints
from tlens_trust.analysis import find_onset, project_tokens
from tlens_trust.measures import kernel_dependence, logistic_probe
from tlens_trust.steering import SteeringVector
from tlens_trust.tracing import save_result
from tlens_trust.views import onset_table, report_run, summary_table
from tlens_trust.views.onset_text import explain_onset, onset_text
from tlens_trust.views.report.run_section import python_call


@pytest.fixture(scope="module")
def run(tmp_path_factory, plant, planted_concept):
    made = {0: plant(readable=False), 8: plant(readable=False, seed=1), 64: plant(), 512: plant()}
    series = CheckpointSeries.from_models(
        {step: model for step, (model, _, _) in made.items()}, tokenizer=made[8][1], name="planted"
    )
    folder = tmp_path_factory.mktemp("run")
    trace_checkpoints(
        series,
        planted_concept(groups=40),
        measures=[
            logistic_probe(C=(1.0,), folds=3, resamples=50, permutations=60),
            kernel_dependence(permutations=50, resamples=8),
        ],
        out=folder,
        store=None,
        untrained=None,
        progress=False,
    )
    vector = SteeringVector.from_direction(plant()[2], site=1)
    projected = project_tokens(series, vector, "w1 w60 w61", positions="last", bos=False)
    save_result(folder, "tokens", "one text", projected)
    return folder


def test_plane_verdicts_and_kept_tokens_stand_in_the_page(run, tmp_path, browse):
    page = report_run(run, tmp_path / "report.html")
    told = browse(
        page,
        """window.dispatchEvent(new Event("beforeprint"));
        await wait(2000);
        const part = [...document.querySelectorAll("section")].find(
          s => s.querySelector("h2").textContent === "Information");
        return {
          plane: part.querySelectorAll(".figure .js-plotly-plot, .figure .plot svg").length,
          verdicts: [...part.querySelectorAll("tbody tr")].map(r => r.children[2].textContent),
          acts: document.querySelectorAll(".colored-tokens u").length,
        };""",
    )
    assert told["errors"] == []
    assert told["requests"] == []
    assert told["answer"]["plane"] > 0
    assert len(told["answer"]["verdicts"]) >= 2
    assert set(told["answer"]["verdicts"]) <= {"rises", "falls", "no claim"}
    assert told["answer"]["acts"] == 1


@pytest.fixture(scope="module")
def lost_and_found(tmp_path_factory, plant, planted_concept):
    """Decodable at step 8 and from step 512 on, and not in between."""
    models = {}
    for step in (0, 8, 64, 512):
        models[step], tokenizer, _ = plant(seed=step)
        if step in (0, 64):
            # Twins differ in their last word alone, which is now one and the same.
            embeddings = models[step].get_input_embeddings().weight.data
            embeddings[61] = embeddings[60]
    series = CheckpointSeries.from_models(models, tokenizer=tokenizer, name="planted")
    folder = tmp_path_factory.mktemp("lost")
    probe = logistic_probe(C=(1.0,), folds=3, resamples=50, permutations=400, floor=False)
    options = {"store": None, "untrained": None, "progress": False}
    trace = trace_checkpoints(
        series, planted_concept(groups=100), measures=probe, out=folder, **options
    )
    return folder, trace


def test_shell_summary_findings_and_table_say_the_same_of_a_concept_that_was_lost(
    lost_and_found, tmp_path
):
    folder, trace = lost_and_found
    onset = find_onset(folder, floor=False)
    told = "1–8, not lasting before 512"
    for text in (summary_table(trace, onset), onset_table(onset)):
        assert f"  {told}" in text.splitlines()[1]
    page = report_run(folder, tmp_path / "report.html").read_text(encoding="utf-8")
    findings, summary = (
        page.split(f">{heading}</h2>")[1].split("</section>")[0]
        for heading in ("Findings", "Summary")
    )
    assert f"<li>Onset: steps {told}. 4 checkpoints were tested, each against" in findings
    assert f"<td>{told}</td>" in summary
    for sentence in explain_onset(onset, [told]):
        assert escape(sentence) in summary
        assert sentence in " ".join(summary_table(trace, onset).split())
    # Without the checkpoint at which it is lost, nothing is said of a loss.
    kept = find_onset(folder, checkpoints=[0, 8, 512], floor=False)
    assert onset_text(kept.sel(site="best").isel(concept=0)) == "1–8"
    # And where the run ends with the loss, it is said to be lost.
    ends = find_onset(folder, checkpoints=[0, 8, 64], floor=False)
    assert onset_text(ends.sel(site="best").isel(concept=0)) == "1–8, lost again by 64"


def test_the_command_that_made_a_run_is_told_where_there_was_one(run, tmp_path):
    page = report_run(run, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "How to reproduce this run" in page
    assert "$ tlens-trust" not in page
    assert "$ tlens-trust probe" in with_command(run, tmp_path)


def with_command(run, tmp_path):
    shutil.copytree(run, tmp_path / "copy")
    manifest = tmp_path / "copy" / "manifest.json"
    content = json.loads(manifest.read_text(encoding="utf-8"))
    content["calls"][-1]["command"] = "tlens-trust probe somewhere --out run"
    manifest.write_text(json.dumps(content), encoding="utf-8")
    return report_run(tmp_path / "copy").read_text(encoding="utf-8")


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"run folder|manifest"):
        report_run(tmp_path)


def test_a_run_that_stopped_short_is_not_reported_as_whole(run, tmp_path):
    shutil.copytree(run, tmp_path / "copy")
    page = report_run(tmp_path / "copy").read_text(encoding="utf-8")
    assert "is not finished" not in page
    manifest = tmp_path / "copy" / "manifest.json"
    content = json.loads(manifest.read_text(encoding="utf-8"))
    content["checkpoints"].append("planted@step999")
    manifest.write_text(json.dumps(content), encoding="utf-8")
    page = report_run(tmp_path / "copy").read_text(encoding="utf-8")
    assert "is not finished" in page
    assert "1 of 5 checkpoints have not been measured (planted@step999)" in page


def test_the_printed_call_loads_the_series_as_the_run_did(toy_series):
    series = toy_series.at([0, 256]).loaded_with(dtype=torch.bfloat16, backend="bridge")
    probe = logistic_probe(C=(1.0,), folds=3, resamples=20, permutations=20, floor=False)
    options = {"measures": probe, "store": None, "untrained": None, "progress": False}
    trace = trace_checkpoints(series, load_concepts(["toxicity"]), **options)
    printed = python_call(trace)
    again = {}
    # The last statement runs the sweep, and is left out.
    exec(printed.partition("trace_checkpoints(\n")[0], again)
    assert [c.identity for c in again["series"]] == [c.identity for c in series]
    assert {c.loading for c in again["series"]} == {c.loading for c in series}
    assert again["concepts"]["toxicity"].fingerprint == load_concepts()["toxicity"].fingerprint
    compile(printed, "printed call", "exec")

    default = trace_checkpoints(toy_series.at([0]), load_concepts(["toxicity"]), **options)
    assert "loaded_with" not in python_call(default)
