"""One representation's kernels, with everything needed to compare it with any other.

Steps with `n²` operations are done once for each representation and width. Each pair of
representations then takes only a few sums.
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

# The paper (Qian et al. 2024) takes the first block's output as its X.
FIRST_BLOCK = "blocks.0.hook_resid_post"
FIRST_BLOCK_NOT_READ = (
    f"NaN: the first block's output was not read. Have {FIRST_BLOCK!r} among the sites, as "
    "sites='resid_post' does"
)
# Components with less than this fraction of the largest weight are left out of permutations and
# first-order changes, which saves most of their cost.
_LEAST_WEIGHT = 0.1
# Bands of a symmetric matrix: more bands skip more of the lower half, but make smaller products.
_BANDS = 6


@dataclass(frozen=True, eq=False)
class Comparison:
    """One estimate of the dependence of two representations, with its null.

    Attributes:
        value: The estimate.
        null: The statistic under each permutation of rows or labels; the first draw permutes
            nothing.
        on_halves: The estimate on each half sample, up to a constant.
    """

    value: float
    null: Float[np.ndarray, " draw"]
    on_halves: Float[np.ndarray, " resample"]


@dataclass(frozen=True, eq=False)
class ResamplingDesign:
    """The permutations and half samples that all representations of a concept's statements share.

    Attributes:
        rotations: Rotations of the rows, which are in the rotations' order.
        halves: Half samples of the rows.
        weights: `halves.weights()`.
        signs: 1 and -1 for labels 1 and 0: first the actual labels, then the permuted ones.
        units: Rows whose labels change together in every draw, as sums of signs.
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
        """Make the design from draws of labels 0 and 1."""
        signs = torch.from_numpy(2.0 * draws.T - 1).float().contiguous()
        return cls(rotations, halves, halves.weights(), signs, SignUnits.of(signs))


@dataclass(frozen=True, eq=False)
class GaussianSide:
    """A representation's kernel of one width, prepared for comparisons.

    Attributes:
        centred: The centred kernel in float64, for values.
        sums: The same in float32, for nulls and half samples.
        self_hsic: Unbiased HSIC of the representation with itself.
        self_hsic_halves: The same on half samples.
        transform: The transform of the centred kernel, for rotations of its rows; empty for labels.
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
        """Prepare a kernel matrix for comparisons.

        Args:
            kernel: In float64, with rows in the order of the rotations. It is overwritten.
            design: The design that all representations share.
            is_permuted: Whether its rows will be permuted.
        """
        n = len(kernel)
        centred = centre(kernel, out=kernel)
        self_hsic = float(torch.dot(centred.flatten(), centred.flatten())) / (n * (n - 3))
        sums = HalfSums.of(centred.float(), design.weights)
        transform = design.rotations.transform(sums.matrix, seated=True) if is_permuted else ()
        return cls(centred, sums, self_hsic, sums.hsic(sums, design.weights), transform)

    def compare(self, other: "GaussianSide", design: ResamplingDesign) -> dict[str, Comparison]:
        """Compute HSIC and CKA with another representation of the same statements."""
        n = len(self.sums.matrix)
        null = design.rotations.sums(self.transform, other.transform) / (n * (n - 3))
        return self._scaled(other, null, design)

    def compare_labels(
        self, labels: "GaussianSide", design: ResamplingDesign
    ) -> dict[str, Comparison]:
        """Compute HSIC and CKA with labels, whose delta kernel is `(1 + s sᵀ)/2` for signs `s`."""
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
    """Prepare the delta kernel of the labels."""
    label = design.signs[:, 0].double()
    return GaussianSide.of(0.5 + 0.5 * torch.outer(label, label), design, is_permuted=False)


@dataclass(frozen=True, eq=False)
class SignUnits:
    """Vectors of signs in which some rows always have equal or always opposite signs.

    This holds for the two statements of a pair with labels 0 and 1, and for the rows of a group
    with one label. A quadratic form in such vectors reduces to one in fewer numbers.

    Attributes:
        unit: The unit of each row.
        side: 1 or -1 for each row: `vectors[i] = side[i] * signs[unit[i]]`.
        signs: The sign of each unit in each draw.
    """

    unit: Int[Tensor, " example"]
    side: Float[Tensor, " example"]
    signs: Float[Tensor, "unit draw"]

    @classmethod
    def of(cls, vectors: Float[Tensor, "example draw"]) -> "SignUnits":
        """Find the rows that change together in draws of 1 and -1."""
        side = vectors[:, 0]
        aligned = vectors * side[:, None]
        packed = np.packbits(aligned.cpu().numpy() > 0, axis=1)
        # Each row as one opaque value, so that `unique` compares whole rows at once.
        row_keys = np.ascontiguousarray(packed).view(np.dtype((np.void, packed.shape[1]))).ravel()
        _, first_rows, unit = np.unique(row_keys, return_index=True, return_inverse=True)
        return cls(torch.from_numpy(unit.ravel()), side, aligned[torch.from_numpy(first_rows)])

    def quadratic_forms(
        self, matrix: Float[Tensor, "example example"]
    ) -> Float[np.ndarray, " draw"]:
        """Compute `vᵀ M v` of a symmetric matrix for each draw."""
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
            # The matrix is symmetric, so the part right of the diagonal block counts twice.
            onto = matrix[start:stop, start:] @ self.signs[start:]
            onto *= 2
            onto -= matrix[start:stop, start:stop] @ self.signs[start:stop]
            forms += onto.mul_(self.signs[start:stop]).sum(dim=0).double().cpu()
        return np.asarray(forms.numpy())


@dataclass(frozen=True, eq=False)
class LinearSide:
    """A representation's principal components, with their permutations at each ridge.

    Attributes:
        components: The principal components of the representation.
        traces: `tr R` at each ridge: of all components, and of those used in permutations.
        transforms: The transforms of `R` at each ridge, for rotations of its rows; empty for
            labels.
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
        """Prepare a representation's components, and with `is_permuted` their permutations."""
        traces: list[tuple[float, float]] = []
        transforms: list[tuple[Tensor, ...]] = []
        flat = bool((components.shares == components.shares[0]).all())
        for number, ridge in enumerate(ridges):
            weights = components.weights(ridge)
            is_kept = weights > _LEAST_WEIGHT * weights[0]
            traces.append((float(weights.sum()), float(weights[is_kept].sum())))
            if not is_permuted:
                continue
            # With a flat spectrum, another ridge only rescales the first transform.
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
        """Compute normalised HSIC with another representation of the statements, at each ridge."""
        n = len(self.components.vectors)
        overlap = self.components.overlap(other.components)
        comparisons = []
        for number, ridge in enumerate(ridges):
            null = design.rotations.sums(self.transforms[number], other.transforms[number])
            (trace, kept_trace), (other_trace, other_kept_trace) = (
                self.traces[number],
                other.traces[number],
            )
            # The components left out add their mean over all permutations, which is known exactly.
            null += (trace * other_trace - kept_trace * other_kept_trace) / (n - 1)
            comparisons.append(self._compared(other, overlap, ridge, null, design))
        return comparisons

    def compare_labels(
        self, labels: "LinearSide", ridges: Sequence[float], design: ResamplingDesign
    ) -> list[Comparison]:
        """Compute normalised HSIC with the labels, at each ridge."""
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
    """Prepare the labels as one standardised component."""
    column = design.signs[:, :1].double()
    return LinearSide.of(PrincipalComponents.of(column), ridges, design, is_permuted=False)
