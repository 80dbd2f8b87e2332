"""Hold the numbers of README and documentation against a fresh run on the embedded toy series.

    python tools/documented_figures.py           # names what is out of date, with status 1
    python tools/documented_figures.py --write   # writes it anew, and draws the pictures

A passage that stands between `<!-- toy: NAME -->` and `<!-- /toy -->` is not written by hand: the
function of that name below makes it from the results. A function that writes a sentence raises an
error where the results do not bear it out any more; then the sentence has to be put otherwise.
Pictures end with the numbers that they draw. They take the extra `export`, and Chrome or Chromium.

Words and whole numbers have to be equal. Decimals may differ by one in the last digit, since
another processor may add in another order and then round the other way; with torch's and MKL's
code for old processors, accuracies and their intervals came out equal to the last bit, and levels
of permuted labels moved by up to one statement. Pictures are compared to .01, a line's width.

Everything is computed on the processor with the package's defaults and seed 0, as
`tlens-trust demo` does. It takes about four minutes on one core.
"""

import argparse
import difflib
import json
import re
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tlens_trust import load_concepts, load_toy_series, probe_checkpoints
from tlens_trust.analysis import collect_series, find_onset, trace_transfer
from tlens_trust.cli.demo_steering import steer_toy_by
from tlens_trust.tracing import load_results
from tlens_trust.views import summary_table

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
WIDTH = 115

_NUMBER = re.compile(r"\d*\.\d+|\d+")
_PASSAGE = re.compile(r"(<!-- toy: ([\w-]+) -->)(\s*)(.*?)(\s*)(<!-- /toy -->)", re.DOTALL)
_DRAWN = re.compile(r"\n<!-- toy: (\[.*\]) -->\s*\Z")
_LINE_WIDTH = 0.01
_LEVEL = 0.05


class Results:
    """What is computed on the toy series for the documentation, each part once and when needed.

    Args:
        run: Run folder of the sweep; that of the demo, if it has run, or a new one.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self.series = load_toy_series()
        self.concepts = load_concepts()

    @cached_property
    def trace(self) -> Any:
        """Accuracies of the logistic probe, the same as in the demo's sweep."""
        return probe_checkpoints(
            self.series, self.concepts, seed=0, out=self._run, store=None, progress=False
        )

    @cached_property
    def onset(self) -> Any:
        """Onsets, as the demo asks for them."""
        trace = self.trace
        return find_onset(self._run, concepts=trace.concepts, checkpoints=trace.checkpoints)

    @cached_property
    def steering(self) -> dict[str, Any]:
        """For each concept the matrix that docs/steering.md describes, as the demo makes it."""
        kept = load_results(self._run, "steering")
        return {
            name: kept[name] if name in kept else steer_toy_by(concept, self.series, seed=0)
            for name, concept in self.concepts.items()
        }

    @cached_property
    def paraphrased(self) -> Any:
        """Probes of reliability at the last checkpoint, scored on the same facts paraphrased."""
        fitted = {"reliability": self.concepts["reliability"]}
        sets = fitted | load_concepts("reliability_paraphrased")
        readings = collect_series(self.series[-1:], sets, store=None)
        return trace_transfer(readings, "reliability", progress=False).squeeze()

    def in_last_block(self, name: str) -> Any:
        """A variable of the trace at block 3, along concept and checkpoint."""
        return self.trace.data[name].sel(site="blocks.3.hook_resid_post")


PASSAGES: dict[str, Callable[[Results], str]] = {}


def passage(function: Callable[[Results], str]) -> Callable[[Results], str]:
    """Register what writes the passage that is named as the function is, with dashes."""
    PASSAGES[function.__name__.replace("_", "-")] = function
    return function


@passage
def summary(results: Results) -> str:
    """The table that the demo prints, without its legend."""
    table, _, _ = summary_table(results.trace, results.onset).partition("\n\n")
    return f"```text\n{table}\n```"


@passage
def first_figure(results: Results) -> str:
    """README's picture and what it shows, for who cannot see it."""
    last = results.in_last_block("accuracy").values[:, -1]
    return _wrapped(
        "![Held-out accuracy of probes of the last block along training, one panel each for "
        f"{_listed(results.trace.concepts)}: inside the band of permuted labels up to step "
        f"{_quiet_until(results)}, and between {_short(last.min())} and {_short(last.max())} at "
        f"step {results.series.steps[-1]}](docs/images/first-figure.svg)"
    )


