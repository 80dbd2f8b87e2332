"""A concept: statements, their labels, and which statements belong together."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from jaxtyping import Bool, Int

from tlens_trust.accessors import LazyAccessor
from tlens_trust.concepts.tables import (
    Table,
    binary_labels,
    frame_table,
    group_names,
    list_rows,
    read_csv,
    records_table,
    texts,
)
from tlens_trust.html import render

if TYPE_CHECKING:
    import pandas

    from tlens_trust.concepts.lint.report import LintReport


# In a notebook; a concept may hold thousands.
_SHOWN_ROWS = 6


@dataclass(frozen=True)
class RowEdit:
    """One change that the reader of a benchmark made to the rows of its source.

    Attributes:
        action: `dropped` or `changed`.
        reason: Why, in words.
        rows: Which rows, numbered as `provenance["rows"]` says.
    """

    action: str
    reason: str
    rows: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        return f"{self.action} {len(self)}: {self.reason} ({list_rows(self.rows)})"


class _Lint(Protocol):
    def __call__(self, *, seed: int = 0) -> "LintReport": ...


@dataclass(frozen=True, eq=False, repr=False)
class Concept:
    """A set of labelled statements about one matter of trust.

    Attributes:
        name: Short name; the `concept` coordinate of a `Trace`.
        dimension: `reliability`, `privacy`, `toxicity`, `fairness`, `robustness`, or another.
        statements: The texts that a model reads, never empty.
        labels: 1 where the statement is on the trustworthy side, else 0; both occur. Read-only.
        groups: A name per statement; statements of one group never stand on both sides of a split.
        polarity: False where neither label is the trustworthy side.
        provenance: Where the statements come from, what their labels and groups were made from,
            and in a sentence what was dropped.
        edits: What a reader dropped or changed, row by row; empty for statements taken as they are.

    Raises:
        ValueError: No name, no statement, lengths that differ, an empty statement, a label other
            than 0 and 1, one label only, or an unnamed group.

    Examples:
        >>> concept = Concept(
        ...     "sums",
        ...     "reliability",
        ...     ("2 + 2 = 4", "2 + 2 = 5", "3 + 1 = 4", "3 + 1 = 6"),
        ...     np.array([1, 0, 1, 0]),
        ...     ("2 + 2", "2 + 2", "3 + 1", "3 + 1"),
        ... )
        >>> concept
        Concept('sums', dimension='reliability', 4 statements in 2 groups, 50.0% trustworthy)
    """

    name: str
    dimension: str
    statements: tuple[str, ...]
    labels: Int[np.ndarray, " example"]
    groups: tuple[str, ...]
    polarity: bool = True
    provenance: Mapping[str, str] = field(default_factory=dict)
    edits: tuple[RowEdit, ...] = ()

    lint = LazyAccessor["_Lint"]("lint", home="tlens_trust.concepts.lint")

    def __post_init__(self) -> None:
        for attribute in ("name", "dimension"):
            text = getattr(self, attribute)
            if not isinstance(text, str) or not text.strip():
                raise ValueError(f"A concept needs a {attribute}, got {text!r}. Give a short one.")
        for attribute in ("statements", "groups"):
            if isinstance(getattr(self, attribute), str):
                raise ValueError(f"`{attribute}` is one string. Give one string per statement.")
        statements, groups = tuple(self.statements), tuple(self.groups)
        labels = np.array(self.labels)
        if labels.ndim != 1 or not len(statements) == len(labels) == len(groups):
            raise ValueError(
                "Statements, labels and groups must be lists of one length, got "
                f"{len(statements)} statements, labels of shape {labels.shape} and "
                f"{len(groups)} groups. Give one label and one group per statement."
            )
        # A table, so that statements in memory are checked by the same rules as a file.
        table = Table(
            {"statements": statements, "labels": labels.tolist(), "groups": groups},
            tuple(range(len(statements))),
            f"concept {self.name!r}",
            "statements, counted from 0",
        )
        texts(table, "statements")
        labels = binary_labels(table, "labels")
        groups = tuple(group_names(table, "groups"))
        # A changed label would leave the cached fingerprint wrong.
        labels.flags.writeable = False
        object.__setattr__(self, "statements", statements)
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "groups", groups)
        object.__setattr__(self, "provenance", MappingProxyType(dict(self.provenance)))
        object.__setattr__(self, "edits", tuple(self.edits))

    @classmethod
    def from_csv(
        cls,
        path: str | os.PathLike[str],
        *,
        trustworthy: int | None,
        statement: str = "statement",
        label: str = "label",
        group: str | None = None,
        name: str | None = None,
        dimension: str | None = None,
        contrast: bool = False,
    ) -> "Concept":
        r"""Make a concept of a CSV file with one statement a row.

        Every row is taken, as it is. Rows are numbered in messages as in the file: the header is
        row 1. A cell is text and nothing else: `NA` and `null` are statements.

        Args:
            path: A UTF-8 file whose first row names the columns.
            trustworthy: Which label, 0 or 1, is on the trustworthy side; the labels are turned so
                that it becomes 1. None: neither is, and the concept has no polarity. There is no
                default, since a wrong guess turns every result round.
            statement: Column of the texts.
            label: Column of the labels, 0 and 1.
            group: Column that names what belongs together (a question, a pair of twins), and never
                stands on both sides of a split. None: identical statements belong together, and
                every other stands alone.
            name: Name of the concept; the file's name without its ending by default.
            dimension: Dimension of trustworthiness; the concept's name by default.
            contrast: Whether to insist that every group holds both labels.

        Raises:
            ValueError: A column is missing, a statement is empty, a group has no name, a label is
                neither 0 nor 1, or there is one label only. With `contrast`, also a group with one
                label. The message gives the row numbers.

        Examples:
            >>> import pathlib, tempfile
            >>> file = pathlib.Path(tempfile.mkdtemp()) / "insults.csv"
            >>> _ = file.write_text("text,insult\nYou fool.,1\nYou star.,0\n")
            >>> concept = Concept.from_csv(file, statement="text", label="insult", trustworthy=0)
            >>> concept.labels.tolist()
            [0, 1]
        """
        return _from_table(
            read_csv(path),
            trustworthy=trustworthy,
            statement=statement,
            label=label,
            group=group,
            name=Path(path).stem if name is None else name,
            dimension=dimension,
            contrast=contrast,
        )

    @classmethod
    def from_frame(
        cls,
        frame: "pandas.DataFrame",
        *,
        trustworthy: int | None,
        name: str,
        statement: str = "statement",
        label: str = "label",
        group: str | None = None,
        dimension: str | None = None,
        contrast: bool = False,
    ) -> "Concept":
        """Make a concept of a pandas table; arguments and errors are those of `from_csv`.

        Rows are numbered in messages by position, from 0, whatever the index.

        Examples:
            >>> import pandas
            >>> frame = pandas.DataFrame({"statement": ["Yes.", "No."], "label": [1, 0]})
            >>> Concept.from_frame(frame, name="assent", trustworthy=None)
            Concept('assent', dimension='assent', 2 statements in 2 groups, no polarity: ...)
        """
        return _from_table(
            frame_table(frame),
            trustworthy=trustworthy,
            statement=statement,
            label=label,
            group=group,
            name=name,
            dimension=dimension,
            contrast=contrast,
        )

    @classmethod
    def from_dataset(
        cls,
        dataset: Iterable[Mapping[str, Any]] | Mapping[str, Any],
        *,
        trustworthy: int | None,
        name: str,
        statement: str = "statement",
        label: str = "label",
        group: str | None = None,
        dimension: str | None = None,
        contrast: bool = False,
    ) -> "Concept":
        """Make a concept of one split of a `datasets` data set, or of any iterable of rows.

        Arguments and errors are those of `from_csv`. Rows are numbered from 0.

        Raises:
            ValueError: As `from_csv`; or `dataset` is a dictionary of splits.

        Examples:
            >>> rows = [{"statement": "Yes.", "label": 1}, {"statement": "No.", "label": 0}]
            >>> len(Concept.from_dataset(rows, name="assent", trustworthy=1))
            2
        """
        return _from_table(
            records_table(dataset),
            trustworthy=trustworthy,
            statement=statement,
            label=label,
            group=group,
            name=name,
            dimension=dimension,
            contrast=contrast,
        )

    def __len__(self) -> int:
        return len(self.statements)

    def __repr__(self) -> str:
        share = f"{self.labels.mean():.1%}"
        balance = f"{share} trustworthy" if self.polarity else f"no polarity: {share} carry label 1"
        return (
            f"Concept({self.name!r}, dimension={self.dimension!r}, {len(self)} statements in "
            f"{len(set(self.groups))} groups, {balance})"
        )

    def _repr_html_(self) -> str:
        rows_shown = _first_groups(self.groups, _SHOWN_ROWS)
        return render(
            "notebook/concept",
            {
                "concept": self,
                "n_groups": len(set(self.groups)),
                "share": f"{self.labels.mean():.1%}",
                "rows": [
                    (int(self.labels[i]), self.statements[i], self.groups[i]) for i in rows_shown
                ],
                "n_hidden": len(self) - len(rows_shown),
            },
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Concept) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __reduce__(self) -> tuple[Any, ...]:
        # A mapping proxy cannot be pickled, and a concept travels to worker processes.
        arguments = (
            self.name,
            self.dimension,
            self.statements,
            np.array(self.labels),
            self.groups,
            self.polarity,
            dict(self.provenance),
            self.edits,
        )
        return Concept, arguments

    @property
    def _key(self) -> tuple[str, str, bool, str]:
        return self.name, self.dimension, self.polarity, self.fingerprint

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of statements, labels and groups, in their order."""
        digest = hashlib.sha256()
        for row in zip(self.statements, self.labels.tolist(), self.groups, strict=True):
            # `repr` quotes each text, so that no two rows run into each other.
            digest.update(repr(row).encode())
        return digest.hexdigest()

    def take(
        self, rows: Sequence[int] | Int[np.ndarray, " row"] | Bool[np.ndarray, " example"]
    ) -> "Concept":
        """Keep some of the statements, in the order given.

        Args:
            rows: Positions from 0, or a mask with one truth value per statement.

        Raises:
            ValueError: A position that is not there, a mask of another length, or what is left
                holds one label only.

        Examples:
            >>> numbers = ("1 < 2", "2 < 1", "3 < 4", "4 < 3")
            >>> concept = Concept("order", "reliability", numbers, np.array([1, 0, 1, 0]), numbers)
            >>> concept.take([2, 1]).statements
            ('3 < 4', '2 < 1')
        """
        positions = np.asarray(rows)
        if positions.dtype == bool:
            if positions.shape != (len(self),):
                raise ValueError(
                    f"A mask must hold one truth value for each of the {len(self)} statements of "
                    f"{self.name!r}, got shape {positions.shape}."
                )
            positions = np.flatnonzero(positions)
        # numpy gives an empty list a floating-point format.
        if positions.ndim != 1 or not (positions.dtype.kind in "iu" or positions.size == 0):
            raise ValueError(
                "`rows` must be a list of whole numbers or a mask, got an array of "
                f"{positions.dtype} "
                f"with shape {positions.shape}."
            )
        positions = positions.astype(np.int64)
        out_of_range = positions[(positions < 0) | (positions >= len(self))]
        if len(out_of_range):
            raise ValueError(
                f"{self.name!r} has {len(self)} statements, counted from 0; there is no "
                f"{out_of_range[0]}. Choose from 0 to {len(self) - 1}."
            )
        return replace(
            self,
            statements=tuple(self.statements[i] for i in positions),
            labels=self.labels[positions],
            groups=tuple(self.groups[i] for i in positions),
            provenance={**self.provenance, "taken": f"{len(positions)} of {len(self)} statements"},
        )

    def to_frame(self) -> "pandas.DataFrame":
        """Columns `statement`, `label`, `group`; the index `example` counts from 0.

        Examples:
            >>> Concept("x", "x", ("Yes.", "No."), np.array([1, 0]), ("a", "a")).to_frame()
                    statement  label group
            example
            0            Yes.      1     a
            1             No.      0     a
        """
        import pandas

        columns = {
            "statement": list(self.statements),
            "label": np.array(self.labels),
            "group": list(self.groups),
        }
        return pandas.DataFrame(columns, index=pandas.RangeIndex(len(self), name="example"))

    def to_json(self) -> dict[str, Any]:
        """Give everything that makes up the concept, in values that a JSON file can hold.

        Examples:
            >>> concept = Concept("x", "x", ("Yes.", "No."), np.array([1, 0]), ("a", "a"))
            >>> Concept.from_json(concept.to_json()) == concept
            True
        """
        return {
            "name": self.name,
            "dimension": self.dimension,
            "statements": self.statements,
            "labels": self.labels.tolist(),
            "groups": self.groups,
            "polarity": self.polarity,
            "provenance": dict(self.provenance),
            "edits": [asdict(edit) for edit in self.edits],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Concept":
        """Make a concept of what `to_json` gave, read back from a JSON file.

        Raises:
            KeyError, TypeError, ValueError: `content` was altered.
        """
        return cls(
            name=content["name"],
            dimension=content["dimension"],
            statements=tuple(content["statements"]),
            labels=np.array(content["labels"]),
            groups=tuple(content["groups"]),
            polarity=content["polarity"],
            provenance=content["provenance"],
            edits=tuple(
                RowEdit(edit["action"], edit["reason"], tuple(edit["rows"]))
                for edit in content["edits"]
            ),
        )

    def describe(self) -> str:
        """Describe in text where the statements come from, and what was dropped or changed.

        Examples:
            >>> rows = [{"statement": "Yes.", "label": 1}, {"statement": "No.", "label": 0}]
            >>> print(Concept.from_dataset(rows, name="assent", trustworthy=1).describe())
            Concept('assent', dimension='assent', 2 statements in 2 groups, 50.0% trustworthy)
              source: rows
              rows: counted from 0
              labels: column 'label'; 1 is the trustworthy side
              groups: identical statements
        """
        lines = [repr(self)]
        lines += [f"  {key}: {value}" for key, value in self.provenance.items()]
        lines += [f"  {edit}" for edit in self.edits]
        return "\n".join(lines)


def _first_groups(groups: Sequence[str], limit: int) -> list[int]:
    """Rows to show: those of the first groups, so that a contrast is seen as one."""
    order = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    return sorted(range(len(groups)), key=lambda row: order[groups[row]])[:limit]


def statements_fingerprint(statements: Sequence[str]) -> str:
    """SHA-256 of texts in their order."""
    return hashlib.sha256(repr(tuple(statements)).encode()).hexdigest()


def _from_table(
    table: Table,
    *,
    trustworthy: int | None,
    statement: str,
    label: str,
    group: str | None,
    name: str,
    dimension: str | None,
    contrast: bool,
) -> Concept:
    # For Python, True is 1, but it names no label.
    if isinstance(trustworthy, bool) or trustworthy not in (0, 1, None):
        raise ValueError(
            f"`trustworthy` is the label on the trustworthy side, 0 or 1, or None where neither "
            f"is, got {trustworthy!r}."
        )
    statements = texts(table, statement)
    labels = binary_labels(table, label)
    if group is not None:
        groups = group_names(table, group)
    elif contrast:
        raise ValueError(
            "A contrast needs groups to hold it. Name their column with `group=`, or leave "
            "`contrast` out."
        )
    else:
        first_row: dict[str, int] = {}
        groups = [
            str(first_row.setdefault(s, row)) for s, row in zip(statements, table.rows, strict=True)
        ]
    if contrast:
        _check_contrast(table, labels, groups)
    sides = {
        0: f"column {label!r}, turned round; 1 is the trustworthy side (0 in the source)",
        1: f"column {label!r}; 1 is the trustworthy side",
        None: f"column {label!r}; neither is the trustworthy side",
    }
    return Concept(
        name=name,
        dimension=name if dimension is None else dimension,
        statements=tuple(statements),
        labels=1 - labels if trustworthy == 0 else labels,
        groups=tuple(groups),
        polarity=trustworthy is not None,
        provenance={
            **table.provenance,
            "labels": sides[trustworthy],
            "groups": "identical statements" if group is None else f"column {group!r}",
        },
    )


def _check_contrast(table: Table, labels: np.ndarray, groups: Sequence[str]) -> None:
    pairs = set(zip(groups, labels.tolist(), strict=True))
    labels_per_group = Counter(group for group, _ in pairs)
    rows_without_contrast = [
        row for row, group in zip(table.rows, groups, strict=True) if labels_per_group[group] == 1
    ]
    if rows_without_contrast:
        names = sorted({group for group in groups if labels_per_group[group] == 1})
        shown_names = ", ".join(map(repr, names[:5])) + (", …" if len(names) > 5 else "")
        raise ValueError(
            f"{len(names)} of {len(labels_per_group)} groups of {table.source} hold one label "
            "only, so they "
            f"make no contrast: {shown_names} ({list_rows(rows_without_contrast)}; "
            f"{table.counting}). Add the other side, "
            f"leave these rows out, or ask for no contrast."
        )
