"""The concepts that a command names, and the commands that list and lint them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tlens_trust.cli.options import several

if TYPE_CHECKING:
    from tlens_trust.concepts import Concept


def concepts() -> None:
    """List the embedded concepts and controls with their sizes, and the benchmarks."""
    from tlens_trust.concepts import available_benchmarks, load_concepts

    typer.echo(f"{'name':<14}{'dimension':<14}{'statements':>10}{'groups':>8}{'label 1':>9}")
    for name, concept in load_concepts().items():
        typer.echo(_sized(name, concept))
    typer.echo("\nControls, which have nothing to do with trust (--concepts controls for all):")
    for name, concept in load_concepts("controls").items():
        typer.echo(_sized(name, concept))
    typer.echo("\nThe embedded concepts in other sentences (--concepts paraphrases for all):")
    for name, concept in load_concepts("paraphrases").items():
        typer.echo(_sized(name, concept, width=27))
    typer.echo("\nBenchmarks, from a file (--concepts NAME=PATH) or from the hub:")
    for name, text in available_benchmarks().items():
        typer.echo(f"{name:<14}{text}")


def _sized(name: str, concept: "Concept", *, width: int = 14) -> str:
    return (
        f"{name:<{width}}{concept.dimension:<14}{len(concept):>10}"
        f"{len(set(concept.groups)):>8}{concept.labels.mean():>9.0%}"
    )


def lint(
    file: Annotated[Path, typer.Argument(help="A CSV file: one of the paper's, or your own.")],
    statement: Annotated[str, typer.Option(help="Column of the texts.")] = "statement",
    label: Annotated[str, typer.Option(help="Column of the labels, 0 and 1.")] = "label",
    group: Annotated[str | None, typer.Option(help="Column of what belongs together.")] = None,
    trustworthy: Annotated[
        int | None, typer.Option(help="Which label you take for the trustworthy side: 0 or 1.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the text floor's folds.")] = 0,
) -> None:
    """Say what in FILE may mislead a probe; exit status 1 where there are errors."""
    from tlens_trust.concepts import lint_file

    report = lint_file(
        file, statement=statement, label=label, group=group, trustworthy=trustworthy, seed=seed
    )
    typer.echo(repr(report))
    if report.errors:
        raise typer.Exit(1)


def choose_concepts(
    named: list[str] | None,
    csv: Path | None = None,
    statement: str = "statement",
    label: str = "label",
    group: str | None = None,
    trustworthy: int | None = None,
    *,
    clean: bool = True,
    option: str = "--concepts",
) -> "dict[str, Concept]":
    """The concepts that an option and `--csv` name; the embedded ones for neither.

    Args:
        named: What the option was given.
        csv: A file of the user's own.
        statement: Its column of texts.
        label: Its column of labels.
        group: Its column of what belongs together.
        trustworthy: Its label of the trustworthy side.
        clean: Whether the paper's files are cleaned.
        option: What the option is called.

    Raises:
        ValueError: A name that is none, or a file that cannot be read as what it is said to be.
    """
    from tlens_trust.concepts import Concept, available_benchmarks, load_concepts

    wanted: dict[str, Concept] = {}
    for entry in several(named, option):
        name, equals, path = entry.partition("=")
        if equals and not (name and path):
            raise ValueError(f"{option} got {entry!r}. Give NAME, or NAME=PATH for a benchmark.")
        if path and name not in available_benchmarks():
            raise ValueError(
                f"{name!r} is read from no file. Give a benchmark "
                f"({', '.join(available_benchmarks())}) as NAME=PATH, or your own file as --csv."
            )
        # What comes from the hub is no file of the paper's.
        wanted.update(load_concepts(name, path=path or None, clean=clean or not path))
    if csv is None:
        given = {"--group": group, "--trustworthy": trustworthy}
        without_use = [name for name, value in given.items() if value is not None]
        if without_use:
            raise ValueError(f"{without_use[0]} says something of --csv, which is not given.")
    else:
        if trustworthy is None:
            raise ValueError(
                "--csv needs --trustworthy 0 or --trustworthy 1: which label is the trustworthy "
                "side. There is no default, since a wrong guess would invert every result."
            )
        own = Concept.from_csv(
            csv, statement=statement, label=label, group=group, trustworthy=trustworthy
        )
        if own.name in wanted:
            raise ValueError(
                f"--csv {str(csv)!r} is a concept named {own.name!r}, and so is one of {option}. "
                "Rename the file, or leave one of them out."
            )
        wanted[own.name] = own
    return wanted or load_concepts()


def some_groups(concept: "Concept", groups: int, seed: int) -> "Concept":
    """So many groups of a concept, drawn evenly; all where there are no more."""
    import numpy as np

    names = list(dict.fromkeys(concept.groups))
    if len(names) <= groups:
        return concept
    kept = {*np.random.default_rng(seed).choice(names, groups, replace=False).tolist()}
    return concept.take(np.array([name in kept for name in concept.groups]))
