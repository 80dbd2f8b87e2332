"""Adjustment of p-values for many tests at once."""

import numpy as np
from jaxtyping import Float
from scipy.stats import false_discovery_control


def benjamini_hochberg(p: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Adjust p-values to control the false discovery rate.

    If all claims with an adjusted p-value of at most 0.05 are made, at most 5% of them are expected
    to be false. This is proven for p-values that are independent, or depend on each other
    positively, as those of neighbouring checkpoints do.

    Args:
        p: One p-value for each claim. NaN means that nothing was tested, and counts as no claim.

    Returns:
        Adjusted p-values in the same shape. NaN stays.

    Raises:
        ValueError: A number is not between 0 and 1.

    Source:
        Benjamini and Hochberg (1995), Journal of the Royal Statistical Society B 57; Benjamini and
        Yekutieli (2001), Annals of Statistics 29, for dependence.

    Examples:
        >>> benjamini_hochberg(np.array([0.01, 0.04, np.nan, 0.03])).tolist()
        [0.03, 0.04, nan, 0.04]
    """
    is_tested = ~np.isnan(p)
    invalid = p[is_tested & ~((p >= 0) & (p <= 1))]
    if invalid.size:
        raise ValueError(f"p-values lie between 0 and 1, got {invalid.flat[0]}.")
    adjusted = np.full(p.shape, np.nan)
    if is_tested.any():
        adjusted[is_tested] = false_discovery_control(p[is_tested], method="bh")
    return adjusted
