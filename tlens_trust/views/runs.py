"""Several runs in one figure: their mean, and how far apart they lie."""

import numpy as np
import xarray as xr


def over_runs(data: xr.Dataset) -> xr.Dataset:
    """The mean of several runs, with their range in place of each interval.

    A range says how far training runs lie apart; the interval of one run says how sure its number
    is, and is another thing. Of a single run nothing is changed.

    Args:
        data: Of a trace; where it has the axis `run`, that is gone after.
    """
    if "run" not in data.dims:
        return data
    runs = data.sizes["run"]
    variables = {}
    for name, variable in data.data_vars.items():
        stem = str(name).removesuffix("_ci")
        if "run" not in variable.dims:
            variables[name] = variable
        elif stem != name and stem in data and "bound" in variable.dims:
            values = data[stem]
            spread = xr.concat([values.min("run"), values.max("run")], dim=variable["bound"])
            variables[name] = spread.assign_attrs(
                variable.attrs | {"long_name": f"range over {runs} runs"}
            )
        else:
            variables[name] = variable.mean("run", keep_attrs=True)
    kept = {
        name: coordinate for name, coordinate in data.coords.items() if "run" not in coordinate.dims
    }
    averaged = {
        name: (coordinate.dims[1:], coordinate.mean("run").values, coordinate.attrs)
        for name, coordinate in data.coords.items()
        if coordinate.dims[:1] == ("run",) and len(coordinate.dims) > 1
        and np.issubdtype(coordinate.dtype, np.floating)
    }  # fmt: skip
    return xr.Dataset(variables, coords=kept | averaged, attrs=data.attrs)
