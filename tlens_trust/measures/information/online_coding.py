"""Minimum description length: the cost of sending labels to a receiver who has the activations.

A probe's accuracy says how well it does after training on everything. The length of an online code
also says how few labels it needs to get there. The labels of a first block are sent as they are. A
probe is fitted to them, the next block is sent in the probe's code, and so on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tlens_trust.arguments import check_counts, checked_grid
from tlens_trust.measures.cross_fitters import DEFAULT_C, PENALTY_HINT
from tlens_trust.measures.intervals import stretched_interval
from tlens_trust.measures.resampling import GroupBootstrap
from tlens_trust.measures.solver import solve_logistic

# Block ends of Voita and Titov (2020): each block about doubles what has been sent.
FRACTIONS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)


@dataclass(frozen=True)
class DescriptionLength:
    """The length of the labels in an online code.

    Attributes:
        value: The length of all labels together, in nats.
        interval: The 95% interval, in nats.
        uniform: The length in a code where every label costs `ln 2`.
        n: The number of labels.
        warnings: What a reader should know before trusting the value.

    Examples:
        >>> length = DescriptionLength(34.66, (30.0, 40.0), 69.31, 100)
        >>> round(length.bits), round(length.compression, 2), length.unit
        (50, 2.0, 'nats')
    """

    value: float
    interval: tuple[float, float]
    uniform: float
    n: int
    warnings: tuple[str, ...] = ()

    @property
    def unit(self) -> str:
        """The unit of `value`, `interval` and `uniform`."""
        return "nats"

    @property
    def bits(self) -> float:
        """The length in bits."""
        return self.value / log(2)

    @property
    def compression(self) -> float:
        """The uniform code's length divided by this one's; above 1 where the probe helps."""
        return self.uniform / self.value


@dataclass(frozen=True)
class OnlineCoding:
    """Compute the length of the labels in Voita and Titov's online code, with groups kept together.

    `L = Σ_blocks Σᵢ -ln q_block(yᵢ | tᵢ)`. A block's labels are sent in the code of a logistic
    probe fitted to the blocks before it. Until both labels have been sent, each label costs `ln 2`.
    Each fit uses the penalty whose code would have been shortest for all blocks so far, which the
    receiver can compute too. The result is the mean over several orders of the groups.

    The code also pays for learning, so it shows less information than a held-out probe on the same
    labels. Labels that compress well can be decoded by a simple probe from few examples.

    Attributes:
        fractions: The ends of the blocks, as fractions of the groups, ascending to 1.
        C: Inverse penalty strengths.
        orders: The number of random orders of the groups.
        seed: Draws the orders.

    Source:
        Voita and Titov (2020), arXiv:2003.12298; Dawid (1984) for prediction in sequence.

    Examples:
        >>> labels = torch.arange(200) % 2
        >>> x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
        >>> bool(OnlineCoding()(x + 4 * labels.unsqueeze(1), labels).compression > 3)
        True
    """

    fractions: tuple[float, ...] = FRACTIONS
    C: tuple[float, ...] = DEFAULT_C
    orders: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        hint = "They are where blocks end, in ascending order up to 1."
        ends = checked_grid("fractions", self.fractions, hint=hint)
        if list(ends) != list(self.fractions) or ends[-1] != 1:
            raise ValueError(
                f"`fractions` must ascend from above 0 to 1, got {self.fractions!r}. {hint}"
            )
        object.__setattr__(self, "C", checked_grid("C", self.C, hint=PENALTY_HINT))
        check_counts(self, {"orders": 1, "seed": 0})

    def __call__(
        self,
        x: Float[Tensor, "example d"],
        labels: Int[Tensor, " example"],
        *,
        groups: Sequence[str] | None = None,
    ) -> DescriptionLength:
        """Compute the code length of the labels.

        Args:
            x: One row per example; sender and receiver both have it.
            labels: 0 or 1.
            groups: The group of each row; None where each row is a group of its own.

        Raises:
            ValueError: There are fewer than 8 groups.
        """
        names = [str(row) for row in range(len(x))] if groups is None else list(groups)
        lengths = self.lengths(x.unsqueeze(1), labels, names)
        bootstrap = GroupBootstrap.draw(names, seed=self.seed, resamples=1000)
        n = len(x)
        interval = stretched_interval(
            lengths.mean(axis=0), bootstrap.means(lengths), bootstrap.groups
        )
        low, high = (n * interval[0]).tolist()
        value = float(lengths.sum())
        uniform = n * log(2)
        warnings = ["Its interval is of the statements, for the fits as they are."]
        if value >= uniform:
            warnings.append("No shorter than the uniform code: the probe learns nothing in time.")
        return DescriptionLength(value, (low, high), uniform, n, tuple(warnings))

    def lengths(
        self,
        activations: Float[Tensor, "example site d"],
        labels: Int[Tensor, " example"],
        groups: Sequence[str],
    ) -> Float[np.ndarray, "example site"]:
        """Compute the cost of each label at each site, in nats, as the mean over the orders."""
        names, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
        if len(names) < 8:
            raise ValueError(
                f"Online coding takes at least 8 groups, got {len(names)}. Give more of them."
            )
        generator = np.random.default_rng([self.seed, 3])
        total = np.zeros((len(labels), activations.shape[1]))
        for _ in range(self.orders):
            place = np.empty(len(names), dtype=np.int64)
            place[generator.permutation(len(names))] = np.arange(len(names))
            total += self._send(activations, labels, place[group], len(names))
        mean: np.ndarray = total / self.orders
        return mean

    def _send(
        self,
        activations: Float[Tensor, "example site d"],
        labels: Int[Tensor, " example"],
        place: Int[np.ndarray, " example"],
        groups: int,
    ) -> Float[np.ndarray, "example site"]:
        ends = sorted({max(1, round(fraction * groups)) for fraction in self.fractions})
        target = labels.cpu().numpy()
        # Labels cost `ln 2` each until a probe can be fitted.
        length = np.full((len(target), activations.shape[1]), log(2))
        signs = np.where(target == 1, 1.0, -1.0)
        cost_so_far = np.zeros((activations.shape[1], len(self.C)))
        for start, stop in pairwise(ends):
            is_sent = place < start
            if len(np.unique(target[is_sent])) < 2:
                continue
            block = (place >= start) & (place < stop)
            # One block at a time: the first blocks hold few rows, so their means and scales differ
            # much from the others. A solver for all blocks at once would lose precision.
            fits = solve_logistic(
                activations, labels, train=torch.from_numpy(is_sent).unsqueeze(0), C=self.C
            )
            for site in range(activations.shape[1]):
                values = activations[torch.from_numpy(block), site].double()
                log_odds = values @ fits.coef[site, 0].T + fits.intercept[site, 0]
                cost = np.logaddexp(0.0, -signs[block, None] * log_odds.cpu().numpy())
                # `argmin` takes the first of equals, which at the start is the strongest penalty.
                length[block, site] = cost[:, int(cost_so_far[site].argmin())]
                cost_so_far[site] += cost.sum(axis=0)
        return length
