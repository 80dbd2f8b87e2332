"""The series that a command names, and the command that lists it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tlens_trust.cli.options import (
    Backend,
    Dtype,
    RunName,
    Stage,
    Steps,
    loaded_with,
    read_steps,
)

if TYPE_CHECKING:
    from tlens_trust.checkpoints import CheckpointSeries


def checkpoints(
    model: Annotated[str, typer.Argument(help="A hub model, or a folder of checkpoint folders.")],
    steps: Steps = "all",
    run: RunName = None,
    stage: Stage = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what a sweep would fetch.")] = False,
) -> None:
    """List the checkpoints of MODEL: steps, tokens, revisions."""
    series = open_series(model, steps, run, stage)
    if plan:
        typer.echo(str(series.plan()))
        return
    from tlens_trust.views.axes import format_count

    typer.echo(f"{'step':>10}  {'tokens':>8}  {'stage':<10}revision")
    for checkpoint in series:
        tokens = "" if checkpoint.tokens is None else format_count(checkpoint.tokens)
        step = "" if checkpoint.step is None else str(checkpoint.step)
        typer.echo(f"{step:>10}  {tokens:>8}  {checkpoint.stage or '':<10}{checkpoint.revision}")


def open_series(
    model: str,
    steps: str,
    run: str | None,
    stage: str | None,
    device: str | None = None,
    dtype: Dtype = Dtype.float32,
    backend: Backend = Backend.auto,
) -> "CheckpointSeries":
    """The series of an existing folder, else of a hub model, to be loaded as the options say.

    Raises:
        ValueError: No such folder, or options that do not go with one.
    """
    chosen = read_steps(steps)
    place = Path(model)
    if place.is_file():
        raise ValueError(
            f"{model!r} is a file. Name the folder that holds the checkpoints' folders, or a hub "
            "model."
        )
    if not place.is_dir() and model.startswith((".", "/", "~")):
        raise ValueError(f"No folder {model!r}. Name a folder of checkpoints, or a hub model.")
    from tlens_trust import CheckpointSeries

    if not place.is_dir():
        series = CheckpointSeries.from_hub(model, steps=chosen, run=run, stage=stage)
        return loaded_with(series, device, dtype, backend)
    if run is not None or stage is not None:
        raise ValueError(f"--run and --stage choose among a hub family, but {model!r} is a folder.")
    series = CheckpointSeries.from_directory(model)
    series = series if chosen == "all" else series.at(chosen)
    return loaded_with(series, device, dtype, backend)
