"""Many claims at once: which of them to believe."""

import numpy as np
from jaxtyping import Float
from scipy.stats import false_discovery_control


def benjamini_hochberg(p: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Adjust p-values so that claiming all that is at most `q` is wrong in a share `q` on average.

    Of claims with `q` at most 0.05, no more than 5% are expected to be false. Proven where the
    p-values are independent, or depend on each other positively, as those of neighbouring
    checkpoints do.

    Args:
        p: One for each claim; NaN where nothing was tested, which counts as no claim.

    Returns:
        In the same shape; NaN stays.

    Raises:
        ValueError: A number is not between 0 and 1.

    Source:
        Benjamini and Hochberg (1995), Journal of the Royal Statistical Society B 57; Benjamini and
        Yekutieli (2001), Annals of Statistics 29, for dependence.

    Examples:
        >>> benjamini_hochberg(np.array([0.01, 0.04, np.nan, 0.03])).tolist()
        [0.03, 0.04, nan, 0.04]
    """
    known = ~np.isnan(p)
    wrong = p[known & ~((p >= 0) & (p <= 1))]
    if wrong.size:
        raise ValueError(f"p-values lie between 0 and 1, got {wrong.flat[0]}.")
    adjusted = np.full(p.shape, np.nan)
    if known.any():
        adjusted[known] = false_discovery_control(p[known], method="bh")
    return adjusted
