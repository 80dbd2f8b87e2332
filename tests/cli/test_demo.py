"""The demonstration, run whole once, as a new user runs it."""

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

from tlens_trust.cli import stages as stages_module
from tlens_trust.cli.stages import Stages
from tlens_trust.tracing import Trace, load_results

DIMENSIONS = ("reliability", "privacy", "toxicity", "fairness", "robustness")


@pytest.fixture(scope="module")
def whole(demo_folder):
    """What the whole demo prints where its output is no terminal."""
    return (demo_folder / "printed.txt").read_text(encoding="utf-8").splitlines()


def place_of(lines, start):
    return next(number for number, line in enumerate(lines) if line.startswith(start))


def test_it_shows_accuracies_first_steering_second_information_last(whole):
    order = ["1/4", "concept ", "reliability ", "2/4", "toxicity: ", "steering ", "3/4", "nhsic",
             "plane ", "4/4", "report "]  # fmt: skip
    places = [place_of(whole, start) for start in order]
    assert places == sorted(places)


def test_it_takes_45_lines_at_most_and_draws_no_bars_where_there_is_no_terminal(whole, demo_folder):
    assert len(whole) <= 45
    assert max(map(len, whole)) <= 120
    assert not any("\r" in line or "it/s" in line for line in whole)
    assert (demo_folder / "errors.txt").read_text(encoding="utf-8") == ""


def test_it_says_which_of_how_many_stages_it_is_in_and_about_how_long_is_left(whole):
    stages = [line for line in whole if re.match(r"\d/\d  ", line)]
    assert [line[:3] for line in stages] == ["1/4", "2/4", "3/4", "4/4"]
    assert all(re.search(r"\(about [\d.]+ (s|min) left\)$", line) for line in stages)


def test_there_is_one_row_a_concept_in_the_table_and_one_line_a_concept_of_information(whole):
    table = whole[place_of(whole, "concept ") + 1 :][:5]
    information = whole[place_of(whole, "nhsic") + 1 :][:5]
    for rows in (table, information):
        assert [row.split()[0] for row in rows] == list(DIMENSIONS)
    assert all(re.search(r"layer \d: I\(T;X\) .+; I\(T;Y\) .+", row) for row in information)


def test_its_last_line_is_the_address_of_the_report(whole):
    address = urlparse(whole[-1].split()[1])
    assert address.scheme == "file"
    page = Path(unquote(address.path)).read_text(encoding="utf-8")
    for part in ("information plane of toxicity", "toy@step768 is moved", "> trout</span>"):
        assert part in page


def test_every_file_that_it_names_is_there(whole, demo_folder):
    named = re.findall(r"tlens_trust_demo/\S+?\.(?:html|nc)", "\n".join(whole))
    assert len(named) >= 5
    assert all((demo_folder / name).is_file() for name in named)


def test_its_run_folder_holds_nine_checkpoints_two_matrices_and_a_plane(demo_folder):
    run = demo_folder / "tlens_trust_demo"
    assert len(Trace.load(run).checkpoints) == 9
    assert set(load_results(run, "steering")) == {"toxicity", "reliability"}
    (plane,) = load_results(run, "plane").values()
    assert set(plane["concept"].values) == set(DIMENSIONS)


def test_the_quick_one_probes_four_checkpoints_and_does_no_more(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = run("demo", "--quick", "--jobs", 1)
    lines = out.splitlines()
    assert (status, err) == (0, "")
    assert [line[:3] for line in lines if re.match(r"\d/\d", line)] == ["1/2", "2/2"]
    trace = Trace.load("tlens_trust_demo")
    assert trace.steps == (0, 64, 256, 768)
    assert trace.concepts == DIMENSIONS
    assert lines[-1].startswith("report   file://")
    assert not load_results("tlens_trust_demo", "steering")


def test_the_first_line_is_printed_before_torch_is_imported(tmp_path):
    script = """
import sys
from tlens_trust import cli
from tlens_trust.cli import demo_command
def stop(stages):
    sys.stderr.write(str("torch" in sys.modules))
    raise ValueError("stopped")
sys.modules["tlens_trust.cli.demo_command"]._import_libraries = stop
sys.argv = ["tlens-trust", "demo"]
cli.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stderr.startswith("Falsetlens-trust: stopped"), done.stderr
    assert done.stdout.startswith("1/4  read nine checkpoints")


class Clock:
    now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    monkeypatch.setattr(stages_module, "time", found)
    return found


def test_the_time_that_is_left_goes_by_the_pace_of_the_stages_before(clock, capsys):
    stages = Stages({"one": 10.0, "two": 30.0}, quiet=False)
    stages.begin("begin")
    clock.now = 20.0  # twice as long as usual
    stages.begin("go on")
    clock.now = 150.0
    stages.end()
    first, second, last = capsys.readouterr().out.splitlines()
    assert first == "1/2  begin (about 40 s left)"
    assert second == "2/2  go on (about 60 s left)"
    assert last == "done in 2.5 min"


def test_a_quiet_one_says_nothing_of_its_stages(clock, capsys):
    stages = Stages({"one": 10.0}, quiet=True)
    stages.begin("begin")
    stages.end()
    assert capsys.readouterr().out == ""
    assert not stages.bars


@pytest.mark.parametrize("terminal", [True, False])
def test_bars_are_for_terminals(clock, monkeypatch, terminal):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    assert Stages({"one": 10.0}, quiet=False).bars is terminal
