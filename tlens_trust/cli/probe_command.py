"""The commands that read checkpoints."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tlens_trust.cli.checkpoints_command import open_series
from tlens_trust.cli.concept_commands import choose_concepts
from tlens_trust.cli.options import (
    Against,
    Backend,
    BackendName,
    Concepts,
    Csv,
    Device,
    Dtype,
    DtypeName,
    GroupColumn,
    Jobs,
    LabelColumn,
    Out,
    PositionText,
    Protocol,
    Quiet,
    RunName,
    Seed,
    Series,
    Sites,
    Stage,
    StatementColumn,
    Steps,
    Trustworthy,
    Untrained,
    check_out,
    read_position,
    read_sites,
    several,
)
from tlens_trust.cli.scored_texts import check_texts, keep_tokens

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tlens_trust.tracing import Trace


def probe(
    series: Series,
    concepts: Concepts = None,
    csv: Csv = None,
    statement: StatementColumn = "statement",
    label: LabelColumn = "label",
    group: GroupColumn = None,
    trustworthy: Trustworthy = None,
    probes: Annotated[
        list[str] | None,
        typer.Option(
            "--probe",
            help="'logistic' (the default), 'mass_mean', 'lda', 'ridge', 'sparse', 'ccs', "
            "'pair_difference', 'mlp'; of the logistic probe also 'selectivity', 'margin', "
            "'calibration'. Repeated or separated by commas. Not with --protocol tracingllm.",
        ),
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
    text: Annotated[
        list[str] | None,
        typer.Option(
            "--text",
            help="CONCEPT=TEXT: score every token of a text by the concept's probe at every "
            "checkpoint, for the report to show. Repeated for several.",
        ),
    ] = None,
    steps: Steps = "log",
    run: RunName = None,
    stage: Stage = None,
    sites: Sites = "resid_post",
    position: PositionText = "last",
    out: Out = Path("run"),
    seed: Seed = 0,
    device: Device = None,
    dtype: DtypeName = Dtype.float32,
    backend: BackendName = Backend.auto,
    untrained: Against = Untrained.auto,
    jobs: Jobs = None,
    quiet: Quiet = False,
) -> None:
    """Probe concepts at every block of every checkpoint of SERIES."""
    paper = protocol is Protocol.tracingllm
    named = several(probes, "--probe")
    if paper and named:
        raise ValueError(
            f"--protocol tracingllm is a probe of its own, got --probe {','.join(named)} too. "
            "Leave one of them out."
        )
    check_out(out)
    wanted = choose_concepts(
        concepts,
        csv,
        statement,
        label,
        group,
        trustworthy,
        clean=not paper if clean is None else clean,
    )
    check_texts(text or [], list(wanted))

    from tlens_trust import trace_checkpoints
    from tlens_trust.measures import Measure, tracingllm_probe
    from tlens_trust.measures.catalogue import named_measures

    measures: tuple[Measure, ...] = (
        (tracingllm_probe(),) if paper else named_measures(named or ["logistic"])
    )
    checkpoints = open_series(series, steps, run, stage, device, dtype, backend)
    trace = trace_checkpoints(
        checkpoints,
        wanted,
        measures=measures,
        sites=read_sites(sites),
        position=read_position(position),
        out=out,
        seed=seed,
        untrained=None if untrained is Untrained.none else untrained.value,
        jobs=jobs,
        progress=not quiet,
    )
    keep_tokens(
        checkpoints,
        wanted,
        text or [],
        out,
        sites=read_sites(sites),
        position=read_position(position),
    )
    # Where there is one split, there are no folds to choose a site on.
    show_accuracies(trace, out, dated=not paper)
    from tlens_trust.views import report_run

    typer.echo(f"report   {report_run(out)}")


def show_accuracies(trace: "Trace", out: Path, *, dated: bool = True) -> None:
    """Print what probes found, and draw it.

    Args:
        trace: Of one or several probes.
        out: Its run folder, which gets the figures.
        dated: Whether to find onsets, which takes held-out scores by folds.
    """
    from tlens_trust.analysis import find_onset
    from tlens_trust.views import summary_table

    found, why_not = None, ""
    if dated:
        floors = trace.data.get("accuracy_floor")
        try:
            found = find_onset(
                out,
                concepts=trace.concepts,
                checkpoints=trace.checkpoints,
                # Groups may be too few for one.
                floor=floors is not None and bool(floors.notnull().any()),
            )
        except ValueError as error:
            # What was read and fitted is worth showing all the same.
            why_not = f"\nonset    unknown: {error}"
    typer.echo(summary_table(trace, found) + why_not)
    typer.echo(f"\ntrace    {out / 'trace.nc'}")
    for name, part in _single_probes(trace):
        figure = part.plot.heatmap("accuracy").save(out / f"accuracy{name}.html")
        typer.echo(f"heatmap  {figure}")


def _single_probes(trace: "Trace") -> "Iterator[tuple[str, Trace]]":
    """What a figure can show: one probe each, with what tells its file from the others'."""
    if "probe" not in trace.data.dims:
        yield "", trace
        return
    for probe in trace.data["probe"].values.tolist():
        yield f"-{probe}", trace.sel(probe=probe)
