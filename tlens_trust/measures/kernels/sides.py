"""One reading's kernel, with all that its dependence on any other reading takes.

What costs `n²` operations is done once for each reading and width; what is left for each pair of
readings is a few sums.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int8
from torch import Tensor

from tlens_trust.measures.kernels.exchange import Rotations
from tlens_trust.measures.kernels.halves import HalfSamples, HalfSums
from tlens_trust.measures.kernels.hsic import centre
from tlens_trust.measures.kernels.low_rank import factorise_matrix
from tlens_trust.measures.kernels.normalised import NormalisedFactor

# Eigenvectors whose weight in R is below this do not matter to the spread of half samples.
_LEAST_WEIGHT = 0.02


@dataclass(frozen=True, eq=False)
class Comparison:
    """One estimate of the dependence of two readings, with what it is held against.

    Attributes:
        value: The estimate.
        null: The same statistic where rows, or labels, are permuted; first where they are not.
        on_halves: The estimate on each half sample.
        error: How far at most the value may lie below an exact one; 0 where it is exact.
    """

    value: float
    null: Float[np.ndarray, " draw"]
    on_halves: Float[np.ndarray, " resample"]
    error: float = 0.0


@dataclass(frozen=True, eq=False)
class Setting:
    """What all readings of a concept's statements share.

    Attributes:
        rotations: Of the rows, which are in their order.
        halves: Half samples of the rows.
        weights: `halves.weights()`.
        labels: 0 or 1: the labels themselves, then draws of what they might have been.
        epsilon: `ε` of normalised HSIC.
        rank: Of low-rank kernels at most.
    """

    rotations: Rotations
    halves: HalfSamples
    weights: Float[Tensor, "example resample"]
    labels: Int8[np.ndarray, "draw example"]
    epsilon: float
    rank: int


@dataclass(frozen=True, eq=False)
class Side:
    """A reading's kernel, ready to be compared.

    Attributes:
        sums: The centred kernel, and its row sums within half samples.
        own: Unbiased HSIC with itself.
        own_halves: The same on half samples.
        transform: Of the centred kernel, for rotations of its rows.
        normalised: `R`, as eigenvectors and eigenvalues.
        normalised_transform: Of `R`.
        half_factors: For each half, `B` with `R = B Bᵀ` there.
    """

    sums: HalfSums
    own: float
    own_halves: Float[np.ndarray, " resample"]
    transform: tuple[Tensor, ...]
    normalised: NormalisedFactor
    normalised_transform: tuple[Tensor, ...]
    half_factors: tuple[Tensor, ...]

    @classmethod
    def of(cls, kernel: Float[Tensor, "example example"], setting: Setting) -> "Side":
        """Take a kernel matrix apart.

        Args:
            kernel: In float64, its rows in the order of the rotations.
            setting: What readings share.
        """
        n = len(kernel)
        normalised = NormalisedFactor.of(
            factorise_matrix(kernel, rank=setting.rank), setting.epsilon
        )
        centred = centre(kernel)
        own = float(centred.square().sum()) / (n * (n - 3))
        sums = HalfSums.of(centred.float(), setting.weights)
        factor = normalised.scaled().float()
        return cls(
            sums,
            own,
            sums.hsic(sums, setting.weights)[1],
            setting.rotations.transform(sums.matrix, seated=True),
            normalised,
            setting.rotations.transform(factor @ factor.T, seated=True),
            _half_factors(normalised, setting.halves),
        )

    def compare(self, other: "Side", setting: Setting) -> Mapping[str, Comparison]:
        """HSIC, CKA and normalised HSIC with another reading of the same statements."""
        n = len(self.sums.matrix)
        null = setting.rotations.sums(self.transform, other.transform) / (n * (n - 3))
        value, on_halves = self.sums.hsic(other.sums, setting.weights)
        normalised = self.normalised.dot(other.normalised)
        return {
            **_hsic_and_cka(
                value,
                null,
                on_halves,
                (self.own, other.own),
                (self.own_halves, other.own_halves),
            ),
            "nhsic": Comparison(
                normalised.value,
                setting.rotations.sums(self.normalised_transform, other.normalised_transform),
                _overlaps(self.half_factors, other.half_factors),
                normalised.bound,
            ),
        }


@dataclass(frozen=True, eq=False)
class LabelSide:
    """The delta kernel of the labels, and of their permutations.

    Attributes:
        signs: 1 and -1 for each draw of labels, the first the labels themselves.
        side: The labels' sums on half samples.
        own: Unbiased HSIC with itself, the same for all draws.
        own_halves: The same on half samples.
        weight: The one eigenvalue of `R`, that all draws have.
        half_factors: For each half, `b` with `R = b bᵀ` there.
    """

    signs: Float[Tensor, "example draw"]
    sums: HalfSums
    own: float
    own_halves: Float[np.ndarray, " resample"]
    weight: float
    half_factors: tuple[Tensor, ...]

    @classmethod
    def of(cls, setting: Setting) -> "LabelSide":
        """Of the setting's labels."""
        signs = torch.from_numpy(2.0 * setting.labels.T - 1).float().contiguous()
        n = len(signs)
        label = signs[:, 0].double()
        centred = centre(0.5 + 0.5 * torch.outer(label, label))
        sums = HalfSums.of(centred.float(), setting.weights)
        spread = 0.5 * float(label.var(correction=0))
        factors = []
        for rows in _rows(setting.halves):
            inside = label[rows] - label[rows].mean()
            size = 0.5 * inside.square().sum()
            scale = 0.5 / (size + setting.epsilon * len(inside))
            factors.append((inside * scale.sqrt()).float().unsqueeze(1))
        return cls(
            signs,
            sums,
            float(centred.square().sum()) / (n * (n - 3)),
            sums.hsic(sums, setting.weights)[1],
            spread / (spread + setting.epsilon),
            tuple(factors),
        )

    def compare(self, other: Side, setting: Setting) -> Mapping[str, Comparison]:
        """HSIC, CKA and normalised HSIC with a reading of the statements."""
        n = len(self.signs)
        matrix = other.sums.matrix
        null = (0.5 * (self.signs * (matrix @ self.signs)).sum(dim=0)).double() / (n * (n - 3))
        hsic, on_halves = other.sums.hsic(self.sums, setting.weights)
        directions = self.signs - self.signs.mean(dim=0)
        directions = directions / directions.norm(dim=0)
        factor = other.normalised.scaled()
        projected = (factor.float().T @ directions).square().sum(dim=0)
        value = self.weight * float((factor.T @ directions[:, 0].double()).square().sum())
        return {
            **_hsic_and_cka(
                hsic,
                null.cpu().numpy(),
                on_halves,
                (self.own, other.own),
                (self.own_halves, other.own_halves),
            ),
            "nhsic": Comparison(
                value,
                self.weight * projected.double().cpu().numpy(),
                _overlaps(other.half_factors, self.half_factors),
                self.weight * min(other.normalised.residual / setting.epsilon, 1.0),
            ),
        }


