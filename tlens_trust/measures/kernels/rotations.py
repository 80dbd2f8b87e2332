"""Permutations of examples for a test of two representations: rotations of circles of groups.

A permutation test of two representations permutes the rows of one against those of the other. Rows
of one group (a question, a pair of twin statements) stay together. So whole groups change places
with groups of the same size. The rows of a group have no natural order; one is drawn at random. If
no other group has the same size, the group stays and its rows are rotated.

The permutations are the rotations of a circle of groups, with one circle for each size. They are a
subgroup of all allowed permutations. A test by a subgroup is as exact at its level as a test by all
of them.

Rotations are fast. The sums `Σᵢⱼ Kᵢⱼ L_π(i)π(j)` for all rotations are correlations. So a few
Fourier transforms replace `n²` operations for each rotation. For two representations of 2,000 rows,
all 1,999 rotations cost about as much as three single permutations.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tlens_trust.arguments import checked_count, checked_seed


@dataclass(frozen=True, eq=False)
class Rotations:
    """Rotations of circles of groups, and a draw of them.

    Attributes:
        order: The rows, circle by circle and group by group.
        circles: The number of groups and the group size of each circle.
        shifts: For each draw, the number of groups by which each circle is rotated. The first draw
            rotates none.
    """

    order: Int[np.ndarray, " example"]
    circles: tuple[tuple[int, int], ...]
    shifts: Int[np.ndarray, "draw circle"]

    @property
    def permutations(self) -> int:
        """The number of draws, without the one that leaves all rows in place."""
        return len(self.shifts) - 1

    @classmethod
    def draw(cls, groups: Sequence[str], *, permutations: int, seed: int) -> "Rotations":
        """Place the groups on circles, and draw rotations.

        Args:
            groups: The group of each row.
            permutations: The largest number of rotations. Fewer are drawn if there are not as many:
                `g` groups of one size have `g - 1`.
            seed: Places the groups, orders the rows within each, and draws the rotations.

        Raises:
            ValueError: `permutations` is less than 1, or no row can change places.

        Examples:
            >>> turns = Rotations.draw(["a", "a", "b", "b", "c", "c"], permutations=99, seed=0)
            >>> turns.circles, turns.permutations
            (((3, 2),), 2)
        """
        permutations, seed = checked_count("permutations", permutations), checked_seed(seed)
        generator = np.random.default_rng([seed, 5])
        names, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
        rows = generator.permutation(len(group))
        seat = generator.permutation(len(names))
        sizes = np.bincount(group)
        rows = rows[np.argsort(seat[group[rows]], kind="stable")]
        size_of_row = sizes[group[rows]]
        order, circles = [], []
        for size in np.unique(sizes):
            order.append(rows[size_of_row == size])
            count = len(order[-1]) // int(size)
            circles.append((count, int(size)) if count > 1 else (int(size), 1))
        lengths = np.array([count for count, _ in circles])
        possible = prod(int(length) for length in lengths)
        if possible < 2:
            raise ValueError(
                f"None of {len(group)} rows in {len(names)} groups can change places with "
                "another. Give more groups of the same size."
            )
        if len(circles) == 1 and possible - 1 <= permutations:
            shifts = np.arange(possible)[:, None]
        else:
            shifts = np.zeros((permutations + 1, len(circles)), dtype=np.int64)
            if len(circles) == 1:
                turns = generator.permutation(possible - 1)[:permutations] + 1
                shifts[1:, 0] = np.sort(turns)
            else:
                shifts[1:] = generator.integers(lengths, size=(permutations, len(circles)))
        return cls(np.concatenate(order), tuple(circles), shifts)

    def permutation(self, draw: int) -> Int[np.ndarray, " example"]:
        """Compute which row moves to each row's place in one draw; slow, for inspection."""
        rotated_rows, start = [], 0
        for (count, size), shift in zip(self.circles, self.shifts[draw].tolist(), strict=True):
            seats = self.order[start : start + count * size].reshape(count, size)
            rotated_rows.append(np.roll(seats, -shift, axis=0).ravel())
            start += count * size
        permutation = np.empty(len(self.order), dtype=np.int64)
        permutation[self.order] = np.concatenate(rotated_rows)
        return permutation

    def transform(
        self, matrix: Float[Tensor, "example example"], *, seated: bool = False
    ) -> tuple[Tensor, ...]:
        """Compute the Fourier transforms of a symmetric matrix, once for any number of comparisons.

        Args:
            matrix: A matrix whose rows and columns are the examples.
            seated: Whether its rows are already in the order of `order`, which saves time.
        """
        if not seated:
            order = torch.from_numpy(self.order).to(matrix.device)
            matrix = matrix[order][:, order]
        return tuple(
            torch.fft.rfft(_diagonals(self._entries(matrix, a, a)))
            if a == b
            else torch.fft.rfft2(self._by_place(matrix, a, b))
            for a, b in self._pairs()
        )

    def sums(
        self, one: tuple[Tensor, ...], other: tuple[Tensor, ...]
    ) -> Float[np.ndarray, " draw"]:
        """Compute `Σᵢⱼ Kᵢⱼ L_π(i)π(j)` for each draw `π`, from the transforms of `K` and `L`."""
        sums = np.zeros(len(self.shifts))
        for number, (a, b) in enumerate(self._pairs()):
            spectrum = one[number].conj() * other[number]
            (m, s), (k, _) = self.circles[a], self.circles[b]
            if a == b:
                # The matrix is symmetric: each diagonal stands for itself and its mirror image. The
                # main diagonal, and the middle one of an even circle, have no mirror image.
                total = 2 * spectrum[1:].sum(dim=0) + spectrum[0]
                if m * s % 2 == 0:
                    total -= spectrum[-1]
                correlation = torch.fft.irfft(total, n=m * s).cpu().numpy()
                sums += correlation[self.shifts[:, a] * s]
            else:
                table = torch.fft.irfft2(spectrum.sum(dim=(0, 1)), s=(m, k)).cpu().numpy()
                sums += 2 * table[self.shifts[:, a], self.shifts[:, b]]
        return sums

    def _pairs(self) -> list[tuple[int, int]]:
        numbers = range(len(self.circles))
        return [(a, b) for a in numbers for b in numbers if a <= b]

    def _entries(
        self, seated: Float[Tensor, "example example"], one: int, other: int
    ) -> Float[Tensor, "row other_row"]:
        """Select the entries between two circles."""
        ends = np.concatenate([[0], np.cumsum([m * s for m, s in self.circles])])
        return seated[ends[one] : ends[one + 1], ends[other] : ends[other + 1]]

    def _by_place(
        self, seated: Float[Tensor, "example example"], one: int, other: int
    ) -> Float[Tensor, "size other_size group other_group"]:
        """Arrange these entries by pairs of groups, for each pair of places within groups."""
        (m, s), (k, t) = self.circles[one], self.circles[other]
        return self._entries(seated, one, other).reshape(m, s, k, t).permute(1, 3, 0, 2)


