"""Assembling the data set of a `Trace` from cells.

Whatever compares checkpoints with each other is computed here, since a cell is independent of all
others.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
import xarray as xr
from einops import rearrange
from jaxtyping import Bool

from tlens_trust.activations.sites import site_head
from tlens_trust.checkpoints import Checkpoint
from tlens_trust.concepts import Concept
from tlens_trust.measures.multiplicity import benjamini_hochberg
from tlens_trust.tracing.cells import cell_seed
from tlens_trust.tracing.provenance import now
from tlens_trust.tracing.replicates import pack_replicates
from tlens_trust.tracing.untrained_comparison import UntrainedComparison, untrained_levels


@dataclass(frozen=True)
class CheckpointRecord:
    """A checkpoint as a trace and a run folder record it.

    Attributes:
        name: Its label on the `checkpoint` axis.
        model: Hub id, folder or label.
        revision: Branch, tag or folder name, or None.
        step: Optimiser steps, or None.
        tokens: Tokens seen, or None.
        stage: Stage of training, or None.
        loss: Training loss in nats a token, or None.
        identity: Hash of the weights' content.
        drawn: Whether these are random weights that a sweep added for comparison. They are not on
            the `checkpoint` axis.
        untrained: Name of the random weights that this checkpoint is compared with. "" stands for
            step 0 of the same model, if that is among the checkpoints; None for no comparison.
    """

    name: str
    model: str
    revision: str | None
    step: int | None
    tokens: int | None
    stage: str | None
    loss: float | None
    identity: str
    drawn: bool = False
    untrained: str | None = ""

    @classmethod
    def of(
        cls, checkpoint: Checkpoint, *, drawn: bool = False, untrained: str | None = ""
    ) -> "CheckpointRecord":
        """Record a checkpoint, its identity, and the weights that it is compared with."""
        return cls(
            name=checkpoint.name,
            model=str(checkpoint.model),
            revision=checkpoint.revision,
            step=checkpoint.step,
            tokens=checkpoint.tokens,
            stage=checkpoint.stage,
            loss=checkpoint.loss,
            identity=checkpoint.identity,
            drawn=drawn,
            untrained=untrained,
        )


def is_step_0(checkpoint: Checkpoint | CheckpointRecord) -> bool:
    """Whether a checkpoint holds a run's own weights from before training.

    Step 0 does not if it begins a later stage, if tokens have been seen before, or if steps count
    saved checkpoints (`ckpt_000`).
    """
    return _has_seen_nothing(
        checkpoint.step, checkpoint.tokens, checkpoint.stage, checkpoint.revision
    )


def at_step_0(data: xr.Dataset) -> Bool[np.ndarray, " checkpoint"]:
    """Find the checkpoints of a trace that are weights from before training, as `is_step_0`."""
    columns = [
        data[name].values.tolist() if name in data.coords else [None] * data.sizes["checkpoint"]
        for name in ("step", "tokens", "stage", "revision")
    ]
    return np.array([_has_seen_nothing(*row) for row in zip(*columns, strict=True)], dtype=bool)


def _has_seen_nothing(
    step: int | float | None,
    tokens: int | float | None,
    stage: str | None,
    revision: str | None,
) -> bool:
    # 'stage1' and a stage without a number begin training; 'stage2' begins with trained weights.
    is_first_stage = not stage or re.sub(r"\D", "", stage) in ("", "1")
    counts_checkpoints = re.fullmatch(r"ckpt_\d+", revision or "") is not None
    # Unknown tokens are NaN in a trace.
    no_tokens = not tokens or tokens != tokens
    return step == 0 and no_tokens and is_first_stage and not counts_checkpoints


def find_untrained(
    record: CheckpointRecord, records: Sequence[CheckpointRecord]
) -> CheckpointRecord | None:
    """Find the untrained weights that a checkpoint is compared with; None if there are none."""
    if record.untrained is None:
        return None
    if record.untrained:
        return next((r for r in records if r.name == record.untrained), None)
    step_0 = (r for r in records if not r.drawn and r.model == record.model and is_step_0(r))
    return next(step_0, None)


def in_training_order(records: Sequence[CheckpointRecord]) -> list[CheckpointRecord]:
    """Sort by stage (in order of appearance), then by step, with unknown steps last."""
    # Stages may count their steps anew, so that steps alone would mix two stages.
    stages = list(dict.fromkeys(record.stage for record in records))
    return sorted(
        records,
        key=lambda r: (stages.index(r.stage), np.inf if r.step is None else r.step),
    )


def assemble_trace_data(
    cells: Mapping[tuple[str, str], xr.Dataset],
    checkpoints: Sequence[CheckpointRecord],
    concepts: Mapping[str, Mapping[str, Any]],
    *,
    provenance: Mapping[str, Any],
    statements: Mapping[str, Concept] | None = None,
    against: Sequence[CheckpointRecord] = (),
) -> xr.Dataset:
    """Assemble cells into the data set of a `Trace`.

    The smallest p-value over sites (`accuracy_p_best`) is corrected for all concepts and
    checkpoints that are assembled (`accuracy_q`). So `accuracy_q` of a cell depends on the other
    cells.

    Args:
        cells: Cells by names of checkpoint and concept, as `measure_cell` gives them. A cell that
            is missing becomes NaN.
        checkpoints: The checkpoints along the `checkpoint` axis, in order.
        concepts: The result of `concept_provenance` for each concept along the `concept` axis.
        provenance: What else the trace was made with.
        statements: The concepts that are compared with untrained weights, by name. Their scores are
            joined by `…_untrained` and `accuracy_above_untrained`.
        against: Untrained weights that have cells, but are not on the axis.

    Returns:
        The data of a `Trace`, without variables along `example`. Replicates (`…_draws`) take a byte
        each; `unpack_replicates` gives them in their own unit.
    """
    cells, weights_note = _compare_with_untrained(
        cells, checkpoints, against, statements or {}, provenance
    )
    labels = _axis_labels(cells)
    grid = [(record.name, concept) for concept in concepts for record in checkpoints]
    present = [cells[key] for key in grid if key in cells]
    names = dict.fromkeys(
        name for cell in present for name, v in cell.data_vars.items() if "example" not in v.dims
    )
    variables: dict[Any, tuple[tuple[Any, ...], np.ndarray, dict[Any, Any]]] = {}
    for name in names:
        shaped = next(cell[name] for cell in present if name in cell)
        array = _side_by_side(name, shaped, [cells.get(key) for key in grid], labels)
        array = rearrange(
            array, "(concept checkpoint) ... -> concept checkpoint ...", concept=len(concepts)
        )
        attributes = _common_attributes([cell[name].attrs for cell in present if name in cell])
        variables[name] = (("concept", "checkpoint", *shaped.dims), array, attributes)
    for name in variables:
        if str(name).endswith(("_untrained", "accuracy_above_untrained")):
            variables[name][2]["untrained"] = weights_note
    variables.update(_corrected_p_values(variables))
    variables = pack_replicates(variables)
    data = xr.Dataset(variables, coords={**labels, "concept": list(concepts)})
    data = data.assign_coords(checkpoint=[record.name for record in checkpoints])
    return (
        data.assign_coords(_concept_coordinates(concepts))
        .assign_coords(_checkpoint_coordinates(checkpoints))
        .assign_coords(_site_coordinates(present, labels["site"]))
        .assign_attrs(_trace_attributes(checkpoints, concepts, provenance))
    )


def _compare_with_untrained(
    cells: Mapping[tuple[str, str], xr.Dataset],
    checkpoints: Sequence[CheckpointRecord],
    against: Sequence[CheckpointRecord],
    statements: Mapping[str, Concept],
    provenance: Mapping[str, Any],
) -> tuple[dict[tuple[str, str], xr.Dataset], str]:
    """Add the scores of untrained weights to cells, and name these weights."""
    records = [*checkpoints, *against]
    untrained = {record.name: find_untrained(record, records) for record in checkpoints}
    comparisons = {
        name: UntrainedComparison(
            concept, seed=cell_seed(int(provenance["settings"]["seed"]), concept)
        )
        for name, concept in statements.items()
    }
    compared_names = {record.name for record in checkpoints if record.untrained is not None}
    compared_cells = {}
    for (checkpoint, concept), cell in cells.items():
        # Untrained weights that are not on the axis have cells only to compare with.
        if checkpoint not in untrained:
            continue
        if concept in comparisons and checkpoint in compared_names:
            record = untrained[checkpoint]
            untrained_cell = None if record is None else cells.get((record.name, concept))
            cell = cell.assign(comparisons[concept].compare(cell, untrained_cell).data_vars)
            cell = cell.assign(untrained_levels(cell, untrained_cell))
        compared_cells[checkpoint, concept] = cell
    names = dict.fromkeys(record.name for record in untrained.values() if record is not None)
    note = ", ".join(names)
    if None in untrained.values():
        reason = provenance["arguments"].get("untrained_unknown") or "there is no step 0"
        note = f"{note}; for others unknown: {reason}" if note else f"unknown: {reason}"
    return compared_cells, note


def _corrected_p_values(
    variables: Mapping[Any, tuple[tuple[Any, ...], np.ndarray, dict[Any, Any]]],
) -> dict[str, tuple[tuple[Any, ...], np.ndarray, dict[Any, Any]]]:
    """Correct the p-value of the best site for the number of concepts and checkpoints.

    Each probe is corrected separately, as if it were the only one.
    """
    q_values = {}
    for name, (dims, array, attributes) in variables.items():
        stem = str(name).removesuffix("_p_best")
        if stem == name or "site" not in dims:
            continue
        # fmin ignores NaN, unless all are NaN.
        smallest = np.fmin.reduce(array, axis=dims.index("site"))
        # The first two axes are concept and checkpoint. Each label of a further axis is a family.
        families = np.moveaxis(smallest.reshape(*smallest.shape[:2], -1), -1, 0)
        q = np.stack([benjamini_hochberg(family) for family in families], axis=-1)
        q_values[f"{stem}_q"] = (
            tuple(dim for dim in dims if dim != "site"),
            q.reshape(smallest.shape),
            {
                **{key: attributes[key] for key in ("units", "permutations") if key in attributes},
                "long_name": "p-value of the best site, by the null of the maximum over sites, "
                "corrected for the concepts and checkpoints of the trace (Benjamini and Hochberg)",
            },
        )
    return q_values


def _axis_labels(cells: Mapping[tuple[str, str], xr.Dataset]) -> dict[Any, list[Any]]:
    """Collect the labels of every axis of the cells, in order of appearance."""
    # The inner dictionaries serve as sets that keep their order.
    labels: dict[Any, dict[Any, None]] = {}
    for cell in cells.values():
        # An axis that only variables by statement have, such as `left_out`, is none of a trace.
        axes = {axis for v in cell.data_vars.values() if "example" not in v.dims for axis in v.dims}
        # A trace has sites, even if no variable of its cells lies along them.
        axes.add("site")
        for axis, index in cell.indexes.items():
            if axis in axes:
                labels.setdefault(axis, {}).update(dict.fromkeys(index.tolist()))
    return {axis: list(axis_labels) for axis, axis_labels in labels.items()}


def _side_by_side(
    name: Any,
    shaped: xr.DataArray,
    cells: Sequence[xr.Dataset | None],
    labels: Mapping[Any, list[Any]],
) -> np.ndarray:
    sizes = [len(labels[axis]) if axis in labels else shaped.sizes[axis] for axis in shaped.dims]
    parts = []
    for cell in cells:
        part = None if cell is None or name not in cell else cell[name].transpose(*shaped.dims)
        if part is not None and all(
            axis not in labels or part.indexes[axis].tolist() == labels[axis] for axis in part.dims
        ):
            # The usual case: the cell has all labels, in their order.
            parts.append(part.values)
            continue
        # Another cell fills the places of its own labels. What it lacks stays unknown.
        hole = np.full(sizes, nan)
        if part is not None:
            positions = [
                [labels[axis].index(label) for label in part.indexes[axis].tolist()]
                if axis in labels
                else list(range(part.sizes[axis]))
                for axis in part.dims
            ]
            hole[np.ix_(*positions)] = part.values
        parts.append(hole)
    return np.stack(parts)


def _common_attributes(attributes: Sequence[Mapping[Any, Any]]) -> dict[Any, Any]:
    """Keep the attributes that all cells share. Others, such as `groups`, differ by concept."""
    reference, *further_attributes = attributes
    return {
        key: value
        for key, value in reference.items()
        if all(key in other and other[key] == value for other in further_attributes)
    }


def _concept_coordinates(concepts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    def along(key: str) -> tuple[str, np.ndarray]:
        return "concept", np.array([entry[key] for entry in concepts.values()])

    return {
        "dimension": along("dimension"),
        "polarity": along("polarity"),
        "n_statements": (*along("statements"), {"units": "statements", "long_name": "statements"}),
        "n_groups": (*along("groups"), {"units": "groups", "long_name": "groups of statements"}),
    }


def _checkpoint_coordinates(checkpoints: Sequence[CheckpointRecord]) -> dict[str, Any]:
    def texts(key: str) -> tuple[str, np.ndarray]:
        values = [getattr(record, key) for record in checkpoints]
        return "checkpoint", np.array(["" if value is None else str(value) for value in values])

    def counts(key: str) -> tuple[str, np.ndarray]:
        values = [getattr(record, key) for record in checkpoints]
        # An unknown number is NaN, which only a float can be. Others stay whole numbers.
        if None in values:
            return "checkpoint", np.array([nan if v is None else v for v in values], dtype=float)
        return "checkpoint", np.array(values, dtype=np.int64)

    losses = [nan if record.loss is None else record.loss for record in checkpoints]
    return {
        "step": (*counts("step"), {"units": "steps", "long_name": "training step"}),
        "tokens": (*counts("tokens"), {"units": "tokens", "long_name": "tokens seen"}),
        "stage": texts("stage"),
        "revision": texts("revision"),
        "loss": (
            "checkpoint",
            np.array(losses, dtype=float),
            {"units": "nats/token", "long_name": "training loss"},
        ),
        "identity": texts("identity"),
    }


def _site_coordinates(cells: Sequence[xr.Dataset], sites: Sequence[str]) -> dict[str, Any]:
    layers_and_depths: dict[str, tuple[int, float]] = {}
    for cell in cells:
        for site, layer, depth in zip(
            cell["site"].values.tolist(),
            cell["layer"].values.tolist(),
            cell["depth"].values.tolist(),
            strict=True,
        ):
            layers_and_depths.setdefault(site, (layer, depth))
    return {
        **head_coordinate(sites),
        "layer": (
            "site",
            np.array([layers_and_depths[site][0] for site in sites], dtype=np.int64),
            {"units": "1", "long_name": "block, counted from 0"},
        ),
        "depth": (
            "site",
            np.array([layers_and_depths[site][1] for site in sites], dtype=float),
            {"units": "1", "long_name": "fraction of the blocks behind the site"},
        ),
    }


def head_coordinate(sites: Sequence[str]) -> dict[str, Any]:
    """Make the coordinate `head` of sites; NaN for a site that is no head. Empty without heads.

    Examples:
        >>> head_coordinate(["blocks.0.attn.hook_z[0]", "blocks.0.attn.hook_z[1]"])["head"][1]
        array([0, 1])
        >>> head_coordinate(["blocks.0.hook_resid_post"])
        {}
    """
    # In a user's own data, sites may have any name.
    heads = [site_head(site) if site.endswith("]") else None for site in sites]
    if heads == [None] * len(heads):
        return {}
    # None becomes NaN, which only a float can be.
    numbers = np.array(heads, dtype=float if None in heads else np.int64)
    return {"head": ("site", numbers, {"units": "1", "long_name": "head, counted from 0"})}


def _trace_attributes(
    checkpoints: Sequence[CheckpointRecord],
    concepts: Mapping[str, Mapping[str, Any]],
    provenance: Mapping[str, Any],
) -> dict[str, Any]:
    models = list(dict.fromkeys(record.model for record in checkpoints))
    settings = provenance["settings"]
    full_provenance = {**provenance, "models": models, "concepts": dict(concepts)}
    return {
        "model": ", ".join(models),
        "position": str(settings["position"]),
        "sites": str(settings["sites"]),
        "seed": str(settings["seed"]),
        "measures": "; ".join(settings["measures"]),
        "versions": ", ".join(f"{name} {v}" for name, v in provenance["versions"].items()),
        "created": now(),
        # Traces are compared by their attributes too, so that equal content needs equal text.
        "provenance": json.dumps(full_provenance, sort_keys=True),
    }
