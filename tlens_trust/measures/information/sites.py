"""Measures at chosen sites, and the permutations for their nulls."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from tlens_trust.activations import Activations
from tlens_trust.concepts import Concept
from tlens_trust.measures.kernels.rotations import Rotations
from tlens_trust.measures.measure import Measure
from tlens_trust.measures.permutations import permute_labels

Sites = str | int | Sequence[str | int] | None


@dataclass(frozen=True)
class AtSites:
    """Measure at some of the sites in the activations, with NaN at the others: a `Measure`.

    Attributes:
        measure: The measure to apply.
        sites: The sites, as `collect_activations` takes them.
    """

    measure: Measure
    sites: str | int | tuple[str | int, ...]

    @property
    def name(self) -> str:
        """The name of the measure."""
        return self.measure.name

    @property
    def identity(self) -> str:
        """The identity of the measure, with the sites."""
        return f"{self.measure.identity} at {self.sites!r}"

    def __call__(self, activations: Activations, concept: Concept, *, seed: int) -> xr.Dataset:
        """Measure at the chosen sites.

        Args:
            activations: One row per statement of the concept, in its order.
            concept: The statements, labels and groups.
            seed: The seed for the measure.

        Raises:
            ValueError: The activations lack one of the sites.
        """
        sites = list(self.sites) if isinstance(self.sites, tuple) else self.sites
        dataset = self.measure(activations.select(sites), concept, seed=seed)
        return dataset.reindex(site=list(activations.sites))


def at_sites(measure: Measure, sites: Sites) -> Measure:
    """Restrict a measure to some sites; None keeps all sites in the activations."""
    if sites is None:
        return measure
    return AtSites(measure, sites if isinstance(sites, str | int) else tuple(sites))


def check_statements(activations: Activations, concept: Concept) -> None:
    """Check that activations and concept have the same number of statements.

    Raises:
        ValueError: The numbers differ.
    """
    if len(activations) != len(concept):
        raise ValueError(
            f"The activations hold {len(activations)} statements, but concept {concept.name!r} "
            f"has {len(concept)}. Collect them from this concept."
        )


def permuted_sides(
    partner: Tensor, concept: Concept, against: str, permutations: int, seed: int
) -> list[Tensor]:
    """Draw permutations of the text or of the labels, for a null without dependence."""
    if not permutations:
        return []
    if against == "label":
        # Nothing is cross-validated here, so labels may change places across folds.
        one_fold = np.zeros(len(concept), dtype=np.int64)
        permuted = permute_labels(
            concept.labels, concept.groups, one_fold, permutations=permutations, seed=seed
        )
        return [torch.from_numpy(draw.astype(np.int64)) for draw in permuted.draws[1:]]
    turns = Rotations.draw(concept.groups, permutations=permutations, seed=seed)
    return [
        partner[torch.from_numpy(turns.permutation(1 + draw % turns.permutations))]
        for draw in range(permutations)
    ]
