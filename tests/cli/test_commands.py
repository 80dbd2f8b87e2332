import platform
import re
import subprocess
import sys

import pytest
import torch

import tlens_trust
from tlens_trust.checkpoints import loading
from tlens_trust.cli import probe_command
from tlens_trust.cli.series_options import checked_device
from tlens_trust.concepts.controls.controls import CONTROLS
from tlens_trust.tracing.provenance import versions

DIMENSIONS = ("reliability", "privacy", "toxicity", "fairness", "robustness")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["prob"], "Did you mean 'probe'"),
        (["demo", "--sed", "1"], "--seed"),
        (["demo", "--seed", "one"], "--seed"),
        (["probe", "."], "holds no checkpoint"),
        (["probe", "./not-there"], "No folder './not-there'"),
        (["probe", ".", "--concepts", "toxicty"], "toxicity"),
        (["probe", ".", "--concepts", "tense=x.csv"], "is not a benchmark"),
        (["probe", ".", "--steps", "every"], "'log', 'all'"),
        (["probe", ".", "--csv", "x.csv"], "--trustworthy"),
        (["probe", ".", "--protocol", "paper"], "'tracingllm'"),
        (["probe", ".", "--untrained", "first"], "'step0'"),
        (["probe", ".", "--steps", "1:2:3:4"], "--steps got '1:2:3:4'"),
        (["probe", ".", "--steps", "5:5"], "--steps got '5:5'"),
        (["probe", ".", "--steps", "0:10:0"], "--steps got '0:10:0'"),
        (["probe", ".", "--steps", ""], "--steps got ''"),
        (["probe", ".", "--concepts", ","], "--concepts got ',', which names nothing"),
        (["probe", ".", "--concepts", "sst2="], "Give NAME, or NAME=PATH"),
        (["probe", ".", "--concepts", "sst2=gone.csv"], "There is no file 'gone.csv'"),
        (["probe", ".", "--csv", "gone.csv", "--trustworthy", "1"], "no file 'gone.csv'"),
        (["probe", ".", "--csv", ".", "--trustworthy", "1"], "'.' is a folder"),
        (["probe", ".", "--group", "topic"], "--group describes the file of --csv"),
        (["probe", ".", "--probe", "lda,mass-meen"], "Did you mean 'mass_mean'"),
        (["probe", ".", "--probe", ","], "--probe got ',', which names nothing"),
        (["probe", ".", "--probe", "lda", "--protocol", "tracingllm"], "a probe of its own"),
        (["probe", "notes.txt"], "'notes.txt' is a file"),
        (["probe", ".", "--out", "notes.txt"], "--out got 'notes.txt', which is a file"),
        (["demo", "--out", "notes.txt"], "--out got 'notes.txt', which is a file"),
        (["onset", "gone"], "'gone' does not exist"),
        (["onset", "notes.txt"], "'notes.txt' is a file"),
        (["onset", "."], "'.' holds no manifest.json"),
        (["compare", ".", "toxicity", "0", "8"], "'.' holds no manifest.json"),
        (["compare", ".", "toxicity"], "Missing argument"),
        (["checkpoints", "notes.txt"], "'notes.txt' is a file"),
        (["lint", "claims.csv"], "in a shell `--statement`"),
        (["transfer", ".", "--from", "mine=x.csv", "--to", "toxicity"], "as --csv"),
    ],
)
def test_a_bad_argument_is_one_line_and_status_2(monkeypatch, run, tmp_path, arguments, word):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("dear diary")
    (tmp_path / "claims.csv").write_text("text,label\nRome is old.,1\n")
    status, out, err = run(*arguments)
    assert status == 2
    assert err.count("\n") == 1
    assert err.startswith("tlens-trust: ")
    assert word in err
    assert out == ""


@pytest.mark.parametrize(
    ("given", "measured", "cleaned"),
    [
        ([], "logistic", True),
        (["--protocol", "tracingllm"], "tracingllm", False),
        (["--protocol", "tracingllm", "--clean"], "tracingllm", True),
        (["--no-clean"], "logistic", False),
    ],
)
def test_the_paper_s_protocol_reads_the_paper_s_files_as_they_are(
    monkeypatch, run, tmp_path, given, measured, cleaned
):
    file = tmp_path / "sst2.csv"
    rows = [f"film {i} is Good .,1\nfilm {i} is good .,0" for i in range(5)]
    file.write_text("\n".join(["statement,label", *rows, "film 0 is good .,0"]) + "\n")
    asked = {}

    def trace_checkpoints(series, concepts, *, measures, **arguments):
        asked.update(arguments, concepts=concepts, measures=measures)
        raise ValueError("far enough")

    monkeypatch.setattr(tlens_trust, "trace_checkpoints", trace_checkpoints, raising=False)
    monkeypatch.setattr(probe_command, "open_series", lambda *_: None)
    status, _, err = run("probe", str(tmp_path), "--concepts", f"sst2={file}", *given)
    assert (status, err) == (2, "tlens-trust: far enough\n")
    assert [measure.name for measure in asked["measures"]] == [measured]
    assert asked["untrained"] == "auto"
    assert len(asked["concepts"]["sst2"]) == (10 if cleaned else 11)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["tense,toxicity"], ["tense", "toxicity"]),
        (["controls"], [*CONTROLS]),
        (["reliability", "number_plain"], ["reliability", "number_plain"]),
        ([], [*DIMENSIONS]),
    ],
)
def test_controls_are_concepts_like_any_other(monkeypatch, run, given, expected):
    asked = {}

    def trace_checkpoints(series, concepts, **arguments):
        asked.update(concepts)
        raise ValueError("far enough")

    monkeypatch.setattr(tlens_trust, "trace_checkpoints", trace_checkpoints, raising=False)
    monkeypatch.setattr(probe_command, "open_series", lambda *_: None)
    chosen = [part for name in given for part in ("--concepts", name)]
    assert run("probe", ".", *chosen)[0] == 2
    assert list(asked) == expected


