import base64
import gzip
import importlib.util
import io
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from markupsafe import escape

from tlens_trust.tracing import Trace, combine_runs
from tlens_trust.views import Figure
from tlens_trust.views.report.cautions import find_cautions
from tlens_trust.views.report.findings_section import list_findings
from tlens_trust.views.report.trace_report import write_report
from tlens_trust.views.summary import summarise, summary_table
from tlens_trust.views.tokens.token_view import TokenView

_spec = importlib.util.spec_from_file_location("figures", Path(__file__).parent / "test_figures.py")
figures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(figures)
_spec = importlib.util.spec_from_file_location(
    "matrices", Path(__file__).parent / "test_matrix_table.py"
)
matrices = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(matrices)
HOSTILE = "<img src=x onerror='window.ran = 1'>"


def add_levels(trace, *, floor, untrained=0.5):
    """The same trace, held against a text floor and untrained weights."""
    data = trace.data
    levels = {"floor": floor, "untrained": untrained}
    for name, level in levels.items():
        gain = data.accuracy - level
        data[f"accuracy_{name}"] = (data.accuracy * 0 + level).assign_attrs(data.accuracy.attrs)
        data[f"accuracy_above_{name}"] = gain.assign_attrs(data.accuracy.attrs)
        data[f"accuracy_above_{name}_ci"] = xr.concat(
            [gain - 0.05, gain + 0.05], pd.Index(["low", "high"], name="bound")
        ).assign_attrs(data.accuracy.attrs)
    data["accuracy_null"] = (data.accuracy_ci * 0 + 0.5).assign_attrs(data.accuracy.attrs)
    return Trace(data)


@pytest.fixture
def trace():
    return add_levels(figures.synthetic_trace({"toxicity": 64, "privacy": 512}), floor=0.6)


def findings_of(trace):
    rows = summarise(trace).to_dict(orient="records")
    return {findings.name: findings for findings in list_findings(trace, rows)}


def test_a_report_asks_for_nothing_and_fails_at_nothing(trace, tmp_path, browse):
    tokens = TokenView("score (nats)", ("a", HOSTILE), np.array([[[0.5, -1.0]]]))
    extra = {"One more": Figure({"data": [{"y": [1, 2]}]})}
    page = write_report(trace, tmp_path / "report.html", figures=extra, tokens=[tokens])
    told = browse(
        page,
        """window.dispatchEvent(new Event("beforeprint"));  // which draws what is out of sight
           await wait(2000);
           return {
             drawn: [...document.querySelectorAll(".figure")].map(f => f.dataset.drawn),
             headings: [...document.querySelectorAll("h2")].map(e => e.textContent),
             targets: [...document.querySelectorAll("nav a")].map(
               a => document.querySelector(a.getAttribute("href")).textContent),
             tokens: document.querySelectorAll(".colored-tokens").length,
           };""",
    )
    assert told["errors"] == []
    assert told["requests"] == []
    assert told["answer"]["drawn"] == ["yes"] * 4
    assert told["answer"]["targets"] == told["answer"]["headings"]
    assert {"Findings", "Map", "Along training", "One more", "Tokens", "Numbers"} <= set(
        told["answer"]["headings"]
    )
    assert told["answer"]["tokens"] == 1


def matrix_of(trace):
    """Vectors of the trace's last three checkpoints on the last of them."""
    names = list(trace.checkpoints)[-3:]
    return matrices.make_matrix(target=names[-1]).assign_coords(source=names)


def test_a_report_tells_what_steering_moved_and_what_it_did_not(trace, tmp_path):
    matrix = matrix_of(trace).assign_attrs(concept=f"kind {HOSTILE}")
    page = write_report(trace, tmp_path / "report.html", steering=[matrix])
    text = page.read_text(encoding="utf-8")
    assert ">Steering</h2>" in text
    part = text.split(">Steering</h2>")[1].split("</section>")[0]
    name = trace.checkpoints[-1]
    assert f"<li>{name} is moved to the trustworthy side (answer" in part
    assert f"<li>{name} is not shown to be moved (log-odds)" in part
    assert "+3.00 [+2.00, +4.00] nats" in part
    assert 'class="plot"' in part
    assert HOSTILE not in text
    assert escape(f"kind {HOSTILE}") in part


def test_a_report_without_steering_has_no_such_part(trace, tmp_path):
    text = write_report(trace, tmp_path / "report.html").read_text(encoding="utf-8")
    assert ">Steering</h2>" not in text


