"""Several series side by side: seeds of one model, or sizes of one family.

One training run is one draw: what happens at a step of it may be luck. Several seeds say what is
not. Sizes have layers that do not match one to one, so that their sites stand by depth, the
fraction of the blocks behind them.
"""

import json
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import xarray as xr

from tlens_trust.tracing.provenance import listed
from tlens_trust.tracing.trace import Trace

# Of a checkpoint, these are each run's own.
_OF_A_RUN = ("revision", "identity", "loss")


def combine_runs(traces: Mapping[str, Trace], *, by: Literal["step", "tokens"] = "step") -> Trace:
    """Put the traces of several series into one, along a new axis `run`.

    Checkpoints of the same step (or of as many tokens) stand together. What a run does not have, a
    step, a site of a larger model, a concept, is NaN there: nothing is interpolated.

    Args:
        traces: By the name of each run, as `{"seed 1": ..., "seed 2": ...}`.
        by: What makes two checkpoints the same.

    Returns:
        A trace with the axis `run` on every variable. `checkpoint` is called `step512` or the
        like; `loss`, `revision` and `identity` go along `run` too, and so does the one of `step`
        and `tokens` that checkpoints were not matched by, where runs differ in it, and `depth`,
        where their depths differ.

    Raises:
        ValueError: There are fewer than two traces, one of them holds several runs or has a
            checkpoint whose step is unknown or stands twice, or their units differ.

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
        raise ValueError(f"Runs to combine are two or more, got {listed(list(traces))}.")
    if by not in ("step", "tokens"):
        raise ValueError(f"Checkpoints are matched by 'step' or by 'tokens', got {by!r}.")
    prepared = {name: _prepared(name, trace, by) for name, trace in traces.items()}
    _check_units(prepared)
    data = xr.concat(
        list(prepared.values()),
        dim=xr.DataArray(list(prepared), dims="run", name="run"),
        join="outer",
        coords="minimal",
        compat="override",
        data_vars="all",
        combine_attrs="drop_conflicts",
    )
    data = data.assign_coords(_matched_coordinates(data, prepared, by))
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


def _prepared(name: str, trace: Trace, by: str) -> xr.Dataset:
    data = trace.data
    if "run" in data.dims:
        raise ValueError(
            f"{name!r} holds the runs {listed(data['run'].values.tolist())} already. Combine the "
            "traces that they came from."
        )
    counts = np.asarray(data[by].values if by in data.coords else [np.nan], dtype=float)
    if not np.isfinite(counts).all():
        other = "tokens" if by == "step" else "step"
        raise ValueError(
            f"In {name!r} the {by} of some checkpoint is unknown. Match by {other!r}, or leave "
            "the checkpoint out."
        )
    if len(set(counts.tolist())) < len(counts):
        raise ValueError(
            f"In {name!r} two checkpoints have the same {by}. Choose one training stage with "
            "`trace.sel(stage=...)`."
        )
    labels = [f"{by if by == 'step' else 'tokens'}{count:.0f}" for count in counts]
    # Whole numbers cannot say that they are unknown, which they are where a run lacks a cell.
    data = data.map(lambda v: v if v.dtype.kind == "f" else v.astype(float), keep_attrs=True)
    return data.assign_coords(checkpoint=labels)


def _check_units(prepared: Mapping[str, xr.Dataset]) -> None:
    units: dict[str, tuple[str, str]] = {}
    for run, data in prepared.items():
        for name, variable in data.data_vars.items():
            unit = str(variable.attrs["units"])
            first, known = units.setdefault(str(name), (run, unit))
            if unit != known:
                raise ValueError(
                    f"{name!r} is in {known!r} in {first!r} and in {unit!r} in {run!r}. Trace both "
                    "runs with the same version of this package."
                )


def _matched_coordinates(
    data: xr.Dataset, prepared: Mapping[str, xr.Dataset], by: str
) -> dict[str, Any]:
    """Coordinates of checkpoints and sites, from whichever run knows them."""
    found: dict[str, Any] = {}
    for axis in ("checkpoint", "site", "concept"):
        names = data[axis].values.tolist()
        of_axis = {
            str(name): coordinate.attrs
            for each in prepared.values()
            for name, coordinate in each.coords.items()
            if coordinate.dims == (axis,) and name != axis
        }
        for name, attributes in of_axis.items():
            text = any(
                each[name].dtype.kind in "US" for each in prepared.values() if name in each.coords
            )
            rows = [_along(each, axis, name, names, text=text) for each in prepared.values()]
            common = _common(rows)
            own = axis == "checkpoint" and name in _OF_A_RUN
            if common is None or own:
                found[name] = (("run", axis), np.stack(rows), attributes)
            else:
                found[name] = (axis, _as_it_was(common, prepared, name), attributes)
    order = np.asarray(found[by][1], dtype=float)
    found["checkpoint_order"] = ("checkpoint", order)
    if np.ndim(np.asarray(found["step"][1])) > 1:
        # A trace has steps along its checkpoints; where runs differ in them there is none.
        found["step_of_run"] = found["step"]
        found["step"] = ("checkpoint", np.full(len(order), np.nan), {"units": "steps"})
    return found


def _along(data: xr.Dataset, axis: str, name: str, names: list[str], *, text: bool) -> np.ndarray:
    """A coordinate of one run at the names of all runs; NaN, or "" of a text, where it has none."""
    if name not in data.coords:
        return np.full(len(names), "" if text else np.nan)
    own = dict(zip(data[axis].values.tolist(), data[name].values.tolist(), strict=True))
    if data[name].dtype.kind in "US":
        return np.array([own.get(each, "") for each in names])
    return np.array([own.get(each, np.nan) for each in names], dtype=float)


def _common(rows: list[np.ndarray]) -> np.ndarray | None:
    """What all runs that know it agree on; None where two do not."""
    common = rows[0].copy()
    for row in rows[1:]:
        if row.dtype.kind == "U":
            common = common.astype(np.result_type(common.dtype, row.dtype))
            known, other = common != "", row != ""
        else:
            known, other = np.isfinite(common), np.isfinite(row)
        if (common[known & other] != row[known & other]).any():
            return None
        common[~known] = row[~known]
    return common


def _as_it_was(common: np.ndarray, prepared: Mapping[str, xr.Dataset], name: str) -> np.ndarray:
    """Whole numbers and truth values again, where every one is known."""
    kind = next(data[name].dtype for data in prepared.values() if name in data.coords)
    if kind.kind not in "iub" or not np.isfinite(common).all():
        return common
    return common.astype(kind)
