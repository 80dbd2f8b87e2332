"""Kernels: the similarity of two examples, by their activations or by their labels."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import isfinite, nan
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tlens_trust.arguments import checked_positive

# Above this number of examples, the median distance is that of a sample: it needs n² numbers.
_MEDIAN_ROWS = 4096


@runtime_checkable
class Kernel(Protocol):
    """A positive semi-definite function of two examples."""

    @property
    def name(self) -> str:
        """The kernel and its parameters, in words."""

    def fitted(self, x: Float[Tensor, "example d"]) -> "Kernel":
        """Return the same kernel with every parameter a number, taken from the data if need be."""

    def between(
        self, x: Float[Tensor, "example d"], y: Float[Tensor, "other d"]
    ) -> Float[Tensor, "example other"]:
        """Compute its value for each pair, in float64; the kernel must be fitted."""

    def diagonal(self, x: Float[Tensor, "example d"]) -> Float[Tensor, " example"]:
        """Compute its value for each example with itself."""


@dataclass(frozen=True)
class GaussianKernel:
    """The Gaussian kernel, `exp(-‖x - y‖² / (2 · width²))`, with values between 0 and 1.

    Attributes:
        width: In the unit of the data. None takes the median distance of the data
            (`median_distance`). A number keeps the kernel the same along a series.
        multiple: The factor of the median distance. It has no effect if `width` is given.

    Raises:
        ValueError: `width` or `multiple` is not a positive number.

    Source:
        Gretton et al. (2005), Algorithmic Learning Theory, for the kernel. The median as its width
        is a heuristic in use since Schölkopf and Smola (2002); it is not optimal in any known
        sense.

    Examples:
        >>> x = torch.tensor([[0.0], [1.0], [3.0]])
        >>> GaussianKernel().fitted(x).width, GaussianKernel(multiple=0.5).fitted(x).width
        (2.0, 1.0)
    """

    width: float | int | None = None
    multiple: float | int = 1.0

    def __post_init__(self) -> None:
        for name, value in (("width", self.width), ("multiple", self.multiple)):
            if value is not None:
                hint = "Leave the width out for the median distance."
                checked_positive(name, value, hint=hint)

    @property
    def name(self) -> str:
        """The width, or the rule that gives it."""
        if self.width is not None:
            return f"gaussian(width={float(self.width):g})"
        return f"gaussian({float(self.multiple):g}×median)"

    def fitted(self, x: Float[Tensor, "example d"]) -> "GaussianKernel":
        """Return the kernel with the width for these data.

        Raises:
            ValueError: All examples are the same, so there is no distance for a width.
        """
        if self.width is not None:
            return self
        width = median_distance(x) * self.multiple
        if not isfinite(width):
            raise ValueError(
                "All examples are the same, so that there is no median distance to take as a "
                "width. Give a number as `width`, or leave out this variable: nothing depends on "
                "a constant."
            )
        return replace(self, width=width)

    def between(
        self, x: Float[Tensor, "example d"], y: Float[Tensor, "other d"]
    ) -> Float[Tensor, "example other"]:
        """Compute its value for each pair, in float64."""
        if self.width is None:
            raise ValueError("The kernel has no width yet. Take `kernel.fitted(x)` first.")
        return gaussian_of(squared_distances(x, y), float(self.width))

    def diagonal(self, x: Float[Tensor, "example d"]) -> Float[Tensor, " example"]:
        """Return one for each example."""
        return torch.ones(len(x), dtype=torch.float64, device=x.device)


@dataclass(frozen=True)
class LinearKernel:
    """The inner product of the data as they are; the estimators centre it."""

    @property
    def name(self) -> str:
        """The kernel, which has no parameters."""
        return "linear"

    def fitted(self, x: Float[Tensor, "example d"]) -> "LinearKernel":
        """Return the kernel itself."""
        return self

    def between(
        self, x: Float[Tensor, "example d"], y: Float[Tensor, "other d"]
    ) -> Float[Tensor, "example other"]:
        """Compute its value for each pair, in float64."""
        return x.double() @ y.double().T

    def diagonal(self, x: Float[Tensor, "example d"]) -> Float[Tensor, " example"]:
        """Compute the squared length of each example."""
        return x.double().square().sum(dim=1)


@dataclass(frozen=True)
class DeltaKernel:
    """The kernel for labels: 1 if two examples are equal in every coordinate, else 0."""

    @property
    def name(self) -> str:
        """The kernel, which has no parameters."""
        return "delta"

    def fitted(self, x: Float[Tensor, "example d"]) -> "DeltaKernel":
        """Return the kernel itself."""
        return self

    def between(
        self, x: Float[Tensor, "example d"], y: Float[Tensor, "other d"]
    ) -> Float[Tensor, "example other"]:
        """Compute its value for each pair, in float64."""
        equal = torch.ones(len(x), len(y), dtype=torch.bool, device=x.device)
        for column in range(x.shape[1]):
            equal &= x[:, column, None] == y[None, :, column]
        return equal.double()

    def diagonal(self, x: Float[Tensor, "example d"]) -> Float[Tensor, " example"]:
        """Return one for each example."""
        return torch.ones(len(x), dtype=torch.float64, device=x.device)


def label_column(labels: Int[np.ndarray, " example"]) -> Float[Tensor, "example 1"]:
    """Convert labels to a float64 column, as estimators on two tensors take them.

    Examples:
        >>> label_column(np.array([0, 1])).tolist()
        [[0.0], [1.0]]
    """
    return torch.from_numpy(np.asarray(labels, dtype=np.float64)).unsqueeze(1)


def squared_distances(
    x: Float[Tensor, "example d"], y: Float[Tensor, "other d"]
) -> Float[Tensor, "example other"]:
    """Compute squared Euclidean distances in float64; a point has distance 0 to itself.

    Uses `‖x‖² + ‖y‖² - 2 x·y` about the mean of `x`, so a common offset costs no precision. The
    error is about 1e-16 of the squared lengths about that mean.
    """
    is_same = x is y
    centre = x.double().mean(dim=0)
    x = x.double() - centre
    y = x if is_same else y.double() - centre
    x_squares = x.square().sum(dim=1, keepdim=True)
    y_squares = x_squares if is_same else y.square().sum(dim=1, keepdim=True)
    # Rounding can make a small squared distance negative.
    distances = torch.addmm(y_squares.T, x, y.T, alpha=-2.0).add_(x_squares).clamp_min_(0)
    if is_same:
        distances.fill_diagonal_(0)
    return distances


def gaussian_of(
    squared: Float[Tensor, "example other"], width: float
) -> Float[Tensor, "example other"]:
    """Compute `exp(-squared / (2 · width²))`."""
    return torch.exp(squared * (-0.5 / width**2))


def median_distance(x: Float[Tensor, "example d"]) -> float:
    """Compute the median Euclidean distance between two different examples (the median heuristic).

    This is the lower median of `‖xᵢ - xⱼ‖` over all pairs `i < j`. If most examples are duplicates
    and the median is 0, it is the median of the positive distances. Of more than 4,096 examples, it
    uses 4,096 that are evenly spaced through the sample.

    Args:
        x: At least two examples.

    Returns:
        The distance in the unit of the data; NaN if all examples are the same.

    Examples:
        >>> median_distance(torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 0.0]]))
        4.0
    """
    if len(x) > _MEDIAN_ROWS:
        x = x[torch.linspace(0, len(x) - 1, _MEDIAN_ROWS).long()]
    return median_of(squared_distances(x, x))


def median_of(squared: Float[Tensor, "example example"]) -> float:
    """Compute `median_distance` from squared distances."""
    n = len(squared)
    if n < 2:
        return nan
    rows = squared.cpu().numpy()
    pairs = np.concatenate([rows[i, i + 1 :] for i in range(n - 1)])
    # Rounding gives duplicates a small positive distance.
    rounding = 1e-14 * float(pairs.max(initial=0.0))
    middle = float(np.partition(pairs, (len(pairs) - 1) // 2)[(len(pairs) - 1) // 2])
    if middle > rounding:
        return float(np.sqrt(middle))
    distinct = np.sort(pairs[pairs > rounding])
    return float(np.sqrt(distinct[(len(distinct) - 1) // 2])) if len(distinct) else nan


def row_blocks(n: int, block: int) -> Iterator[slice]:
    """Yield slices of at most `block` rows."""
    for start in range(0, n, block):
        yield slice(start, min(start + block, n))


def check_pair(x: Float[Tensor, "example d"], y: Float[Tensor, "other k"], least: int = 4) -> None:
    """Check that the dependence of two representations can be estimated.

    Raises:
        ValueError: The two differ in length, have fewer than `least` examples, or hold a NaN or an
            infinity.
    """
    if len(x) != len(y):
        raise ValueError(
            f"Dependence is between two arrays of the same examples, got {len(x)} and {len(y)} rows"
            ". Give them row by row."
        )
    if len(x) < least:
        raise ValueError(f"Dependence takes at least {least} examples, got {len(x)}.")
    for name, values in (("x", x), ("y", y)):
        if not torch.isfinite(values).all():
            raise ValueError(
                f"`{name}` holds a NaN or an infinity. Leave out those examples, or find where "
                "they come from."
            )
