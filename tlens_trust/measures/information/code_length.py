"""A measure of the length of the labels in an online code, at every site of a checkpoint."""

from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr

from tlens_trust.activations import Activations
from tlens_trust.arguments import check_counts
from tlens_trust.concepts import Concept
from tlens_trust.measures.information.bound_variables import empty_dataset, label_band
from tlens_trust.measures.information.online_coding import OnlineCoding
from tlens_trust.measures.information.sites import (
    Sites,
    at_sites,
    check_statements,
    permuted_sides,
)
from tlens_trust.measures.intervals import stretched_interval
from tlens_trust.measures.labelled import labelled, labelled_null
from tlens_trust.measures.measure import Measure
from tlens_trust.measures.resampling import GroupBootstrap


@dataclass(frozen=True)
class CodeLengthMeasure:
    """Measure how long the labels are in an online code at every site: a `Measure`.

    Attributes:
        coding: The online code.
        permutations: The number of label permutations that are also encoded, for the null.
    """

    coding: OnlineCoding
    permutations: int

    def __post_init__(self) -> None:
        check_counts(self, {"permutations": 0})

    @property
    def name(self) -> str:
        """The measure's name, `online_coding`."""
        return "online_coding"

    @property
    def identity(self) -> str:
        """The name and every parameter that changes the result."""
        return f"{self.name}({self.coding!r}, permutations={self.permutations}, version=3)"

    def __call__(self, activations: Activations, concept: Concept, *, seed: int) -> xr.Dataset:
        """Compute the code length of the labels at every site.

        Args:
            activations: One row per statement of the concept, in its order.
            concept: The statements, labels and groups.
            seed: Draws the resamples and permutations.

        Raises:
            ValueError: The activations do not belong to this concept's statements, or the concept
                has fewer than 8 groups.
        """
        check_statements(activations, concept)
        labels = torch.from_numpy(concept.labels.copy())
        n, values = len(concept), activations.values
        lengths = self.coding.lengths(values, labels, concept.groups)
        bootstrap = GroupBootstrap.draw(concept.groups, seed=seed, resamples=1000)
        interval = n * stretched_interval(
            lengths.mean(axis=0), bootstrap.means(lengths), bootstrap.groups
        )
        total = lengths.sum(axis=0)
        data = empty_dataset(activations.sites, 2).drop_vars("resample")
        about = "online code length of the labels"
        uniform = n * float(np.log(2))
        variables = labelled(
            "description_length",
            total,
            units="nats",
            long_name=about,
            interval=interval,
            interval_note=", the fits as they are",
            n=n,
        )
        variables["description_length_uniform"] = (
            (),
            uniform,
            {"units": "nats", "long_name": "length of the labels in a uniform code"},
        )
        variables |= labelled(
            "compression",
            uniform / total,
            units="1",
            long_name=f"length in a uniform code over the {about}",
        )
        # `labelled` would repeat the long name of the value, which is too long for an interval.
        # Compression falls as length rises, so low and high change places.
        variables["compression_ci"] = (
            ("site", "bound"),
            uniform / interval[:, ::-1],
            {"units": "1", "long_name": "95% interval of the compression, the fits as they are"},
        )
        if self.permutations:
            null = np.stack(
                [
                    self.coding.lengths(values, draw, concept.groups).sum(axis=0)
                    for draw in permuted_sides(labels, concept, "label", self.permutations, seed)
                ],
                axis=1,
            )
            variables |= label_band("description_length", about, null)
            variables |= label_band("compression", "compression", uniform / null, units="1")
            variables |= labelled_null(
                "description_length",
                long_name=about,
                permutations=self.permutations,
                # A short code is the extreme one, so the p-value counts codes at most as long.
                p=(1 + (null <= total[:, None]).sum(axis=1)) / (1 + self.permutations),
                p_name="permutation p-value of the {} being as short",
            )
        return data.assign(variables)


def online_coding(
    *, sites: Sites = None, permutations: int = 0, orders: int = 4, seed: int = 0
) -> Measure:
    """Measure the minimum description length of the labels by online coding.

    The measure gives two variables, each with an interval. `description_length` is in nats (divide
    by `ln 2` for bits). `compression` is `n ln 2` divided by that length. See `OnlineCoding`.

    Args:
        sites: The sites to measure, as `collect_activations` takes them; None for all sites in the
            activations.
        permutations: The number of label permutations for `…_null` and `…_p`. The default is none,
            since each permutation costs as much as the measure itself.
        orders: The number of random orders of the groups.
        seed: Draws the orders.

    Returns:
        A measure named `online_coding`.

    Raises:
        ValueError: A number is out of range.

    Examples:
        >>> online_coding().name
        'online_coding'
    """
    return at_sites(CodeLengthMeasure(OnlineCoding(orders=orders, seed=seed), permutations), sites)
