"""Columns of texts and labels with the row numbers that the user knows them by.

A message about a row names the number that the row has in the user's own file or table. So the
numbers travel with the columns.
"""

import csv
import difflib
import hashlib
import io
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

if TYPE_CHECKING:
    import pandas

_HEADER_IS_ROW_1 = "numbered as in the file, the header being row 1"
_FROM_0 = "counted from 0"


@dataclass(frozen=True)
class Table:
    """Columns that are as long as each other.

    Attributes:
        columns: Cells by column name.
        rows: The number by which the user knows each row.
        source: What the columns were read from, as a message names it.
        counting: How the rows are numbered.
        sha256: Of the file's bytes; empty where there is no file.
    """

    columns: Mapping[str, Sequence[Any]]
    rows: tuple[int, ...]
    source: str
    counting: str
    sha256: str = ""

    @property
    def provenance(self) -> dict[str, str]:
        """What `Concept.provenance` says of the source."""
        entries = {"source": self.source, "rows": self.counting}
        return entries | {"sha256": self.sha256} if self.sha256 else entries

    def column(self, name: str) -> Sequence[Any]:
        """Cells of a column.

        Raises:
            ValueError: There is no such column; the message names those that there are.
        """
        if name not in self.columns:
            names = ", ".join(map(repr, self.columns)) or "none"
            raise ValueError(
                f"No column {name!r} in {self.source}, whose columns are: {names}. "
                f"Name the one that you mean (`statement=`, `label=`, `group=`; in a shell "
                "`--statement`, `--label`, `--group`)."
            )
        return self.columns[name]

    def rows_at(self, positions: Iterable[int]) -> str:
        """Row numbers at `positions`, for a message, with what they count."""
        return f"{list_rows([self.rows[i] for i in positions])}; {self.counting}"


def list_rows(rows: Sequence[int], *, limit: int = 10) -> str:
    """`row 3`, `rows 3, 8`, or the first `limit` of them and how many more there are.

    Examples:
        >>> list_rows([4, 9, 11], limit=2)
        'rows 4, 9 and 1 more'
    """
    listing = ", ".join(str(row) for row in rows[:limit])
    remainder = f" and {len(rows) - limit} more" if len(rows) > limit else ""
    return f"row{'s' if len(rows) != 1 else ''} {listing}{remainder}"


def read_csv(path: str | os.PathLike[str]) -> Table:
    """Read a UTF-8 CSV file; cells stay text.

    Raises:
        ValueError: Not UTF-8, no header, a column named twice, or a row with more or fewer cells
            than the header; or a folder.
        OSError: There is no such file, or it may not be read.
    """
    return parse_csv(read_file(path), repr(os.fspath(path)))


