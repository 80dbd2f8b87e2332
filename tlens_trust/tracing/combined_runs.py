"""Combining the traces of several series: seeds of one model, or sizes of one family.

One training run is one sample: a change at some step may be chance. Several seeds show which
changes are not. Layers of models of several sizes do not match one to one, so their sites are
compared by depth, the fraction of the blocks up to the site.
"""

import json
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import xarray as xr

from tlens_trust.tracing.provenance import listed
from tlens_trust.tracing.trace import Trace

# These coordinates of a checkpoint differ from run to run by nature.
_RUN_COORDINATES = ("revision", "identity", "loss")


def combine_runs(traces: Mapping[str, Trace], *, by: Literal["step", "tokens"] = "step") -> Trace:
    """Combine the traces of several series into one, along a new axis `run`.

    Checkpoints are matched by step or by tokens. A step, site or concept that a run lacks is NaN;
    nothing is interpolated.

    Args:
        traces: Traces by the name of the run, such as `{"seed 1": ..., "seed 2": ...}`.
        by: What checkpoints are matched by.

    Returns:
        A trace with the axis `run` on every variable. Labels of `checkpoint` are `step512` or the
        like. The coordinates `loss`, `revision` and `identity` have the axis `run` too. So have
        `depth`, and `step` or `tokens` (whichever did not match checkpoints), if runs differ in
        them.

    Raises:
        ValueError: There are fewer than two traces, a trace holds several runs, the step of a
            checkpoint is unknown or occurs twice, or units differ.

    Examples:
        >>> import xarray as xr
        >>> def seed(last):
        ...     return Trace(xr.Dataset(
        ...         {"accuracy": (("concept", "checkpoint", "site"), [[[0.5], [last]]],
        ...                       {"units": "fraction", "long_name": "accuracy"})},
        ...         coords={"concept": ["truth"], "checkpoint": ["a", "b"], "site": ["x"],
        ...                 "step": ("checkpoint", [0, 8]), "layer": ("site", [0])}))
        >>> both = combine_runs({"seed 1": seed(0.9), "seed 2": seed(0.8)})
        >>> both.data.accuracy.sel(checkpoint="step8").mean("run").round(2).item()
        0.85
    """
    if len(traces) < 2:
        raise ValueError(f"`combine_runs` needs two or more traces, got {listed(list(traces))}.")
    if by not in ("step", "tokens"):
        raise ValueError(f"Checkpoints are matched by 'step' or by 'tokens', got {by!r}.")
    datasets = {name: _labelled_by_count(name, trace, by) for name, trace in traces.items()}
    _check_units(datasets)
    data = xr.concat(
        list(datasets.values()),
        dim=xr.DataArray(list(datasets), dims="run", name="run"),
        join="outer",
        # Coordinates are those of the first run here. The matched ones replace them below.
        coords="minimal",
        compat="override",
        data_vars="all",
        combine_attrs="drop_conflicts",
    )
    data = data.assign_coords(_matched_coordinates(data, datasets, by))
    # An outer join sorts labels as texts, in which 'step1000' comes before 'step2'.
    data = data.sortby("checkpoint_order").drop_vars("checkpoint_order")
    models = list(
        dict.fromkeys(str(trace.data.attrs.get("model", "")) for trace in traces.values())
    )
    provenance = {"runs": {name: trace.provenance for name, trace in traces.items()}}
    return Trace(
        data.assign_attrs(
            model=", ".join(models), provenance=json.dumps(provenance, sort_keys=True)
        )
    )


def _labelled_by_count(name: str, trace: Trace, by: str) -> xr.Dataset:
    data = trace.data
    if "run" in data.dims:
        raise ValueError(
            f"{name!r} holds the runs {listed(data['run'].values.tolist())} already. Combine the "
            "traces that they came from."
        )
    counts = np.asarray(data[by].values if by in data.coords else [np.nan], dtype=float)
    if not np.isfinite(counts).all():
        alternative = "tokens" if by == "step" else "step"
        raise ValueError(
            f"In {name!r} the {by} of some checkpoint is unknown. Match by {alternative!r}, or "
            "leave the checkpoint out."
        )
    if len(set(counts.tolist())) < len(counts):
        raise ValueError(
            f"In {name!r} two checkpoints have the same {by}. Choose one training stage with "
            "`trace.sel(stage=...)`."
        )
    labels = [f"{by if by == 'step' else 'tokens'}{count:.0f}" for count in counts]
    # A cell that a run lacks becomes NaN, which whole numbers cannot be.
    data = data.map(lambda v: v if v.dtype.kind == "f" else v.astype(float), keep_attrs=True)
    return data.assign_coords(checkpoint=labels)


