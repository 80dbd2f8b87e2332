"""`I(T + Z; X)`: which statement was read, told from activations under Gaussian noise.

A representation `T = f(X)` that is computed without noise and takes continuous values tells
infinitely much of a continuous `X`, and of one drawn from `n` statements that it maps to different
points, exactly `ln n`: `I(T; X)` says nothing. What can rise and fall is how much is left under
noise, and that depends on how strong the noise is. So every figure here names its noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tlens_trust.arguments import checked_count, checked_positive, checked_seed
from tlens_trust.measures.information.estimate import InformationEstimate
from tlens_trust.measures.resampling import HalfSamples

_BLOCK = 512


@dataclass(frozen=True, eq=False)
class NoisedInformation:
    """`I(T + Z; X)` at several levels of noise.

    Attributes:
        value: In nats, at most `ln n`.
        on_halves: On each half sample, at most `ln n/2`.
        ceiling: What no `T` with this covariance can exceed: the least of `ln n` and
            `½ Σ ln(1 + λᵢ/σ²)`, with `λ` the covariance's eigenvalues.
    """

    value: Float[np.ndarray, " noise"]
    on_halves: Float[np.ndarray, "noise resample"]
    ceiling: Float[np.ndarray, " noise"]


def length_of(x: Float[Tensor, "example d"]) -> float:
    """Root mean square of the rows' distances from their mean: the unit of the noise."""
    values = x.double()
    return float((values - values.mean(dim=0)).square().sum(dim=1).mean().sqrt())


def information_under_noise(
    x: Float[Tensor, "example d"],
    noise: Sequence[float],
    halves: HalfSamples,
    *,
    seed: int,
    draws: int = 1,
) -> NoisedInformation:
    """`I(T + Z; X)` for `X` uniform over the rows, by sample propagation.

    `I = ln n - E ln Σⱼ exp(-(‖tᵢ + z - tⱼ‖² - ‖z‖²) / 2σ²)`, the mean over rows `i` and draws of
    `z ~ N(0, σ²)`: the entropy of a mixture of `n` Gaussians less that of one. What is linear in
    `z · tᵢ` is taken off, since its mean is known to be zero (a control variate). Blocked: no
    `n × n` matrix is held.

    Args:
        x: `T`, one row per statement.
        noise: `σ` along any direction, as fractions of the rows' root mean square distance from
            their mean.
        halves: Which rows each half sample holds.
        seed: Draws `z`, the same for all levels and for all `x` of this shape.
        draws: How many `z` for each row.

    Source:
        Goldfeld et al. (2019), arXiv:1810.05728.
    """
    rows, width = x.shape
    centred = x.double() - x.double().mean(dim=0)
    unit = length_of(x)
    half_weights = halves.weights()
    if unit < 1e-12 * max(float(x.abs().max()), 1e-300):
        zeros = np.zeros(len(noise))
        return NoisedInformation(zeros, np.zeros((len(noise), halves.resamples)), zeros)
    scaled = (centred / unit).float()
    tall = scaled.double() if rows >= width else scaled.double().T
    eigenvalues = torch.linalg.eigvalsh(tall.T @ tall).clamp_min(0) / rows
    generator = torch.Generator().manual_seed(seed)
    squares = scaled.square().sum(dim=1)
    on_all = torch.zeros(len(noise), rows, dtype=torch.float64)
    mean_projection = torch.zeros(rows, dtype=torch.float64)
    on_halves = torch.zeros(len(noise), rows, halves.resamples, dtype=torch.float64)
    for _ in range(draws):
        z = torch.randn(rows, width, generator=generator)
        for start in range(0, rows, _BLOCK):
            block = slice(start, min(start + _BLOCK, rows))
            block_rows = torch.arange(block.start, block.stop)
            squared_distances = squares[block, None] + squares - 2 * (scaled[block] @ scaled.T)
            squared_distances = squared_distances.clamp_min(0)
            squared_distances[block_rows - start, block_rows] = 0
            projections = z[block] @ scaled.T
            own_projection = projections[block_rows - start, block_rows].unsqueeze(1)
            mean_projection[block] += own_projection[:, 0].double() / draws
            projections = own_projection - projections
            for level, fraction in enumerate(noise):
                exponent = squared_distances.mul(-1 / (2 * fraction**2)).sub_(
                    projections, alpha=1 / fraction
                )
                top = exponent.amax(dim=1, keepdim=True)
                weight = exponent.sub_(top).exp_()
                shift = top.double()
                on_all[level, block] += (
                    weight.sum(dim=1, dtype=torch.float64).log() + shift[:, 0]
                ) / draws
                half_sums = (weight @ half_weights).double().clamp_min(1e-300)
                on_halves[level, block] += (half_sums.log() + shift) / draws
    # `z · t` has mean zero, and where noise is strong it is most of what the sum varies by.
    standardised_projection = (mean_projection - mean_projection.mean()) / mean_projection.var(
        correction=0
    ).sqrt().clamp_min(1e-300)
    slope = (on_all * standardised_projection).mean(dim=1, keepdim=True)
    predicted_part = (
        slope * mean_projection / mean_projection.var(correction=0).sqrt().clamp_min(1e-300)
    )
    value = log(rows) - (on_all - predicted_part).mean(dim=1).numpy()
    sizes = halves.members.sum(axis=1)
    half_log_sums = (on_halves - predicted_part.unsqueeze(2)).numpy()
    mean_log_sums = np.where(halves.members.T, half_log_sums, 0.0).sum(axis=1) / sizes
    levels = np.asarray(list(noise))
    gaussian = 0.5 * np.log1p(eigenvalues.numpy() / levels[:, None] ** 2).sum(axis=1)
    return NoisedInformation(value, np.log(sizes) - mean_log_sums, np.minimum(log(rows), gaussian))