def test_steering_of_another_series_is_refused(trace, tmp_path):
    matrix = matrix_of(trace).assign_coords(source=["a@step1", "a@step2", "a@step3"])
    with pytest.raises(ValueError, match="no source among the trace's checkpoints: a@step1"):
        write_report(trace, tmp_path / "report.html", steering=[matrix])


def test_the_slider_moves_the_map(trace, tmp_path, browse):
    told = browse(
        write_report(trace, tmp_path / "report.html"),
        """const input = document.querySelector("[data-shows]");
           const figure = input.closest(".figure");
           figure.scrollIntoView(); await wait(800);
           const state = () => [figure.querySelector("output").textContent,
             figure.querySelector(".plot").data.map(d => d.visible !== false)];
           const before = state();
           input.value = 1; input.dispatchEvent(new Event("input")); await wait(500);
           return [before, state(), input.getAttribute("aria-valuetext")];""",
    )
    before, after, spoken = told["answer"]
    # A map of each, and the marks on it of what is no better than its null band.
    assert before == ["toxicity", [True, False] * 2]
    assert after == ["privacy", [False, True] * 2]
    assert spoken == "privacy"


def test_a_page_as_narrow_as_a_phone_does_not_scroll_sideways(trace, tmp_path, browse):
    report = write_report(trace, tmp_path / "report.html")
    frame = tmp_path / "phone.html"
    # A browser's own window has a least width.
    frame.write_text(
        '<!DOCTYPE html><html><head></head><body><iframe style="width:390px;height:900px" '
        f'srcdoc="{escape(report.read_text(encoding="utf-8"))}"></iframe></body></html>',
        encoding="utf-8",
    )
    told = browse(
        frame,
        """await wait(1500);
           const page = document.querySelector("iframe").contentDocument.documentElement;
           return [page.scrollWidth, page.clientWidth];""",
    )
    wide, seen = told["answer"]
    assert wide <= seen <= 390


@pytest.mark.parametrize("hostile", [HOSTILE, "</script><script>window.ran = 1</script>"])
def test_what_names_say_is_shown_and_not_run(tmp_path, browse, hostile):
    trace = add_levels(figures.synthetic_trace({hostile: 64}), floor=0.6)
    told = browse(
        write_report(trace, tmp_path / "report.html", title=hostile),
        """window.dispatchEvent(new Event("beforeprint"));  // which draws what is out of sight
           await wait(2000);
           return [window.ran || 0, document.querySelector("h1").textContent,
                   document.querySelector("article h3").textContent];""",
    )
    assert told["answer"] == [0, hostile, hostile]
    assert told["errors"] == []


def taken_out(page):
    """Every table of a page, by its name."""
    found = re.findall(r'data-packed="([^"]+)"[^>]*href="data:[^,]+,([^"]+)"', page)
    return {
        name: pd.read_csv(io.BytesIO(gzip.decompress(base64.b64decode(packed))))
        for name, packed in found
    }


def with_kernels(trace, *, seed=0):
    """The same trace with a dependence along further axes."""
    data = trace.data
    generator = np.random.default_rng(seed)
    dims = ("concept", "checkpoint", "site", "against", "variant", "width")
    shape = (*(data.sizes[dim] for dim in dims[:3]), 3, 2, 3)
    told = {"units": "1", "long_name": "dependence"}
    for name in ("cka", "nhsic"):
        value = generator.random(shape, dtype=np.float32)
        data[name] = (dims, value, told)
        data[f"{name}_ci"] = ((*dims, "bound"), np.stack([value - 1, value + 1], axis=-1), told)
        data[f"{name}_p"] = (dims, value / 2, told)
        data[f"{name}_n"] = (dims[:3], np.full(shape[:3], 60.0), told)
    names = {"against": ["first_block", "text", "label"], "variant": ["raw", "rank_matched"]}
    return Trace(data.assign_coords(names | {"width": [0.5, 1.0, 2.0]}))


def test_the_numbers_can_be_taken_out_again(trace, tmp_path):
    page = write_report(trace, tmp_path / "report.html").read_text(encoding="utf-8")
    (frame,) = taken_out(page).values()
    expected = trace.to_frame().drop(columns="depth")
    assert list(frame.columns) == list(expected.columns)
    assert len(frame) == len(expected)
    np.testing.assert_allclose(frame.accuracy, expected.accuracy, rtol=1e-3)


