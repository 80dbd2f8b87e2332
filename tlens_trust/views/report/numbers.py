"""The numbers of a trace, within a page, as files to download."""

import base64
import gzip
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from tlens_trust.tracing import Trace

# Characters that one page spends on the table of cells, and on each that has further axes.
_BUDGET = 1_600_000
_BUDGET_BESIDE = 400_000
# Of noisy numbers, how many cells come to about the former.
_CELLS = 900_000
# Coordinates that go with every row; the page tells the others once.
_KEPT = ("step", "tokens", "layer")
_CELL_AXES = ("concept", "checkpoint", "site", "probe", "run")
_OF_A_CELL = {*_CELL_AXES, "bound"}


@dataclass(frozen=True)
class Download:
    """A table within a page.

    Attributes:
        name: Of the file.
        about: What a row is.
        packed: Gzipped CSV, in base64.
        rows: How many.
        columns: Their names.
        left_out: Columns that would make the page too large, or another selection that was made.
    """

    name: str
    about: str
    packed: str
    rows: int
    columns: tuple[str, ...]
    left_out: str = ""


def downloads(trace: Trace, matrices: Sequence[xr.Dataset] = ()) -> list[Download]:
    """The tables of a trace and of its steering matrices, as large as a page can bear.

    Args:
        trace: Any.
        matrices: What `steering_matrix` gives.
    """
    found = [_cells(trace)]
    for axes, names in _with_further_axes(trace).items():
        found.append(_beside(trace, axes, names))
    for matrix in matrices:
        frame = _tidy(matrix)
        about = re.sub(r"\W+", "_", str(matrix.attrs.get("concept", "matrix")))
        name = f"steering_{about}.csv"
        found.append(_packed(name, "one a source and target", frame))
    return found


def _cells(trace: Trace) -> Download:
    frame = _laid_out(trace)
    names = [str(column) for column in frame]
    # The number of statements of what is in another table says nothing here.
    names = [n for n in names if not (n.endswith("_n") and n.removesuffix("_n") not in names)]
    about = "one a concept, checkpoint and site"
    columns = _most_wanted([name for name in names if name not in trace.data.coords], trace)
    count = len(columns) if len(frame) * len(columns) <= _CELLS else _CELLS // len(frame)
    while True:
        count = max(1, count)
        left = {*columns[count:]}
        made = _packed("trace.csv", about, frame[[name for name in names if name not in left]])
        if len(made.packed) <= _BUDGET or count == 1:
            break
        count = int(0.95 * count * _BUDGET / len(made.packed))
    if not left:
        return made
    told = f"{len(left)} of {len(columns)} columns are left out"
    return Download(made.name, about, made.packed, made.rows, made.columns, told)


def _laid_out(trace: Trace, *variables: str) -> pd.DataFrame:
    """The tidy table without what the page tells of each checkpoint and concept elsewhere."""
    frame = trace.to_frame(*variables)
    kept = {*trace.data.dims, *(() if variables else _KEPT)}
    told = [name for name in trace.data.coords if name not in kept]
    return frame.drop(columns=[name for name in told if name in frame])


def _most_wanted(columns: Sequence[str], trace: Trace) -> list[str]:
    """Columns by what a reader misses most: accuracy with all of its own, then values alone."""

    def rank(column: str) -> int:
        if column.startswith("accuracy"):
            return 0
        return 1 if column in trace.quantities else 2

    return sorted(columns, key=rank)


def _with_further_axes(trace: Trace) -> dict[tuple[str, ...], list[str]]:
    """Quantities, with interval, p and n, by the axes that they have besides a cell's."""
    data = trace.data
    found: dict[tuple[str, ...], list[str]] = {}
    for name in map(str, trace.quantities):
        axes = tuple(str(axis) for axis in data[name].dims if axis not in _OF_A_CELL)
        if not axes or "resample" in axes:
            continue
        own = [f"{name}{suffix}" for suffix in ("", "_ci", "_p", "_n")]
        found.setdefault(axes, []).extend(each for each in own if each in data)
    return found


def _beside(trace: Trace, axes: tuple[str, ...], names: Sequence[str]) -> Download:
    about = f"one a concept, checkpoint, site and {', '.join(axes)}"
    name = f"{names[0].removesuffix('_x')}.csv"
    if trace.data[list(names)].nbytes < 8 * _CELLS:
        made = _packed(name, about, _laid_out(trace, *names))
        if len(made.packed) <= _BUDGET_BESIDE:
            return made
    place: dict[str, Any] = {
        axis: trace.data[axis].values[trace.data.sizes[axis] // 2]
        for axis in axes
        if axis in ("width", "noise")
    }
    if "variant" in axes:
        place["variant"] = "raw"
    values = [each for each in names if each in trace.quantities]
    fewer = Trace(trace.data[values].sel(place))
    made = _packed(name, about, _laid_out(fewer, *values))
    fit = max(1, int(len(values) * _BUDGET_BESIDE / len(made.packed)))
    if fit < len(values):
        made = _packed(name, about, _laid_out(fewer, *values[:fit]))
    told = ", ".join(f"{axis} {value}" for axis, value in place.items())
    told = f"values alone, of {told}; {', '.join(values[:fit])}"
    return Download(name, about, made.packed, made.rows, made.columns, told)


def _tidy(matrix: xr.Dataset) -> pd.DataFrame:
    """A row for each source and target: everything that is one number there, and its interval."""
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


def _packed(name: str, about: str, frame: pd.DataFrame) -> Download:
    """Four significant digits of each number, packed."""
    text = frame.to_csv(index=False, float_format="%.4g")
    # Without a time in it, the same trace gives the same bytes.
    packed = gzip.compress(text.encode("utf-8"), compresslevel=6, mtime=0)
    coded = base64.b64encode(packed).decode("ascii")
    return Download(name, about, coded, len(frame), tuple(map(str, frame.columns)))