@passage
def first_figure_of_start(results: Results) -> str:
    """The same picture on the start page."""
    last = results.in_last_block("accuracy").values[:, -1]
    return _wrapped(
        "![Accuracy of probes of block 3 along training, five panels, one a concept: at chance up "
        f"to step {_quiet_until(results)}, and between {_short(last.min())} and "
        f"{_short(last.max())} at step {results.series.steps[-1]}](images/first-figure.svg)"
    )


@passage
def heatmap(results: Results) -> str:
    """The picture of all blocks on the start page."""
    accuracy = results.trace.data.accuracy.transpose("concept", "checkpoint", "site").values
    high = results.trace.data.accuracy_null.sel(bound="high").transpose(*_CELL).values
    at_end = accuracy[:, -1, 1:]
    _check(
        bool((accuracy[:, :, 0] < 0.65).all() and (at_end > high[:, -1, 1:]).all()),
        "block 0 reads none of the concepts, and all later blocks read all of them at the end",
    )
    return _wrapped(
        "![The same accuracies as five maps of checkpoints by layers: block 0 reads none of the "
        "concepts at any checkpoint, the later blocks do at the end](images/heatmap.svg)"
    )


@passage
def last_accuracies(results: Results) -> str:
    """Where the lines of the first figure end."""
    accuracy = results.in_last_block("accuracy").isel(checkpoint=-1)
    told = _listed(
        f"{_short(float(accuracy.sel(concept=name)), 3)} for {name}" for name in results.concepts
    )
    # It begins in the middle of a line, and goes on below a bullet.
    return textwrap.fill(
        told, WIDTH, initial_indent=" " * 45, subsequent_indent="  ", break_on_hyphens=False
    ).lstrip()


@passage
def quiet_until(results: Results) -> str:
    """The last step up to which all lines of the first figure lie inside their null bands."""
    return str(_quiet_until(results))


@passage
def onset_by(results: Results) -> str:
    """The step by which reliability is read."""
    return str(_onset_of_reliability(results)[1])


@passage
def onset_after(results: Results) -> str:
    """The step after which reliability is read."""
    return str(_onset_of_reliability(results)[0])


@passage
def transfer_own(results: Results) -> str:
    """What probes of the embedded sentences tell there."""
    return _short(_transferred(results)["accuracy_source"])


@passage
def transfer_moved(results: Results) -> str:
    """What they tell of the same facts in other sentences."""
    found = _transferred(results)
    lost = found["accuracy_source"] - found["accuracy"]
    _check(lost > 0.1, "probes lose much of their accuracy in other sentences")
    return _short(found["accuracy"])


@passage
def transfer_refitted(results: Results) -> str:
    """What probes that are fitted to the other sentences tell."""
    found = _transferred(results)
    lost = found["accuracy_target"] - found["accuracy"]
    _check(lost > 0.1, "probes that are fitted to the paraphrases tell more of them")
    return _short(found["accuracy_target"])


@passage
def bfloat16_readings(results: Results) -> str:
    """How far a reading moves in bfloat16, relative to its length."""
    from tlens_trust import collect_activations

    read = [
        collect_activations(
            results.series[-1], results.concepts["toxicity"], dtype=dtype, store=None
        ).values.double()
        for dtype in (torch.float32, torch.bfloat16)
    ]
    share = (read[1] - read[0]).norm(dim=-1) / read[0].norm(dim=-1)
    return f"{_short(100 * float(share.mean()), 1)}%"


