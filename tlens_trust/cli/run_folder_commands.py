"""The commands that answer questions from a run folder, without loading a model."""

from pathlib import Path
from typing import Annotated

import typer

from tlens_trust.cli.options import EverySite, Seed, split_entries

RunPath = Annotated[Path, typer.Argument(help="Run folder: the --out of a sweep.")]


def onset(
    run: RunPath,
    concepts: Annotated[
        list[str] | None,
        typer.Option(help="Concepts of the run, repeated or separated by commas. All by default."),
    ] = None,
    margin: Annotated[
        float,
        typer.Option(
            help="Gain in accuracy that is excluded before the onset, as a share of statements."
        ),
    ] = 0.15,
    short: Annotated[
        float,
        typer.Option(
            help="Shortfall in accuracy that still counts as saturated, as a share of statements."
        ),
    ] = 0.1,
    floor: Annotated[
        bool, typer.Option(help="Whether accuracy must lie above the text floor too.")
    ] = True,
    confidence: Annotated[float, typer.Option(help="Confidence level of the intervals.")] = 0.95,
    every_site: EverySite = False,
    seed: Seed = 0,
) -> None:
    """Report when each concept in RUN becomes decodable (onset) and saturates."""
    _check_run(run)
    names = split_entries(concepts, "--concepts") or None
    from tlens_trust.analysis import find_onset, find_saturation
    from tlens_trust.views import onset_table

    onsets = find_onset(
        run, concepts=names, margin=margin, floor=floor, confidence=confidence, seed=seed
    )
    saturations = find_saturation(
        run, concepts=names, margin=short, floor=floor, confidence=confidence, seed=seed
    )
    typer.echo(onset_table(onsets, saturations, every_site=every_site))
    _warn_unfinished(run)


def compare(
    run: RunPath,
    concept: Annotated[str, typer.Argument(help="One of the concepts in RUN.")],
    before: Annotated[str, typer.Argument(help="The earlier checkpoint: a step, or a name.")],
    after: Annotated[str, typer.Argument(help="The later checkpoint: a step, or a name.")],
    probe: Annotated[
        str | None, typer.Option(help="The probe to compare by, if there are several.")
    ] = None,
    flips: Annotated[
        int | None,
        typer.Option(metavar="LAYER", help="List the statements that flipped at this layer."),
    ] = None,
    seed: Seed = 0,
) -> None:
    """Test, statement by statement, whether CONCEPT is classified better AFTER than BEFORE."""
    _check_run(run)
    from tlens_trust.analysis import compare_checkpoints, list_flips
    from tlens_trust.views import comparison_table

    change = compare_checkpoints(
        run, concept, _parse_checkpoint(before), _parse_checkpoint(after), probe=probe, seed=seed
    )
    typer.echo(comparison_table(change))
    if flips is not None:
        # The check comes after the table, so that a wrong layer does not cost the comparison.
        layers = sorted(set(change["layer"].values.tolist()))
        if flips not in layers:
            raise ValueError(
                f"--flips got {flips}, and no layer {flips} was read. Choose among "
                f"{', '.join(f'{layer:g}' for layer in layers)}."
            )
        typer.echo("")
        for row in list_flips(change, layer=flips).itertuples():
            typer.echo(f"{row.flip:<10}  label {row.label}  {row.statement!r}")


def report(
    run: RunPath,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The page; by default RUN/report.html."),
    ] = None,
    title: Annotated[str | None, typer.Option(help="Title of the page.")] = None,
) -> None:
    """Write the results of RUN into one page, which opens without a network.

    The page includes token views, steering matrices and the information plane saved with RUN.
    """
    _check_run(run)
    from tlens_trust.views import report_run

    typer.echo(str(report_run(run, out, title=title)))


def _parse_checkpoint(text: str) -> str | int:
    return int(text) if text.isdigit() else text


def _check_run(run: Path) -> None:
    if not (run / "manifest.json").is_file():
        problem = (
            "is a file"
            if run.is_file()
            else "does not exist"
            if not run.exists()
            else "holds no manifest.json"
        )
        raise ValueError(
            f"RUN is the run folder of a sweep, but {str(run)!r} {problem}. "
            "Give the --out of `tlens-trust probe` or `demo`."
        )


def _warn_unfinished(run: Path) -> None:
    """Warn if checkpoints are missing, since `never` may then only mean "not yet"."""
    from tlens_trust.tracing.run_folder import RunFolder
    from tlens_trust.views.report.cautions import describe_unfinished

    run_folder = RunFolder.at(run)
    if unfinished := run_folder.unfinished():
        # The checkpoint at which the sweep stopped is on record, though none of its cells is.
        finished = set(run_folder.checkpoints()) - set(unfinished)
        typer.echo(describe_unfinished(unfinished, len(finished)), err=True)
