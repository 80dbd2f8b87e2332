"""What comparisons of readings come to, as one labelled data set."""

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
    """Comparisons by site, against what, variant and width, as they come in.

    Attributes:
        sites: Names along `site`.
        multiples: Widths.
        halves: Half samples behind intervals.
        statements: How many stand behind every value.
        comparisons: By estimator, site, against what, variant and width.
        matched: Of each site, the share of its directions that the rank-matched variant holds.
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
        """Without any comparison yet."""
        return cls(tuple(sites), tuple(multiples), halves, statements, {}, [])

    def put(
        self, place: tuple[int, int, int], against: str, found: Mapping[str, Comparison]
    ) -> None:
        """Note the comparisons of one reading, at a site, variant and width."""
        site, variant, width = place
        for name, comparison in found.items():
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
        """All of it; NaN where nothing was put.

        Args:
            first_block: Whether the first block's output was read.
            permutations: By what is compared against, how many stand behind its nulls.
            components: Of the rank-matched variant.
            ridge: Of normalised HSIC at a multiple of 1.
        """
        shape = len(self.sites), len(AGAINST), len(VARIANTS), len(self.multiples)
        dims = "site", "against", "variant", "width"
        # Gathered first: every assignment to a data set aligns all of it anew.
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
        counted = ", ".join(f"{name}: {count}" for name, count in permutations.items())
        for name, described in ESTIMATORS.items():
            about = f"{described} (a dependence, not in nats)"
            known: dict[str, object] = {"components": components, "groups": self.halves.groups}
            if name == "nhsic":
                known |= {"ridge": ridge}
            if not first_block:
                known |= {"first_block": FIRST_BLOCK_NOT_READ}
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
                attributes=known,
                resampling=known | {"resamples": self.halves.resamples},
            )
            variables[f"{name}_draws"] = (
                (*dims, "resample"),
                arrays["_draws"].astype(np.float32),
                {
                    "units": "1",
                    "long_name": f"half-sample replicates of the {about}",
                    **known,
                    "resamples": self.halves.resamples,
                },
            )
            variables |= labelled_null(
                name,
                long_name=about,
                permutations=counted,
                band=arrays["_null"].astype(np.float32),
                condition="under permutations",
                p=arrays["_p"],
                p_best=arrays["_p_best"],
                dims=dims,
                attributes=known,
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
            key: np.full((*shape, *more), np.nan)
            for key, more in {
                "": (),
                "_ci": (2,),
                "_draws": (self.halves.resamples,),
                "_null": (2,),
                "_p": (),
                "_p_best": (),
            }.items()
        }
        for cell in np.ndindex(shape[1:]):
            compared = {
                site: self.comparisons[name, site, *cell]
                for site in range(shape[0])
                if (name, site, *cell) in self.comparisons
            }
            for site, comparison in compared.items():
                here = (site, *cell)
                replicates = self.halves.replicates_about(comparison.value, comparison.on_halves)
                arrays[""][here] = comparison.value
                arrays["_draws"][here] = replicates
                arrays["_ci"][here] = self.halves.interval(comparison.value, replicates)
            if compared:
                draws = np.stack([each.null for each in compared.values()])
                bands = middle_95(draws[:, 1:].T)
                alone, best = p_values_of(in_deviations(draws))
                for number, site in enumerate(compared):
                    arrays["_null"][(site, *cell)] = bands[number]
                    arrays["_p"][(site, *cell)] = alone[number]
                    arrays["_p_best"][(site, *cell)] = best[number]
        return arrays