def read_file(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file.

    Raises:
        ValueError: The path is that of a folder.
        OSError: There is no such file, or it may not be read.
    """
    place = Path(path)
    if place.is_dir():
        file_names = sorted(file.name for file in place.iterdir() if file.is_file())
        listing = ", ".join(file_names[:5]) + (", …" if len(file_names) > 5 else "")
        raise ValueError(
            f"{os.fspath(path)!r} is a folder, and a file is expected. Name one in it"
            + (f" ({listing})." if file_names else "; it holds none.")
        )
    if not place.exists():
        raise missing_file(path)
    return place.read_bytes()


def missing_file(path: str | os.PathLike[str]) -> FileNotFoundError:
    """The error for a path at which there is nothing, with the nearest name beside it."""
    place = Path(path)
    message = f"There is no file {os.fspath(path)!r}."
    if not place.parent.is_dir():
        return FileNotFoundError(
            f"{message} Its folder, {str(place.parent)!r}, is not there either."
        )
    # A picture is never what a misspelt table was meant to be.
    names = [file.name for file in place.parent.iterdir() if file.suffix == place.suffix]
    nearest = difflib.get_close_matches(place.name, names, n=1)
    way_out = (
        f"Did you mean {nearest[0]!r}?"
        if nearest
        else f"Looked for in {str(place.parent.resolve())!r}."
    )
    return FileNotFoundError(f"{message} {way_out}")


def parse_csv(content: bytes, source: str) -> Table:
    """Read the bytes of a UTF-8 CSV file, as `read_csv` does."""
    # pandas would turn a statement that reads "NA" or "null" into a missing one.
    try:
        # Spreadsheets put a byte-order mark in front of UTF-8, which would become a part of the
        # first column's name.
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        header = next(reader, [])
        records, rows = [], []
        # A cell may hold line breaks, so a row is numbered by the line on which it begins.
        start = reader.line_num + 1
        for record in reader:
            # The reader gives an empty list for a blank line.
            if record:
                records.append(record)
                rows.append(start)
            start = reader.line_num + 1
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{source} is not UTF-8 at byte {error.start}. Save it as UTF-8, or read it with "
            f"`pandas.read_csv(..., encoding=...)` and use `Concept.from_frame`."
        ) from error
    except csv.Error as error:
        raise ValueError(
            f"{source} is not a CSV file that can be read ({error}, line {reader.line_num}). "
            f"Quote every cell that holds a comma, a quote or a line break."
        ) from error
    if not header:
        raise ValueError(f"{source} is empty. Its first row must name the columns.")
    repeated_names = [name for name, count in Counter(header).items() if count > 1]
    if repeated_names:
        raise ValueError(
            f"{source} names the column {repeated_names[0]!r} more than once. Rename one."
        )
    ragged = [row for row, record in zip(rows, records, strict=True) if len(record) != len(header)]
    if ragged:
        raise ValueError(
            f"{source} has {len(header)} columns, but another number of cells in "
            f"{list_rows(ragged)} (the header being row 1). Quote cells that hold a comma."
        )
    columns = {name: [record[i] for record in records] for i, name in enumerate(header)}
    digest = hashlib.sha256(content).hexdigest()
    return Table(columns, tuple(rows), source, _HEADER_IS_ROW_1, digest)


def frame_table(frame: "pandas.DataFrame") -> Table:
    """Columns of a pandas table, rows counted from 0 whatever its index.

    Raises:
        ValueError: Two columns of one name.
    """
    names = [str(name) for name in frame.columns]
    repeated_names = [name for name, count in Counter(names).items() if count > 1]
    if repeated_names:
        raise ValueError(
            f"The table has two columns named {repeated_names[0]!r}. Rename one of them."
        )
    columns = {name: frame.iloc[:, i].tolist() for i, name in enumerate(names)}
    return Table(columns, tuple(range(len(frame))), "a pandas table", _FROM_0)


def records_table(records: Iterable[Mapping[str, Any]] | Mapping[str, Any]) -> Table:
    """Columns of a `datasets` split, or of any iterable of rows, counted from 0.

    Raises:
        ValueError: A dictionary of splits, or rows whose columns differ.
    """
    if isinstance(records, Mapping):
        splits = ", ".join(map(repr, records))
        raise ValueError(
            f"This is a dictionary of splits ({splits}). Choose one, as in `dataset[name]`."
        )
    source = "rows"
    info = getattr(records, "info", None)
    if info is not None:
        dataset_name = getattr(info, "dataset_name", None) or getattr(info, "builder_name", None)
        # It changes with every filter and shuffle, so it tells two parts of one split apart.
        fingerprint = getattr(records, "_fingerprint", "")
        split = getattr(records, "split", None)
        source = f"data set {dataset_name or 'without a name'!r}" + (
            f", split {split}" if split else ""
        )
        source += f" (fingerprint {fingerprint})" if fingerprint else ""
    # At once, since an iterable can be gone through only once.
    rows = list(records)
    names = list(rows[0]) if rows else []
    ragged = [i for i, record in enumerate(rows) if record.keys() != rows[0].keys()]
    if ragged:
        raise ValueError(
            f"Every row must have the columns of the first ({', '.join(map(repr, names))}), but "
            f"others are in {list_rows(ragged)} (counted from 0)."
        )
    columns = {name: [record[name] for record in rows] for name in names}
    return Table(columns, tuple(range(len(rows))), source, _FROM_0)


def texts(table: Table, column: str) -> list[str]:
    """Cells of a column of texts, each with something in it.

    Raises:
        ValueError: No rows, a cell that is no text, or an empty one.
    """
    cells = table.column(column)
    if not len(cells):
        raise ValueError(f"{table.source} holds no rows. A concept needs statements of both sides.")
    empty_cells = [i for i, cell in enumerate(cells) if is_missing(cell)]
    if empty_cells:
        raise ValueError(
            f"Column {column!r} of {table.source} is empty in {table.rows_at(empty_cells)}. "
            f"Fill these in or leave the rows out."
        )
    non_texts = [i for i, cell in enumerate(cells) if not isinstance(cell, str)]
    if non_texts:
        raise ValueError(
            f"Column {column!r} of {table.source} must hold text, got {cells[non_texts[0]]!r} "
            f"({table.rows_at(non_texts)}). Choose the column of the texts."
        )
    return list(cells)


def nested(table: Table, column: str) -> Sequence[Any]:
    """Cells of a column that holds lists or records.

    Raises:
        ValueError: A cell that is text, as in a CSV file, or nothing.
    """
    cells = table.column(column)
    flat = [i for i, cell in enumerate(cells) if isinstance(cell, str) or is_missing(cell)]
    if flat:
        raise ValueError(
            f"Column {column!r} of {table.source} must hold lists, got {cells[flat[0]]!r} "
            f"({table.rows_at(flat)}). Take the data set's Parquet file: a CSV file has no lists."
        )
    return cells


def group_names(table: Table, column: str) -> list[str]:
    """Cells of a column that names groups, as text.

    Raises:
        ValueError: An empty cell.
    """
    cells = table.column(column)
    empty_cells = [i for i, cell in enumerate(cells) if is_missing(cell)]
    if empty_cells:
        raise ValueError(
            f"Column {column!r} of {table.source} names no group in {table.rows_at(empty_cells)}. "
            f"Give a statement that stands alone a name of its own."
        )
    # Groups are compared as text, so that 7 in a table and in a file are the same.
    return [str(cell) for cell in cells]


def binary_labels(table: Table, column: str) -> Int[np.ndarray, " example"]:
    """Cells of a column of labels, as 0 and 1; both occur.

    Raises:
        ValueError: A missing label, one that is neither 0 nor 1, or one label only.
    """
    cells = table.column(column)
    empty_cells = [i for i, cell in enumerate(cells) if is_missing(cell)]
    if empty_cells:
        raise ValueError(
            f"Column {column!r} of {table.source} has no label in {table.rows_at(empty_cells)}. "
            f"Label these rows or leave them out."
        )
    parsed_labels = [as_label(cell) for cell in cells]
    strange = [i for i, label in enumerate(parsed_labels) if label is None]
    if strange:
        kinds = list(dict.fromkeys(repr(cells[i]) for i in strange))
        listing = ", ".join(kinds[:5]) + (", …" if len(kinds) > 5 else "")
        raise ValueError(
            f"Labels must be 0 or 1, but column {column!r} of {table.source} holds {listing} "
            f"({table.rows_at(strange)}). Map them to 0 and 1, or leave these rows out."
        )
    labels = np.array(parsed_labels, dtype=np.int64)
    if len(set(parsed_labels)) == 1:
        raise ValueError(
            f"Column {column!r} of {table.source} holds the label {parsed_labels[0]} in all "
            f"{len(parsed_labels)} "
            f"rows. A concept needs statements with 0 and statements with 1: add the other side, "
            f"or choose another column."
        )
    return labels


def is_missing(cell: object) -> bool:
    """Whether a cell is None, NaN (pandas' kinds too), or text with nothing but white space."""
    # By name, so that pandas need not be imported.
    if cell is None or type(cell).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(cell, float):
        return math.isnan(cell)
    return isinstance(cell, str) and not cell.strip()


def as_label(cell: object) -> int | None:
    """The label, 0 or 1, that a cell holds in any of its spellings; None where it holds neither.

    Examples:
        >>> as_label("1.0"), as_label(" False"), as_label("yes")
        (1, 0, None)
    """
    if isinstance(cell, bool | np.bool_):
        return int(cell)
    if isinstance(cell, str):
        text = cell.strip().casefold()
        if text in ("true", "false"):
            return int(text == "true")
        try:
            # Programs that hold a column with gaps write its whole numbers as 1.0.
            cell = float(text)
        except ValueError:
            return None
    return int(cell == 1) if isinstance(cell, Real) and cell in (0, 1) else None