def _hsic_and_cka(
    value: float,
    null: Float[np.ndarray, " draw"],
    on_halves: Float[np.ndarray, " resample"],
    own: tuple[float, float],
    own_halves: tuple[Float[np.ndarray, " resample"], Float[np.ndarray, " resample"]],
) -> dict[str, Comparison]:
    length = np.sqrt(own[0] * own[1])
    lengths = np.sqrt(np.clip(own_halves[0] * own_halves[1], 1e-300, None))
    return {
        "hsic": Comparison(value, null, on_halves),
        "cka": Comparison(value / length, null / length, on_halves / lengths),
    }


def _rows(halves: HalfSamples) -> list[Tensor]:
    return [torch.from_numpy(np.flatnonzero(half)) for half in halves.members]


def _half_factors(factor: NormalisedFactor, halves: HalfSamples) -> tuple[Tensor, ...]:
    """`B` with `B Bᵀ = K (K + ε n I)⁻¹` on each half, by its leading components, in float32."""
    n = len(factor.vectors)
    kept = factor.weights > _LEAST_WEIGHT
    coordinates = (factor.vectors[:, kept] * (n * factor.spread[kept]).sqrt()).float()
    found = []
    for rows in _rows(halves):
        inside = coordinates[rows]
        inside = inside - inside.mean(dim=0)
        system = inside.T @ inside
        system.diagonal().add_(factor.epsilon * len(inside))
        lower = torch.linalg.cholesky(system)
        found.append(torch.linalg.solve_triangular(lower.T, inside, upper=True, left=False))
    return tuple(found)


def _overlaps(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> Float[np.ndarray, " resample"]:
    return np.array([float((a.T @ b).square().sum()) for a, b in zip(one, other, strict=True)])