@passage
def steered(results: Results) -> str:
    """The table of docs/steering.md: what vectors of three checkpoints do to the last one."""
    lines = [
        "| concept | its own vector | p | wrong way | right answers | of step 384 | of step 256 |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, matrix in sorted(results.steering.items(), key=lambda item: -_moved(item[1])):
        own, half, early = (
            matrix.isel(target=0).sel(source=f"toy@step{step}") for step in (768, 384, 256)
        )
        answers = 100 * float(own.follow_up_accuracy_change)
        cells = (
            name,
            _over_random(own),
            f"{_short(float(own.follow_up_log_odds_p), 3)}",
            f"{100 * float(own.follow_up_log_odds_wrong_way):.0f}%",
            _minus(f"{answers:.0f}"),
            _over_random(half),
            _over_random(early),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


@passage
def steered_statements(results: Results) -> str:
    """How many statements were tried, over the five concepts."""
    counts = sorted({int(matrix.attrs["statements"]) for matrix in results.steering.values()})
    return f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


@passage
def steered_in_words(results: Results) -> str:
    """What the table of docs/steering.md says, by the rule that both numbers have to agree."""
    moved = {
        step: [
            name
            for name, matrix in results.steering.items()
            if _is_moved(matrix.isel(target=0).sel(source=f"toy@step{step}"))
        ]
        for step in (768, 384, 256)
    }
    not_moved = [name for name in results.steering if name not in moved[768]]
    by_own = {
        name: matrix.isel(target=0).sel(source="toy@step768")
        for name, matrix in results.steering.items()
    }
    sentences = [
        "By both numbers (an interval above 0, and p at most .05; each cell by itself) the model's "
        f"own vector moves {_listed(moved[768]) or 'none'}."
    ]
    for name in not_moved:
        cell = by_own[name]
        random = np.abs(cell.follow_up_log_odds_random.values)
        as_much = int((random >= abs(float(cell.follow_up_log_odds_change))).sum())
        low = float(cell.follow_up_log_odds_over_random_ci.sel(bound="low"))
        sentences.append(
            f"{name.capitalize()} is not shown to be moved: {as_much} of {random.size} random "
            "directions move it as much, and its interval "
            f"{'lies off zero' if low > 0 else 'does not lie above zero'}."
        )
    sentences.append(
        f"Half-trained vectors (step 384 of 768) work for {_listed(moved[384]) or 'none'}, those "
        f"of step 256 for {_listed(moved[256]) or 'none'}."
    )
    own = [name for name, matrix in by_own.items() if _is_moved(matrix, "log_odds")]
    sentences.append(
        f"The statements' own `log_odds` are moved in {_listed(own) or 'none of them'}: what is "
        "pushed is what is said next, to one side for every statement alike."
    )
    return _wrapped(" ".join(sentences))


PICTURES: dict[str, Callable[[Results], Any]] = {
    "first-figure.svg": lambda results: results.trace.plot.lines("accuracy", sites=[3]),
    "heatmap.svg": lambda results: results.trace.plot.heatmap("accuracy"),
}

_CELL = ("concept", "checkpoint", "site")


def pages() -> list[Path]:
    """README and the pages of the documentation."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def passages_of(text: str) -> Iterator[tuple[str, str]]:
    """Name and content of each passage of a page, in order."""
    for found in _PASSAGE.finditer(text):
        yield found[2], found[4]


def rewrite(text: str, results: Results) -> str:
    """A page with its passages written anew where they say something else.

    Raises:
        ValueError: A passage has a name that nothing writes.
    """

    def written(found: re.Match[str]) -> str:
        if found[2] not in PASSAGES:
            raise ValueError(
                f"No passage is called {found[2]!r}. Known are {', '.join(sorted(PASSAGES))}; "
                "others are to be added to tools/documented_figures.py."
            )
        anew = PASSAGES[found[2]](results)
        if is_same(found[4], anew):
            return found[0]
        return "".join((found[1], found[3], anew, found[5], found[6]))

    return _PASSAGE.sub(written, text)


def is_same(text: str, anew: str) -> bool:
    """Whether two passages say the same, but for the last digit of decimals."""
    if [*map(str.strip, _NUMBER.split(text))] != [*map(str.strip, _NUMBER.split(anew))]:
        return False
    return all(
        first == second or _is_last_digit(first, second)
        for first, second in zip(_NUMBER.findall(text), _NUMBER.findall(anew), strict=True)
    )


def _is_last_digit(first: str, second: str) -> bool:
    digits, others = (len(number.partition(".")[2]) for number in (first, second))
    return digits == others > 0 and abs(float(first) - float(second)) < 1.5 * 10**-digits


def numbers_of(figure: Any) -> list[dict[str, Any]]:
    """What a figure draws, to three digits, as JSON has it."""
    return [
        {
            key: _rounded(value)
            for key, value in trace.to_plotly_json().items()
            if key in ("name", "x", "y", "z") and value is not None
        }
        for trace in figure.data
    ]


def drawn_numbers(file: Path) -> Any:
    """The numbers that a picture ends with; None where it has none."""
    found = _DRAWN.search(file.read_text(encoding="utf-8"))
    return json.loads(found[1]) if found else None


def is_same_drawing(drawn: Any, anew: Any) -> bool:
    """Whether two drawings look alike: the same marks, and numbers a line's width apart at most."""
    if isinstance(drawn, dict) and isinstance(anew, dict):
        return drawn.keys() == anew.keys() and all(
            is_same_drawing(drawn[key], anew[key]) for key in drawn
        )
    if isinstance(drawn, list) and isinstance(anew, list):
        return len(drawn) == len(anew) and all(map(is_same_drawing, drawn, anew))
    if isinstance(drawn, float) and isinstance(anew, float):
        return abs(drawn - anew) < _LINE_WIDTH
    return bool(drawn == anew)


def draw(results: Results) -> None:
    """Draw the pictures whose numbers have changed."""
    for name, figure_of in PICTURES.items():
        figure = figure_of(results)
        numbers = numbers_of(figure)
        file = IMAGES / name
        if file.is_file() and drawn_numbers(file) == numbers:
            continue
        figure.save(file, width=1000)
        with file.open("a", encoding="utf-8") as picture:
            picture.write(f"\n<!-- toy: {json.dumps(numbers, separators=(',', ':'))} -->\n")


def _rounded(values: Any) -> Any:
    if isinstance(values, str):
        return values
    array = np.asarray(values)
    if array.dtype.kind == "O":
        # Numbers with gaps, or words.
        try:
            array = array.astype(float)
        except ValueError:
            return array.astype(str).tolist()
    if array.dtype.kind in "fiu":
        array = np.round(array.astype(float), 3)
        return np.where(np.isnan(array), None, array.astype(object)).tolist()
    return array.astype(str).tolist()


def _check(holds: bool, statement: str) -> None:
    """Refuse to write a sentence that the results do not bear out.

    Raises:
        ValueError: It does not hold.
    """
    if not holds:
        raise ValueError(
            f"The documentation says that {statement}, which the results do not show any more. Put "
            "it otherwise in tools/documented_figures.py."
        )


def _quiet_until(results: Results) -> int:
    accuracy = results.in_last_block("accuracy").transpose("concept", "checkpoint").values
    null = results.in_last_block("accuracy_null")
    low, high = (
        null.sel(bound=bound).transpose("concept", "checkpoint").values for bound in ("low", "high")
    )
    inside = ((low <= accuracy) & (accuracy <= high)).all(axis=0)
    quiet = int(np.argmin(inside)) - 1 if not inside.all() else len(inside) - 1
    _check(quiet > 0, "all five concepts begin inside their null bands")
    step = results.series.steps[quiet]
    assert step is not None
    return step


def _onset_of_reliability(results: Results) -> tuple[int, int]:
    bounds = results.onset.sel(concept="reliability", site="best").onset_step_ci
    after, by = (float(value) for value in bounds.values)
    _check(0 < after < by, "the onset of reliability lies between two checkpoints")
    return int(after), int(by)


def _transferred(results: Results) -> dict[str, float]:
    at = results.paraphrased.sel(site="blocks.3.hook_resid_post")
    return {name: float(at[name]) for name in ("accuracy_source", "accuracy", "accuracy_target")}


def _moved(matrix: Any) -> float:
    return float(matrix.isel(target=0).sel(source="toy@step768").follow_up_log_odds_over_random)


def _is_moved(cell: Any, effect: str = "follow_up_log_odds") -> bool:
    above = float(cell[f"{effect}_over_random_ci"].sel(bound="low")) > 0
    return above and float(cell[f"{effect}_p"]) <= _LEVEL


def _over_random(cell: Any) -> str:
    low, high = (
        float(cell.follow_up_log_odds_over_random_ci.sel(bound=bound)) for bound in ("low", "high")
    )
    value = float(cell.follow_up_log_odds_over_random)
    return f"{_short(value)} [{_short(low)}, {_short(high)}]"


def _short(value: float, digits: int = 2) -> str:
    """As .94 and −1.27: without a zero before the point, and with a proper minus."""
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        return "0"
    return _minus(re.sub(r"^(-?)0\.", r"\1.", text))


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _listed(names: Any) -> str:
    *others, last = [*names] or [""]
    return f"{', '.join(others)} and {last}" if others else last


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def main() -> int:
    """Check the documentation, or write it anew."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--write", action="store_true", help="Write pages and pictures anew.")
    write = parser.parse_args().write
    stale = []
    with tempfile.TemporaryDirectory() as folder:
        results = Results(Path(folder) / "toy")
        for page in pages():
            text = page.read_text(encoding="utf-8")
            anew = rewrite(text, results)
            if anew != text:
                name = page.relative_to(ROOT).as_posix()
                stale.append(name)
                lines = (each.splitlines(keepends=True) for each in (text, anew))
                sys.stdout.writelines(difflib.unified_diff(*lines, name, f"{name}, anew", n=0))
            if write:
                page.write_text(anew, encoding="utf-8")
        for name, figure_of in PICTURES.items():
            if not is_same_drawing(drawn_numbers(IMAGES / name), numbers_of(figure_of(results))):
                stale.append(name)
                sys.stdout.write(f"{name} draws other numbers\n")
        if write:
            draw(results)
    return int(bool(stale) and not write)


if __name__ == "__main__":
    raise SystemExit(main())