def test_the_version_is_the_packages(run):
    assert run("--version")[:2] == (0, f"{tlens_trust.__version__}\n")


def test_the_verbose_version_names_everything_that_a_trace_records(run):
    status, output, _ = run("--version", "--verbose")
    assert status == 0
    lines = dict(line.split(maxsplit=1) for line in output.splitlines())
    assert versions().items() <= lines.items()
    assert lines["python"] == platform.python_version()
    assert lines["tlens-trust"] == tlens_trust.__version__
    assert {"torch", "transformers", "transformer-lens", "scikit-learn", "xarray"} <= lines.keys()
    assert lines["platform"] == platform.platform()
    assert int(lines["cores"]) >= 1


@pytest.mark.parametrize(("is_there", "backend"), [(True, "hooked_transformer"), (False, "bridge")])
def test_the_verbose_version_names_the_backend_that_would_be_used(
    run, monkeypatch, is_there, backend
):
    monkeypatch.setattr(loading, "has_hooked_transformer", lambda: is_there)
    assert re.search(rf"^backend +{backend}", run("--version", "--verbose")[1], re.MULTILINE)


def test_the_verbose_version_names_the_gpu(run, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", "Graphics {}".format)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    output = run("--version", "--verbose")[1]
    assert re.search(r"^gpu +Graphics 0, Graphics 1 \(CUDA 13\.0\)$", output, re.MULTILINE)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert re.search(r"^gpu +none$", run("--version", "--verbose")[1], re.MULTILINE)


def test_verbose_alone_is_refused(run):
    status, _, error = run("--verbose")
    assert status == 2
    assert "--version" in error


def test_concepts_lists_the_five_embedded_sets_with_their_sizes(run):
    _, out, _ = run("concepts")
    for name, concept in tlens_trust.load_concepts().items():
        line = next(line for line in out.splitlines() if line.startswith(name))
        assert str(len(concept)) in line.split()


def test_concepts_lists_the_controls_too(run):
    _, out, _ = run("concepts")
    assert [line.split()[0] for line in out.splitlines() if " control " in line] == [*CONTROLS]


def test_asking_for_help_imports_neither_torch_nor_pandas():
    code = (
        "import sys, tlens_trust.cli\n"
        "sys.argv = ['tlens-trust', '--help']\n"
        "try: tlens_trust.cli.main()\n"
        "except SystemExit: pass\n"
        "print({'torch', 'pandas', 'numpy', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_every_public_name_can_be_imported_and_no_other():
    for name in tlens_trust.__all__:
        assert getattr(tlens_trust, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Manager'"):
        _ = tlens_trust.Manager


def test_a_device_that_is_not_there_is_told_before_a_sweep():
    with pytest.raises(ValueError, match=r"--device got 'abacus'.*'cpu'"):
        checked_device("abacus")
    assert checked_device("cpu") == "cpu"
    assert checked_device(None) is None


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ([], ["logistic"]),
        (["--probe", "lda"], ["lda"]),
        (["--probe", "lda, ridge", "--probe", "lda,logistic"], ["lda", "ridge", "logistic"]),
        (
            ["--probe", "margin,selectivity"],
            ["logistic", "margin_logistic", "selectivity_logistic"],
        ),
        (["--protocol", "tracingllm"], ["tracingllm"]),
    ],
)
def test_probes_are_taken_by_name(monkeypatch, run, given, names):
    asked = []

    def trace_checkpoints(series, concepts, *, measures, **arguments):
        asked.extend(measures)
        raise ValueError("far enough")

    monkeypatch.setattr(tlens_trust, "trace_checkpoints", trace_checkpoints, raising=False)
    monkeypatch.setattr(probe_command, "open_series", lambda *_: None)
    assert run("probe", ".", *given)[2] == "tlens-trust: far enough\n"
    assert [measure.name for measure in asked] == names


def test_an_interruption_says_how_to_go_on(monkeypatch, run, tmp_path):
    import tlens_trust.checkpoints

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(tlens_trust.checkpoints.CheckpointSeries, "from_directory", interrupt)
    status, out, err = run("probe", tmp_path, "--out", tmp_path / "run")
    assert (status, out) == (130, "")
    assert "tlens-trust: interrupted." in err
    assert "The same command continues" in err
