"""The command that asks for fitting and compression."""

from enum import StrEnum
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
)

if TYPE_CHECKING:
    from tlens_trust.tracing import Trace


class Estimator(StrEnum):
    """What stands on the axes of the plane."""

    nhsic = "nhsic"
    cka = "cka"
    hsic = "hsic"
    nats = "nats"


class Input(StrEnum):
    """What stands for the input in kernel estimates."""

    first_block = "first_block"
    text = "text"


def information(
    series: Series,
    concepts: Concepts = None,
    csv: Csv = None,
    statement: StatementColumn = "statement",
    label: LabelColumn = "label",
    group: GroupColumn = None,
    trustworthy: Trustworthy = None,
    estimator: Annotated[
        Estimator,
        typer.Option(
            help="'nhsic' (the paper's quantity), 'cka' and 'hsic' are dependences by kernels; "
            "'nats' is information with added noise, and a bound by held-out probes."
        ),
    ] = Estimator.nhsic,
    against: Annotated[
        Input,
        typer.Option(help="What X is: the same checkpoint's first block, or the words alone."),
    ] = Input.first_block,
    every_site: Annotated[
        bool, typer.Option("--every-site", help="Tell of every site, not of one a concept.")
    ] = False,
    steps: Steps = "log",
    run: RunName = None,
    stage: Stage = None,
    sites: Sites = "resid_post",
    position: PositionText = "last",
    out: Out = Path("information"),
    seed: Seed = 0,
    device: Device = None,
    dtype: DtypeName = Dtype.float32,
    backend: BackendName = Backend.auto,
    untrained: Against = Untrained.auto,
    jobs: Jobs = None,
    quiet: Quiet = False,
) -> None:
    """Say where what SERIES holds of input and labels rises or falls, or why nobody can tell."""
    check_out(out)
    wanted = choose_concepts(concepts, csv, statement, label, group, trustworthy, clean=True)

    from tlens_trust import trace_checkpoints
    from tlens_trust.measures import kernel_dependence, probe_information, spectrum

    trace = trace_checkpoints(
        open_series(series, steps, run, stage, device, dtype, backend),
        wanted,
        measures=[kernel_dependence(), probe_information(), spectrum()],
        sites=read_sites(sites),
        position=read_position(position),
        out=out,
        seed=seed,
        untrained=None if untrained is Untrained.none else untrained.value,
        jobs=jobs,
        progress=not quiet,
    )
    typer.echo(
        tell_information(trace, out, estimator.value, against.value, seed, every_site=every_site)
    )


def tell_information(
    trace: "Trace",
    out: Path,
    estimator: str,
    against: str,
    seed: int,
    *,
    every_site: bool = False,
) -> str:
    """The plane and its phases in words, and where their figure lies."""
    from tlens_trust.analysis import find_phases, information_plane
    from tlens_trust.views import draw_plane, plane_table

    plane = information_plane(trace, estimator=estimator, against=against)
    phases = find_phases(plane, seed=seed)
    figure = draw_plane(plane, phases).save(out / "plane.html")
    told = plane_table(plane, phases, every_site=every_site)
    return f"{told}\n\ntrace    {out / 'trace.nc'}\nplane    {figure}"
