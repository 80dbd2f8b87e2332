"""`I(T + Z; X)`: how well noisy activations identify the statement that produced them.

A representation `T = f(X)` without noise that takes continuous values holds infinite information
about a continuous `X`. If `X` is drawn from `n` statements and `T` maps them to different points,
`I(T; X)` is exactly `ln n`. Either way `I(T; X)` says nothing.

The information that remains under noise can rise and fall, but it depends on the noise level. So
every value in this module states its noise level.
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

# Rows at a time, so that memory grows with 512 × n and not with n².
_BLOCK = 512


@dataclass(frozen=True, eq=False)
class NoisedInformation:
    """`I(T + Z; X)` at several levels of noise.

    Attributes:
        value: In nats, at most `ln n`.
        on_halves: The value on each half sample, at most `ln n/2`.
        ceiling: An upper limit for every `T` with this covariance: the smaller of `ln n` and
            `½ Σ ln(1 + λᵢ/σ²)`, where `λ` are the eigenvalues of the covariance.
    """

    value: Float[np.ndarray, " noise"]
    on_halves: Float[np.ndarray, "noise resample"]
    ceiling: Float[np.ndarray, " noise"]


def length_of(x: Float[Tensor, "example d"]) -> float:
    """Compute the root mean square distance of the rows from their mean: the unit of the noise."""
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
    """Estimate `I(T + Z; X)` for `X` uniform over the rows, by sample propagation.

    `I = ln n - E ln Σⱼ exp(-(‖tᵢ + z - tⱼ‖² - ‖z‖²) / 2σ²)`, the mean over rows `i` and draws of
    `z ~ N(0, σ²)`. This is the entropy of a mixture of `n` Gaussians minus the entropy of one
    Gaussian. The part that is linear in `z · tᵢ` has a known mean of zero and is subtracted (a
    control variate). Rows are processed in blocks, so no `n × n` matrix is stored.

    Args:
        x: `T`, one row per statement.
        noise: The levels `σ`: standard deviations along any direction, as fractions of the rows'
            root mean square distance from their mean.
        halves: The rows of each half sample.
        seed: Draws `z`. The same `z` serves all levels, and all `x` of this shape.
        draws: The number of `z` drawn for each row.

    Source:
        Goldfeld et al. (2019), arXiv:1810.05728.
    """
    rows, width = x.shape
    centred = x.double() - x.double().mean(dim=0)
    unit = length_of(x)
    half_weights = halves.weights()
    if unit < 1e-12 * max(float(x.abs().max()), 1e-300):
        # All rows are equal, so none can be identified.
        zeros = np.zeros(len(noise))
        return NoisedInformation(zeros, np.zeros((len(noise), halves.resamples)), zeros)
    scaled = (centred / unit).float()
    # The smaller of the two Gram matrices has the same nonzero eigenvalues.
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
            # Rounding must not move a row away from itself.
            squared_distances[block_rows - start, block_rows] = 0
            projections = z[block] @ scaled.T
            own_projection = projections[block_rows - start, block_rows].unsqueeze(1)
            mean_projection[block] += own_projection[:, 0].double() / draws
            projections = own_projection - projections
            for level, fraction in enumerate(noise):
                exponent = squared_distances.mul(-1 / (2 * fraction**2)).sub_(
                    projections, alpha=1 / fraction
                )
                # Log-sum-exp: subtracting the maximum avoids underflow of all terms.
                top = exponent.amax(dim=1, keepdim=True)
                weight = exponent.sub_(top).exp_()
                shift = top.double()
                on_all[level, block] += (
                    weight.sum(dim=1, dtype=torch.float64).log() + shift[:, 0]
                ) / draws
                half_sums = (weight @ half_weights).double().clamp_min(1e-300)
                on_halves[level, block] += (half_sums.log() + shift) / draws
    # Control variate: `z · t` has a known mean of zero and correlates with the sum. Under strong
    # noise it explains most of the variance, and a regression on it removes that part.
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
    """Estimate `I(T + Z; X)`: how well noisy activations identify one of `n` statements.

    `X` is uniform over the rows, `T` is its row, and `Z` is Gaussian noise. The noise has standard
    deviation `σ = noise · RMS` along any direction. RMS is the root mean square distance of the
    rows from their mean, not of single coordinates, so a level means the same in spaces of any
    width.

    The value is in nats. It is at most `ln n`, where every row is identified. It is also at most
    the information of a Gaussian with the same covariance (`½ Σ ln(1 + λᵢ/σ²)`).

    Shifting, rotating and scaling all of `T` change nothing. Stretching one direction changes the
    value, though no information is gained or lost. So check that a change also shows in whitened
    components and at other noise levels.

    Attributes:
        noise: The noise's standard deviation along any direction, as a fraction of the RMS.
        draws: The number of noise draws for each row.
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
        """Estimate `I(T + Z; X)` for the rows of `x`.

        Args:
            x: `T`, one row per statement.
            groups: The group of each row, for the interval; None where each row is a group of its
                own.
            resamples: The number of half samples for the interval.

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
            f"For activations with Gaussian noise of {self.noise:g} times their root mean square "
            "distance from their mean; another noise level gives another value."
        ]
        if value > 0.9 * log(len(x)):
            warnings.append(
                f"Near its cap of ln n = {log(len(x)):.3f} nats: nearly every row is identified, "
                "and more examples or more noise would say more."
            )
        interval = float(low), float(high)
        return InformationEstimate(value, interval, len(x), "estimate", tuple(warnings))
