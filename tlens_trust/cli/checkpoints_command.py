"""The command that lists the checkpoints of a series."""

from typing import Annotated

import typer

from tlens_trust.cli.options import expand_options
from tlens_trust.cli.series_options import FamilyOptions, Series, Steps, open_series


@expand_options
def checkpoints(
    series: Series,
    *,
    steps: Steps = "all",
    family: FamilyOptions,
    plan: Annotated[bool, typer.Option("--plan", help="Show what a sweep would download.")] = False,
) -> None:
    """List the checkpoints of SERIES: steps, tokens, revisions."""
    checkpoint_series = open_series(series, steps, family)
    if plan:
        typer.echo(str(checkpoint_series.plan()))
        return
    from tlens_trust.views.axes import format_count

    typer.echo(f"{'step':>10}  {'tokens':>8}  {'stage':<10}revision")
    for checkpoint in checkpoint_series:
        tokens = "" if checkpoint.tokens is None else format_count(checkpoint.tokens)
        step = "" if checkpoint.step is None else str(checkpoint.step)
        typer.echo(f"{step:>10}  {tokens:>8}  {checkpoint.stage or '':<10}{checkpoint.revision}")
