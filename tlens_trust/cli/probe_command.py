"""The command that probes a series of checkpoints."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tlens_trust.cli.accuracy_output import show_accuracies
from tlens_trust.cli.concept_options import Concepts, CsvOptions, choose_concepts
from tlens_trust.cli.options import (
    Jobs,
    Out,
    Quiet,
    Seed,
    SiteOptions,
    Untrained,
    UntrainedWeights,
    check_output_folder,
    expand_options,
    split_entries,
)
from tlens_trust.cli.scored_texts import check_texts, save_token_scores
from tlens_trust.cli.series_options import (
    FamilyOptions,
    LoadingOptions,
    Series,
    Steps,
    open_series,
)


class ProbeProtocol(StrEnum):
    """How a probe is fitted and scored."""

    grouped = "grouped"
    tracingllm = "tracingllm"


@expand_options
def probe(
    series: Series,
    *,
    concepts: Concepts = None,
    csv_options: CsvOptions,
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
        ProbeProtocol,
        typer.Option(
            help="'grouped': cross-validation over groups. 'tracingllm': the paper's own, which "
            "leaks, to reproduce published figures."
        ),
    ] = ProbeProtocol.grouped,
    clean: Annotated[
        bool | None,
        typer.Option(
            help="Whether the paper's files are cleaned; by default unless --protocol tracingllm."
        ),
    ] = None,
    texts: Annotated[
        list[str] | None,
        typer.Option(
            "--text",
            help="CONCEPT=TEXT: score every token of a text by the concept's probe at every "
            "checkpoint, for the report to show. Repeated for several.",
        ),
    ] = None,
    steps: Steps = "log",
    family: FamilyOptions,
    site_options: SiteOptions,
    loading: LoadingOptions,
    out: Out = Path("run"),
    seed: Seed = 0,
    untrained: UntrainedWeights = Untrained.auto,
    jobs: Jobs = None,
    quiet: Quiet = False,
) -> None:
    """Probe concepts at every block of every checkpoint of SERIES."""
    is_paper_protocol = protocol is ProbeProtocol.tracingllm
    probe_names = split_entries(probes, "--probe")
    if is_paper_protocol and probe_names:
        raise ValueError(
            "--protocol tracingllm is a probe of its own, got --probe "
            f"{','.join(probe_names)} too. Leave one of them out."
        )
    check_output_folder(out)
    chosen_concepts = choose_concepts(
        # The paper did not clean its files, so that its protocol reads them as they are.
        concepts,
        csv_options,
        clean=not is_paper_protocol if clean is None else clean,
    )
    check_texts(texts or [], list(chosen_concepts))

    from tlens_trust import trace_checkpoints
    from tlens_trust.measures import Measure, tracingllm_probe
    from tlens_trust.measures.catalogue import named_measures

    measures: tuple[Measure, ...] = (
        (tracingllm_probe(),) if is_paper_protocol else named_measures(probe_names or ["logistic"])
    )
    checkpoints = open_series(series, steps, family, loading)
    trace = trace_checkpoints(
        checkpoints,
        chosen_concepts,
        measures=measures,
        sites=site_options.parsed_sites,
        position=site_options.parsed_position,
        out=out,
        seed=seed,
        untrained=untrained.argument,
        jobs=jobs,
        progress=not quiet,
    )
    save_token_scores(checkpoints, chosen_concepts, texts or [], out, site_options=site_options)
    # An onset is found at a site that is chosen on other folds. One split has no folds.
    show_accuracies(trace, out, find_onsets=not is_paper_protocol)
    from tlens_trust.views import report_run

    typer.echo(f"report   {report_run(out)}")
