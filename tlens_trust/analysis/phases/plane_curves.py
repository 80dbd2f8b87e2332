"""Single curves of an information plane, each with its null, its replicates and its controls."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from tlens_trust.analysis.phases.plane import FIRST_BLOCK, KERNELS

QUANTITIES = {"x": "I(T;X)", "y": "I(T;Y)"}
_LEAST_CHECKPOINTS = 3
_LEAST_RESAMPLES = 8


@dataclass(frozen=True, eq=False)
class Control:
    """The same quantity, measured in another way.

    Attributes:
        kind: `"rank-matched"`, `"width"`, `"noise"`, `"input"` or `"estimator"`.
        above_null: Its values less the mean of its null.
        draws: Its replicates.
    """

    kind: str
    above_null: Float[np.ndarray, " checkpoint"]
    draws: Float[np.ndarray, "resample checkpoint"]

    @property
    def blocks(self) -> bool:
        """Whether a claim has to survive it; otherwise it is only reported."""
        return self.kind in ("rank-matched", "width", "noise")


@dataclass(frozen=True, eq=False)
class Curve:
    """One quantity of one concept at one site, at the checkpoints where it is known.

    Attributes:
        concept: The concept.
        site: The site.
        quantity: `"I(T;X)"` or `"I(T;Y)"`.
        checkpoints: Names.
        steps: Steps of the checkpoints; NaN where unknown.
        position: Positions of the checkpoints, ascending.
        values: The curve.
        above_null: The curve less the mean of its null.
        draws: Its half-sample replicates.
        freedom: Degrees of freedom of their spread.
        controls: Its controls by name.
        missing: Kinds of controls that a claim would need and that were not measured.
        matched: Share of the directions that the rank-matched variant holds, the smallest over the
            checkpoints; NaN where unknown.
        why_unknown: Why the curve allows no statement; "" where it does.
    """

    concept: str
    site: str
    quantity: str
    checkpoints: tuple[str, ...]
    steps: Float[np.ndarray, " checkpoint"]
    position: Float[np.ndarray, " checkpoint"]
    values: Float[np.ndarray, " checkpoint"]
    above_null: Float[np.ndarray, " checkpoint"]
    draws: Float[np.ndarray, "resample checkpoint"]
    freedom: int
    controls: Mapping[str, Control]
    missing: tuple[str, ...]
    matched: float = nan
    why_unknown: str = ""


def plane_curves(plane: xr.Dataset, axis: str) -> Iterator[Curve]:
    """Every curve of one axis of a plane, by concept and site."""
    label = f"{axis}_control"
    for dim in ("concept", "site", "checkpoint"):
        if dim not in plane[axis].dims:
            plane = plane.expand_dims(dim)
    order = np.argsort(np.asarray(plane["position"].values, dtype=float), kind="stable")
    plane = plane.isel(checkpoint=order)
    for concept in plane["concept"].values.tolist():
        for site in plane["site"].values.tolist():
            yield _curve(plane.sel(concept=concept, site=site), axis, label, concept, site)


def _curve(curve_data: xr.Dataset, axis: str, label: str, concept: Any, site: Any) -> Curve:
    values = curve_data[axis].values.astype(float)
    draws = curve_data[f"{axis}_draws"].transpose("resample", "checkpoint").values.astype(float)
    # Measures may have fewer halves than the longest axis has.
    draws = draws[~np.isnan(draws).all(axis=1)]
    is_known = np.isfinite(values) & np.isfinite(draws).all(axis=0)
    groups = float(curve_data["n_groups"]) if "n_groups" in curve_data.coords else np.inf
    controls, missing_controls = {}, []
    control_names = curve_data[label].values.tolist() if label in curve_data.coords else []
    for name in control_names:
        control_data = curve_data.sel({label: name})
        kind = str(control_data[f"{label}_kind"].item())
        replicates = control_data[f"{label}_draws"].transpose("resample", "checkpoint").values
        replicates = replicates[~np.isnan(replicates).all(axis=1)].astype(float)
        control_values = control_data[f"{label}_value"].values.astype(float)
        is_complete = bool(
            np.isfinite(control_values[is_known]).all()
            and np.isfinite(replicates[:, is_known]).all()
        )
        if len(replicates) >= _LEAST_RESAMPLES and is_complete and is_known.any():
            above_null = (control_values - _null_level(control_data, label))[is_known]
            controls[str(name)] = Control(kind, above_null, replicates[:, is_known])
        elif kind in ("rank-matched", "width", "noise"):
            missing_controls.append(str(name))
    kinds = [control.kind for control in controls.values()]
    # A probe is fitted anew at every checkpoint and has neither a width nor a spectrum to match.
    kernel = str(curve_data[axis].attrs.get("quantity", "")) in KERNELS
    if (
        (kernel or axis == "x")
        and "rank-matched" not in kinds
        and "rank-matched" not in missing_controls
    ):
        missing_controls.append("rank-matched")
    steps = np.asarray(
        curve_data["step"].values if "step" in curve_data.coords else np.nan * values, float
    )
    return Curve(
        concept=str(concept),
        site=str(site),
        quantity=QUANTITIES[axis],
        checkpoints=tuple(map(str, curve_data["checkpoint"].values[is_known].tolist())),
        steps=steps[is_known],
        position=curve_data["position"].values.astype(float)[is_known],
        values=values[is_known],
        above_null=(values - _null_level(curve_data, axis))[is_known],
        draws=draws[:, is_known],
        freedom=int(min(len(draws), groups)) - 1,
        controls=controls,
        missing=tuple(missing_controls),
        matched=_least_matched(curve_data, axis, is_known),
        why_unknown=_why_unknown(curve_data, axis, is_known, draws, str(site)),
    )


def _least_matched(curve_data: xr.Dataset, axis: str, is_known: np.ndarray) -> float:
    name = f"{axis}_matched"
    if name not in curve_data or not is_known.any():
        return nan
    return float(curve_data[name].values.astype(float)[is_known].min())


def _null_level(curve_data: xr.Dataset, name: str) -> np.ndarray:
    """The middle of the null band, which is the mean except for skewness."""
    if f"{name}_null" not in curve_data:
        return np.zeros(curve_data.sizes["checkpoint"])
    level: np.ndarray = np.nan_to_num(curve_data[f"{name}_null"].mean("bound").values.astype(float))
    return level


def _why_unknown(
    curve_data: xr.Dataset, axis: str, is_known: np.ndarray, draws: np.ndarray, site: str
) -> str:
    is_input = str(curve_data.attrs.get("against", "")) == "first_block" and site == FIRST_BLOCK
    if axis == "x" and is_input:
        return "since the first block's output is X itself here"
    if is_known.sum() < _LEAST_CHECKPOINTS:
        return f"since it is known at {is_known.sum()} checkpoints, and a phase takes 3"
    if len(draws) < _LEAST_RESAMPLES:
        return f"since there are {len(draws)} half-sample replicates, and noise takes 8"
    if len(np.unique(curve_data["position"].values[is_known])) < is_known.sum():
        return "since two checkpoints have the same step; choose one run or stage"
    return ""
