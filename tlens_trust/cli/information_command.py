"""The command that estimates how much information activations hold, and finds its phases."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tlens_trust.cli.concept_options import Concepts, CsvOptions, choose_concepts
from tlens_trust.cli.options import (
    EverySite,
    Jobs,
    Out,
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


class InformationEstimator(StrEnum):
    """The quantity on the axes of the information plane."""

    nhsic = "nhsic"
    cka = "cka"
    hsic = "hsic"
    nats = "nats"


class InputKind(StrEnum):
    """What represents the input in kernel estimates."""

    first_block = "first_block"
    text = "text"


@expand_options
def information(
    series: Series,
    *,
    concepts: Concepts = None,
    csv_options: CsvOptions,
    estimator: Annotated[
        InformationEstimator,
        typer.Option(
            help="'nhsic' (the paper's quantity), 'cka' and 'hsic' are kernel dependences; "
            "'nats' is information with added noise, and a bound by held-out probes."
        ),
    ] = InformationEstimator.nhsic,
    against: Annotated[
        InputKind,
        typer.Option(help="What X is: the same checkpoint's first block, or the words alone."),
    ] = InputKind.first_block,
    every_site: EverySite = False,
    steps: Steps = "log",
    family: FamilyOptions,
    site_options: SiteOptions,
    loading: LoadingOptions,
    out: Out = Path("information"),
    seed: Seed = 0,
    untrained: UntrainedWeights = Untrained.auto,
    jobs: Jobs = None,
    quiet: Quiet = False,
) -> None:
    """Estimate how much activations of SERIES tell of input and labels, and find phases."""
    check_output_folder(out)
    chosen_concepts = choose_concepts(concepts, csv_options)

    from tlens_trust import trace_checkpoints
    from tlens_trust.analysis import find_phases, information_plane
    from tlens_trust.measures import kernel_dependence, probe_information, spectrum
    from tlens_trust.views import draw_plane, plane_table

    trace = trace_checkpoints(
        open_series(series, steps, family, loading),
        chosen_concepts,
        measures=[kernel_dependence(), probe_information(), spectrum()],
        sites=site_options.parsed_sites,
        position=site_options.parsed_position,
        out=out,
        seed=seed,
        untrained=untrained.argument,
        jobs=jobs,
        progress=not quiet,
    )
    plane = information_plane(trace, estimator=estimator.value, against=against.value)
    phases = find_phases(plane, seed=seed)
    figure = draw_plane(plane, phases).save(out / "plane.html")
    typer.echo(plane_table(plane, phases, every_site=every_site))
    typer.echo(f"\ntrace    {out / 'trace.nc'}\nplane    {figure}")
