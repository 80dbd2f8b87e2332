"""Checks of the data set that a `Trace` is made of."""

import numpy as np
import xarray as xr

from tlens_trust.tracing.netcdf import check_text
from tlens_trust.tracing.provenance import listed

AXES = ("concept", "checkpoint", "site")
_ALONG = {"step": "checkpoint", "layer": "site"}


def check_trace_data(data: xr.Dataset) -> None:
    """Refuse a data set that is no trace.

    Raises:
        ValueError: See `Trace`.
    """
    for axis in (*AXES, *(name for name in ("probe", "run", "bound") if name in data.dims)):
        if axis not in data.dims:
            raise ValueError(
                f"A trace has the dimensions {listed(AXES)}, but {axis!r} is not among "
                f"{listed(list(data.dims))}. Add it with `data.expand_dims({axis}=[...])`."
            )
        names = data.indexes[axis].tolist() if axis in data.indexes else []
        if not names or not all(isinstance(name, str) for name in names):
            raise ValueError(
                f"The axis {axis!r} of a trace is labelled by texts, got {listed(names)}. "
                f"Label it with `data.assign_coords({axis}=[...])`."
            )
        _check_names(axis, names)
    bounds = data["bound"].values.tolist() if "bound" in data.dims else ["low", "high"]
    if bounds != ["low", "high"]:
        raise ValueError(f"The axis 'bound' is labelled 'low', 'high', got {listed(bounds)}.")
    if "example" in data.dims:
        raise ValueError(
            "A trace holds nothing by statement, but there is a dimension 'example'. Scores of "
            "statements stay in the run folder: read them with `load_scores`."
        )
    for name, axis in _ALONG.items():
        if (
            name not in data.coords
            or data[name].dims != (axis,)
            or data[name].dtype.kind not in "iuf"
        ):
            raise ValueError(
                f"A trace has numbers {name!r} along {axis!r}, but this one has none. Add them "
                f"with `data.assign_coords({name}=({axis!r}, [...]))`; NaN stands for unknown."
            )
    if not data.data_vars:
        raise ValueError("A trace holds at least one variable, got none.")
    for variable in data.data_vars.values():
        _check_variable(str(variable.name), variable, data)


def _check_names(axis: str, names: list[str]) -> None:
    if len(set(names)) < len(names):
        name = next(name for name in names if names.count(name) > 1)
        raise ValueError(
            f"The {axis} {name!r} stands twice in a trace. Give each {axis} its own name."
        )
    for name in names:
        check_text(name, f"The name of a {axis}")


def _check_variable(name: str, variable: xr.DataArray, data: xr.Dataset) -> None:
    # Numpy does not count truth values among numbers.
    if not np.issubdtype(variable.dtype, np.number) and variable.dtype != bool:
        raise ValueError(f"A variable of a trace holds numbers, but {name!r} is {variable.dtype}.")
    for attribute in ("units", "long_name"):
        text = variable.attrs.get(attribute)
        if not isinstance(text, str) or not text:
            raise ValueError(
                f"The variable {name!r} has no {attribute!r} among its attributes, got {text!r}. "
                f"Set `data[{name!r}].attrs[{attribute!r}]`; the unit of a bare number is '1'."
            )
    if name.endswith("_ci") and ("bound" not in variable.dims or name[:-3] not in data):
        raise ValueError(
            f"{name!r} is the interval of a variable {name[:-3]!r}, with a dimension 'bound' "
            f"(low, high), got the dimensions {listed(list(variable.dims))}."
        )
