"""Scores of single statements, which a sweep writes to its run folder."""

import os
from collections.abc import Sequence

import numpy as np
import xarray as xr

from tlens_trust.tracing.assembly import CheckpointRecord, assemble_trace_data
from tlens_trust.tracing.manifest import provenance_of
from tlens_trust.tracing.provenance import listed
from tlens_trust.tracing.run_folder import RunFolder


def load_scores(
    run_folder: str | os.PathLike[str], concept: str, *, variable: str = "score"
) -> xr.DataArray:
    """Load the held-out scores of every statement of one concept from a run folder.

    A statement has the same number, label, group and fold at every checkpoint, so that
    checkpoints can be compared statement by statement.

    Args:
        run_folder: The `out=` of a sweep.
        concept: Name of the concept.
        variable: `"score"`: the held-out log-odds of label 1 in nats. `"score_floor"`: those of a
            classifier of the text alone. `"score_fewer"`: those of probes that were fitted without
            one more fold, along `left_out`. Or another variable with the axis `example`.

    Returns:
        The variable with the dimensions `checkpoint`, `site` and `example`. It has `probe` if
        several measures give it, and no `site` if it belongs to none. Coordinates along `example`
        are `label`, `group`, `statement`, and `fold` if all probes share the folds. Those along
        `checkpoint` and `site` are as in a `Trace`.

    Raises:
        ValueError: The folder is no run folder or does not hold the concept, no cell of the concept
            is finished, or no measure gave such a variable.

    Examples:
        >>> scores = load_scores("run", "toxicity")  # doctest: +SKIP
        >>> is_correct = (scores > 0) == (scores.label == 1)  # doctest: +SKIP
    """
    data = load_run_variables(run_folder, concept, [variable, "fold"])
    if variable not in data or "example" not in data[variable].dims:
        raise ValueError(
            f"The run folder {str(run_folder)!r} holds no {variable!r} by statement. It holds "
            f"{listed(_statement_variables(run_folder, concept))}."
        )
    scores = data[variable].transpose("checkpoint", ..., "example")
    folds = np.empty((0, len(scores["example"])))
    if "fold" in data:
        folds = data["fold"].transpose(..., "example").values.reshape(-1, len(scores["example"]))
        # Rows of NaN are of probes or checkpoints that gave no folds.
        folds = folds[~np.isnan(folds).all(axis=1)]
    # NaN equals nothing, so that only folds that are all known become whole numbers.
    if len(folds) and (folds == folds[0]).all():
        scores = scores.assign_coords(fold=("example", folds[0].astype(np.int16)))
    return scores


def load_run_variables(
    run_folder: str | os.PathLike[str], concept: str, variables: Sequence[str]
) -> xr.Dataset:
    """Load several variables of one concept from a run folder, by statement or not.

    Args:
        run_folder: The `out=` of a sweep.
        concept: Name of the concept.
        variables: Names of the variables. A name that no measure gave is ignored.

    Returns:
        The variables along `checkpoint`, with the coordinates that `load_scores` describes, except
        `fold`, which is a variable.

    Raises:
        ValueError: The folder is no run folder, does not hold the concept, or no cell of the
            concept is finished.
    """
    run = RunFolder.at(run_folder)
    statements = run.read_concept(concept)
    records, cells = [], {}
    for name, (record, key) in _cell_keys(run, concept).items():
        cell = run.read_cell(name, concept, key, variables=variables)
        if cell is not None:
            records.append(record)
            # Assembling leaves out the axis `example`, but not an axis of another name.
            cells[name, concept] = cell.rename(example="row") if "example" in cell.dims else cell
    if not cells:
        raise ValueError(
            f"Nothing of {concept!r} in the run folder {str(run.path)!r} is finished yet. Call the "
            "sweep again with the same arguments to continue it."
        )
    manifest = run.manifest
    entries = {concept: manifest["concepts"][concept]}
    data = assemble_trace_data(cells, records, entries, provenance=provenance_of(manifest))
    data = data.isel(concept=0)
    if "row" not in data.dims:
        return data
    return data.rename(row="example").assign_coords(
        label=("example", np.array(statements.labels)),
        group=("example", np.array(statements.groups)),
        statement=("example", np.array(statements.statements)),
    )


def one_split_message(run_folder: str | os.PathLike[str]) -> str:
    """Write the error message for a run that trained on some statements and tested the others."""
    return (
        f"The run folder {str(run_folder)!r} was swept with one split (protocol='tracingllm'). "
        "Most statements were trained on and have no held-out score, and the tested ones may "
        "belong to the same groups. Sweep with `probe_checkpoints(…, "
        "protocol='grouped', out=…)` into another folder, and give that."
    )


def _statement_variables(run_folder: str | os.PathLike[str], concept: str) -> list[str]:
    """Names of the variables by statement in the first cell that can be read."""
    run = RunFolder.at(run_folder)
    # All cells have the same measures, so that one shows the variables of all.
    for name, (_, key) in _cell_keys(run, concept).items():
        cell = run.read_cell(name, concept, key)
        if cell is not None:
            dims = {str(variable): cell[variable].dims for variable in cell.data_vars}
            return [n for n, axes in dims.items() if "example" in axes and n != "fold"]
    return []


def _cell_keys(run: RunFolder, concept: str) -> dict[str, tuple[CheckpointRecord, str]]:
    return {
        name: (record, run.cell_key(identities, concept))
        for name, (record, identities) in run.checkpoints().items()
    }
