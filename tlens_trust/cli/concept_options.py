"""Options that choose concepts, from sets that the library knows and from a user's CSV file."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tlens_trust.cli.options import split_entries

if TYPE_CHECKING:
    from tlens_trust.concepts import Concept

Concepts = Annotated[
    list[str] | None,
    typer.Option(
        help="Embedded set, control ('controls' for all) or benchmark, repeated or separated "
        "by commas; NAME=PATH reads a benchmark from a file. All embedded sets by default."
    ),
]
StatementColumn = Annotated[str, typer.Option(help="Column of the CSV file: the statements.")]
LabelColumn = Annotated[str, typer.Option(help="Column of the CSV file: the labels, 0 and 1.")]
GroupColumn = Annotated[
    str | None,
    typer.Option(help="Column of the CSV file: the group of statements that belong together."),
]
TrustworthyLabel = Annotated[
    int | None, typer.Option(help="The label of the trustworthy side in the CSV file: 0 or 1.")
]


@dataclass(frozen=True)
class CsvOptions:
    """A concept of the user's own, in a CSV file, and what its columns mean."""

    csv: Annotated[Path | None, typer.Option(help="A concept of your own, from a CSV file.")] = None
    statement: StatementColumn = "statement"
    label: LabelColumn = "label"
    group: GroupColumn = None
    trustworthy: TrustworthyLabel = None

    def load(self) -> "Concept | None":
        """Load the concept; None if `--csv` is not given.

        Raises:
            ValueError: `--csv` comes without `--trustworthy`, or `--group` or `--trustworthy`
                without `--csv`; or the file cannot be read as described.
        """
        from tlens_trust.concepts import Concept

        if self.csv is None:
            values = {"--group": self.group, "--trustworthy": self.trustworthy}
            for option, value in values.items():
                if value is not None:
                    raise ValueError(f"{option} describes the file of --csv, which is not given.")
            return None
        if self.trustworthy is None:
            raise ValueError(
                "--csv needs --trustworthy 0 or --trustworthy 1: which label is the trustworthy "
                "side. There is no default, since a wrong guess would invert every result."
            )
        return Concept.from_csv(
            self.csv,
            statement=self.statement,
            label=self.label,
            group=self.group,
            trustworthy=self.trustworthy,
        )


def choose_concepts(
    names: list[str] | None,
    csv_options: CsvOptions | None = None,
    *,
    clean: bool = True,
    option: str = "--concepts",
) -> "dict[str, Concept]":
    """Load the concepts that an option and `--csv` name; the embedded ones if neither is given.

    Args:
        names: The values of the option.
        csv_options: The user's own concept; None for a command without `--csv`.
        clean: Whether the paper's files are cleaned.
        option: The name of the option, for errors.

    Raises:
        ValueError: There is no concept of that name, two have the same name, or a file cannot be
            read as described.
    """
    from tlens_trust.concepts import Concept, available_benchmarks, load_concepts

    concepts: dict[str, Concept] = {}
    for entry in split_entries(names, option):
        name, equals, path = entry.partition("=")
        if equals and not (name and path):
            raise ValueError(f"{option} got {entry!r}. Give NAME, or NAME=PATH for a benchmark.")
        if path and name not in available_benchmarks():
            raise ValueError(
                f"{name!r} is not a benchmark, and only benchmarks are read from a file. Give "
                f"NAME=PATH with one of {', '.join(available_benchmarks())}, or give your own file "
                "as --csv."
            )
        # `clean=False` is for the paper's files. Sets from elsewhere have no uncleaned form.
        concepts.update(load_concepts(name, path=path or None, clean=clean or not path))
    concept = None if csv_options is None else csv_options.load()
    if csv_options is not None and concept is not None:
        if concept.name in concepts:
            raise ValueError(
                f"--csv {str(csv_options.csv)!r} is a concept named {concept.name!r}, and so is "
                f"one of {option}. Rename the file, or leave one of them out."
            )
        concepts[concept.name] = concept
    return concepts or load_concepts()


def draw_groups(concept: "Concept", groups: int, seed: int) -> "Concept":
    """Draw a number of groups from a concept, each with the same chance.

    Returns:
        The statements of these groups; the whole concept if it has no more groups.
    """
    import numpy as np

    # In order of appearance, since the order of a set would change the draw.
    names = list(dict.fromkeys(concept.groups))
    if len(names) <= groups:
        return concept
    drawn_names = {*np.random.default_rng(seed).choice(names, groups, replace=False).tolist()}
    return concept.take(np.array([name in drawn_names for name in concept.groups]))