def _check_units(datasets: Mapping[str, xr.Dataset]) -> None:
    units: dict[str, tuple[str, str]] = {}
    for run, data in datasets.items():
        for name, variable in data.data_vars.items():
            unit = str(variable.attrs["units"])
            first_run, first_unit = units.setdefault(str(name), (run, unit))
            if unit != first_unit:
                raise ValueError(
                    f"{name!r} is in {first_unit!r} in {first_run!r} and in {unit!r} in {run!r}. "
                    "Trace both runs with the same version of this package."
                )


def _matched_coordinates(
    data: xr.Dataset, datasets: Mapping[str, xr.Dataset], by: str
) -> dict[str, Any]:
    """Collect the coordinates of checkpoints, sites and concepts from all runs."""
    coordinates: dict[str, Any] = {}
    for axis in ("checkpoint", "site", "concept"):
        names = data[axis].values.tolist()
        of_axis = {
            str(name): coordinate.attrs
            for dataset in datasets.values()
            for name, coordinate in dataset.coords.items()
            if coordinate.dims == (axis,) and name != axis
        }
        for name, attributes in of_axis.items():
            text = any(
                dataset[name].dtype.kind in "US"
                for dataset in datasets.values()
                if name in dataset.coords
            )
            rows = [
                _values_at(dataset, axis, name, names, text=text) for dataset in datasets.values()
            ]
            common = _common_values(rows)
            is_of_run = axis == "checkpoint" and name in _RUN_COORDINATES
            if common is None or is_of_run:
                coordinates[name] = (("run", axis), np.stack(rows), attributes)
            else:
                coordinates[name] = (axis, _original_kind(common, datasets, name), attributes)
    # Runs agree on what they are matched by, so that this coordinate has no axis `run`.
    order = np.asarray(coordinates[by][1], dtype=float)
    coordinates["checkpoint_order"] = ("checkpoint", order)
    if np.ndim(np.asarray(coordinates["step"][1])) > 1:
        # A trace needs one step for each checkpoint. If runs differ in it, it is unknown.
        coordinates["step_of_run"] = coordinates["step"]
        coordinates["step"] = ("checkpoint", np.full(len(order), np.nan), {"units": "steps"})
    return coordinates


def _values_at(
    data: xr.Dataset, axis: str, name: str, names: list[str], *, text: bool
) -> np.ndarray:
    """The values of one run's coordinate at the labels of all runs; NaN or "" where it has none."""
    if name not in data.coords:
        return np.full(len(names), "" if text else np.nan)
    values = dict(zip(data[axis].values.tolist(), data[name].values.tolist(), strict=True))
    if data[name].dtype.kind in "US":
        return np.array([values.get(label, "") for label in names])
    return np.array([values.get(label, np.nan) for label in names], dtype=float)


def _common_values(rows: list[np.ndarray]) -> np.ndarray | None:
    """The values that all runs agree on, as far as they have them; None if two differ."""
    common = rows[0].copy()
    for row in rows[1:]:
        if row.dtype.kind == "U":
            # A numpy text has a fixed width, which would cut a longer one.
            common = common.astype(np.result_type(common.dtype, row.dtype))
            in_common, in_row = common != "", row != ""
        else:
            in_common, in_row = np.isfinite(common), np.isfinite(row)
        if (common[in_common & in_row] != row[in_common & in_row]).any():
            return None
        common[~in_common] = row[~in_common]
    return common


def _original_kind(common: np.ndarray, datasets: Mapping[str, xr.Dataset], name: str) -> np.ndarray:
    """Turn floats back into whole numbers or truth values, if none is unknown."""
    kind = next(data[name].dtype for data in datasets.values() if name in data.coords)
    if kind.kind not in "iub" or not np.isfinite(common).all():
        return common
    return common.astype(kind)
