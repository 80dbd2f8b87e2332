"""Amounts of information as labelled arrays, each with its unit, interval, replicates and n."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from tlens_trust.measures.information.label_bounds import Bound
from tlens_trust.measures.nulls import in_deviations, middle_95, p_values_of

# A data set, or variables that one is made of: each assignment to a data set aligns all of it
# anew, so that many are gathered first.
Variables = xr.Dataset | dict[str, Any]


def empty_dataset(sites: Sequence[str], resamples: int) -> xr.Dataset:
    """The axes that information comes along."""
    return xr.Dataset(
        coords={
            "site": list(sites),
            "bound": ["low", "high"],
            "resample": np.arange(resamples),
        }
    )


def put_bound(
    data: Variables,
    name: str,
    long_name: str,
    bound: Bound,
    statements: int,
    counted: Mapping[str, int],
) -> None:
    """Add a value, its interval, its replicates and its n."""
    data[name] = ("site",), bound.value, {"units": "nats", "long_name": long_name}
    data[f"{name}_ci"] = (
        ("site", "bound"),
        bound.interval.astype(np.float32),
        {"units": "nats", "long_name": f"95% interval of the {long_name}", **counted},
    )
    data[f"{name}_draws"] = (
        ("site", "resample"),
        bound.draws.astype(np.float32),
        {"units": "nats", "long_name": f"half-sample replicates of the {long_name}"},
    )
    data[f"{name}_n"] = (
        ("site",),
        np.full(len(bound.value), statements),
        {"units": "statements", "long_name": f"statements behind the {long_name}"},
    )


def put_band(
    data: Variables, name: str, long_name: str, draws: Float[np.ndarray, "site draw"]
) -> None:
    """Add the band of permuted labels."""
    data[f"{name}_null"] = (
        ("site", "bound"),
        middle_95(draws.T).astype(np.float32),
        {
            "units": "nats",
            "long_name": f"middle 95% of the {long_name} where labels are permuted",
            "permutations": draws.shape[1],
        },
    )


def put_null(
    data: Variables, name: str, long_name: str, draws: Float[np.ndarray, "site draw"]
) -> None:
    """Add the band of permuted labels, and p-values by the same amount of information.

    Args:
        data: Where to.
        name: Of the variable.
        long_name: Likewise.
        draws: What draws of labels give, the labels themselves first.
    """
    put_band(data, name, long_name, draws[:, 1:])
    p, p_best = p_values_of(in_deviations(draws))
    for suffix, values, how in (
        ("_p", p, ""),
        ("_p_best", p_best, ", by the null of the maximum over sites"),
    ):
        data[f"{name}{suffix}"] = (
            ("site",),
            values,
            {
                "units": "1",
                "long_name": f"permutation p-value of the {long_name}{how}",
                "permutations": draws.shape[1] - 1,
            },
        )
