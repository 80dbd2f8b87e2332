"""What is measured of a model, example by example, and what steering changes in it.

A quantity is a mean over examples (statements, questions, texts), each in a group. Conditions are
compared example by example: what is resampled are whole groups, the same ones for a steered model
and for the model as it is, and for every random direction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import xarray as xr
from jaxtyping import Float

from tlens_trust.measures.intervals import percentile_interval
from tlens_trust.measures.resampling import GroupBootstrap
from tlens_trust.steering.likelihood import Continuation, Likelihoods


@dataclass(frozen=True, eq=False)
class Quantity:
    """One thing measured of a model, in one condition.

    Attributes:
        name: Names it among the results.
        values: One number per example.
        groups: What belongs together.
        units: Of the values.
        long_name: What it is, in words.
        effect: Whether it is what steering is for; else it tells of damage.
        weights: How much each example counts, as its number of tokens; None for all alike.
    """

    name: str
    values: Float[np.ndarray, " example"]
    groups: tuple[str, ...]
    units: str
    long_name: str
    effect: bool = True
    weights: Float[np.ndarray, " example"] | None = None

    @property
    def mean(self) -> float:
        """Over the examples, weighted."""
        return float(np.average(self.values, weights=self.weights))


Reading = Mapping[str, Quantity]


def unknown(reading: Reading) -> Reading:
    """The same quantities, of a condition that there is not."""
    return {
        name: replace(quantity, values=np.full(len(quantity.values), np.nan))
        for name, quantity in reading.items()
    }


class Task(Protocol):
    """Something that is measured by how likely a model finds what follows."""

    @property
    def continuations(self) -> Sequence[Continuation]:
        """What is to be scored."""

    def quantities(self, likelihoods: Likelihoods) -> Sequence[Quantity]:
        """What follows from the scores, which stand in the order of `continuations`."""


@dataclass(frozen=True, eq=False)
class Resamples:
    """Bootstrap of the groups of one quantity, the same one for all its conditions.

    Attributes:
        bootstrap: The draws.
        weights: Of the examples.
        confidence: Of the intervals.
    """

    bootstrap: GroupBootstrap
    weights: Float[np.ndarray, " example"]
    confidence: float

    @classmethod
    def of(cls, quantity: Quantity, *, seed: int, resamples: int, confidence: float) -> "Resamples":
        """Draw the groups of a quantity."""
        drawn = GroupBootstrap.draw(quantity.groups, seed=seed, resamples=resamples)
        weights = np.ones(len(quantity.values)) if quantity.weights is None else quantity.weights
        return cls(drawn, weights, confidence)

    def means(self, values: Float[np.ndarray, "example ..."]) -> Float[np.ndarray, "resample ..."]:
        """Weighted mean over each resample's examples."""
        weighted = values * self.weights.reshape(-1, *[1] * (values.ndim - 1))
        sizes = self.bootstrap.sums(self.weights)
        means: np.ndarray = self.bootstrap.sums(weighted) / sizes.reshape(
            -1, *[1] * (values.ndim - 1)
        )
        return means

    def interval(self, values: Float[np.ndarray, "example ..."]) -> Float[np.ndarray, "... bound"]:
        """Of the mean, by resampling groups."""
        return percentile_interval(self.means(values), self.confidence)

    def over_random(
        self,
        change: Float[np.ndarray, " example"],
        random: Float[np.ndarray, "draw example"],
        *,
        seed: int,
    ) -> Float[np.ndarray, " bound"]:
        """Interval of a change minus that by a random direction, example by example.

        Each resample takes its groups, the same ones for both, and one random direction. The mean
        of many directions would be the wrong thing to hold a single one against: most random
        directions too lie off their mean by more than its own error.
        """
        random = random[np.isfinite(random).all(axis=1)]
        if not len(random):
            return np.full(2, np.nan)
        own, others = self.means(change), self.means(random.T)
        drawn = np.random.default_rng(seed).integers(len(random), size=len(own))
        return percentile_interval(own - others[np.arange(len(own)), drawn], self.confidence)


def random_p(change: float, random: Float[np.ndarray, " draw"]) -> float:
    """How often a random direction changes as much, in either sense.

    `(1 + #{|random| ≥ |change|}) / (1 + draws)`. A direction and its opposite are alike among
    random ones, so both senses count.

    Examples:
        >>> random_p(3.0, np.array([0.1, -0.2, 0.3]))
        0.25
    """
    known = random[np.isfinite(random)]
    if not np.isfinite(change) or not len(known):
        return float("nan")
    return float((1 + (np.abs(known) >= abs(change)).sum()) / (1 + len(known)))


def wrong_way(change: Float[np.ndarray, " example"], *, tolerance: float = 1e-6) -> float:
    """The share of examples that moved away from the trustworthy side.

    What does not move, to within a rounding error, has not moved the wrong way.
    """
    return float((change < -tolerance).mean()) if np.isfinite(change).all() else float("nan")


def described(
    dims: Sequence[str],
    values: object,
    quantity: Quantity,
    told: str = "",
    units: str | None = None,
) -> xr.Variable:
    """A variable with a unit and a name."""
    long_name = f"{quantity.long_name}{', ' if told else ''}{told}"
    attributes = {"units": quantity.units if units is None else units, "long_name": long_name}
    return xr.Variable(tuple(dims), np.asarray(values), attributes)
