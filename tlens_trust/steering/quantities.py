"""Quantities of a model, example by example, and how steering changes them.

A quantity is a mean over examples (statements, questions, texts), each in a group. Conditions are
compared example by example. Whole groups are resampled: the same ones for the steered and the
unsteered model, and for every random direction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

import numpy as np
import xarray as xr
from jaxtyping import Float

from tlens_trust.measures.intervals import percentile_interval
from tlens_trust.measures.resampling import GroupBootstrap
from tlens_trust.steering.likelihood import Continuation, Likelihoods
from tlens_trust.steering.sampling import SamplingOptions


@dataclass(frozen=True, eq=False)
class Quantity:
    """One quantity of a model, in one condition.

    Attributes:
        name: Its name among the results.
        values: One number per example.
        groups: The group of each example.
        units: The unit of the values.
        long_name: What it is, in words.
        effect: True for an intended effect of steering, False for damage.
        weights: The weight of each example, as its number of tokens. None for equal weights.
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
        """Weighted mean over the examples."""
        return float(np.average(self.values, weights=self.weights))


Quantities: TypeAlias = Mapping[str, Quantity]


def unknown_quantities(quantities: Quantities) -> Quantities:
    """The same quantities with unknown values, for a condition that was not reached."""
    return {
        name: replace(quantity, values=np.full(len(quantity.values), np.nan))
        for name, quantity in quantities.items()
    }


class Task(Protocol):
    """A task that is measured by the likelihoods of continuations."""

    @property
    def continuations(self) -> Sequence[Continuation]:
        """The continuations to score."""

    def quantities(self, likelihoods: Likelihoods) -> Sequence[Quantity]:
        """Compute quantities from the likelihoods, in the order of `continuations`."""


@dataclass(frozen=True, eq=False)
class Resamples:
    """Bootstrap of the groups of one quantity, the same one for all its conditions.

    Attributes:
        bootstrap: The resamples.
        weights: The weight of each example.
        confidence: Confidence of the intervals.
    """

    bootstrap: GroupBootstrap
    weights: Float[np.ndarray, " example"]
    confidence: float

    @classmethod
    def of(cls, quantity: Quantity, sampling: SamplingOptions, *, seed: int) -> "Resamples":
        """Resample the groups of a quantity."""
        bootstrap = GroupBootstrap.draw(quantity.groups, seed=seed, resamples=sampling.resamples)
        weights = np.ones(len(quantity.values)) if quantity.weights is None else quantity.weights
        return cls(bootstrap, weights, sampling.confidence)

    def means(self, values: Float[np.ndarray, "example ..."]) -> Float[np.ndarray, "resample ..."]:
        """Weighted mean over each resample's examples."""
        weighted = values * self.weights.reshape(-1, *[1] * (values.ndim - 1))
        sizes = self.bootstrap.sums(self.weights)
        means: np.ndarray = self.bootstrap.sums(weighted) / sizes.reshape(
            -1, *[1] * (values.ndim - 1)
        )
        return means

    def interval(self, values: Float[np.ndarray, "example ..."]) -> Float[np.ndarray, "... bound"]:
        """Interval of the mean, by resampling groups."""
        return percentile_interval(self.means(values), self.confidence)

    def over_random(
        self,
        change: Float[np.ndarray, " example"],
        random: Float[np.ndarray, "draw example"],
        *,
        seed: int,
    ) -> Float[np.ndarray, " bound"]:
        """Interval of a change minus that by a random direction, example by example.

        Each resample draws groups, the same ones for both changes, and one random direction. A
        comparison with the mean of many directions would be wrong: most random directions, too,
        differ from their mean by more than its standard error.
        """
        # Directions that did not reach the dose are unknown.
        random = random[np.isfinite(random).all(axis=1)]
        if not len(random):
            return np.full(2, np.nan)
        means, random_means = self.means(change), self.means(random.T)
        resample = np.arange(len(means))
        draw = np.random.default_rng(seed).integers(len(random), size=len(means))
        return percentile_interval(means - random_means[resample, draw], self.confidence)


def random_p(change: float, random: Float[np.ndarray, " draw"]) -> float:
    """The p-value of a change: how often a random direction changes as much, in either sense.

    `(1 + #{|random| ≥ |change|}) / (1 + draws)`. Both senses count, since a random direction is as
    likely as its opposite.

    Examples:
        >>> random_p(3.0, np.array([0.1, -0.2, 0.3]))
        0.25
    """
    finite = random[np.isfinite(random)]
    if not np.isfinite(change) or not len(finite):
        return float("nan")
    # The change itself counts as one draw, so that p is never 0: Phipson and Smyth (2010).
    return float((1 + (np.abs(finite) >= abs(change)).sum()) / (1 + len(finite)))


def wrong_way(change: Float[np.ndarray, " example"], *, tolerance: float = 1e-6) -> float:
    """The share of examples that moved away from the trustworthy side.

    A change within rounding error does not count.
    """
    return float((change < -tolerance).mean()) if np.isfinite(change).all() else float("nan")


def labelled_quantity(
    dims: Sequence[str],
    values: object,
    quantity: Quantity,
    description: str = "",
    units: str | None = None,
) -> xr.Variable:
    """Label values of a quantity with their unit and name.

    Args:
        dims: The axes of the values.
        values: The values.
        quantity: The quantity, whose name and unit they have.
        description: What they are of the quantity, after a comma.
        units: Their unit, if it is another.
    """
    long_name = f"{quantity.long_name}{', ' if description else ''}{description}"
    attributes = {"units": quantity.units if units is None else units, "long_name": long_name}
    return xr.Variable(tuple(dims), np.asarray(values), attributes)
