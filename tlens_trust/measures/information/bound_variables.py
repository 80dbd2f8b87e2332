"""Label amounts of information as variables, with half-sample replicates and nulls."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float

from tlens_trust.measures.information.label_bounds import Bound
from tlens_trust.measures.labelled import Variables, labelled, labelled_null
from tlens_trust.measures.nulls import in_deviations, middle_95, p_values_of


def empty_dataset(sites: Sequence[str], resamples: int) -> xr.Dataset:
    """Make a data set with the axes of the information measures and without variables."""
    return xr.Dataset(
        coords={
            "site": list(sites),
            "bound": ["low", "high"],
            "resample": np.arange(resamples),
        }
    )


def label_bound(
    name: str, long_name: str, bound: Bound, statements: int, resampling: Mapping[str, int]
) -> Variables:
    """Label a bound in nats: its value, interval, replicates and number of statements."""
    variables = labelled(
        name,
        bound.value,
        units="nats",
        long_name=long_name,
        # Seven digits are enough for an interval or a replicate, and halve the file.
        interval=bound.interval.astype(np.float32),
        n=statements,
        resampling=resampling,
    )
    variables[f"{name}_draws"] = (
        ("site", "resample"),
        bound.draws.astype(np.float32),
        {"units": "nats", "long_name": f"half-sample replicates of the {long_name}"},
    )
    return variables


def label_band(
    name: str, long_name: str, draws: Float[np.ndarray, "site draw"], *, units: str = "nats"
) -> Variables:
    """Label the middle 95% of the values that permuted labels give."""
    return labelled_null(
        name,
        long_name=long_name,
        permutations=draws.shape[1],
        band=middle_95(draws.T).astype(np.float32),
        units=units,
    )


def label_null(name: str, long_name: str, draws: Float[np.ndarray, "site draw"]) -> Variables:
    """Label the null band from permuted labels, and the p-values.

    Args:
        name: The name of the variable that the null belongs to.
        long_name: The long name of that variable.
        draws: The information for each draw of labels, the actual labels first.
    """
    # The maximum over sites needs values in one unit: standard deviations of each site's null.
    p, p_best = p_values_of(in_deviations(draws))
    return label_band(name, long_name, draws[:, 1:]) | labelled_null(
        name, long_name=long_name, permutations=draws.shape[1] - 1, p=p, p_best=p_best
    )
