"""How far activations depend on their input and on the labels, by kernels: a measure of a sweep."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from tlens_trust.activations import Activations
from tlens_trust.arguments import (
    check_counts,
    checked_choice,
    checked_grid,
    checked_positive,
)
from tlens_trust.concepts import Concept
from tlens_trust.measures.kernels.components import PrincipalComponents
from tlens_trust.measures.kernels.kernel import (
    gaussian_of,
    median_distance,
    median_of,
    squared_distances,
)
from tlens_trust.measures.kernels.precomputed_kernels import (
    FIRST_BLOCK,
    GaussianSide,
    LinearSide,
    ResamplingDesign,
    label_side,
    linear_label_side,
)
from tlens_trust.measures.kernels.results import VARIANTS, Results
from tlens_trust.measures.kernels.rotations import Rotations
from tlens_trust.measures.kernels.spectrum_matching import matching_components
from tlens_trust.measures.kernels.tracingllm_dependence import (
    TracingLLMDependence,
    tracingllm_dependence,
)
from tlens_trust.measures.permutations import permute_labels
from tlens_trust.measures.resampling import HalfSamples, draw_rows
from tlens_trust.measures.text_features import represent_text


@dataclass(frozen=True, eq=False)
class Reference:
    """A reading that every site is compared with, at every width.

    Attributes:
        gaussian: Its Gaussian kernels; none where all examples are the same.
        linear: Its principal components; None likewise.
    """

    gaussian: Sequence[GaussianSide]
    linear: LinearSide | None


@dataclass(frozen=True)
class KernelDependence:
    """HSIC, CKA and normalised HSIC with the input and with the labels: a `Measure`.

    Attributes:
        multiples: Widths of the Gaussian kernels, as multiples of each reading's median distance.
        components: Of the rank-matched variant; None for all directions where statements are at
            least twice as many, else an eighth of the statements. The same at every checkpoint.
        ridge: Of normalised HSIC at a multiple of 1, as a share of each reading's variance.
        permutations: How many, at most, stand behind a null.
        resamples: How many half samples stand behind an interval.
        examples: Of more statements than this, whole groups are drawn, the same ones at every
            checkpoint.
        widths: By site, what stands for the median distance there, in activation units, and so at
            every checkpoint; None for the median distance itself.
    """

    multiples: tuple[float, ...] = (0.5, 1.0, 2.0)
    components: int | None = None
    ridge: float = 0.025
    permutations: int = 1000
    resamples: int = 32
    examples: int = 2048
    widths: tuple[tuple[str, float], ...] | None = None

    def __post_init__(self) -> None:
        multiples = checked_grid(
            "multiples", self.multiples, hint="They are widths, in median distances."
        )
        object.__setattr__(self, "multiples", multiples)
        check_counts(self, {"permutations": 1, "resamples": 2, "examples": 16})
        if self.components is not None:
            check_counts(self, {"components": 1})
        object.__setattr__(self, "ridge", checked_positive("ridge", self.ridge))
        if self.widths is not None:
            hint = (
                "A site where all statements have the same activations has no median distance: "
                "take the widths from another checkpoint."
            )
            for site, width in self.widths:
                checked_positive(f"widths[{site!r}]", width, hint=hint)

    @property
    def name(self) -> str:
        """`kernel_dependence`."""
        return "kernel_dependence"

    @property
    def identity(self) -> str:
        """Name and every parameter that changes the result."""
        widths = "" if self.widths is None else f"widths={dict(self.widths)}, "
        return (
            f"{self.name}(multiples={list(self.multiples)}, components={self.components}, "
            f"ridge={self.ridge}, permutations={self.permutations}, "
            f"resamples={self.resamples}, examples={self.examples}, {widths}version=3)"
        )

    def __call__(self, activations: Activations, concept: Concept, *, seed: int) -> xr.Dataset:
        """Measure at every site.

        Args:
            activations: One reading per statement of the concept, in its order.
            concept: Statements, labels and groups.
            seed: Draws permutations and half samples, the same ones at every site and checkpoint.

        Returns:
            See `kernel_dependence`.

        Raises:
            ValueError: The activations are not of this concept's statements, it has fewer than
                8 groups, or a site is not among those of `widths`.
        """
        _check(activations, concept)
        fixed_widths = self._fixed_widths(activations.sites)
        rows = draw_rows(concept.groups, most=self.examples, seed=seed)
        groups = [concept.groups[row] for row in rows]
        rotations = Rotations.draw(groups, permutations=self.permutations, seed=seed)
        # Seated once, so that no kernel matrix has to be.
        rows = rows[rotations.order]
        groups = [concept.groups[row] for row in rows]
        halves = HalfSamples.draw(groups, resamples=self.resamples, seed=seed)
        permuted = permute_labels(
            concept.labels[rows],
            groups,
            np.zeros(len(rows), dtype=np.int64),
            permutations=self.permutations,
            seed=seed,
        )
        design = ResamplingDesign.of(rotations, halves, permuted.draws)
        results = Results.empty(activations.sites, self.multiples, halves, len(rows))
        values = activations.values[torch.from_numpy(rows)]
        components = self.components or matching_components(len(rows), values.shape[2])
        text = represent_text(concept.statements)[torch.from_numpy(rows)]
        labels = label_side(design), linear_label_side(self.ridges, design)
        text_sides = self._reference(text, PrincipalComponents.of(text, standardise=False), design)
        has_first_block = FIRST_BLOCK in activations.sites
        block_references: list[Reference | None] = [None for _ in VARIANTS]
        if has_first_block:
            block = values[:, activations.sites.index(FIRST_BLOCK)]
            raw_variant, flat_variant = _variants(block, components)
            fixed_width = fixed_widths.get(FIRST_BLOCK)
            block_references = [
                self._reference(*raw_variant, design, fixed_width=fixed_width),
                self._reference(*flat_variant, design),
            ]
        for site, site_name in enumerate(activations.sites):
            readings = _variants(values[:, site], components)
            results.matched.append(readings[1][1].count / max(readings[0][1].count, 1))
            for variant, reading in enumerate(readings):
                references = {"text": text_sides}
                block_sides = block_references[variant]
                if block_sides is not None:
                    references["first_block"] = block_sides
                # A flat spectrum has one unit everywhere.
                fixed_width = fixed_widths.get(site_name) if variant == 0 else None
                place = site, variant
                self._compare(
                    results, place, reading, labels, references, design, fixed_width=fixed_width
                )
        return results.dataset(
            first_block=has_first_block,
            permutations={
                "label": permuted.permutations,
                "first_block": rotations.permutations,
                "text": rotations.permutations,
            },
            components=components,
            ridge=self.ridge,
        )

    def _compare(
        self,
        results: Results,
        place: tuple[int, int],
        reading: tuple[Float[Tensor, "example _"], PrincipalComponents],
        labels: tuple[GaussianSide, LinearSide],
        references: Mapping[str, Reference],
        design: ResamplingDesign,
        *,
        fixed_width: float | None,
    ) -> None:
        """Compare one reading with the labels and with all others, at every width."""
        values, principal = reading
        for width, side in enumerate(self._gaussian(values, design, fixed_width)):
            results.put((*place, width), "label", side.compare_labels(labels[0], design))
            for against, reference in references.items():
                if reference.gaussian:
                    comparisons = side.compare(reference.gaussian[width], design)
                    results.put((*place, width), against, comparisons)
        if principal.count == 0:
            return
        linear = LinearSide.of(principal, self.ridges, design)
        linear_comparisons = {"label": linear.compare_labels(labels[1], self.ridges, design)}
        for against, reference in references.items():
            if reference.linear is not None:
                linear_comparisons[against] = linear.compare(reference.linear, self.ridges, design)
        for against, width_comparisons in linear_comparisons.items():
            for width, comparison in enumerate(width_comparisons):
                results.put((*place, width), against, {"nhsic": comparison})

    @property
    def ridges(self) -> tuple[float, ...]:
        """Of normalised HSIC: the paper's `ε σ²`, where σ is multiplied as the widths are."""
        return tuple(self.ridge * multiple**2 for multiple in self.multiples)

    def _fixed_widths(self, sites: Sequence[str]) -> dict[str, float]:
        """Widths by site, where they are given."""
        if self.widths is None:
            return {}
        widths = dict(self.widths)
        unknown = [site for site in sites if site not in widths]
        if unknown:
            raise ValueError(
                f"`widths` holds no width for the site {unknown[0]!r}. It holds those of "
                f"{', '.join(widths)}. Take `median_widths` of a reading of the same sites."
            )
        return widths

    def _gaussian(
        self,
        reading: Float[Tensor, "example d"],
        design: ResamplingDesign,
        fixed_width: float | None = None,
    ) -> Iterator[GaussianSide]:
        """Of each width; none where all examples are the same."""
        squared = squared_distances(reading, reading)
        median = median_of(squared)
        if isfinite(median):
            for multiple in self.multiples:
                width = multiple * (median if fixed_width is None else fixed_width)
                yield GaussianSide.of(gaussian_of(squared, width), design)

    def _reference(
        self,
        reading: Float[Tensor, "example d"],
        principal: PrincipalComponents,
        design: ResamplingDesign,
        *,
        fixed_width: float | None = None,
    ) -> Reference:
        linear = LinearSide.of(principal, self.ridges, design) if principal.count else None
        return Reference(list(self._gaussian(reading, design, fixed_width)), linear)


