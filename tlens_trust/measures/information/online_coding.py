"""Minimum description length: what it takes to send labels to one who has the activations.

A probe's accuracy says how well it does in the end, and the length of an online code also how few
labels it takes to get there. The labels of a first block are sent as they are; a probe is fitted to
what has been sent, and the next block is sent in its code; and so on.
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

FRACTIONS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)


@dataclass(frozen=True)
class DescriptionLength:
    """How long the labels are in an online code.

    Attributes:
        value: In nats, of all labels together.
        interval: Of 95%, in nats.
        uniform: The length in which every label costs `ln 2`.
        n: How many labels.
        warnings: What to know before believing it, in words.

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
        """Of `value`, `interval` and `uniform`."""
        return "nats"

    @property
    def bits(self) -> float:
        """The length in bits."""
        return self.value / log(2)

    @property
    def compression(self) -> float:
        """The uniform code's length over this one's; above 1 where the probe helps."""
        return self.uniform / self.value


@dataclass(frozen=True)
class OnlineCoding:
    """The length of the labels in Voita and Titov's online code, groups kept together.

    `L = Σ_blocks Σᵢ -ln q_block(yᵢ | tᵢ)`: the labels of a block are sent in the code of a logistic
    probe that was fitted to the blocks before it, and those before both labels have been sent cost
    `ln 2` each. The penalty of each fit is the one in whose code all blocks so far would have been
    shortest, which the receiver knows as well. The mean over several orders of the groups.

    It pays for learning, so that it says less than a held-out probe on the same labels: what
    compresses well is read by simple means and from few examples.

    Attributes:
        fractions: Where blocks end, as fractions of the groups, ascending to 1.
        C: Inverse penalty strengths.
        orders: How many orders of the groups.
        seed: Draws them.

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
        """Send the labels.

        Args:
            x: One row per example, which both sides have.
            labels: 0 or 1.
            groups: What belongs together; None where each row stands alone.

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
        """What each label costs at each site, in nats, the mean over the orders."""
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
        length = np.full((len(target), activations.shape[1]), log(2))
        signs = np.where(target == 1, 1.0, -1.0)
        cost_so_far = np.zeros((activations.shape[1], len(self.C)))
        for start, stop in pairwise(ends):
            is_sent = place < start
            if len(np.unique(target[is_sent])) < 2:
                continue
            block = (place >= start) & (place < stop)
            # One block at a time: the first blocks hold so few rows that their means and scales
            # are far from those of the others, and a solver of all at once loses its digits.
            fits = solve_logistic(
                activations, labels, train=torch.from_numpy(is_sent).unsqueeze(0), C=self.C
            )
            for site in range(activations.shape[1]):
                values = activations[torch.from_numpy(block), site].double()
                log_odds = values @ fits.coef[site, 0].T + fits.intercept[site, 0]
                cost = np.logaddexp(0.0, -signs[block, None] * log_odds.cpu().numpy())
                # Of equals, as at the start, the strongest penalty.
                length[block, site] = cost[:, int(cost_so_far[site].argmin())]
                cost_so_far[site] += cost.sum(axis=0)
        return length
