"""Measures of information that cost too much to be taken everywhere, for chosen sites.

What has to be trained anew for every permutation of the labels has its null only where it is asked
for: `permutations=19` is the least that a p-value of .05 takes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from tlens_trust.activations import Activations
from tlens_trust.arguments import check_counts
from tlens_trust.concepts import Concept
from tlens_trust.measures.information.bound_variables import empty_dataset
from tlens_trust.measures.information.estimate import InformationEstimate
from tlens_trust.measures.information.infonce import InfoNCE
from tlens_trust.measures.information.neighbours import NearestNeighbours
from tlens_trust.measures.information.probe_information import ProbeInformation
from tlens_trust.measures.information.sites import (
    Sites,
    at_sites,
    check_statements,
    permuted_sides,
)
from tlens_trust.measures.labelled import labelled, labelled_null
from tlens_trust.measures.measure import Measure
from tlens_trust.measures.mlp import mlp_probe
from tlens_trust.measures.text_features import represent_text

AGAINST = ("text", "label")


@dataclass(frozen=True)
class PairInformation:
    """An estimator of two variables, for activations and text and for activations and labels.

    Attributes:
        name: Short name.
        variable: What to call the result.
        long_name: What it is.
        estimate: Takes two arrays and groups.
        estimate_value: Likewise, and gives the value alone, for permuted pairs.
        settings: Every parameter of `estimate`.
        components: Of the text (`represent_text`).
        permutations: How many permuted pairs are estimated again.
    """

    name: str
    variable: str
    long_name: str
    estimate: Callable[..., InformationEstimate]
    estimate_value: Callable[..., float]
    settings: str
    components: int
    permutations: int

    def __post_init__(self) -> None:
        check_counts(self, {"components": 1, "permutations": 0})

    @property
    def identity(self) -> str:
        """Name and every parameter that changes the result."""
        return (
            f"{self.name}({self.settings}, text={self.components}, "
            f"permutations={self.permutations}, version=1)"
        )

    def __call__(self, activations: Activations, concept: Concept, *, seed: int) -> xr.Dataset:
        """Estimate at every site.

        Args:
            activations: One reading per statement of the concept, in its order.
            concept: Statements, labels and groups.
            seed: Draws permutations, the same ones at every site and checkpoint.

        Raises:
            ValueError: The activations are not of this concept's statements.
        """
        check_statements(activations, concept)
        shape = len(activations.sites), len(AGAINST)
        value, interval = np.full(shape, np.nan), np.full((*shape, 2), np.nan)
        null = np.full((*shape, self.permutations), np.nan)
        text = represent_text(concept.statements, components=self.components).float()
        labels = torch.from_numpy(concept.labels.copy())
        warnings: dict[str, str] = {}
        for number, against in enumerate(AGAINST):
            partner = text if against == "text" else labels
            if not float(partner.float().std()):
                continue
            permuted = permuted_sides(partner, concept, against, self.permutations, seed)
            for site in range(shape[0]):
                x = activations.values[:, site]
                estimate = self.estimate(x, partner, groups=concept.groups)
                value[site, number], interval[site, number] = estimate.value, estimate.interval
                for draw, permuted_partner in enumerate(permuted):
                    null[site, number, draw] = self.estimate_value(
                        x, permuted_partner, concept.groups
                    )
                warnings |= {f"warning_{against}": " ".join(estimate.warnings)}
        data = empty_dataset(activations.sites, 2).drop_vars("resample")
        data = data.assign_coords(against=list(AGAINST))
        dims = "site", "against"
        variables = labelled(
            self.variable,
            value,
            units="nats",
            long_name=self.long_name,
            dims=dims,
            interval=interval,
            n=len(concept),
            attributes=warnings,
        )
        if self.permutations:
            exceedances = (null >= value[..., None]).sum(axis=2)
            p = np.where(np.isnan(value), np.nan, (1 + exceedances) / (1 + self.permutations))
            variables |= labelled_null(
                self.variable,
                long_name=self.long_name,
                permutations=self.permutations,
                band=np.moveaxis(np.quantile(null, [0.025, 0.975], axis=2), 0, -1),
                units="nats",
                condition="of permuted pairs",
                p=p,
                dims=dims,
            )
        return data.assign(variables)


def mlp_information(
    *,
    sites: Sites = None,
    permutations: int = 0,
    width: int = 64,
    max_epochs: int = 200,
    patience: int = 10,
    dropout: float = 0.3,
    folds: int = 5,
    resamples: int = 32,
    seed: int = 0,
) -> Measure:
    """Information in nats from a multi-layer perceptron's held-out scores: a measure.

    As `probe_information`, with a network in place of the linear probe: `information_ba`,
    `information_fano`, `information_confusion`, `information_usable`. Where it is far above the
    linear probe's, the information is there but along no direction.

    Args:
        sites: Where, as `collect_activations` takes them; None for all that were read.
        permutations: How many times networks are trained again on permuted labels, for
            `…_null`, `…_p` and `…_p_best`; none by default, as each costs as much as the measure.
        width: Hidden units.
        max_epochs: How often the training rows are read at most.
        patience: After how many epochs without an improvement a network is left as it was kept.
        dropout: The share of features left out of each row at random while training.
        folds: Into how many folds the groups are dealt. At least 3.
        resamples: How many half samples stand behind replicates.
        seed: Draws weights, mini-batches and features left out.

    Returns:
        A measure named `mlp_information`.

    Raises:
        ValueError: A number is out of its range.

    Examples:
        >>> mlp_information(sites=[8]).name
        'mlp_information'
    """
    probe = mlp_probe(
        width=width,
        max_epochs=max_epochs,
        patience=patience,
        dropout=dropout,
        seed=seed,
        folds=folds,
    )
    measure = ProbeInformation(
        "mlp_information",
        probe,
        resamples,
        noise=(),
        usable_permutations=0,
        refits=permutations,
    )
    return at_sites(measure, sites)


def infonce(
    *,
    sites: Sites = None,
    permutations: int = 0,
    batch: int = 256,
    epochs: int = 100,
    components: int = 100,
    seed: int = 0,
) -> Measure:
    """InfoNCE lower bounds of `I(T; X)` and `I(T; Y)`: a measure.

    `information_infonce` along `against`: with `"text"`, `X` is what the words and characters of a
    statement say (`represent_text`), which no checkpoint changes; with `"label"`, `Y`. In nats, at
    most `ln N`, and said so in the attributes; see `InfoNCE`.

    Args:
        sites: Where, as `collect_activations` takes them; None for all that were read.
        permutations: How many times critics are trained again on permuted pairs, for `…_null` and
            `…_p`; none by default, as each costs as much as the measure.
        batch: `N`, at most.
        epochs: How often the training rows are read at most.
        components: Of the text.
        seed: Deals the folds, draws weights and batches.

    Returns:
        A measure named `infonce`.

    Raises:
        ValueError: A number is out of its range.

    Examples:
        >>> infonce(sites=[4, 8]).name
        'infonce'
    """
    critic = InfoNCE(batch=batch, epochs=epochs, seed=seed)
    measure = PairInformation(
        "infonce",
        "information_infonce",
        f"InfoNCE lower bound of information, at most ln N with N up to {batch}",
        _Columns(critic),
        _Columns(critic).value,
        f"{critic!r}",
        components,
        permutations,
    )
    return at_sites(measure, sites)


@dataclass(frozen=True)
class _Columns:
    """A critic that takes labels as a column of numbers."""

    critic: InfoNCE

    def __call__(
        self,
        x: Float[Tensor, "example d"],
        y: Float[Tensor, "example e"] | Int[Tensor, " example"],
        *,
        groups: Sequence[str],
    ) -> InformationEstimate:
        column = y if y.ndim == 2 else y.float().unsqueeze(1)
        return self.critic(x, column, groups=groups)

    def value(
        self,
        x: Float[Tensor, "example d"],
        y: Float[Tensor, "example e"] | Int[Tensor, " example"],
        groups: Sequence[str],
    ) -> float:
        return self(x, y, groups=groups).value


@dataclass(frozen=True)
class _NeighboursValue:
    """Nearest neighbours without an interval."""

    estimator: NearestNeighbours

    def __call__(
        self,
        x: Float[Tensor, "example d"],
        y: Float[Tensor, "example e"] | Int[Tensor, " example"],
        groups: Sequence[str],
    ) -> float:
        return self.estimator.value(x, y)


def nearest_neighbour_information(
    *,
    sites: Sites = None,
    permutations: int = 0,
    components: int = 2,
    neighbours: int = 3,
    seed: int = 0,
) -> Measure:
    """Nearest-neighbour estimates of `I(T; X)` and `I(T; Y)`: a measure.

    `information_neighbours` along `against`: with `"text"`, Kraskov, Stögbauer and Grassberger's
    estimate for the leading principal components of activations and of what words and characters
    say (`represent_text`); with `"label"`, Ross's, for those of the activations and the labels. In
    nats. It is about those components and no others, and far too low in more than two or three
    dimensions: see `NearestNeighbours`.

    Args:
        sites: Where, as `collect_activations` takes them; None for all that were read.
        permutations: How many permuted pairs are estimated again, for `…_null` and `…_p`.
        components: How many principal components of each side.
        neighbours: `k`.
        seed: Draws half samples.

    Returns:
        A measure named `nearest_neighbours`.

    Raises:
        ValueError: A number is out of its range.

    Examples:
        >>> nearest_neighbour_information().name
        'nearest_neighbours'
    """
    estimator = NearestNeighbours(components, neighbours, seed)
    measure = PairInformation(
        "nearest_neighbours",
        "information_neighbours",
        f"nearest-neighbour estimate of the information of {components} principal components",
        estimator,
        _NeighboursValue(estimator),
        f"{estimator!r}",
        components,
        permutations,
    )
    return at_sites(measure, sites)