def _variants(
    values: Float[Tensor, "example d"], components: int
) -> list[tuple[Float[Tensor, "example _"], PrincipalComponents]]:
    """A reading as it is and with its spectrum made flat, each with its principal components."""
    principal = PrincipalComponents.of(values)
    flat = principal.flat(components)
    return [(values, principal), (flat.vectors * len(values) ** 0.5, flat)]


def median_widths(activations: Activations) -> dict[str, float]:
    """The median distance of two statements at every site: `widths` for a whole series.

    Args:
        activations: Of the checkpoint whose units the others are to be measured in; the last one,
            say.

    Examples:
        >>> read = Activations(torch.eye(3).unsqueeze(1), ("blocks.0.hook_resid_post",), n_layers=1)
        >>> round(median_widths(read)["blocks.0.hook_resid_post"], 3)
        1.414
    """
    return {
        site: median_distance(activations.values[:, number].double())
        for number, site in enumerate(activations.sites)
    }


def _check(activations: Activations, concept: Concept) -> None:
    if len(activations) != len(concept):
        raise ValueError(
            f"The activations hold {len(activations)} statements, but concept {concept.name!r} "
            f"has {len(concept)}. Collect them from this concept."
        )
    groups = len(set(concept.groups))
    if groups < 8:
        raise ValueError(
            f"The concept {concept.name!r} has {groups} groups, and dependence is estimated on "
            "halves of them, which takes at least 8. Give more statements."
        )


