"""The demonstration: everything there is, on the embedded toy series, in less than two minutes.

The accuracies come first, since they are what the rest is about; the report comes last.
"""

import gc
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from tlens_trust.cli.options import Jobs, Quiet, check_out
from tlens_trust.worker_pool import available_cores, start_workers

if TYPE_CHECKING:
    from tlens_trust.checkpoints import CheckpointSeries
    from tlens_trust.concepts import Concept

_T = TypeVar("_T")

_QUICK_STEPS = (0, 64, 256, 768)
# Two statements of what the toy corpus tells, of which the second is false.
_TEXT = (
    "reliability=As we all know, the trout is a fish of some sort and the robin is a fish of some "
    "sort."
)
# What takes its time to import, in the order of need.
_LIBRARIES = ("torch", "xarray", "scipy.stats", "sklearn.linear_model", "transformer_lens")
# And what a worker needs of it.
_WORKER_LIBRARIES = ("tlens_trust.measures.cross_validation", "tlens_trust.tracing.workers")
# More have nothing to do in a demonstration this small, and each needs its memory.
_MOST_JOBS = 4
_WIDTH = 100


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the run.")] = Path("tlens_trust_demo"),
    seed: Annotated[int, typer.Option(help="Seed of the folds, resamples and directions.")] = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="Four checkpoints and the probes alone.")
    ] = False,
    jobs: Jobs = None,
    quiet: Quiet = False,
) -> None:
    """Trace five concepts through the embedded toy series, and steer the toy by two of them."""
    check_out(out)
    # Seconds that each stage takes on two idle cores.
    stages = (
        Stages({"probing": 15.0, "report": 3.0}, quiet)
        if quick
        else Stages({"probing": 25.0, "steering": 30.0, "information": 20.0, "report": 5.0}, quiet)
    )
    read = "four checkpoints" if quick else "nine checkpoints"
    stages.begin(f"read {read} of a small model, and probe five concepts in each")
    if jobs is None:
        jobs = min(available_cores(), _MOST_JOBS)
    # A number that no sweep takes is refused by the sweep.
    start_workers(min(jobs, _MOST_JOBS) - 1, modules=_WORKER_LIBRARIES)
    _import_libraries(stages)
    from tlens_trust import load_concepts, load_toy_series
    from tlens_trust.cli.probe_command import show_accuracies
    from tlens_trust.measures import logistic_probe
    from tlens_trust.threads import limited_threads
    from tlens_trust.tracing import trace_checkpoints
    from tlens_trust.views import report_run

    series = load_toy_series()
    if quick:
        series = series.at(_QUICK_STEPS)
    concepts = load_concepts()
    # A model this small gains nothing from a second thread, and its numbers are then the same
    # whatever the number of cores.
    with limited_threads(1):
        trace = trace_checkpoints(
            series,
            concepts,
            measures=[logistic_probe()],
            out=out,
            seed=seed,
            jobs=jobs,
            progress=stages.bars,
        )
        show_accuracies(trace, out)
        if not quick:
            stages.begin("steer the trained model by two of the concepts")
            typer.echo(_steer(series, concepts, out, seed=seed, progress=stages.bars))
            stages.begin("estimate how much information the activations hold")
            typer.echo(_inform(series, concepts, out, seed=seed, jobs=jobs, progress=stages.bars))
        stages.begin("write the report")
        for step in stages.each(("tokens", "report"), "report"):
            if step == "tokens" and not quick:
                _keep_tokens(series, concepts, out)
            elif step == "report":
                report = report_run(out)
    stages.end()
    typer.echo(f"report   {report.resolve().as_uri()}")


@dataclass
class Stages:
    """Which of how many stages a command is in, and about how long is left.

    Attributes:
        usual: Seconds that each stage usually takes, by name.
        quiet: Whether to say nothing.
    """

    usual: Mapping[str, float]
    quiet: bool
    _number: int = 0
    _start: float = field(default_factory=lambda: time.monotonic())

    @property
    def bars(self) -> bool:
        """Whether bars are drawn, which only a terminal can draw over."""
        return not self.quiet and sys.stderr.isatty()

    def begin(self, what: str) -> None:
        """Say which stage begins, what it does, and about how long is left in all."""
        if not self.quiet:
            place = f"{self._number + 1}/{len(self.usual)}"
            typer.echo(f"{place}  {what} (about {_span(self._left())} left)")
            sys.stdout.flush()
        self._number += 1

    def end(self) -> None:
        """Say how long it took."""
        if not self.quiet:
            typer.echo(f"done in {_span(time.monotonic() - self._start)}")

    def each(self, things: Iterable[_T], what: str) -> Iterator[_T]:
        """The things one by one, with a bar."""
        from tqdm import tqdm

        yield from tqdm(list(things), desc=what, leave=False, disable=not self.bars)

    def _left(self) -> float:
        """Seconds, as the stages that are done compare with what they usually take."""
        seconds = list(self.usual.values())
        done, to_do = sum(seconds[: self._number]), sum(seconds[self._number :])
        pace = (time.monotonic() - self._start) / done if done else 1.0
        return pace * to_do


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{max(5 * round(seconds / 5), 5)} s"
    return f"{seconds / 60:.1f} min".replace(".0 ", " ")


def _import_libraries(stages: Stages) -> None:
    for name in stages.each(_LIBRARIES, "load libraries"):
        import_module(name)
    # It stays, and need not be looked through whenever a model is let go of.
    gc.freeze()


def _steer(
    series: "CheckpointSeries",
    concepts: "Mapping[str, Concept]",
    out: Path,
    *,
    seed: int,
    progress: bool,
) -> str:
    from tlens_trust.cli.demo_steering import STEERED, steer_toy
    from tlens_trust.views import steering_verdict

    lines = []
    matrices = steer_toy(series, concepts, out, seed=seed, progress=progress)
    for name in STEERED:
        lines += textwrap.wrap(steering_verdict(matrices[name]), _WIDTH, subsequent_indent="  ")
    figures = ", ".join(str(out / f"steering_{name}.html") for name in STEERED)
    return "\n".join([*lines, f"steering {figures}", ""])


def _inform(
    series: "CheckpointSeries",
    concepts: "Mapping[str, Concept]",
    out: Path,
    *,
    seed: int,
    jobs: int,
    progress: bool,
) -> str:
    from tlens_trust.analysis import find_phases, information_plane
    from tlens_trust.measures import kernel_dependence, probe_information, spectrum
    from tlens_trust.tracing import save_result, trace_checkpoints
    from tlens_trust.views import draw_plane, plane_lines

    trace = trace_checkpoints(
        series,
        concepts,
        measures=[kernel_dependence(), probe_information(), spectrum()],
        out=out / "information",
        seed=seed,
        jobs=jobs,
        progress=progress,
    )
    plane = information_plane(trace)
    save_result(out, "plane", "nhsic", plane)
    phases = find_phases(plane, seed=seed)
    draw_plane(plane, phases).save(out / "plane.html")
    return "\n".join([*plane_lines(plane, phases), f"plane    {out / 'plane.html'}", ""])


def _keep_tokens(series: "CheckpointSeries", concepts: "Mapping[str, Concept]", out: Path) -> None:
    from tlens_trust.cli.scored_texts import keep_tokens

    keep_tokens(series[::2], concepts, [_TEXT], out)
