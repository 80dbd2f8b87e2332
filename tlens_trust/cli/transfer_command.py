"""The command that scores probes of one set of statements on another."""

from pathlib import Path
from typing import Annotated

import typer

from tlens_trust.cli.checkpoints_command import open_series
from tlens_trust.cli.concept_commands import choose_concepts
from tlens_trust.cli.options import (
    Backend,
    Dtype,
    GroupColumn,
    LabelColumn,
    Quiet,
    RunName,
    Stage,
    StatementColumn,
    Steps,
    Trustworthy,
    Untrained,
    read_position,
    read_sites,
)
from tlens_trust.files import replaced_file


def transfer(
    series: Annotated[str, typer.Argument(help="A hub model, or a folder of checkpoint folders.")],
    fitted_on: Annotated[
        str, typer.Option("--from", help="Embedded set or benchmark that probes are fitted to.")
    ],
    scored_on: Annotated[
        list[str] | None,
        typer.Option(
            "--to",
            help="Sets of the same concept that they are scored on, as 'toxicity_paraphrased'; "
            "repeated or separated by commas. NAME=PATH reads a benchmark from a file.",
        ),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(help="A set of your own that they are scored on, from a CSV file."),
    ] = None,
    statement: StatementColumn = "statement",
    label: LabelColumn = "label",
    group: GroupColumn = None,
    trustworthy: Trustworthy = None,
    steps: Steps = "log",
    run: RunName = None,
    stage: Stage = None,
    sites: Annotated[
        str, typer.Option(help="'resid_post', 'attn_out', 'mlp_out', 'z', or layers ('0,4,8').")
    ] = "resid_post",
    position: Annotated[str, typer.Option(help="'last', 'mean', or a token index.")] = "last",
    out: Annotated[Path, typer.Option(help="Folder for transfer.nc and transfer.html.")] = Path(
        "transfer"
    ),
    seed: Annotated[int, typer.Option(help="Seed of the folds and resamples.")] = 0,
    device: Annotated[str | None, typer.Option(help="Torch device, as 'cuda'.")] = None,
    dtype: Annotated[Dtype, typer.Option(help="Number format of the weights.")] = Dtype.float32,
    backend: Annotated[Backend, typer.Option(help="Which hooked model.")] = Backend.auto,
    untrained: Annotated[
        Untrained, typer.Option(help="What checkpoints are held against.")
    ] = Untrained.auto,
    quiet: Quiet = False,
) -> None:
    """Score probes of one set of statements on another, at every checkpoint of SERIES."""
    if out.is_file():
        raise ValueError(f"--out got {str(out)!r}, which is a file. Give a folder.")
    if scored_on is None and csv is None:
        raise ValueError(
            "What are the probes to be scored on? Name sets by --to, or give your own by --csv."
        )
    source = choose_concepts([fitted_on], option="--from")
    if len(source) != 1:
        raise ValueError(
            f"--from got {fitted_on!r}, which names {len(source)} sets. Name the one that probes "
            "are fitted to."
        )
    targets = choose_concepts(scored_on, csv, statement, label, group, trustworthy, option="--to")

    from tlens_trust.analysis import trace_transfer
    from tlens_trust.views import draw_transfer_curves, transfer_table

    found = trace_transfer(
        open_series(series, steps, run, stage, device, dtype, backend),
        next(iter(source.values())),
        targets,
        sites=read_sites(sites),
        position=read_position(position),
        seed=seed,
        untrained=None if untrained is Untrained.none else untrained.value,
        progress=not quiet,
    )
    with replaced_file(out / "transfer.nc") as unfinished:
        found.to_netcdf(unfinished, engine="netcdf4")
    typer.echo(transfer_table(found))
    typer.echo(f"\ndata     {out / 'transfer.nc'}")
    typer.echo(f"curves   {draw_transfer_curves(found).save(out / 'transfer.html')}")
