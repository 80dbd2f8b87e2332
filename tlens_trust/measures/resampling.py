"""Resampling of whole groups, since statements of one group depend on each other.

`GroupBootstrap` draws groups with replacement. `HalfSamples` draws half of the groups without
replacement, for estimators of dependence or entropy. A bootstrap biases these, since an example
that is drawn twice looks like two examples that coincide. `draw_rows` draws a smaller sample of
whole groups.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tlens_trust.arguments import checked_count, checked_seed
from tlens_trust.measures.quantiles import student_quantile

# The largest number of draws to obtain halves that hold both labels.
_ATTEMPTS = 1000


@dataclass(frozen=True, eq=False)
class GroupBootstrap:
    """Resamples of groups with replacement, the same ones for all sums and means.

    Attributes:
        group: The number of each statement's group.
        counts: The number of times that each resample draws each group.
    """

    group: Int[np.ndarray, " example"]
    counts: Float[np.ndarray, "resample group"]

    @classmethod
    def draw(cls, groups: Sequence[str], *, seed: int, resamples: int) -> "GroupBootstrap":
        """Draw resamples, each with as many groups as there are.

        Args:
            groups: The group of each statement. The order of the names does not matter.
            seed: Seed of the draws.
            resamples: The number of resamples.

        Examples:
            >>> bootstrap = GroupBootstrap.draw(["a", "a", "b"], seed=0, resamples=4)
            >>> bootstrap.counts.sum(axis=1).tolist()
            [2.0, 2.0, 2.0, 2.0]
        """
        resamples, seed = checked_count("resamples", resamples), checked_seed(seed)
        names, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
        generator = np.random.default_rng(seed)
        draws = generator.integers(len(names), size=(resamples, len(names)))
        # Different numbers for the groups of each resample, so that one count serves all of them.
        draws += len(names) * np.arange(resamples)[:, None]
        counts = np.bincount(draws.ravel(), minlength=resamples * len(names))
        return cls(group, counts.reshape(resamples, len(names)).astype(np.float64))

    @property
    def groups(self) -> int:
        """The number of groups."""
        return int(self.counts.shape[1])

    def sums(self, rows: Float[np.ndarray, "example ..."]) -> Float[np.ndarray, "resample ..."]:
        """Sum the rows of each resample, each row as often as its group was drawn."""
        flat = rows.reshape(len(rows), -1)
        totals = np.zeros((self.groups, flat.shape[1]))
        np.add.at(totals, self.group, flat)
        sums: np.ndarray = self.counts @ totals
        return sums.reshape(len(sums), *rows.shape[1:])

    def means(self, rows: Float[np.ndarray, "example ..."]) -> Float[np.ndarray, "resample ..."]:
        """Average the rows of each resample."""
        sizes = self.sums(np.ones(len(rows)))
        means: np.ndarray = self.sums(rows) / sizes.reshape(-1, *[1] * (rows.ndim - 1))
        return means


@dataclass(frozen=True, eq=False)
class HalfSamples:
    """Random halves of the groups, the same for every site and every checkpoint.

    They depend only on the names of the groups and the seed. The difference of two checkpoints can
    therefore be computed half by half.

    This is the delete-half jackknife. For a smooth statistic, the spread of its values on random
    halves about its value on all groups has the variance of its sampling error. Take the mean over
    `h` of `G` groups, drawn without replacement. Its variance about the mean over all groups is
    `s²/h (1 - h/G)`, which is `s²/G` at `h = G/2`. No formula for the statistic is needed.

    Two cases need care. A statistic may depend on the number of examples, by a bias of order `1/n`
    or a limit of `ln n`. Its values on halves are then shifted, and only their spread about their
    own mean is used: see `replicates_about`. For an estimate of zero that is never below zero, the
    spread is up to √3 times too large. Intervals are then too wide, not too narrow.

    Attributes:
        members: Whether each half holds each example. A half holds `G // 2` groups.
        groups: The number of groups, `G`.

    Source:
        Shao and Wu (1989), Annals of Statistics 17, on the delete-d jackknife; Politis and Romano
        (1994), Annals of Statistics 22, on subsampling.
    """

    members: Bool[np.ndarray, "resample example"]
    groups: int

    @classmethod
    def draw(
        cls,
        groups: Sequence[str],
        *,
        resamples: int,
        seed: int,
        labels: Int[np.ndarray, " example"] | None = None,
    ) -> "HalfSamples":
        """Draw halves of the groups.

        Args:
            groups: The group of each example. The order of the names does not matter.
            resamples: The number of halves.
            seed: Seed of the draws.
            labels: If given, a half without one of the labels is drawn again.

        Raises:
            ValueError: There are fewer than 4 groups, `resamples` is less than 2, or no half with
                both labels was found.

        Examples:
            >>> halves = HalfSamples.draw(list("aabbccdd"), resamples=3, seed=0)
            >>> halves.members.sum(axis=1).tolist()
            [4, 4, 4]
        """
        resamples, seed = checked_count("resamples", resamples, least=2), checked_seed(seed)
        names, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
        if len(names) < 4:
            raise ValueError(
                f"Half samples need at least 4 groups, got {len(names)}. With fewer groups, the "
                "error of an estimate cannot be estimated. Give more groups."
            )
        generator = np.random.default_rng([seed, 7])

        def draw_members(count: int) -> Bool[np.ndarray, "draw example"]:
            # The half with the lowest random numbers: the rank of each, by sorting twice.
            keys = generator.random((count, len(names)))
            in_half = np.argsort(np.argsort(keys, axis=1), axis=1) < len(names) // 2
            members: np.ndarray = in_half[:, group]
            return members

        members = draw_members(resamples)
        if labels is None:
            return cls(members, len(names))
        ones = np.asarray(labels) == 1
        for _ in range(_ATTEMPTS):
            lacks_label = ~((members & ones).any(axis=1) & (members & ~ones).any(axis=1))
            if not lacks_label.any():
                return cls(members, len(names))
            members[lacks_label] = draw_members(int(lacks_label.sum()))
        raise ValueError(
            f"No half of the {len(names)} groups holds both labels in {_ATTEMPTS} draws. Give more "
            "groups that hold the rarer label."
        )

    @property
    def resamples(self) -> int:
        """The number of halves."""
        return len(self.members)

    def weights(self) -> Float[Tensor, "example resample"]:
        """1 where a half holds an example, else 0, in float32."""
        return torch.from_numpy(self.members.T.astype(np.float32))

    def replicates_about(
        self, value: Float[np.ndarray, "..."] | float, on_halves: Float[np.ndarray, "... resample"]
    ) -> Float[np.ndarray, "... resample"]:
        """Shift the values on halves so that their mean is the value on all examples.

        Args:
            value: The statistic on all examples.
            on_halves: The statistic on each half. With an odd number of groups, halves are a little
                too small. The spread is corrected for that.

        Examples:
            >>> halves = HalfSamples.draw([str(row) for row in range(10)], resamples=2, seed=0)
            >>> halves.replicates_about(1.0, np.array([4.0, 6.0])).tolist()
            [0.0, 2.0]
        """
        half = self.groups // 2
        # `s²/h (1 - h/G)` times this squared is `s²/G`, for any `h`.
        stretch = np.sqrt(half / (self.groups - half))
        deviations = on_halves - on_halves.mean(axis=-1, keepdims=True)
        replicates: np.ndarray = np.asarray(value)[..., None] + stretch * deviations
        return replicates

    def interval(
        self,
        value: Float[np.ndarray, "..."] | float,
        replicates: Float[np.ndarray, "... resample"],
        *,
        confidence: float = 0.95,
    ) -> Float[np.ndarray, "... bound"]:
        """Compute the value plus and minus Student's quantile times the replicates' deviation.

        Args:
            value: The statistic on all examples.
            replicates: The result of `replicates_about`.
            confidence: The confidence level of the interval.

        Examples:
            >>> halves = HalfSamples.draw([str(row) for row in range(5000)], resamples=2, seed=0)
            >>> replicates = np.random.default_rng(0).standard_normal(2000)
            >>> halves.interval(0.0, replicates).round(1).tolist()
            [-2.0, 2.0]
        """
        # The spread is known no better than either the halves or the groups allow.
        freedom = min(replicates.shape[-1], self.groups) - 1
        width = student_quantile((1 + confidence) / 2, freedom) * replicates.std(axis=-1, ddof=1)
        value = np.asarray(value)
        return np.stack([value - width, value + width], axis=-1)


def draw_rows(groups: Sequence[str], *, most: int, seed: int) -> Int[np.ndarray, " row"]:
    """Draw whole groups at random, with at most the given number of rows.

    The draw depends only on the seed and the names of the groups. A group with more rows than may
    still be added is skipped.

    Args:
        groups: The group of each row.
        most: The largest number of rows. If there are no more rows than that, all are returned.
        seed: Seed of the draw.

    Returns:
        The numbers of the rows, in ascending order.
    """
    if len(groups) <= most:
        return np.arange(len(groups))
    names, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    sizes = np.bincount(group)
    is_drawn, room = np.zeros(len(names), dtype=bool), most
    for number in np.random.default_rng([seed, 11]).permutation(len(names)):
        if sizes[number] <= room:
            is_drawn[number] = True
            room -= int(sizes[number])
    return np.flatnonzero(is_drawn[group])
