"""The package's functions from a shell: `tlens-trust --help`.

Heavy libraries are imported inside the commands, so that `--help` and a mistyped argument answer
at once.
"""

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tlens_trust.checkpoints import CheckpointSeries
    from tlens_trust.concepts import Concept
    from tlens_trust.tracing import Trace

app = typer.Typer(
    name="tlens-trust",
    help="When, during pre-training, does a language model come to know what is trustworthy?",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


class Backend(StrEnum):
    """Which hooked model reads a checkpoint."""

    auto = "auto"
    hooked_transformer = "hooked_transformer"
    bridge = "bridge"


class Dtype(StrEnum):
    """The number format a checkpoint is loaded in."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Protocol(StrEnum):
    """How a probe is fitted and scored."""

    grouped = "grouped"
    tracingllm = "tracingllm"


class Untrained(StrEnum):
    """Which weights tell how much was there before training."""

    auto = "auto"
    step0 = "step0"
    random = "random"
    none = "none"


Steps = Annotated[
    str, typer.Option(help="'log', 'all', numbers ('0,512,1000') or a range ('0:100000:10000').")
]
RunName = Annotated[str | None, typer.Option("--run", help="Seed or variant of the family.")]
Stage = Annotated[str | None, typer.Option(help="One of several training stages.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        from tlens_trust import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the run.")] = Path("tlens_trust_demo"),
    seed: Annotated[int, typer.Option(help="Seed of the pre-training run and of the folds.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Pre-train a toy model on the embedded corpus and trace five concepts through it."""
    from tlens_trust import load_concepts, pretrain_toy_series, probe_checkpoints

    series = pretrain_toy_series(seed=seed, progress=not quiet)
    trace = probe_checkpoints(series, load_concepts(), out=out, seed=seed, progress=not quiet)
    _show(trace, out)


@app.command()
def probe(
    series: Annotated[str, typer.Argument(help="A hub model, or a folder of checkpoint folders.")],
    concepts: Annotated[
        list[str] | None,
        typer.Option(
            help="Embedded set, control ('controls' for all) or benchmark, repeated or separated "
            "by commas; NAME=PATH reads a benchmark from a file. All embedded sets by default."
        ),
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(help="A concept of your own, from a CSV file.")
    ] = None,
    statement: Annotated[str, typer.Option(help="Column of --csv.")] = "statement",
    label: Annotated[str, typer.Option(help="Column of --csv.")] = "label",
    group: Annotated[str | None, typer.Option(help="Column of --csv.")] = None,
    trustworthy: Annotated[
        int | None, typer.Option(help="Which label of --csv is the trustworthy side: 0 or 1.")
    ] = None,
    protocol: Annotated[
        Protocol,
        typer.Option(
            help="'grouped': cross-validation over groups. 'tracingllm': the paper's own, which "
            "leaks, to reproduce published figures."
        ),
    ] = Protocol.grouped,
    clean: Annotated[
        bool | None,
        typer.Option(
            help="Whether the paper's files are cleaned; by default unless --protocol tracingllm."
        ),
    ] = None,
    steps: Steps = "log",
    run: RunName = None,
    stage: Stage = None,
    sites: Annotated[
        str, typer.Option(help="'resid_post', 'attn_out', 'mlp_out', 'z', or layers ('0,4,8').")
    ] = "resid_post",
    position: Annotated[str, typer.Option(help="'last', 'mean', or a token index.")] = "last",
    out: Annotated[Path, typer.Option(help="Run folder; continued if it is there.")] = Path("run"),
    seed: Annotated[int, typer.Option(help="Seed of the folds and resamples.")] = 0,
    device: Annotated[str | None, typer.Option(help="Torch device, as 'cuda'.")] = None,
    dtype: Annotated[Dtype, typer.Option(help="Number format of the weights.")] = Dtype.float32,
    backend: Annotated[Backend, typer.Option(help="Which hooked model.")] = Backend.auto,
    untrained: Annotated[
        Untrained,
        typer.Option(
            help="What checkpoints are held against: step 0 of the series, random weights of the "
            "same architecture (one more to read), or as it is there."
        ),
    ] = Untrained.auto,
    quiet: Quiet = False,
) -> None:
    """Probe concepts at every block of every checkpoint of SERIES."""
    if clean is None:
        clean = protocol is not Protocol.tracingllm
    wanted = _concepts(concepts, csv, statement, label, group, trustworthy, clean=clean)
    checkpoints = _series(series, steps, run, stage)
    import torch

    from tlens_trust import probe_checkpoints

    trace = probe_checkpoints(
        checkpoints,
        wanted,
        protocol=protocol.value,
        sites=_layers_or_kind(sites),
        position=_position(position),
        out=out,
        seed=seed,
        device=device,
        dtype=getattr(torch, dtype.value),
        backend=backend.value,
        untrained=None if untrained is Untrained.none else untrained.value,
        progress=not quiet,
    )
    # Where there is one split, there are no folds to choose a site on.
    _show(trace, out, onset=protocol is Protocol.grouped)


@app.command()
def concepts() -> None:
    """List the embedded concepts with their sizes, and the benchmarks that can be read."""
    from tlens_trust.concepts import available_benchmarks, load_concepts

    typer.echo(f"{'name':<14}{'dimension':<14}{'statements':>10}{'groups':>8}{'label 1':>9}")
    for name, concept in load_concepts().items():
        share = concept.labels.mean()
        typer.echo(
            f"{name:<14}{concept.dimension:<14}{len(concept):>10}"
            f"{len(set(concept.groups)):>8}{share:>9.0%}"
        )
    typer.echo("\nBenchmarks, from a file (--concepts NAME=PATH) or from the hub:")
    for name, text in available_benchmarks().items():
        typer.echo(f"{name:<14}{text}")


@app.command()
def lint(
    file: Annotated[Path, typer.Argument(help="A CSV file: one of the paper's, or your own.")],
    statement: Annotated[str, typer.Option(help="Column of the texts.")] = "statement",
    label: Annotated[str, typer.Option(help="Column of the labels, 0 and 1.")] = "label",
    group: Annotated[str | None, typer.Option(help="Column of what belongs together.")] = None,
    trustworthy: Annotated[
        int | None, typer.Option(help="Which label you take for the trustworthy side: 0 or 1.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the text floor's folds.")] = 0,
) -> None:
    """Say what in FILE may mislead a probe; exit status 1 where there are errors."""
    from tlens_trust.concepts import lint_file

    report = lint_file(
        file, statement=statement, label=label, group=group, trustworthy=trustworthy, seed=seed
    )
    typer.echo(repr(report))
    if report.errors:
        raise typer.Exit(1)


@app.command()
def checkpoints(
    model: Annotated[str, typer.Argument(help="A hub model, or a folder of checkpoint folders.")],
    steps: Steps = "all",
    run: RunName = None,
    stage: Stage = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what a sweep would fetch.")] = False,
) -> None:
    """List the checkpoints of MODEL: steps, tokens, revisions."""
    series = _series(model, steps, run, stage)
    if plan:
        typer.echo(str(series.plan()))
        return
    from tlens_trust.views.axes import format_count

    typer.echo(f"{'step':>10}  {'tokens':>8}  {'stage':<10}revision")
    for checkpoint in series:
        tokens = "" if checkpoint.tokens is None else format_count(checkpoint.tokens)
        step = "" if checkpoint.step is None else str(checkpoint.step)
        typer.echo(f"{step:>10}  {tokens:>8}  {checkpoint.stage or '':<10}{checkpoint.revision}")


def _series(model: str, steps: str, run: str | None, stage: str | None) -> "CheckpointSeries":
    chosen = _steps(steps)
    from tlens_trust import CheckpointSeries

    if not Path(model).is_dir():
        if model.startswith((".", "/", "~")):
            raise ValueError(f"No folder {model!r}. Name a folder of checkpoints, or a hub model.")
        return CheckpointSeries.from_hub(model, steps=chosen, run=run, stage=stage)
    if run is not None or stage is not None:
        raise ValueError(f"--run and --stage choose among a hub family, but {model!r} is a folder.")
    series = CheckpointSeries.from_directory(model)
    return series if chosen == "all" else series.at(chosen)


def _steps(text: str) -> str | list[int] | range:
    if text in ("log", "all"):
        return text
    try:
        if ":" in text:
            return range(*(int(part) for part in text.split(":")))
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(
            f"--steps got {text!r}. Give 'log', 'all', numbers ('0,512,1000') or a range "
            "('0:100000:10000')."
        ) from None


def _layers_or_kind(text: str) -> str | list[int] | list[str]:
    parts = [part.strip() for part in text.split(",")]
    if all(part.lstrip("-").isdigit() for part in parts):
        return [int(part) for part in parts]
    return parts if len(parts) > 1 or "." in text else text


def _position(text: str) -> str | int:
    return int(text) if text.lstrip("-").isdigit() else text


def _concepts(
    named: list[str] | None,
    csv: Path | None,
    statement: str,
    label: str,
    group: str | None,
    trustworthy: int | None,
    *,
    clean: bool,
) -> "dict[str, Concept]":
    from tlens_trust.concepts import Concept, available_benchmarks, load_concepts

    wanted: dict[str, Concept] = {}
    for entry in [e.strip() for text in named or [] for e in text.split(",") if e.strip()]:
        name, _, path = entry.partition("=")
        if path and name not in available_benchmarks():
            raise ValueError(
                f"{name!r} is read from no file. Give a benchmark "
                f"({', '.join(available_benchmarks())}) as NAME=PATH, or your own file as --csv."
            )
        # What comes from the hub is no file of the paper's.
        wanted.update(load_concepts(name, path=path or None, clean=clean or not path))
    if csv is not None:
        if trustworthy is None:
            raise ValueError(
                "--csv needs --trustworthy 0 or --trustworthy 1: which label is the trustworthy "
                "side. There is no default, since a wrong guess would invert every result."
            )
        own = Concept.from_csv(
            csv, statement=statement, label=label, group=group, trustworthy=trustworthy
        )
        wanted[own.name] = own
    return wanted or load_concepts()


def _show(trace: "Trace", out: Path, *, onset: bool = True) -> None:
    from tlens_trust.tracing import find_onset
    from tlens_trust.views import summary_table

    figure = out / "accuracy.html"
    trace.plot.heatmap("accuracy").write_html(figure, include_plotlyjs=True)
    found = None
    if onset:
        floors = trace.data.get("accuracy_floor")
        found = find_onset(
            out,
            concepts=trace.concepts,
            checkpoints=trace.checkpoints,
            # Groups may be too few for one.
            floor=floors is not None and bool(floors.notnull().any()),
        )
    typer.echo(summary_table(trace, found))
    typer.echo(f"\ntrace    {out / 'trace.nc'}\nheatmap  {figure}")


def main() -> None:
    """Run the command line; a user's mistake is one line on standard error and status 2."""
    try:
        status = app(sys.argv[1:] or ["--help"], prog_name="tlens-trust", standalone_mode=False)
    except typer.TyperException as error:
        _fail(error.format_message())
    except (KeyboardInterrupt, typer.Abort):
        sys.stderr.write("tlens-trust: interrupted; the same command continues where it stopped.\n")
        sys.exit(130)
    except (ValueError, OSError) as error:
        if os.environ.get("TLENS_TRUST_TRACEBACK"):
            raise
        _fail(" ".join([str(error), *getattr(error, "__notes__", [])]))
    sys.exit(status or 0)


def _fail(message: str) -> None:
    sys.stderr.write(f"tlens-trust: {' '.join(message.split())}\n")
    sys.exit(2)


if __name__ == "__main__":
    main()
