"""Least-squares concept erasure for one concept at one site, by the package concept-erasure."""

import warnings
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


def fit_eraser(
    values: Float[Tensor, "example d_model"], labels: Int[Tensor, " example"]
) -> tuple[Float[Tensor, " d_model"], Float[Tensor, " d_model"], Float[Tensor, " d_model"]]:
    """Fit LEACE for one concept at one site.

    Features are centred and scaled to unit deviation for the fit. So the shrinkage of the
    covariance, towards a multiple of the identity, does not depend on the features' units.

    Args:
        values: One row per statement, in the model's own units.
        labels: 0 or 1.

    Returns:
        The erased direction `l`, the readout `r` of how much of it there is, and the centre `m`.
        Erasing is `x - l (r·(x - m))`. All are zero where the activations do not separate the
        labels.
    """
    LeaceFitter = _leace_fitter()
    rows = values.double()
    centre = rows.mean(dim=0)
    deviation = rows.std(dim=0, correction=0)
    rounding = 8 * torch.finfo(values.dtype).eps * centre.abs()
    varies = deviation > rounding
    scale = torch.where(varies, deviation, 1.0)
    features = torch.where(varies, (rows - centre) / scale, 0.0)
    eraser = LeaceFitter.fit(
        features,
        labels.double(),
        # A projection in the whitened space cannot raise the trace, and the package's guard against
        # rounding that seems to would make a map that no longer erases.
        constrain_cov_trace=False,
        # Whatever is there is to be erased, however little.
        svd_tol=1e-9,
    ).eraser
    direction, readout = eraser.proj_left[:, 0] * scale, eraser.proj_right[0] / scale
    return torch.where(varies, direction, 0.0), torch.where(varies, readout, 0.0), centre


def check_erasure_installed() -> None:
    """Check that concept-erasure is installed.

    Raises:
        ImportError: It is not. The message says how to install it.
    """
    _leace_fitter()


def _leace_fitter() -> Any:
    try:
        with warnings.catch_warnings():
            # Its import compiles by `torch.jit.script`, which torch says is to go.
            warnings.simplefilter("ignore", DeprecationWarning)
            from concept_erasure import LeaceFitter
    except ImportError as error:
        raise ImportError(
            "Erasing concepts takes the package concept-erasure, which is not installed. Get it "
            "with `pip install 'tlens-trust[erasure]'`."
        ) from error
    return LeaceFitter
