"""The protocol of measures, which a sweep runs."""

from typing import Protocol, runtime_checkable

import xarray as xr

from tlens_trust.activations import Activations
from tlens_trust.concepts import Concept


@runtime_checkable
class Measure(Protocol):
    """A quantity that activations carry about a concept.

    A measure is a pure function: the same activations, concept and seed give the same arrays,
    bit for bit. Its result is an `xarray.Dataset` with the dimension `site` on every variable. A
    variable with the dimension `example` as well, such as a held-out score of each statement, is
    kept in the run folder and left out of the assembled `Trace`. Every variable has the attributes
    `units` and `long_name`. NaN means "unknown".
    """

    @property
    def name(self) -> str:
        """Short name. It is the `probe` coordinate if several probes give the same variables."""

    @property
    def identity(self) -> str:
        """Name and every parameter that changes the result. Part of the cache key."""

    def __call__(self, activations: Activations, concept: Concept, *, seed: int) -> xr.Dataset:
        """Compute the quantity of `concept` in `activations`, at every site."""
