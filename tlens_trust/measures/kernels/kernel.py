"""Kernels: how alike two examples are, by their activations or by their labels."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import isfinite, nan
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tlens_trust.arguments import checked_positive

# Rows among whose pairs the median distance is looked for; more would cost n² numbers at once.
_MEDIAN_ROWS = 4096


@runtime_checkable
class Kernel(Protocol):
    """A positive semi-definite function of two examples."""

    @property
    def name(self) -> str:
        """What it is, with its parameters."""

    def fitted(self, x: Float[Tensor, "example d"]) -> "Kernel":
        """The same kernel with every parameter a number, those that come of the data included."""

    def between(
        self, x: Float[Tensor, "example d"], y: Float[Tensor, "other d"]
    ) -> Float[Tensor, "example other"]:
        """Its value for each pair, in float64. The kernel is a fitted one."""

    def diagonal(self, x: Float[Tensor, "example d"]) -> Float[Tensor, " example"]:
        """Its value for each example with itself."""


@dataclass(frozen=True)
class GaussianKernel:
    """The Gaussian kernel, `exp(-‖x - y‖² / (2 · width²))`, with a number between 0 and 1.

    Attributes:
        width: In the unit of the data; None for the median distance of the data it is applied to
            (`median_distance`). A number keeps the kernel the same along a series.
        multiple: What the median distance is multiplied with. Of no effect where `width` is given.

    Raises:
        ValueError: `width` or `multiple` is not a positive number.

    Source:
        Gretton et al. (2005), Algorithmic Learning Theory, for the kernel; the median as its
        width is a heuristic in use since Schölkopf and Smola (2002), without an optimality.

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
        """The width, or the rule it comes of."""
        if self.width is not None:
            return f"gaussian(width={float(self.width):g})"
        return f"gaussian({float(self.multiple):g}×median)"

    def fitted(self, x: Float[Tensor, "example d"]) -> "GaussianKernel":
        """The kernel with the width for these data.

        Raises:
            ValueError: All examples are alike, so that no distance can be a width.
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
        """Its value for each pair, in float64."""
        if self.width is None:
            raise ValueError("The kernel has no width yet. Take `kernel.fitted(x)` first.")
        return gaussian_of(squared_distances(x, y), float(self.width))

    def diagonal(self, x: Float[Tensor, "example d"]) -> Float[Tensor, " example"]:
        """One."""
        return torch.ones(len(x), dtype=torch.float64, device=x.device)


@dataclass(frozen=True)
class LinearKernel:
    """The inner product, of the data as they are. Centring is the estimators' business."""

    @property
    def name(self) -> str:
        """It has no parameters."""
        return "linear"

    def fitted(self, x: Float[Tensor, "example d"]) -> "LinearKernel":
        """Itself."""
        return self

    def between(
        self, x: Float[Tensor, "example d"], y: Float[Tensor, "other d"]
    ) -> Float[Tensor, "example other"]:
        """Its value for each pair, in float64."""
        return x.double() @ y.double().T

    def diagonal(self, x: Float[Tensor, "example d"]) -> Float[Tensor, " example"]:
        """Squared lengths."""
        return x.double().square().sum(dim=1)


@dataclass(frozen=True)
class DeltaKernel:
    """1 for two examples whose values are equal in every coordinate, else 0: for labels."""

    @property
    def name(self) -> str:
        """It has no parameters."""
        return "delta"

    def fitted(self, x: Float[Tensor, "example d"]) -> "DeltaKernel":
        """Itself."""
        return self

    def between(
        self, x: Float[Tensor, "example d"], y: Float[Tensor, "other d"]
    ) -> Float[Tensor, "example other"]:
        """Its value for each pair, in float64."""
        equal = torch.ones(len(x), len(y), dtype=torch.bool, device=x.device)
        for column in range(x.shape[1]):
            equal &= x[:, column, None] == y[None, :, column]
        return equal.double()

    def diagonal(self, x: Float[Tensor, "example d"]) -> Float[Tensor, " example"]:
        """One."""
        return torch.ones(len(x), dtype=torch.float64, device=x.device)


