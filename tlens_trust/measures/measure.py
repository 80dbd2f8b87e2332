"""What every measure gives, so that a sweep can run it beside any other."""

from typing import Protocol, runtime_checkable

import xarray as xr

from tlens_trust.activations import Activations
from tlens_trust.concepts import Concept


@runtime_checkable
class Measure(Protocol):
    """A quantity that an activation carries about a concept.

    A measure is a pure function: the same activations, concept and seed give the same arrays,
    bit for bit. Its result is an `xarray.Dataset` with the dimension `site` on every variable;
    a variable that also has the dimension `example` (a held-out score of each statement, say) is
    kept in the run folder and stays out of the assembled `Trace`. Every variable carries `units`
    and `long_name` in its attributes. NaN stands for "unknown".
    """

    @property
    def name(self) -> str:
        """Short name; the `probe` coordinate where several probes give the same variables."""

    @property
    def identity(self) -> str:
        """Name and every parameter that changes the result; part of the cache key."""

    def __call__(self, activations: Activations, concept: Concept, *, seed: int) -> xr.Dataset:
        """Measure `concept` in `activations`, at every site."""