def test_what_has_further_axes_and_steering_can_be_taken_out_too(trace, tmp_path):
    whole = with_kernels(trace)
    steering = [matrix_of(trace).assign_attrs(concept="toxicity")]
    page = write_report(whole, tmp_path / "report.html", steering=steering)
    tables = taken_out(page.read_text(encoding="utf-8"))
    assert list(tables) == ["trace.csv", "cka.csv", "steering_toxicity.csv"]
    assert "cka_n" not in tables["trace.csv"]
    kernels, expected = tables["cka.csv"], whole.to_frame("cka", "cka_ci", "nhsic", "nhsic_p")
    assert len(kernels) == len(expected) == 2 * 5 * 4 * 18
    for column in ("cka", "cka_low", "cka_high", "nhsic", "nhsic_p"):
        np.testing.assert_allclose(kernels[column], expected[column], rtol=1e-3)
    steered = tables["steering_toxicity.csv"]
    assert steered.source.tolist() == list(trace.checkpoints)[-3:]
    assert len(steered.columns) > 3


def test_several_runs_are_told_of_each_and_drawn_together(trace, tmp_path, browse):
    both = combine_runs({"seed 0": trace, "seed 1": trace})
    page = write_report(both, tmp_path / "report.html")
    text = page.read_text(encoding="utf-8")
    assert "in 2 runs (figures show their mean and range)" in text
    for run in ("seed 0", "seed 1"):
        assert f"<h3>{run}</h3>" in text
        assert f">{run}</td>" in text or f">{run}</th>" in text
    assert len(taken_out(text)["trace.csv"]) == 2 * len(trace.to_frame())
    told = browse(
        page,
        """window.dispatchEvent(new Event("beforeprint")); await wait(1500);
           return [...document.querySelectorAll("section h2")].map(e => e.textContent);""",
    )
    assert {"Findings", "Map", "Along training"} <= set(told["answer"])
    assert told["errors"] == []


def test_several_probes_are_drawn_one_after_the_other(trace, tmp_path):
    data = xr.concat(
        [trace.data, trace.data], dim=pd.Index(["logistic", "lda"], name="probe"), data_vars="all"
    )
    held = {name: data[name].isel(probe=0, drop=True) for name in ("accuracy_floor",)}
    page = write_report(Trace(data.assign(held)), tmp_path / "report.html")
    text = page.read_text(encoding="utf-8")
    for heading in ("Map", "Along training"):
        part = text.split(f">{heading}</h2>")[1].split("</section>")[0]
        assert "<h3>logistic</h3>" in part
        assert "<h3>lda</h3>" in part
        assert part.count('class="plot"') >= 2


def test_the_browser_gives_plain_csv(trace, tmp_path, browse):
    told = browse(
        write_report(trace, tmp_path / "report.html"),
        """let found;
           const click = HTMLAnchorElement.prototype.click;
           URL.createObjectURL = blob => { found = blob; return "blob:x"; };
           HTMLAnchorElement.prototype.click = function () { this.name = "made"; };
           document.querySelector("[data-packed]").dispatchEvent(
             new MouseEvent("click", {cancelable: true}));
           await wait(500);
           return (await found.text()).split("\\n")[0];""",
    )
    assert told["answer"].split(",") == list(trace.to_frame().drop(columns="depth").columns)


def test_the_same_trace_gives_the_same_page(trace, tmp_path):
    pages = [write_report(trace, tmp_path / f"{i}.html").read_bytes() for i in range(2)]
    assert pages[0] == pages[1]


def test_a_report_of_a_large_run_stays_under_ten_megabytes(tmp_path):
    checkpoints, layers = 150, 32
    small = add_levels(figures.synthetic_trace(dict.fromkeys("abcde", 8)), floor=0.6).data
    generator = np.random.default_rng(0)
    data = small.isel(
        checkpoint=np.zeros(checkpoints, int), site=np.arange(layers) % small.sizes["site"]
    )
    data = data.assign_coords(
        checkpoint=[f"m@step{i}" for i in range(checkpoints)],
        step=("checkpoint", np.arange(checkpoints)),
        tokens=("checkpoint", np.arange(checkpoints) * 1e6),
        site=[f"blocks.{i}.hook_resid_post" for i in range(layers)],
        layer=("site", np.arange(layers)),
    )
    data = data.map(lambda values: values + 0.1 * generator.random(values.shape), keep_attrs=True)
    # As many noisy columns as a probe, information and the spectrum give together.
    for number in range(100):
        noisy = data.accuracy + generator.random(data.accuracy.shape)
        data[f"measure_{number}"] = noisy.assign_attrs(data.accuracy.attrs)
    page = write_report(with_kernels(Trace(data)), tmp_path / "report.html")
    assert 5e6 < page.stat().st_size < 10e6
    text = page.read_text(encoding="utf-8")
    assert "columns are left out" in text
    tables = taken_out(text)
    assert len(tables["trace.csv"]) == 5 * 150 * 32
    assert {"accuracy", "accuracy_low", "accuracy_above_floor"} <= set(tables["trace.csv"])
    assert set(tables["cka.csv"]) == {"concept", "checkpoint", "site", "against", "cka"}


