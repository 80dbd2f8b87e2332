"""Representations with a flat spectrum: their information, whatever the scale of each direction.

A kernel estimator depends mostly on the directions of large spread. So an invertible map that only
stretches directions changes the estimate, though it changes no information. If the leading
principal components all have the same spread, the effect of the map is removed.
"""

from jaxtyping import Float
from torch import Tensor

from tlens_trust.arguments import checked_count
from tlens_trust.measures.kernels.components import PrincipalComponents


def flatten_spectrum(
    x: Float[Tensor, "example d"], *, components: int | None = None, standardise: bool = True
) -> Float[Tensor, "example component"]:
    """Give the leading principal components all the same spread (whitening, up to a rotation).

    The result is an orthonormal basis, times `√n`, of the space that the leading principal
    components span over the examples. Every direction has unit variance. With all components, the
    result is the same up to a rotation after any invertible linear map of `x`. With fewer, that
    holds for maps that keep the span of the leading components.

    A direction is kept if its standard deviation exceeds the rounding error of the input (see
    `PrincipalComponents.of`). So a direction that was shrunk to 1e-6 is restored: to nine digits
    from float64, and to one or two from float32.

    Some maps cannot be undone: a map that is not invertible, noise, and with fewer components than
    directions a map that makes others the leading ones. Directions of pure noise are scaled up like
    all others, so an estimate on many components is noisier.

    Args:
        x: One row per example.
        components: The number of components, the same at every checkpoint of a series, so that
            estimates are comparable. None: `default_components(n, d)`.
        standardise: Whether to scale features to variance 1 before their leading components are
            chosen, so that a few outlier features do not dominate. With all components it makes no
            difference.

    Returns:
        The result in float64. It has fewer columns than `components` if the examples span fewer
        directions, as with `n ≤ d`, constant features or duplicates. It has no columns if all
        examples are the same.

    Raises:
        ValueError: `components` is less than 1.

    Source:
        Raghu et al. (2017), arXiv:1706.05806, compare representations after the same projection.

    Examples:
        >>> import torch
        >>> z = torch.randn(100, 4, generator=torch.Generator().manual_seed(0)).double()
        >>> flat = flatten_spectrum(z * torch.tensor([1.0, 1e-2, 1e-4, 1e-6]), components=4)
        >>> same = flatten_spectrum(z, components=4)
        >>> torch.allclose(flat @ flat.T, same @ same.T, atol=1e-7)
        True
    """
    n, d = x.shape
    if components is None:
        components = default_components(n, d)
    components = checked_count("components", components)
    flat = PrincipalComponents.of(x, standardise=standardise).flat(components)
    basis: Tensor = flat.vectors * n**0.5
    return basis


def default_components(n: int, d: int) -> int:
    """Return an eighth of the number of examples, and at most the width.

    More whitened directions than that are mostly noise. Any two representations of `k` whitened
    directions share a part `k / n` of their span by chance.

    Examples:
        >>> default_components(2000, 64), default_components(2000, 576)
        (64, 250)
    """
    return max(1, min(d, n // 8))


def matching_components(n: int, d: int) -> int:
    """Return all directions if examples are at least twice as many; else `default_components`.

    Only with all directions does the flat spectrum undo any invertible map. With fewer, a map that
    makes other directions the leading ones changes the estimate without a change of information.

    Examples:
        >>> matching_components(2000, 576), matching_components(2000, 4096)
        (576, 250)
    """
    return d if 2 * d <= n else default_components(n, d)
