"""One reading's kernels, with all that its dependence on any other reading takes.

What costs `n²` operations is done once for each reading and width; what is left for each pair of
readings is a few sums.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Int, Int8
from torch import Tensor

from tlens_trust.measures.kernels.components import (
    PrincipalComponents,
    influence,
    linearised_halves,
    shared_directions,
)
from tlens_trust.measures.kernels.half_sums import HalfSums
from tlens_trust.measures.kernels.hsic import centre
from tlens_trust.measures.kernels.rotations import Rotations
from tlens_trust.measures.resampling import HalfSamples

# The paper's X.
FIRST_BLOCK = "blocks.0.hook_resid_post"
FIRST_BLOCK_NOT_READ = (
    f"NaN: the first block's output was not read. Have {FIRST_BLOCK!r} among the sites, as "
    "sites='resid_post' does"
)
# Components whose weight is below this part of the largest are left out of permutations, and of
# first-order changes.
_LEAST_WEIGHT = 0.1
_BANDS = 6


@dataclass(frozen=True, eq=False)
class Comparison:
    """One estimate of the dependence of two readings, with what it is held against.

    Attributes:
        value: The estimate.
        null: The same statistic where rows, or labels, are permuted; first where they are not.
        on_halves: The estimate on each half sample, but for a constant.
    """

    value: float
    null: Float[np.ndarray, " draw"]
    on_halves: Float[np.ndarray, " resample"]


@dataclass(frozen=True, eq=False)
class ResamplingDesign:
    """What all readings of a concept's statements share.

    Attributes:
        rotations: Of the rows, which are in their order.
        halves: Half samples of the rows.
        weights: `halves.weights()`.
        signs: 1 and -1 for labels 1 and 0: first the labels themselves, then draws of what they
            might have been.
        units: Rows whose labels go together in every draw, as sums of signs.
    """

    rotations: Rotations
    halves: HalfSamples
    weights: Float[Tensor, "example resample"]
    signs: Float[Tensor, "example draw"]
    units: "SignUnits"

    @classmethod
    def of(
        cls, rotations: Rotations, halves: HalfSamples, draws: Int8[np.ndarray, "draw example"]
    ) -> "ResamplingDesign":
        """Of draws of labels 0 and 1."""
        signs = torch.from_numpy(2.0 * draws.T - 1).float().contiguous()
        return cls(rotations, halves, halves.weights(), signs, SignUnits.of(signs))


@dataclass(frozen=True, eq=False)
class GaussianSide:
    """A reading's kernel of one width, ready to be compared.

    Attributes:
        centred: The centred kernel, in float64, of which values are made.
        sums: The same in float32, of which nulls and half samples are made.
        self_hsic: Unbiased HSIC with itself.
        self_hsic_halves: The same on half samples.
        transform: Of the centred kernel, for rotations of its rows; none for labels.
    """

    centred: Float[Tensor, "example example"]
    sums: HalfSums
    self_hsic: float
    self_hsic_halves: Float[np.ndarray, " resample"]
    transform: tuple[Tensor, ...]

    @classmethod
    def of(
        cls,
        kernel: Float[Tensor, "example example"],
        design: ResamplingDesign,
        *,
        is_permuted: bool = True,
    ) -> "GaussianSide":
        """Take a kernel matrix apart.

        Args:
            kernel: In float64, its rows in the order of the rotations. It is written over.
            design: What readings share.
            is_permuted: Whether its rows are to be permuted.
        """
        n = len(kernel)
        centred = centre(kernel, out=kernel)
        self_hsic = float(torch.dot(centred.flatten(), centred.flatten())) / (n * (n - 3))
        sums = HalfSums.of(centred.float(), design.weights)
        transform = design.rotations.transform(sums.matrix, seated=True) if is_permuted else ()
        return cls(centred, sums, self_hsic, sums.hsic(sums, design.weights), transform)

    def compare(self, other: "GaussianSide", design: ResamplingDesign) -> dict[str, Comparison]:
        """HSIC and CKA with another reading of the same statements."""
        n = len(self.sums.matrix)
        null = design.rotations.sums(self.transform, other.transform) / (n * (n - 3))
        return self._scaled(other, null, design)

    def compare_labels(
        self, labels: "GaussianSide", design: ResamplingDesign
    ) -> dict[str, Comparison]:
        """HSIC and CKA with the labels, whose delta kernel is `(1 + s sᵀ)/2` for signs `s`."""
        n = len(self.sums.matrix)
        null = 0.5 * design.units.quadratic_forms(self.sums.matrix) / (n * (n - 3))
        return self._scaled(labels, null, design)

    def _scaled(
        self, other: "GaussianSide", null: Float[np.ndarray, " draw"], design: ResamplingDesign
    ) -> dict[str, Comparison]:
        n = len(self.centred)
        value = float(torch.dot(self.centred.flatten(), other.centred.flatten())) / (n * (n - 3))
        on_halves = self.sums.hsic(other.sums, design.weights)
        length = np.sqrt(self.self_hsic * other.self_hsic)
        lengths = np.sqrt(np.clip(self.self_hsic_halves * other.self_hsic_halves, 1e-300, None))
        return {
            "hsic": Comparison(value, null, on_halves),
            "cka": Comparison(value / length, null / length, on_halves / lengths),
        }


def label_side(design: ResamplingDesign) -> GaussianSide:
    """The delta kernel of the labels."""
    label = design.signs[:, 0].double()
    return GaussianSide.of(0.5 + 0.5 * torch.outer(label, label), design, is_permuted=False)


@dataclass(frozen=True, eq=False)
class SignUnits:
    """Vectors of signs in which some rows always have the same sign, or always the opposite one.

    The two statements of a pair with labels 0 and 1 do, and so do those of a group with one label.
    A quadratic form in such vectors is one in fewer numbers.

    Attributes:
        unit: Of each row.
        side: 1 or -1 for each row: `vectors[i] = side[i] * signs[unit[i]]`.
        signs: Of each unit in each draw.
    """

    unit: Int[Tensor, " example"]
    side: Float[Tensor, " example"]
    signs: Float[Tensor, "unit draw"]

    @classmethod
    def of(cls, vectors: Float[Tensor, "example draw"]) -> "SignUnits":
        """Find what goes together in draws of 1 and -1."""
        side = vectors[:, 0]
        aligned = vectors * side[:, None]
        packed = np.packbits(aligned.cpu().numpy() > 0, axis=1)
        row_keys = np.ascontiguousarray(packed).view(np.dtype((np.void, packed.shape[1]))).ravel()
        _, first_rows, unit = np.unique(row_keys, return_index=True, return_inverse=True)
        return cls(torch.from_numpy(unit.ravel()), side, aligned[torch.from_numpy(first_rows)])

    def quadratic_forms(
        self, matrix: Float[Tensor, "example example"]
    ) -> Float[np.ndarray, " draw"]:
        """`vᵀ M v` for each draw, of a symmetric matrix."""
        count = len(self.signs)
        if count < len(self.unit):
            half_reduced = matrix.new_zeros(count, len(matrix))
            half_reduced.index_add_(0, self.unit, matrix * self.side[:, None])
            half_reduced *= self.side
            reduced = matrix.new_zeros(count, count)
            matrix = reduced.index_add_(0, self.unit, half_reduced.T.contiguous())
        forms = torch.zeros(self.signs.shape[1], dtype=torch.float64)
        edges = np.linspace(0, count, _BANDS + 1).astype(int).tolist()
        for start, stop in pairwise(edges):
            # Symmetric: what is left of the diagonal block is what is right of it.
            onto = matrix[start:stop, start:] @ self.signs[start:]
            onto *= 2
            onto -= matrix[start:stop, start:stop] @ self.signs[start:stop]
            forms += onto.mul_(self.signs[start:stop]).sum(dim=0).double().cpu()
        return np.asarray(forms.numpy())


@dataclass(frozen=True, eq=False)
class LinearSide:
    """A reading's principal components, with their permutations at each ridge.

    Attributes:
        components: Of the reading.
        traces: `tr R` at each ridge: whole, and of what permutations are made of.
        transforms: Of `R` at each ridge, for rotations of its rows; none for labels.
    """

    components: PrincipalComponents
    traces: Sequence[tuple[float, float]]
    transforms: Sequence[tuple[Tensor, ...]]

    @classmethod
    def of(
        cls,
        components: PrincipalComponents,
        ridges: Sequence[float],
        design: ResamplingDesign,
        *,
        is_permuted: bool = True,
    ) -> "LinearSide":
        """Take a reading's components, and with `is_permuted` prepare them for permutations."""
        traces: list[tuple[float, float]] = []
        transforms: list[tuple[Tensor, ...]] = []
        flat = bool((components.shares == components.shares[0]).all())
        for number, ridge in enumerate(ridges):
            weights = components.weights(ridge)
            is_kept = weights > _LEAST_WEIGHT * weights[0]
            traces.append((float(weights.sum()), float(weights[is_kept].sum())))
            if not is_permuted:
                continue
            if flat and number:
                ratio = float(weights[0] / components.weights(ridges[0])[0])
                transforms.append(tuple(part * ratio for part in transforms[0]))
                continue
            factor = (components.vectors[:, is_kept] * weights[is_kept].sqrt()).float()
            transforms.append(design.rotations.transform(factor @ factor.T, seated=True))
        return cls(components, traces, transforms)

    def compare(
        self, other: "LinearSide", ridges: Sequence[float], design: ResamplingDesign
    ) -> list[Comparison]:
        """Normalised HSIC with another reading of the same statements, at each ridge."""
        n = len(self.components.vectors)
        overlap = self.components.overlap(other.components)
        comparisons = []
        for number, ridge in enumerate(ridges):
            null = design.rotations.sums(self.transforms[number], other.transforms[number])
            (trace, kept_trace), (other_trace, other_kept_trace) = (
                self.traces[number],
                other.traces[number],
            )
            # The mean over all permutations is known, that of what was left out with it.
            null += (trace * other_trace - kept_trace * other_kept_trace) / (n - 1)
            comparisons.append(self._compared(other, overlap, ridge, null, design))
        return comparisons

    def compare_labels(
        self, labels: "LinearSide", ridges: Sequence[float], design: ResamplingDesign
    ) -> list[Comparison]:
        """Normalised HSIC with the labels, at each ridge."""
        directions = design.signs - design.signs.mean(dim=0)
        directions = directions / torch.linalg.vector_norm(directions, dim=0)
        projected = (self.components.vectors.float().T @ directions).square().double()
        overlap = self.components.overlap(labels.components)
        comparisons = []
        for ridge in ridges:
            null = self.components.weights(ridge) @ projected
            null *= labels.components.weights(ridge)[0]
            comparisons.append(
                self._compared(labels, overlap, ridge, np.asarray(null.cpu().numpy()), design)
            )
        return comparisons

    def _compared(
        self,
        other: "LinearSide",
        overlap: Float[Tensor, "component other"],
        ridge: float,
        null: Float[np.ndarray, " draw"],
        design: ResamplingDesign,
    ) -> Comparison:
        value = shared_directions(self.components, other.components, overlap, ridge)
        influences = influence(
            self.components, other.components, overlap, ridge, least=_LEAST_WEIGHT
        )
        return Comparison(value, null, linearised_halves(influences, design.halves))


def linear_label_side(ridges: Sequence[float], design: ResamplingDesign) -> LinearSide:
    """The labels as one standardised component."""
    column = design.signs[:, :1].double()
    return LinearSide.of(PrincipalComponents.of(column), ridges, design, is_permuted=False)
