"""Tables of a trace, as files to download from within a page."""

import base64
import gzip
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from tlens_trust.tracing import Trace

# The largest number of characters of the main table, and of each table with further axes.
_MAIN_BUDGET = 1_600_000
_EXTRA_BUDGET = 400_000
# So many noisy numbers take about as many characters as the main table may have.
_MAIN_CELLS = 900_000
# Coordinates that stand in every row; the page shows the others once, in its own tables.
_ROW_COORDINATES = ("step", "tokens", "layer")
_CELL_AXES = ("concept", "checkpoint", "site", "probe", "run")
_AXES_OF_A_CELL = {*_CELL_AXES, "bound"}


@dataclass(frozen=True)
class Download:
    """A table within a page.

    Attributes:
        name: Of the file.
        about: What a row is.
        packed: Gzipped CSV, in base64.
        rows: The number of rows.
        columns: Their names.
        left_out: Which columns or selections are missing because the page would become too large.
    """

    name: str
    about: str
    packed: str
    rows: int
    columns: tuple[str, ...]
    left_out: str = ""


def make_downloads(trace: Trace, matrices: Sequence[xr.Dataset] = ()) -> list[Download]:
    """Pack the tables of a trace and of its steering matrices, as far as a page has room.

    Args:
        trace: Any.
        matrices: What `steering_matrix` gives.
    """
    downloads = [_main_table(trace)]
    for axes, names in _names_by_extra_axes(trace).items():
        downloads.append(_extra_table(trace, axes, names))
    for matrix in matrices:
        concept = re.sub(r"\W+", "_", str(matrix.attrs.get("concept", "matrix")))
        downloads.append(
            _pack(f"steering_{concept}.csv", "one per source and target", _matrix_frame(matrix))
        )
    return downloads


def _main_table(trace: Trace) -> Download:
    frame = _row_frame(trace)
    names = [str(column) for column in frame]
    # The number of statements of a variable in another table means nothing here.
    names = [n for n in names if not (n.endswith("_n") and n.removesuffix("_n") not in names)]
    about = "one per concept, checkpoint and site"
    columns = _by_importance([name for name in names if name not in trace.data.coords], trace)
    fits = len(frame) * len(columns) <= _MAIN_CELLS
    count = len(columns) if fits else _MAIN_CELLS // len(frame)
    while True:
        count = max(1, count)
        left_out = {*columns[count:]}
        table = _pack("trace.csv", about, frame[[name for name in names if name not in left_out]])
        if len(table.packed) <= _MAIN_BUDGET or count == 1:
            break
        # Columns compress unequally. Five percent below the budget saves most further rounds.
        count = int(0.95 * count * _MAIN_BUDGET / len(table.packed))
    if not left_out:
        return table
    return replace(table, left_out=f"{len(left_out)} of {len(columns)} columns are left out")


def _row_frame(trace: Trace, *variables: str) -> pd.DataFrame:
    """The tidy table without coordinates that the page shows elsewhere."""
    frame = trace.to_frame(*variables)
    in_rows = {*trace.data.dims, *(() if variables else _ROW_COORDINATES)}
    return frame.drop(
        columns=[name for name in trace.data.coords if name not in in_rows and name in frame]
    )


def _by_importance(columns: Sequence[str], trace: Trace) -> list[str]:
    """Columns in the order in which a reader would miss them: accuracies, values, the others."""

    def rank(column: str) -> int:
        if column.startswith("accuracy"):
            return 0
        return 1 if column in trace.quantities else 2

    return sorted(columns, key=rank)


def _names_by_extra_axes(trace: Trace) -> dict[tuple[str, ...], list[str]]:
    """Variables with their intervals, p and n, by the axes that they have besides a cell's."""
    data = trace.data
    names_by_axes: dict[tuple[str, ...], list[str]] = {}
    for name in map(str, trace.quantities):
        axes = tuple(str(axis) for axis in data[name].dims if axis not in _AXES_OF_A_CELL)
        # Replicates are many, and intervals summarise them.
        if not axes or "resample" in axes:
            continue
        variables = [f"{name}{suffix}" for suffix in ("", "_ci", "_p", "_n")]
        names_by_axes.setdefault(axes, []).extend(v for v in variables if v in data)
    return names_by_axes


def _extra_table(trace: Trace, axes: tuple[str, ...], names: Sequence[str]) -> Download:
    about = f"one per concept, checkpoint, site and {', '.join(axes)}"
    file_name = f"{names[0].removesuffix('_x')}.csv"
    # Eight bytes a number. Writing a larger table only to discard it would take long.
    if trace.data[list(names)].nbytes < 8 * _MAIN_CELLS:
        table = _pack(file_name, about, _row_frame(trace, *names))
        if len(table.packed) <= _EXTRA_BUDGET:
            return table
    selection: dict[str, Any] = {
        # Widths and levels of noise are swept in order, to both sides of the middle one.
        axis: trace.data[axis].values[trace.data.sizes[axis] // 2]
        for axis in axes
        if axis in ("width", "noise")
    }
    if "variant" in axes:
        selection["variant"] = "raw"
    values = [name for name in names if name in trace.quantities]
    partial_trace = Trace(trace.data[values].sel(selection))
    table = _pack(file_name, about, _row_frame(partial_trace, *values))
    count = max(1, int(len(values) * _EXTRA_BUDGET / len(table.packed)))
    if count < len(values):
        table = _pack(file_name, about, _row_frame(partial_trace, *values[:count]))
    place = ", ".join(f"{axis} {value}" for axis, value in selection.items())
    return replace(table, left_out=f"values only, at {place}; {', '.join(values[:count])}")


def _matrix_frame(matrix: xr.Dataset) -> pd.DataFrame:
    """One row per source and target, with every number that they have, and its interval."""
    columns: dict[str, xr.DataArray] = {}
    for name, variable in matrix.data_vars.items():
        axes = {str(axis) for axis in variable.dims}
        if not {"source", "target"} <= axes or not np.issubdtype(variable.dtype, np.number):
            continue
        if axes == {"source", "target"}:
            columns[str(name)] = variable
        elif axes == {"source", "target", "bound"}:
            for bound in ("low", "high"):
                stem = str(name).removesuffix("_ci")
                columns[f"{stem}_{bound}"] = variable.sel(bound=bound, drop=True)
    flat = xr.Dataset(columns)
    return flat.to_dataframe(dim_order=["source", "target"]).reset_index()


def _pack(name: str, about: str, frame: pd.DataFrame) -> Download:
    """Write four significant digits of each number, and compress them."""
    text = frame.to_csv(index=False, float_format="%.4g")
    # Without a time in it, the same trace gives the same bytes.
    compressed = gzip.compress(text.encode("utf-8"), compresslevel=6, mtime=0)
    base64_text = base64.b64encode(compressed).decode("ascii")
    return Download(name, about, base64_text, len(frame), tuple(map(str, frame.columns)))
