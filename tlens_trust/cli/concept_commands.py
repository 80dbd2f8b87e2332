"""The commands that list concepts, and that check a file of statements."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tlens_trust.cli.concept_options import (
    GroupColumn,
    LabelColumn,
    StatementColumn,
    TrustworthyLabel,
)
from tlens_trust.cli.options import Seed

if TYPE_CHECKING:
    from tlens_trust.concepts import Concept


def concepts() -> None:
    """List the embedded concepts and controls with their sizes, and the benchmarks."""
    from tlens_trust.concepts import available_benchmarks, load_concepts

    typer.echo(f"{'name':<14}{'dimension':<14}{'statements':>10}{'groups':>8}{'label 1':>9}")
    for name, concept in load_concepts().items():
        typer.echo(_table_row(name, concept))
    typer.echo("\nControls, which have nothing to do with trust (--concepts controls for all):")
    for name, concept in load_concepts("controls").items():
        typer.echo(_table_row(name, concept))
    typer.echo("\nThe embedded concepts in other sentences (--concepts paraphrases for all):")
    for name, concept in load_concepts("paraphrases").items():
        typer.echo(_table_row(name, concept, width=27))
    typer.echo("\nBenchmarks, from a file (--concepts NAME=PATH) or from the hub:")
    for name, description in available_benchmarks().items():
        typer.echo(f"{name:<14}{description}")


def _table_row(name: str, concept: "Concept", *, width: int = 14) -> str:
    return (
        f"{name:<{width}}{concept.dimension:<14}{len(concept):>10}"
        f"{len(set(concept.groups)):>8}{concept.labels.mean():>9.0%}"
    )


def lint(
    file: Annotated[Path, typer.Argument(help="A CSV file: one of the paper's, or your own.")],
    statement: StatementColumn = "statement",
    label: LabelColumn = "label",
    group: GroupColumn = None,
    trustworthy: TrustworthyLabel = None,
    seed: Seed = 0,
) -> None:
    """Report what in FILE may mislead a probe. The exit status is 1 if there are errors."""
    from tlens_trust.concepts import lint_file

    report = lint_file(
        file, statement=statement, label=label, group=group, trustworthy=trustworthy, seed=seed
    )
    typer.echo(repr(report))
    if report.errors:
        # A script can stop at a file with errors.
        raise typer.Exit(1)
