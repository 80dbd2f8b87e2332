"""The command that scores probes of one set of statements on another."""

from pathlib import Path
from typing import Annotated

import typer

from tlens_trust.cli.concept_options import CsvOptions, choose_concepts
from tlens_trust.cli.options import (
    Quiet,
    Seed,
    SiteOptions,
    Untrained,
    UntrainedWeights,
    check_output_folder,
    expand_options,
)
from tlens_trust.cli.series_options import (
    FamilyOptions,
    LoadingOptions,
    Series,
    Steps,
    open_series,
)
from tlens_trust.files import replaced_file


@expand_options
def transfer(
    series: Series,
    *,
    source: Annotated[
        str, typer.Option("--from", help="Embedded set or benchmark that probes are fitted to.")
    ],
    targets: Annotated[
        list[str] | None,
        typer.Option(
            "--to",
            help="Sets of the same concept that the probes are scored on, such as "
            "'toxicity_paraphrased'; repeated or separated by commas. NAME=PATH reads a benchmark "
            "from a file. --csv adds a set of your own.",
        ),
    ] = None,
    csv_options: CsvOptions,
    steps: Steps = "log",
    family: FamilyOptions,
    site_options: SiteOptions,
    loading: LoadingOptions,
    out: Annotated[Path, typer.Option(help="Folder for transfer.nc and transfer.html.")] = Path(
        "transfer"
    ),
    seed: Seed = 0,
    untrained: UntrainedWeights = Untrained.auto,
    quiet: Quiet = False,
) -> None:
    """Score probes of one set of statements on another, at every checkpoint of SERIES."""
    check_output_folder(out)
    if targets is None and csv_options.csv is None:
        raise ValueError(
            "What are the probes to be scored on? Name sets by --to, or give your own by --csv."
        )
    source_sets = choose_concepts([source], option="--from")
    if len(source_sets) != 1:
        raise ValueError(
            f"--from got {source!r}, which names {len(source_sets)} sets. Name the one that "
            "probes are fitted to."
        )
    ((source_name, source_concept),) = source_sets.items()
    target_sets = choose_concepts(targets, csv_options, option="--to")

    if source_name in target_sets and target_sets[source_name] != source_concept:
        raise ValueError(
            f"Two different sets are called {source_name!r}: the one of --from, and one of --to or "
            "--csv. Rename the file of the latter."
        )

    from tlens_trust.analysis import collect_series, trace_transfer
    from tlens_trust.views import draw_transfer_curves, transfer_table

    readings = collect_series(
        open_series(series, steps, family, loading),
        {source_name: source_concept, **target_sets},
        sites=site_options.parsed_sites,
        position=site_options.parsed_position,
        untrained=untrained.argument,
        seed=seed,
    )
    scores = trace_transfer(readings, source_name, list(target_sets), seed=seed, progress=not quiet)
    with replaced_file(out / "transfer.nc") as temporary_file:
        scores.to_netcdf(temporary_file, engine="netcdf4")
    typer.echo(transfer_table(scores))
    typer.echo(f"\ndata     {out / 'transfer.nc'}")
    typer.echo(f"curves   {draw_transfer_curves(scores).save(out / 'transfer.html')}")
