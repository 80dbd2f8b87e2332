"""Collect the comparisons of representations in one labelled data set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from tlens_trust.measures.kernels.precomputed_kernels import FIRST_BLOCK_NOT_READ, Comparison
from tlens_trust.measures.labelled import Variables, labelled, labelled_null
from tlens_trust.measures.nulls import in_deviations, middle_95, p_values_of
from tlens_trust.measures.resampling import HalfSamples

AGAINST = ("first_block", "text", "label")
VARIANTS = ("raw", "rank_matched")
ESTIMATORS = {
    "cka": "debiased centred kernel alignment",
    "hsic": "unbiased Hilbert-Schmidt independence criterion",
    "nhsic": "normalised Hilbert-Schmidt independence criterion",
}


@dataclass(frozen=True, eq=False)
class Results:
    """Comparisons by site, reference, variant and width, as they are computed.

    Attributes:
        sites: The names along `site`.
        multiples: The widths.
        halves: The half samples for intervals.
        statements: The number of statements for every value.
        comparisons: By estimator, site, reference, variant and width.
        matched: For each site, the share of its directions that the rank-matched variant holds.
    """

    sites: tuple[str, ...]
    multiples: tuple[float, ...]
    halves: HalfSamples
    statements: int
    comparisons: dict[tuple[str, int, int, int, int], Comparison]
    matched: list[float]

    @classmethod
    def empty(
        cls,
        sites: Sequence[str],
        multiples: Sequence[float],
        halves: HalfSamples,
        statements: int,
    ) -> "Results":
        """Make results without any comparison."""
        return cls(tuple(sites), tuple(multiples), halves, statements, {}, [])

    def put(
        self, place: tuple[int, int, int], against: str, comparisons: Mapping[str, Comparison]
    ) -> None:
        """Store the comparisons of one representation, at a site, variant and width."""
        site, variant, width = place
        for name, comparison in comparisons.items():
            key = name, site, AGAINST.index(against), variant, width
            self.comparisons[key] = comparison

    def dataset(
        self,
        *,
        first_block: bool,
        permutations: Mapping[str, int],
        components: int,
        ridge: float,
    ) -> xr.Dataset:
        """Return all comparisons as a data set; NaN where there is none.

        Args:
            first_block: Whether the activations include the first block's output.
            permutations: The number of permutations for the null of each reference.
            components: The number of components of the rank-matched variant.
            ridge: The ridge of normalised HSIC at a multiple of 1.
        """
        shape = len(self.sites), len(AGAINST), len(VARIANTS), len(self.multiples)
        dims = "site", "against", "variant", "width"
        # Collected before assignment: each assignment to a data set aligns all of it again.
        variables: Variables = {}
        empty = xr.Dataset(
            coords={
                "site": list(self.sites),
                "against": list(AGAINST),
                "variant": list(VARIANTS),
                "width": (
                    "width",
                    list(self.multiples),
                    {"units": "median distances", "long_name": "width of the Gaussian kernels"},
                ),
                "bound": ["low", "high"],
                "resample": np.arange(self.halves.resamples),
            }
        )
        permutation_counts = ", ".join(f"{name}: {count}" for name, count in permutations.items())
        for name, description in ESTIMATORS.items():
            about = f"{description} (a dependence, not in nats)"
            attributes: dict[str, object] = {"components": components, "groups": self.halves.groups}
            if name == "nhsic":
                attributes |= {"ridge": ridge}
            if not first_block:
                attributes |= {"first_block": FIRST_BLOCK_NOT_READ}
            arrays = self._arrays(name, shape)
            variables |= labelled(
                name,
                arrays[""],
                units="1",
                long_name=about,
                dims=dims,
                # Seven digits are enough for a bound or a replicate.
                interval=arrays["_ci"].astype(np.float32),
                n=self.statements,
                attributes=attributes,
                resampling=attributes | {"resamples": self.halves.resamples},
            )
            variables[f"{name}_draws"] = (
                (*dims, "resample"),
                arrays["_draws"].astype(np.float32),
                {
                    "units": "1",
                    "long_name": f"half-sample replicates of the {about}",
                    **attributes,
                    "resamples": self.halves.resamples,
                },
            )
            variables |= labelled_null(
                name,
                long_name=about,
                permutations=permutation_counts,
                band=arrays["_null"].astype(np.float32),
                condition="under permutations",
                p=arrays["_p"],
                p_best=arrays["_p_best"],
                dims=dims,
                attributes=attributes,
            )
        variables["rank_matched_share"] = (
            ("site",),
            np.array(self.matched),
            {
                "units": "1",
                "long_name": "share of the directions that the rank-matched variant holds",
                "components": components,
            },
        )
        return empty.assign(variables)

    def _arrays(self, name: str, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
        arrays = {
            key: np.full((*shape, *extra_axes), np.nan)
            for key, extra_axes in {
                "": (),
                "_ci": (2,),
                "_draws": (self.halves.resamples,),
                "_null": (2,),
                "_p": (),
                "_p_best": (),
            }.items()
        }
        for cell in np.ndindex(shape[1:]):
            comparisons = {
                site: self.comparisons[name, site, *cell]
                for site in range(shape[0])
                if (name, site, *cell) in self.comparisons
            }
            for site, comparison in comparisons.items():
                place = (site, *cell)
                replicates = self.halves.replicates_about(comparison.value, comparison.on_halves)
                arrays[""][place] = comparison.value
                arrays["_draws"][place] = replicates
                arrays["_ci"][place] = self.halves.interval(comparison.value, replicates)
            if comparisons:
                draws = np.stack([site_comparison.null for site_comparison in comparisons.values()])
                bands = middle_95(draws[:, 1:].T)
                p, p_best = p_values_of(in_deviations(draws))
                for number, site in enumerate(comparisons):
                    arrays["_null"][(site, *cell)] = bands[number]
                    arrays["_p"][(site, *cell)] = p[number]
                    arrays["_p_best"][(site, *cell)] = p_best[number]
        return arrays
