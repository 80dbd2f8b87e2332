"""Scores of single statements, kept by a sweep in its run folder."""

import os
from pathlib import Path

import numpy as np
import xarray as xr

from tlens_trust.tracing.assembly import assemble_trace_data
from tlens_trust.tracing.provenance import listed
from tlens_trust.tracing.run_folder import RunFolder, provenance_of


def load_scores(
    run_folder: str | os.PathLike[str], concept: str, *, variable: str = "score"
) -> xr.DataArray:
    """Read what a sweep kept of every statement: held-out scores, for one concept.

    A statement has the same number, label, group and fold at every checkpoint, so that
    checkpoints can be compared statement by statement.

    Args:
        run_folder: The `out=` of a sweep.
        concept: Its name.
        variable: `"score"`, the held-out log-odds of label 1 in nats, or another variable that a
            measure gives by statement.

    Returns:
        The variable with the dimensions `checkpoint`, `site` and `example` (and `probe` where
        several measures give it); NaN where a cell is not finished. Along `example` stand the
        coordinates `label`, `group`, `statement`, and `fold` where all probes share the folds;
        along `checkpoint` and `site` those of a `Trace`.

    Raises:
        ValueError: The folder is no run folder, does not hold the concept, nothing of the concept
            is finished, or no measure gave such a variable.

    Example:
        >>> scores = load_scores("run", "toxicity")  # doctest: +SKIP
        >>> right = (scores > 0) == (scores.label == 1)  # doctest: +SKIP
    """
    run = RunFolder(Path(run_folder))
    statements = run.read_concept(concept)
    checkpoints = run.checkpoints()
    cells = {}
    for name, (_, identities) in checkpoints.items():
        cell = run.read_cell(name, concept, run.cell_key(identities, concept))
        if cell is not None:
            cells[name] = cell
    if not cells:
        raise ValueError(
            f"Nothing of {concept!r} in the run folder {str(run.path)!r} is finished yet. Call the "
            "sweep with the same arguments; it continues."
        )
    first = next(iter(cells.values()))
    by_example = [n for n, v in first.data_vars.items() if {"example", "site"} <= set(v.dims)]
    if variable not in by_example:
        raise ValueError(
            f"The run folder {str(run.path)!r} holds no {variable!r} by statement. It holds "
            f"{listed(by_example)}."
        )
    records = [record for name, (record, _) in checkpoints.items() if name in cells]
    data = assemble_trace_data(
        # What is known by statement is assembled like any other variable.
        {(name, concept): cell[[variable]].rename(example="row") for name, cell in cells.items()},
        records,
        {concept: run.manifest["concepts"][concept]},
        provenance=provenance_of(run.manifest),
    )
    scores = data[variable].isel(concept=0).rename(row="example")
    scores = scores.transpose("checkpoint", ..., "example")
    folds = [
        fold
        for cell in cells.values()
        if "fold" in cell
        for fold in np.atleast_2d(cell["fold"].transpose(..., "example").values)
    ]
    if folds and all(np.array_equal(fold, folds[0]) for fold in folds):
        scores = scores.assign_coords(fold=("example", folds[0]))
    return scores.assign_coords(
        label=("example", np.array(statements.labels)),
        group=("example", np.array(statements.groups)),
        statement=("example", np.array(statements.statements)),
    )
