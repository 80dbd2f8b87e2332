"""Half-sample replicates as a trace holds them: in a byte each.

A sweep of 150 checkpoints of a model of 32 layers has tens of millions of replicates, most of the
numbers of its trace. They serve to compute spreads, and correlations between checkpoints. So a
trace holds their distances from the value, in twentieths of its standard error. Cells hold
replicates in full.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float, Int8

# A signed byte holds -128 to 127. Steps of a twentieth reach 6.35 standard errors, and rounding
# moves a replicate by at most a fortieth. The one number that is left means unknown.
_STEP = 0.05
_FARTHEST = 127
_UNKNOWN = -128
_UNIT = "twentieths of a standard error"

_Variable = tuple[tuple[Any, ...], np.ndarray, dict[Any, Any]]


def pack_replicates(variables: Mapping[Any, _Variable]) -> dict[Any, _Variable]:
    """Put replicates (`…_draws`) into a byte each, and add standard errors (`…_se`).

    Args:
        variables: Dimensions, values and attributes by name. Variables without replicates along
            `resample` stay as they are.
    """
    packed: dict[Any, _Variable] = {}
    for name, (dims, array, attributes) in variables.items():
        stem = str(name).removesuffix("_draws")
        value = variables.get(stem)
        if stem == name or value is None or dims != (*value[0], "resample"):
            packed[name] = dims, array, attributes
            continue
        steps, spread = _steps_from_value(value[1], array)
        quantity = str(value[2]["long_name"])
        packed[f"{stem}_se"] = (
            value[0],
            spread.astype(np.float32),
            {"units": value[2]["units"], "long_name": f"standard error of the {quantity}"},
        )
        long_name = f"half-sample replicates of the {quantity}, as distances from it"
        packed[name] = dims, steps, {**attributes, "units": _UNIT, "long_name": long_name}
    return packed


def unpack_replicates(data: xr.Dataset, name: str) -> xr.DataArray:
    """Give the half-sample replicates of a variable, in its own unit, along `resample`.

    Args:
        data: The data of a trace, or a cell, which holds replicates in full.
        name: Name of the variable.

    Raises:
        ValueError: The variable has no replicates.
    """
    if f"{name}_draws" not in data:
        raise ValueError(f"There are no half-sample replicates of {name!r}.")
    draws = data[f"{name}_draws"]
    # A cell holds replicates in full, in the unit of the variable.
    if draws.attrs.get("units") != _UNIT:
        return draws
    distance = draws.astype(np.float32).where(draws != _UNKNOWN) * np.float32(_STEP)
    array = (data[name] + data[f"{name}_se"] * distance).transpose(*draws.dims)
    long_name = f"half-sample replicates of the {data[name].attrs['long_name']}"
    attributes = {**draws.attrs, "units": data[name].attrs["units"], "long_name": long_name}
    return array.rename(draws.name).assign_attrs(attributes)


def _steps_from_value(
    value: Float[np.ndarray, "*place"], draws: Float[np.ndarray, "*place resample"]
) -> tuple[Int8[np.ndarray, "*place resample"], Float[np.ndarray, "*place"]]:
    distance = draws.astype(np.float64) - value[..., None]
    is_known = np.isfinite(distance)
    count = is_known.sum(axis=-1)
    # Replicates spread about the value itself, so that no mean is subtracted.
    squares = np.where(is_known, distance, 0.0) ** 2
    spread = np.sqrt(squares.sum(axis=-1) / np.maximum(count - 1, 1))
    # Without spread every distance is 0, and 0 / ∞ is 0 where 0 / 0 would be NaN.
    unit = _STEP * np.where(spread > 0, spread, np.inf)
    # NaN has no integer. Unknown replicates are 0 here, and are replaced when they are returned.
    steps = np.clip(
        np.rint(np.where(is_known, distance, 0.0) / unit[..., None]), -_FARTHEST, _FARTHEST
    )
    return (
        np.where(is_known, steps, _UNKNOWN).astype(np.int8),
        # One replicate says nothing about spread.
        np.where(count > 1, spread, np.nan),
    )