@dataclass(frozen=True)
class NoisedEstimator:
    """Estimate `I(T + Z; X)`: how well noisy activations tell which of `n` statements was read.

    `X` is uniform over the rows, `T` its row, `Z` Gaussian noise of standard deviation
    `σ = noise · RMS` along any direction, RMS the root mean square of the rows' distances from
    their mean (not of single coordinates, so that a level means the same in spaces of any width).
    In nats; at most `ln n` (every row is told apart), and never more than a Gaussian of the same
    covariance would tell (`½ Σ ln(1 + λᵢ/σ²)`). Shifting, rotating and scaling all of `T` change
    nothing. Stretching one direction does, though no information comes or goes: see that a change
    survives in whitened components, and at other levels.

    Attributes:
        noise: The noise's standard deviation along any direction, as a fraction of the RMS.
        draws: How many times noise is drawn for each row.
        seed: Draws noise and half samples.

    Source:
        Goldfeld et al. (2019), arXiv:1810.05728.

    Examples:
        >>> apart = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
        >>> estimate = NoisedEstimator(noise=0.01)(apart)
        >>> round(estimate.value, 4), round(log(4), 4)
        (1.3863, 1.3863)
    """

    noise: float = 0.2
    draws: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        hint = (
            "It is a fraction of the rows' root mean square distance from their mean; without "
            "noise, the information is infinite."
        )
        checked_positive("noise", self.noise, hint=hint)
        checked_count("draws", self.draws)
        checked_seed(self.seed)

    def __call__(
        self,
        x: Float[Tensor, "example d"],
        *,
        groups: Sequence[str] | None = None,
        resamples: int = 32,
    ) -> InformationEstimate:
        """Estimate it for the rows of `x`.

        Args:
            x: `T`, one row per statement.
            groups: What belongs together, for the interval; None where each row stands alone.
            resamples: How many half samples stand behind the interval.

        Raises:
            ValueError: There are too few groups.
        """
        names = [str(row) for row in range(len(x))] if groups is None else list(groups)
        halves = HalfSamples.draw(names, resamples=resamples, seed=self.seed)
        noised = information_under_noise(x, [self.noise], halves, seed=self.seed, draws=self.draws)
        replicates = halves.replicates_about(noised.value, noised.on_halves)
        low, high = halves.interval(noised.value, replicates)[0]
        value = float(noised.value[0])
        warnings = [
            f"Of activations with Gaussian noise of {self.noise:g} times their root mean square "
            "distance from their mean; another level gives another figure."
        ]
        if value > 0.9 * log(len(x)):
            warnings.append(
                f"Near its cap of ln n = {log(len(x)):.3f} nats: nearly every row is told apart, "
                "and more examples or more noise would say more."
            )
        interval = float(low), float(high)
        return InformationEstimate(value, interval, len(x), "estimate", tuple(warnings))
