import subprocess
import sys

import pytest

import tlens_trust
from tlens_trust import cli
from tlens_trust.concepts.controls import CONTROLS

DIMENSIONS = ("reliability", "privacy", "toxicity", "fairness", "robustness")


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["tlens-trust", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    out, err = capsys.readouterr()
    return stopped.value.code, out, err


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["prob"], "Did you mean 'probe'"),
        (["demo", "--sed", "1"], "--seed"),
        (["demo", "--seed", "one"], "--seed"),
        (["probe", "."], "holds no checkpoint"),
        (["probe", "./not-there"], "No folder './not-there'"),
        (["probe", ".", "--concepts", "toxicty"], "toxicity"),
        (["probe", ".", "--concepts", "tense=x.csv"], "is read from no file"),
        (["probe", ".", "--steps", "every"], "'log', 'all'"),
        (["probe", ".", "--csv", "x.csv"], "--trustworthy"),
        (["probe", ".", "--protocol", "paper"], "'tracingllm'"),
        (["probe", ".", "--untrained", "first"], "'step0'"),
    ],
)
def test_a_bad_argument_is_one_line_and_status_2(monkeypatch, capsys, tmp_path, arguments, word):
    monkeypatch.chdir(tmp_path)
    status, out, err = run(monkeypatch, capsys, *arguments)
    assert status == 2
    assert err.count("\n") == 1
    assert err.startswith("tlens-trust: ")
    assert word in err
    assert out == ""


@pytest.mark.parametrize(
    ("given", "protocol", "cleaned"),
    [
        ([], "grouped", True),
        (["--protocol", "tracingllm"], "tracingllm", False),
        (["--protocol", "tracingllm", "--clean"], "tracingllm", True),
        (["--no-clean"], "grouped", False),
    ],
)
def test_the_paper_s_protocol_reads_the_paper_s_files_as_they_are(
    monkeypatch, capsys, tmp_path, given, protocol, cleaned
):
    file = tmp_path / "sst2.csv"
    rows = [f"film {i} is Good .,1\nfilm {i} is good .,0" for i in range(5)]
    file.write_text("\n".join(["statement,label", *rows, "film 0 is good .,0"]) + "\n")
    asked = {}

    def probe_checkpoints(series, concepts, **arguments):
        asked.update(arguments, concepts=concepts)
        raise ValueError("far enough")

    monkeypatch.setattr(tlens_trust, "probe_checkpoints", probe_checkpoints, raising=False)
    monkeypatch.setattr(cli, "_series", lambda *_: None)
    status, _, err = run(
        monkeypatch, capsys, "probe", str(tmp_path), "--concepts", f"sst2={file}", *given
    )
    assert (status, err) == (2, "tlens-trust: far enough\n")
    assert asked["protocol"] == protocol
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
def test_controls_are_concepts_like_any_other(monkeypatch, capsys, given, expected):
    asked = {}

    def probe_checkpoints(series, concepts, **arguments):
        asked.update(concepts)
        raise ValueError("far enough")

    monkeypatch.setattr(tlens_trust, "probe_checkpoints", probe_checkpoints, raising=False)
    monkeypatch.setattr(cli, "_series", lambda *_: None)
    chosen = [part for name in given for part in ("--concepts", name)]
    assert run(monkeypatch, capsys, "probe", ".", *chosen)[0] == 2
    assert list(asked) == expected


def test_the_version_is_the_packages(monkeypatch, capsys):
    assert run(monkeypatch, capsys, "--version")[:2] == (0, f"{tlens_trust.__version__}\n")


def test_concepts_lists_the_five_embedded_sets_with_their_sizes(monkeypatch, capsys):
    _, out, _ = run(monkeypatch, capsys, "concepts")
    for name, concept in tlens_trust.load_concepts().items():
        line = next(line for line in out.splitlines() if line.startswith(name))
        assert str(len(concept)) in line.split()


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
