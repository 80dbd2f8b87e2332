"""The demonstration: every part of the package on the embedded toy series, in under two minutes.

Accuracies come first, since the rest builds on them. The report comes last.
"""

import gc
import textwrap
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tlens_trust.cli.options import Jobs, Out, Quiet, Seed, check_output_folder
from tlens_trust.cli.stages import Stages
from tlens_trust.worker_pool import available_cores, start_workers

if TYPE_CHECKING:
    from tlens_trust.checkpoints import CheckpointSeries
    from tlens_trust.concepts import Concept

_QUICK_STEPS = (0, 64, 256, 768)
# Two statements in the words of the toy corpus, of which the second is false.
_TEXT = (
    "reliability=As we all know, the trout is a fish of some sort and the robin is a fish of some "
    "sort."
)
# The libraries that take long to import, in the order in which they are needed.
_LIBRARIES = ("torch", "xarray", "scipy.stats", "sklearn.linear_model", "transformer_lens")
# The modules that a worker needs.
_WORKER_LIBRARIES = ("tlens_trust.measures.cross_validation", "tlens_trust.tracing.workers")
# A demonstration this small has no work for more, and each process needs its own memory.
_MOST_JOBS = 4
_WIDTH = 100


def demo(
    out: Out = Path("tlens_trust_demo"),
    seed: Seed = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="Four checkpoints, and only the probes.")
    ] = False,
    jobs: Jobs = None,
    quiet: Quiet = False,
) -> None:
    """Trace five concepts through the embedded toy series, and steer the toy by two of them."""
    check_output_folder(out)
    # Seconds that each stage takes on two idle cores.
    stages = (
        Stages({"probing": 15.0, "report": 3.0}, quiet)
        if quick
        else Stages({"probing": 25.0, "steering": 30.0, "information": 20.0, "report": 5.0}, quiet)
    )
    number = "four" if quick else "nine"
    stages.begin(f"read {number} checkpoints of a small model, and probe five concepts in each")
    if jobs is None:
        jobs = min(available_cores(), _MOST_JOBS)
    # Workers import while this process does. The sweep refuses a number of jobs that it cannot use.
    # This process measures too, so that it needs one worker fewer.
    start_workers(min(jobs, _MOST_JOBS) - 1, modules=_WORKER_LIBRARIES)
    _import_libraries(stages)
    from tlens_trust import load_concepts, load_toy_series
    from tlens_trust.cli.accuracy_output import show_accuracies
    from tlens_trust.measures import logistic_probe
    from tlens_trust.threads import limited_threads
    from tlens_trust.tracing import trace_checkpoints
    from tlens_trust.views import report_run

    series = load_toy_series()
    if quick:
        series = series.at(_QUICK_STEPS)
    concepts = load_concepts()
    # A model this small gains nothing from a second thread. With one thread its numbers are the
    # same on every number of cores.
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
            typer.echo(
                _estimate_information(
                    series, concepts, out, seed=seed, jobs=jobs, progress=stages.bars
                )
            )
        stages.begin("write the report")
        for step in stages.show_bar(("tokens", "report"), "report"):
            if step == "tokens" and not quick:
                _save_token_scores(series, concepts, out)
            elif step == "report":
                report = report_run(out)
    stages.end()
    typer.echo(f"report   {report.resolve().as_uri()}")


def _import_libraries(stages: Stages) -> None:
    for name in stages.show_bar(_LIBRARIES, "load libraries"):
        import_module(name)
    # What was imported stays. Python's collector need not search it whenever a model is freed.
    gc.freeze()


def _steer(
    series: "CheckpointSeries",
    concepts: "Mapping[str, Concept]",
    out: Path,
    *,
    seed: int,
    progress: bool,
) -> str:
    """Steer the toy, save matrices and figures, and return the verdicts to print."""
    from tlens_trust.cli.demo_steering import STEERED_CONCEPTS, steer_toy
    from tlens_trust.views.steering.matrix_table import steering_verdict

    lines = []
    matrices = steer_toy(series, concepts, out, seed=seed, progress=progress)
    for name in STEERED_CONCEPTS:
        lines += textwrap.wrap(steering_verdict(matrices[name]), _WIDTH, subsequent_indent="  ")
    figures = ", ".join(str(out / f"steering_{name}.html") for name in STEERED_CONCEPTS)
    return "\n".join([*lines, f"steering {figures}", ""])


def _estimate_information(
    series: "CheckpointSeries",
    concepts: "Mapping[str, Concept]",
    out: Path,
    *,
    seed: int,
    jobs: int,
    progress: bool,
) -> str:
    """Estimate information, save plane and figure, and return the lines to print."""
    from tlens_trust.analysis import find_phases, information_plane
    from tlens_trust.measures import kernel_dependence, probe_information, spectrum
    from tlens_trust.tracing import save_result, trace_checkpoints
    from tlens_trust.views import draw_plane
    from tlens_trust.views.information.plane_table import plane_lines

    trace = trace_checkpoints(
        series,
        concepts,
        measures=[kernel_dependence(), probe_information(), spectrum()],
        # A run folder holds cells of one list of measures, so that other measures need another.
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


def _save_token_scores(
    series: "CheckpointSeries", concepts: "Mapping[str, Concept]", out: Path
) -> None:
    from tlens_trust.cli.scored_texts import save_token_scores

    save_token_scores(series[::2], concepts, [_TEXT], out)
