"""Measures of information that are too costly for every site, for chosen sites.

Some estimators must be trained anew for every permutation of the labels. Their null is computed
only on request: `permutations=19` is the smallest number that allows a p-value of .05.
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
    """Estimate the information of activations and text, and of activations and labels: a `Measure`.

    Attributes:
        name: The measure's short name.
        variable: The name of the result variable.
        long_name: The long name of that variable.
        estimate: Takes two arrays and groups, and returns the estimate with its interval.
        estimate_value: Takes the same and returns the value alone, for permuted pairs.
        settings: Every parameter of `estimate`, for the identity.
        components: The number of components of the text (`represent_text`).
        permutations: The number of permuted pairs for the null.
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
        """The name and every parameter that changes the result."""
        return (
            f"{self.name}({self.settings}, text={self.components}, "
            f"permutations={self.permutations}, version=1)"
        )

    def __call__(self, activations: Activations, concept: Concept, *, seed: int) -> xr.Dataset:
        """Estimate the information at every site.

        Args:
            activations: One row per statement of the concept, in its order.
            concept: The statements, labels and groups.
            seed: Draws the permutations, the same ones at every site and checkpoint.

        Raises:
            ValueError: The activations do not belong to this concept's statements.
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
    """Measure information in nats from the held-out scores of a multi-layer perceptron.

    The variables are those of `probe_information`, with a network in place of the linear probe:
    `information_ba`, `information_fano`, `information_confusion`, `information_usable`. Values far
    above the linear probe's show information that does not lie along a direction.

    Args:
        sites: The sites to measure, as `collect_activations` takes them; None for all sites in the
            activations.
        permutations: The number of label permutations for `…_null`, `…_p` and `…_p_best`. Networks
            are trained again for each. The default is none, since each permutation costs as much as
            the measure itself.
        width: The number of hidden units.
        max_epochs: The largest number of passes over the training rows.
        patience: Training ends after this many epochs without an improvement, and the best weights
            are restored.
        dropout: The share of features that is set to zero at random while training.
        folds: The number of folds that the groups are dealt into. At least 3.
        resamples: The number of half samples for the replicates.
        seed: Draws weights, mini-batches and dropout.

    Returns:
        A measure named `mlp_information`.

    Raises:
        ValueError: A number is out of range.

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
    """Measure InfoNCE lower bounds of `I(T; X)` and `I(T; Y)`.

    The variable is `information_infonce` along `against`. With `"text"`, `X` is a representation of
    the statement's words and characters (`represent_text`), which is the same at every checkpoint.
    With `"label"`, `Y` is the label. Values are in nats and at most `ln N`, as their attributes
    say; see `InfoNCE`.

    Args:
        sites: The sites to measure, as `collect_activations` takes them; None for all sites in the
            activations.
        permutations: The number of permuted pairs for `…_null` and `…_p`. Critics are trained again
            for each. The default is none, since each permutation costs as much as the measure
            itself.
        batch: The largest `N`.
        epochs: The largest number of passes over the training rows.
        components: The number of components of the text.
        seed: Deals the folds, draws weights and batches.

    Returns:
        A measure named `infonce`.

    Raises:
        ValueError: A number is out of range.

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
    """The value of the nearest-neighbour estimate, without an interval."""

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
    """Measure nearest-neighbour estimates of `I(T; X)` and `I(T; Y)`.

    The variable is `information_neighbours` along `against`, in nats. With `"text"` it is Kraskov,
    Stögbauer and Grassberger's estimate. It compares the leading principal components of the
    activations with those of the text (`represent_text`). With `"label"` it is Ross's estimate for
    the leading components of the activations and the labels.

    The estimate covers those components and no others. It is far too low in more than two or three
    dimensions: see `NearestNeighbours`.

    Args:
        sites: The sites to measure, as `collect_activations` takes them; None for all sites in the
            activations.
        permutations: The number of permuted pairs for `…_null` and `…_p`.
        components: The number of principal components of activations and text.
        neighbours: `k`.
        seed: Draws half samples.

    Returns:
        A measure named `nearest_neighbours`.

    Raises:
        ValueError: A number is out of range.

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
