"""Cosines between directions of disjoint halves, with their null and their upper level."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from einops import einsum, rearrange
from jaxtyping import Float, Int
from scipy.stats import t as student

from tlens_trust.analysis.comparing.half_directions import SPACES, HalfDirections


def cross_cosines(
    first_directions: HalfDirections, second_directions: HalfDirections
) -> tuple[Float[np.ndarray, "space site deletion"], Float[np.ndarray, "space site draw"]]:
    """Mean cosine between a half's direction in `one` and the other half's in `other`, over splits.

    Given first for the labels, then for each draw of permuted labels.
    """
    return _both_ways(first_directions.fitted, second_directions.fitted), _both_ways(
        first_directions.permuted, second_directions.permuted
    )


def _both_ways(
    first_directions: Float[np.ndarray, "space site split half fit d_model"],
    second_directions: Float[np.ndarray, "space site split half fit d_model"],
) -> Float[np.ndarray, "space site fit"]:
    products = sum(
        einsum(
            first_directions[:, :, :, half].astype(np.float64),
            second_directions[:, :, :, 1 - half].astype(np.float64),
            "space site split fit d_model, space site split fit d_model -> space site fit",
        )
        for half in (0, 1)
    )
    mean: np.ndarray = products / (2 * first_directions.shape[2])
    return mean


def jackknife_interval(
    values: Float[np.ndarray, "... deletion"], *, confidence: float = 0.95
) -> Float[np.ndarray, "... bound"]:
    """The jackknife interval of a value, from the values without one block each.

    Args:
        values: The value with nothing left out, then with each block left out.
        confidence: The confidence of the interval.

    Returns:
        `v ± t·√((B - 1)/B Σ_b (v_b - v̄)²)`, with Student's distribution on `B - 1` degrees.

    Source:
        Tukey (1958); Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapter 11.
    """
    blocks = values.shape[-1] - 1
    without_block = values[..., 1:]
    deviations = without_block - without_block.mean(axis=-1, keepdims=True)
    standard_error = np.sqrt((blocks - 1) / blocks * np.square(deviations).sum(axis=-1))
    reach = student.ppf((1 + confidence) / 2, blocks - 1) * standard_error
    interval: np.ndarray = values[..., :1] + np.stack([-reach, reach], axis=-1)
    return interval


def cosine_interval(
    cosines: Float[np.ndarray, "... deletion"],
) -> Float[np.ndarray, "... bound"]:
    """`jackknife_interval` of a cosine, on Fisher's scale, which is unbounded."""
    scale = np.arctanh(np.clip(cosines, -1 + 1e-9, 1 - 1e-9))
    interval: np.ndarray = np.tanh(jackknife_interval(scale))
    return interval


def cosine_dataset(
    cosines: Float[np.ndarray, "one other space site deletion"],
    null: Float[np.ndarray, "one other space site draw"],
    groups: Int[np.ndarray, "one other"],
    *,
    axes: Sequence[str],
) -> xr.Dataset:
    """Cosines of all pairs, with their intervals, their null and the level of one direction.

    Args:
        cosines: As `cross_cosines` gives them; the diagonal holds the reliabilities.
        null: Likewise, for permuted labels.
        groups: The number of groups behind each cosine.
        axes: Names of the first two axes.

    Returns:
        `cosine`, `cosine_ci`, `cosine_n`, `cosine_same`, `cosine_null`, `cosine_corrected` and
        `cosine_corrected_ci` along `space`, the two axes, and `site`.
    """
    number = np.arange(len(cosines))
    reliability = cosines[number, number]
    draws = null.shape[-1]
    # Their mean is zero, so that forty draws tell the band's width better than two quantiles.
    deviation = np.sqrt(np.square(null).mean(axis=-1))
    reach = student.ppf(0.975, draws) * deviation
    band = np.stack([-reach, reach], axis=-1).clip(-1, 1)

    is_reliable = reliability[..., 0] > band[number, number][..., 1]
    product = reliability[:, None] * reliability[None, :]
    usable = (product > 0) & (is_reliable[:, None] & is_reliable[None, :])[..., None]
    same_direction = np.sqrt(np.where(usable, product, np.nan))
    corrected = cosines / same_direction
    pair = ("space", *axes, "site")

    def variable(
        values: np.ndarray, long_name: str, units: str = "1", **attributes: int
    ) -> tuple[tuple[str, ...], np.ndarray, dict[str, object]]:
        dims = pair if values.ndim == 4 else (*pair, "bound")
        by_space = rearrange(values, "source target space ... -> space source target ...")
        return dims, by_space, {"units": units, "long_name": long_name, **attributes}

    blocks = cosines.shape[-1] - 1
    cosine_name = "cosine between directions of disjoint halves of the statements"
    corrected_name = "cosine between directions, the noise of fitting taken out"
    group_counts = np.broadcast_to(groups[:, :, None, None], cosines.shape[:4])
    return xr.Dataset(
        {
            "cosine": variable(cosines[..., 0], cosine_name),
            "cosine_ci": variable(
                cosine_interval(cosines), f"95% interval of the {cosine_name}", blocks=blocks
            ),
            "cosine_n": variable(group_counts, f"groups behind the {cosine_name}", "groups"),
            "cosine_same": variable(
                same_direction[..., 0], f"{cosine_name}, if they were one and the same"
            ),
            "cosine_null": variable(
                band,
                f"middle 95% of the {cosine_name} where labels are permuted",
                permutations=draws,
            ),
            "cosine_corrected": variable(corrected[..., 0], corrected_name),
            "cosine_corrected_ci": variable(
                jackknife_interval(corrected),
                f"95% interval of the {corrected_name}",
                blocks=blocks,
            ),
        },
        coords={"space": list(SPACES), "bound": ["low", "high"]},
    )