def test_a_finding_says_by_how_much_and_warns_where_nothing_is_added():
    traces = {floor: figures.synthetic_trace({"toxicity": 64}) for floor in (0.6, 0.88)}
    above, level = (
        findings_of(add_levels(trace, floor=f))["toxicity"] for f, trace in traces.items()
    )
    assert "0.900 [0.850, 0.950] at layer 2, step 512, n = " in above.sentences[0]
    assert "chosen by this same accuracy" in above.sentences[1]
    assert any(
        "text-only baseline (0.600): +0.300 [+0.250, +0.350]" in each for each in above.sentences
    )
    assert above.caution == ""
    assert level.caution == "The accuracy is not shown to be above the text-only baseline."


def test_one_of_a_kind_is_not_told_in_the_plural(tmp_path):
    alone = figures.synthetic_trace({"toxicity": 64})
    page = write_report(alone, tmp_path / "alone.html").read_text(encoding="utf-8")
    assert "1 concept at 5 checkpoints from" in page
    both = figures.synthetic_trace({"toxicity": 64, "privacy": 8})
    assert "2 concepts at" in write_report(both, tmp_path / "b.html").read_text(encoding="utf-8")


def test_a_report_says_what_the_labels_of_a_table_stand_for(trace, tmp_path):
    own = {"labels": "column 'is_false', turned round", "groups": "column 'topic'"}
    known = {"toxicity": {"statements": 60, "provenance": own}}
    data = trace.data.assign_attrs(provenance=json.dumps({"concepts": known}))
    page = write_report(Trace(data), tmp_path / "report.html").read_text(encoding="utf-8")
    assert "turned round" in page
    assert ">labels</th>" in page
    assert "column &#39;topic&#39;" in page
    # A column that nobody fills is not shown.
    assert ">label 1</th>" not in page


def test_a_concept_without_a_number_is_said_to_have_none(trace):
    data = trace.data
    data["accuracy"] = data.accuracy.where(data.concept != "privacy")
    assert "is unknown" in findings_of(Trace(data))["privacy"].sentences[0]


def test_cautions_name_what_is_missing_and_what_leaks(trace):
    assert find_cautions(trace) == []
    data = trace.data.drop_vars(["accuracy_floor"])
    data["accuracy"] = data.accuracy.where(
        (data.concept != "privacy") | (data.checkpoint != "toy@step8")
    )
    data["leak_group"] = (
        ("concept", "checkpoint"),
        np.array([[3.0], [0.0]]).repeat(5, 1),
        {"units": "statements", "long_name": "of a group that is trained on"},
    )
    data = data.assign_coords(n_groups=("concept", [12, 100]), polarity=("concept", [False, True]))
    told = " ".join(find_cautions(Trace(data)))
    assert "1 of 10 cells" in told
    assert "privacy at toy@step8" in told
    assert "not compared with a text-only baseline" in told
    assert "toxicity 3" in told
    assert "few independent groups of statements for toxicity (12)" in told
    assert "Neither label is the trustworthy side of toxicity" in told


def test_a_trace_writes_its_own_report(trace, tmp_path):
    assert trace.report(tmp_path / "report.html", title="Mine").is_file()
    assert "<h1>Mine</h1>" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_report_is_refused_by_another_name_and_leaves_nothing(trace, tmp_path):
    with pytest.raises(ValueError, match=r"\.html"):
        write_report(trace, tmp_path / "report.pdf")
    assert not list(tmp_path.iterdir())


def test_a_trace_of_another_measure_is_reported_without_findings(tmp_path):
    data = figures.TRACE.data[["accuracy"]].rename(accuracy="rank")
    data["rank"].attrs.update(units="1", long_name="effective rank")
    page = write_report(Trace(data), tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Findings" not in page.split("<script>")[0]
    assert "effective rank" in page


def test_untrained_is_not_said_to_be_random_where_it_may_be_step_0(trace, tmp_path):
    # Of a run that tunes a model, step 0 is the model before it was tuned.
    page = write_report(trace, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Untrained: the same layer at step 0, or with random weights." in page
    assert "untrained: at step 0, or with random weights" in summary_table(trace)