def label_column(labels: Int[np.ndarray, " example"]) -> Float[Tensor, "example 1"]:
    """Labels as a float64 column, as estimators on two tensors take them.

    Examples:
        >>> label_column(np.array([0, 1])).tolist()
        [[0.0], [1.0]]
    """
    return torch.from_numpy(np.asarray(labels, dtype=np.float64)).unsqueeze(1)


def squared_distances(
    x: Float[Tensor, "example d"], y: Float[Tensor, "other d"]
) -> Float[Tensor, "example other"]:
    """Squared Euclidean distances in float64, the same point at distance 0.

    By `‖x‖² + ‖y‖² - 2 x·y` about the mean of `x`, so that a common offset costs no digits: the
    error is about 1e-16 of the squared lengths about that mean.
    """
    is_same = x is y
    centre = x.double().mean(dim=0)
    x = x.double() - centre
    y = x if is_same else y.double() - centre
    x_squares = x.square().sum(dim=1, keepdim=True)
    y_squares = x_squares if is_same else y.square().sum(dim=1, keepdim=True)
    distances = torch.addmm(y_squares.T, x, y.T, alpha=-2.0).add_(x_squares).clamp_min_(0)
    if is_same:
        distances.fill_diagonal_(0)
    return distances


def gaussian_of(
    squared: Float[Tensor, "example other"], width: float
) -> Float[Tensor, "example other"]:
    """`exp(-squared / (2 · width²))`."""
    return torch.exp(squared * (-0.5 / width**2))


def median_distance(x: Float[Tensor, "example d"]) -> float:
    """The median heuristic: the median Euclidean distance between two different examples.

    Exactly: the lower median of `‖xᵢ - xⱼ‖` over all pairs `i < j`; where it is 0, since most
    examples are duplicates, the median of those distances that are not. Of more than 4,096
    examples it is that of 4,096 of them, evenly spaced through the sample.

    Args:
        x: At least two examples.

    Returns:
        In the unit of the data; NaN where all examples are the same.

    Examples:
        >>> median_distance(torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 0.0]]))
        4.0
    """
    if len(x) > _MEDIAN_ROWS:
        x = x[torch.linspace(0, len(x) - 1, _MEDIAN_ROWS).long()]
    return median_of(squared_distances(x, x))


def median_of(squared: Float[Tensor, "example example"]) -> float:
    """`median_distance`, where squared distances are there already."""
    n = len(squared)
    if n < 2:
        return nan
    rows = squared.cpu().numpy()
    pairs = np.concatenate([rows[i, i + 1 :] for i in range(n - 1)])
    # Rounding leaves duplicates a little apart.
    rounding = 1e-14 * float(pairs.max(initial=0.0))
    middle = float(np.partition(pairs, (len(pairs) - 1) // 2)[(len(pairs) - 1) // 2])
    if middle > rounding:
        return float(np.sqrt(middle))
    distinct = np.sort(pairs[pairs > rounding])
    return float(np.sqrt(distinct[(len(distinct) - 1) // 2])) if len(distinct) else nan


def row_blocks(n: int, block: int) -> Iterator[slice]:
    """Slices of at most `block` rows."""
    for start in range(0, n, block):
        yield slice(start, min(start + block, n))


def check_pair(x: Float[Tensor, "example d"], y: Float[Tensor, "other k"], least: int = 4) -> None:
    """Refuse what no dependence can be estimated of.

    Raises:
        ValueError: The two differ in length, hold fewer than `least` examples, or a value that is
            not finite.
    """
    if len(x) != len(y):
        raise ValueError(
            f"Dependence is between two readings of the same examples, got {len(x)} and {len(y)}. "
            "Give them row by row."
        )
    if len(x) < least:
        raise ValueError(f"Dependence takes at least {least} examples, got {len(x)}.")
    for name, values in (("x", x), ("y", y)):
        if not torch.isfinite(values).all():
            raise ValueError(
                f"`{name}` holds a NaN or an infinity. Leave out those examples, or find where "
                "they come from."
            )
