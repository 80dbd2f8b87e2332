"""The commands that read a run folder: nothing is collected or fitted."""

from pathlib import Path
from typing import Annotated

import typer

from tlens_trust.cli.options import several

RunFolder = Annotated[Path, typer.Argument(help="Folder that a sweep wrote (its --out).")]


def onset(
    run: RunFolder,
    concepts: Annotated[
        list[str] | None,
        typer.Option(help="Which, repeated or separated by commas. All by default."),
    ] = None,
    margin: Annotated[
        float, typer.Option(help="Gain to be excluded before the onset, as a share of statements.")
    ] = 0.15,
    short: Annotated[
        float, typer.Option(help="Shortfall that still counts as saturated, likewise.")
    ] = 0.1,
    floor: Annotated[
        bool, typer.Option(help="Whether a concept has to be read above its text floor too.")
    ] = True,
    confidence: Annotated[float, typer.Option(help="Of the sets of checkpoints.")] = 0.95,
    every_site: Annotated[
        bool, typer.Option("--every-site", help="Tell of every site, not of the best one alone.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of the resamples.")] = 0,
) -> None:
    """Report when each concept in RUN becomes decodable (its onset), and when no better."""
    _check_run(run)
    wanted = several(concepts, "--concepts") or None
    from tlens_trust.analysis import find_onset, find_saturation
    from tlens_trust.views import onset_table

    found = find_onset(
        run, concepts=wanted, margin=margin, floor=floor, confidence=confidence, seed=seed
    )
    saturated = find_saturation(
        run, concepts=wanted, margin=short, floor=floor, confidence=confidence, seed=seed
    )
    typer.echo(onset_table(found, saturated, every_site=every_site))
    _warn_unfinished(run)


def compare(
    run: RunFolder,
    concept: Annotated[str, typer.Argument(help="One of the concepts in it.")],
    before: Annotated[str, typer.Argument(help="The earlier checkpoint: a step, or a name.")],
    after: Annotated[str, typer.Argument(help="The later one.")],
    probe: Annotated[
        str | None, typer.Option(help="Whose scores, where there are several.")
    ] = None,
    flips: Annotated[
        int | None,
        typer.Option(metavar="LAYER", help="List the statements that flipped at this layer."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the sign flips and resamples.")] = 0,
) -> None:
    """Test whether CONCEPT is read better AFTER than BEFORE, statement by statement."""
    _check_run(run)
    from tlens_trust.analysis import compare_checkpoints, list_flips
    from tlens_trust.views import comparison_table

    change = compare_checkpoints(
        run, concept, _checkpoint(before), _checkpoint(after), probe=probe, seed=seed
    )
    typer.echo(comparison_table(change))
    if flips is not None:
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
    run: RunFolder,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The page; RUN/report.html by default.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="Of the page.")] = None,
) -> None:
    """Write what RUN found into one page, which opens without a network.

    Token views and steering matrices kept with RUN are told of, too.
    """
    _check_run(run)
    from tlens_trust.views import report_run

    typer.echo(str(report_run(run, out, title=title)))


def _checkpoint(text: str) -> str | int:
    return int(text) if text.isdigit() else text


def _check_run(run: Path) -> None:
    if not (run / "manifest.json").is_file():
        what = "is a file" if run.is_file() else "is not there" if not run.exists() else "is none"
        raise ValueError(
            f"RUN is the folder of a sweep, with manifest.json in it, and {str(run)!r} {what}. "
            "Give what was --out of `tlens-trust probe` or `demo`."
        )


def _warn_unfinished(run: Path) -> None:
    """Say where a run has stopped short, since what is `never` read may only not have been yet."""
    from tlens_trust.tracing.run_folder import RunFolder
    from tlens_trust.views.report.cautions import describe_unfinished

    folder = RunFolder.at(run)
    if unfinished := folder.unfinished():
        # The one in which it stopped is noted already.
        finished = set(folder.checkpoints()) - set(unfinished)
        typer.echo(describe_unfinished(unfinished, len(finished)), err=True)