def exchange_rows(
    groups: Sequence[str], *, permutations: int, seed: int
) -> Iterator[Int[np.ndarray, " example"]]:
    """Draw random permutations: groups of one size change places, and so do rows within each group.

    Args:
        groups: The group of each row.
        permutations: The number of permutations.
        seed: Draws the permutations.

    Raises:
        ValueError: `permutations` is less than 1.

    Examples:
        >>> next(exchange_rows(["a", "a", "b"], permutations=1, seed=0)).tolist() in (
        ...     [0, 1, 2], [1, 0, 2])
        True
    """
    permutations, seed = checked_count("permutations", permutations), checked_seed(seed)
    generator = np.random.default_rng([seed, 6])
    _, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    sizes = np.bincount(group)
    places = np.lexsort((group, sizes[group]))
    for _ in range(permutations):
        group_keys = generator.random(len(sizes))[group]
        row_keys = generator.random(len(group))
        permutation = np.empty(len(group), dtype=np.int64)
        permutation[places] = np.lexsort((row_keys, group_keys, sizes[group]))
        yield permutation


def _diagonals(matrix: Float[Tensor, "example example"]) -> Float[Tensor, "half example"]:
    """Select `matrix[(i + δ) mod n, i]` for every offset `δ` from 0 to `n // 2`."""
    n = len(matrix)
    extended = torch.cat([matrix, matrix[: n // 2]])
    # Steps of n + 1 numbers run along a diagonal, so no index array is needed.
    return extended.as_strided((n // 2 + 1, n), (n, n + 1)).contiguous()
