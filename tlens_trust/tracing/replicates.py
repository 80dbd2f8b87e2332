"""Half-sample replicates as a trace holds them: in a byte each.

A sweep of 150 checkpoints of a model of 32 layers has tens of millions of them, by far the most of
what a trace holds. They are there for their spread, and for how that goes together between
checkpoints, so they are kept as distances from the value, in twentieths of its standard error.
Cells hold them in full.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float, Int8

_STEP = 0.05
_FARTHEST = 127
_UNKNOWN = -128
_UNIT = "twentieths of a standard error"

_Variable = tuple[tuple[Any, ...], np.ndarray, dict[Any, Any]]


def pack_replicates(variables: Mapping[Any, _Variable]) -> dict[Any, _Variable]:
    """Variables with their replicates (`…_draws`) in a byte each, and standard errors (`…_se`).

    Args:
        variables: Dimensions, values and attributes by name. What has no replicates along
            `resample` stays as it is.
    """
    shortened: dict[Any, _Variable] = {}
    for name, (dims, array, attributes) in variables.items():
        stem = str(name).removesuffix("_draws")
        own = variables.get(stem)
        if stem == name or own is None or dims != (*own[0], "resample"):
            shortened[name] = dims, array, attributes
            continue
        bytes_, spread = _shorten(own[1], array)
        about = str(own[2]["long_name"])
        shortened[f"{stem}_se"] = (
            own[0],
            spread.astype(np.float32),
            {"units": own[2]["units"], "long_name": f"standard error of the {about}"},
        )
        long_name = f"half-sample replicates of the {about}, as distances from it"
        shortened[name] = dims, bytes_, {**attributes, "units": _UNIT, "long_name": long_name}
    return shortened


def unpack_replicates(data: xr.Dataset, name: str) -> xr.DataArray:
    """The half-sample replicates of a variable, in its own unit, along `resample`.

    Args:
        data: A trace's, or a cell, which holds them in full.
        name: Of the variable.

    Raises:
        ValueError: It has none.
    """
    if f"{name}_draws" not in data:
        raise ValueError(f"There are no half-sample replicates of {name!r}.")
    draws = data[f"{name}_draws"]
    if draws.attrs.get("units") != _UNIT:
        return draws
    distance = draws.astype(np.float32).where(draws != _UNKNOWN) * np.float32(_STEP)
    found = (data[name] + data[f"{name}_se"] * distance).transpose(*draws.dims)
    long_name = f"half-sample replicates of the {data[name].attrs['long_name']}"
    attributes = {**draws.attrs, "units": data[name].attrs["units"], "long_name": long_name}
    return found.rename(draws.name).assign_attrs(attributes)


def _shorten(
    value: Float[np.ndarray, "*place"], draws: Float[np.ndarray, "*place resample"]
) -> tuple[Int8[np.ndarray, "*place resample"], Float[np.ndarray, "*place"]]:
    distance = draws.astype(np.float64) - value[..., None]
    known = np.isfinite(distance)
    count = known.sum(axis=-1)
    squares = np.where(known, distance, 0.0) ** 2
    spread = np.sqrt(squares.sum(axis=-1) / np.maximum(count - 1, 1))
    unit = _STEP * np.where(spread > 0, spread, np.inf)
    steps = np.clip(
        np.rint(np.where(known, distance, 0.0) / unit[..., None]), -_FARTHEST, _FARTHEST
    )
    return (
        np.where(known, steps, _UNKNOWN).astype(np.int8),
        np.where(count > 1, spread, np.nan),
    )
