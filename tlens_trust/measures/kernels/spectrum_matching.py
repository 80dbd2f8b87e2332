"""Readings whose spectrum has been made flat: what they hold, whatever the scale of each direction.

A kernel estimator sees the directions of large spread and hardly the others. So an invertible map
that only stretches directions, which takes no information away and adds none, moves it up and down.
Once the leading principal components all have the same spread, the map is undone.
"""

import torch
from jaxtyping import Float
from torch import Tensor

# Rounding of the numbers that came in, in multiples of their precision, below which a direction
# holds nothing else.
_ROUNDING = 4.0
# Likewise of the largest direction, in float64: what eigenvectors mix of it into the others.
_OWN_ROUNDING = 64.0


def flatten_spectrum(
    x: Float[Tensor, "example d"], *, components: int | None = None
) -> Float[Tensor, "example component"]:
    """Give the leading principal components all the same spread (whitening, up to a rotation).

    The result is an orthonormal basis, times `√n`, of the space that the leading principal
    components span over the examples: unit variance in every direction. With all components it is
    the same, up to a rotation, after any invertible linear map of `x`, whatever the map does to the
    spectrum; with fewer, after any that leaves the leading components' span.

    A direction is kept where its standard deviation is above the rounding of the numbers that came
    in: four times their precision times their root mean square. So a direction that was shrunk to
    1e-6 is restored, from float64 to ten digits, from float32 to one or two, as far as it is there.

    What it cannot undo: a map that is not invertible, noise, and with fewer components than
    directions a map that moves others into the lead. Directions that hold nothing but noise are
    made as large as the others, so that an estimate on many components is noisier.

    Args:
        x: One row per example.
        components: How many to keep; the same at every checkpoint of a series, so that estimates
            compare. None: `default_components(n, d)`.

    Returns:
        In float64; fewer columns than `components` where the examples span fewer directions, as
        with `n ≤ d`, constant features or duplicates; none where all examples are the same.

    Raises:
        ValueError: `components` is less than 1.

    Source:
        Raghu et al. (2017), arXiv:1706.05806, compare representations after the same projection.

    Example:
        >>> z = torch.randn(100, 4, generator=torch.Generator().manual_seed(0)).double()
        >>> flat = flatten_spectrum(z * torch.tensor([1.0, 1e-2, 1e-4, 1e-6]))
        >>> torch.allclose(flat @ flat.T, flatten_spectrum(z) @ flatten_spectrum(z).T, atol=1e-7)
        True
    """
    n, d = x.shape
    if components is None:
        components = default_components(n, d)
    if components < 1:
        raise ValueError(f"`components` must be at least 1, got {components}.")
    precision = torch.finfo(x.dtype).eps
    values = x.double()
    level = _ROUNDING * precision * float(values.square().mean().sqrt())
    centred = values - values.mean(dim=0)
    scores = _principal_scores(centred, min(components, d, max(n - 1, 0)))
    deviations = scores.square().mean(dim=0).sqrt()
    own = _OWN_ROUNDING * torch.finfo(torch.float64).eps * deviations.max() if n and d else 0.0
    scores = scores[:, deviations > max(level, float(own))]
    if scores.shape[1] == 0:
        return scores
    # Columns come at very different scales; the same for all, a QR factorisation is exact.
    scores = scores / scores.square().mean(dim=0).sqrt()
    basis, _ = torch.linalg.qr(scores)
    return basis * n**0.5


def default_components(n: int, d: int) -> int:
    """As many as an eighth of the examples, and no more than the width.

    More directions than that are, once whitened, mostly noise: any two readings of `k` whitened
    directions share a part `k / n` of their span by chance.

    Example:
        >>> default_components(2000, 64), default_components(2000, 576)
        (64, 250)
    """
    return max(1, min(d, n // 8))


def _principal_scores(
    centred: Float[Tensor, "example d"], count: int
) -> Float[Tensor, "example component"]:
    """Coordinates along the leading principal axes.

    By the eigenvectors of the smaller of the two matrices of products. Small directions come out
    mixed with each other, which a QR factorisation afterwards undoes, and with large ones only to
    the rounding of these.
    """
    n, d = centred.shape
    if count == 0:
        return centred[:, :0]
    if d <= n:
        _, axes = torch.linalg.eigh(centred.T @ centred)
        return centred @ axes.flip(1)[:, :count]
    _, vectors = torch.linalg.eigh(centred @ centred.T)
    vectors = vectors.flip(1)[:, :count]
    # Square roots of small eigenvalues would hold half the digits.
    return vectors * torch.linalg.vector_norm(centred.T @ vectors, dim=0)
