"""Readings whose spectrum has been made flat: what they hold, whatever the scale of each direction.

A kernel estimator sees the directions of large spread and hardly the others. So an invertible map
that only stretches directions, which takes no information away and adds none, moves it up and down.
Once the leading principal components all have the same spread, the map is undone.
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
    components span over the examples: unit variance in every direction. With all components it is
    the same, up to a rotation, after any invertible linear map of `x`, whatever the map does to the
    spectrum; with fewer, after any that leaves the leading components' span.

    A direction is kept where its standard deviation is above the rounding of the numbers that came
    in (see `PrincipalComponents.of`). So a direction that was shrunk to 1e-6 is restored, from
    float64 to nine digits, from float32 to one or two, as far as it is there.

    What it cannot undo: a map that is not invertible, noise, and with fewer components than
    directions a map that moves others into the lead. Directions that hold nothing but noise are
    made as large as the others, so that an estimate on many components is noisier.

    Args:
        x: One row per example.
        components: How many to keep; the same at every checkpoint of a series, so that estimates
            compare. None: `default_components(n, d)`.
        standardise: Whether features are brought to variance 1 before their leading components are
            chosen, so that a few outlier features do not take the lead. With all components it
            makes no difference.

    Returns:
        In float64; fewer columns than `components` where the examples span fewer directions, as
        with `n ≤ d`, constant features or duplicates; none where all examples are the same.

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
    """As many as an eighth of the examples, and no more than the width.

    More directions than that are, once whitened, mostly noise: any two readings of `k` whitened
    directions share a part `k / n` of their span by chance.

    Examples:
        >>> default_components(2000, 64), default_components(2000, 576)
        (64, 250)
    """
    return max(1, min(d, n // 8))


def matching_components(n: int, d: int) -> int:
    """All directions where examples are at least twice as many; else `default_components`.

    Only with all of them does the flattened spectrum undo any invertible map. With fewer, one that
    brings other directions into the lead moves the estimate, as if information came and went.

    Examples:
        >>> matching_components(2000, 576), matching_components(2000, 4096)
        (576, 250)
    """
    return d if 2 * d <= n else default_components(n, d)