def kernel_dependence(
    *,
    multiples: Sequence[float] = (0.5, 1.0, 2.0),
    components: int | None = None,
    ridge: float = 0.025,
    permutations: int = 1000,
    resamples: int = 32,
    examples: int = 2048,
    widths: Mapping[str, float] | None = None,
    protocol: str = "calibrated",
) -> KernelDependence | TracingLLMDependence:
    """Dependence by kernels on the input and on the labels, with nulls and sensitivity: a measure.

    Three estimators, none of them in nats and none of them mutual information: `cka` (debiased
    CKA), `hsic` (unbiased HSIC), both with Gaussian kernels, and `nhsic` (normalised HSIC: how many
    directions two readings share, the estimator of the paper in the limit that its wide kernel is
    all but at, see `linear_normalised_hsic`). Each along `site` and

    - `against`: `first_block`, the first block's output at the same checkpoint (the paper's X; NaN
      where the site `blocks.0.hook_resid_post` was not read); `text`, what `represent_text` makes
      of the statements, which no checkpoint changes; `label`, with a delta kernel;
    - `variant`: `raw`, and `rank_matched`, where the leading principal components all have the
      same spread (`flatten_spectrum`), of the first block's too. What moves the raw one alone is a
      change of spectrum;
    - `width`: multiples of each reading's median distance, found anew at every site and
      checkpoint. For `nhsic` it is σ in multiples of the paper's 50, so that its ridge is `ridge`
      times the square. (`nhsic` takes standardised features, as the paper does.)

    Beside each of them:

    - `…_draws` along `resample`: the estimate on random halves of the groups, moved to have the
      estimate as their mean. Their spread is that of the sampling error. The halves are the same
      at every site and checkpoint of a concept, so that differences are paired. (For `nhsic` to
      first order in the examples' weights, which is too narrow where it is at its null.) `…_ci` is
      the 95% interval they give;
    - `…_null` along `bound`: the middle 95% where labels, or the statements of one reading, change
      places, groups together; `…_p`, one-sided, `(1 + #{≥}) / (1 + permutations)`; `…_p_best`, the
      same by the null of the maximum over sites;
    - `…_n`: the statements it rests on.

    `rank_matched_share` along `site` says how many of a reading's directions the rank-matched
    variant holds. Below 1 it does not undo every invertible map: one that brings other directions
    into the lead moves it, though it changes no information.

    Labels go through `permute_labels`; readings through `Rotations`, of which there are as many as
    groups of one size. Costs about a second a site for 2,000 statements of width 576, in `O(n²)`.

    Args:
        multiples: Widths of the Gaussian kernels, as multiples of the median distance.
        components: Of the rank-matched variant; None for the width of the activations where
            statements are at least twice as many, else an eighth of the statements.
        ridge: Of normalised HSIC at a multiple of 1: the paper's `ε σ²`.
        permutations: How many, at most, stand behind a null.
        resamples: How many half samples.
        examples: Of more statements than this, whole groups are drawn, the same ones at every
            checkpoint.
        widths: What stands for the median distance at each site, in activation units, at every
            checkpoint (`median_widths` of one of them); None for each checkpoint's own. A fixed
            width lets estimates follow the size of the activations too. It is for `cka` and
            `hsic` of activations as they are; `nhsic` has standardised features throughout.
        protocol: `"calibrated"`, what is described here; or `"tracingllm"`, the estimator of Qian
            et al. to the letter (`tracingllm_dependence`), which takes no other argument but
            `permutations`.

    Returns:
        A measure named `kernel_dependence`, or `tracingllm_dependence` by that protocol.

    Raises:
        ValueError: An argument is out of its range.

    Source:
        Gretton et al. (2005); Song et al. (2012); Kornblith et al. (2019), arXiv:1905.00414;
        Fukumizu et al. (2007).

    Examples:
        >>> kernel_dependence().name
        'kernel_dependence'
    """
    checked_choice("protocol", protocol, ("calibrated", "tracingllm"))
    sorted_widths = None if widths is None else tuple(sorted(widths.items()))
    checked_multiples = checked_grid(
        "multiples", multiples, hint="They are widths, in median distances."
    )
    measure = KernelDependence(
        checked_multiples, components, ridge, permutations, resamples, examples, sorted_widths
    )
    if protocol == "calibrated":
        return measure
    if measure != KernelDependence(permutations=permutations):
        raise ValueError(
            "The protocol 'tracingllm' has its own width, ridge and rows, and takes no other "
            "argument but `permutations`. Leave the others out."
        )
    return tracingllm_dependence(permutations=permutations)
