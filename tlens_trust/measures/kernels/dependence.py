"""A measure of how much activations depend on the input and on the labels, by kernels."""

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
    """A representation that every site is compared with, at every width.

    Attributes:
        gaussian: Its Gaussian kernels; empty where all examples are the same.
        linear: Its principal components; None where all examples are the same.
    """

    gaussian: Sequence[GaussianSide]
    linear: LinearSide | None


@dataclass(frozen=True)
class KernelDependence:
    """Measure HSIC, CKA and normalised HSIC with the input and with the labels: a `Measure`.

    Attributes:
        multiples: The widths of the Gaussian kernels, as multiples of each representation's median
            distance.
        components: The number of components of the rank-matched variant, the same at every
            checkpoint. None takes all directions if there are at least twice as many statements,
            and else an eighth of the statements.
        ridge: The ridge of normalised HSIC at a multiple of 1, as a share of each representation's
            variance.
        permutations: The largest number of permutations for a null.
        resamples: The number of half samples for an interval.
        examples: The largest number of statements. Of more statements, whole groups are drawn, the
            same ones at every checkpoint.
        widths: By site, a fixed value in place of the median distance, in activation units; it is
            then the same at every checkpoint. None uses the median distance of each checkpoint.
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
        """The measure's name, `kernel_dependence`."""
        return "kernel_dependence"

    @property
    def identity(self) -> str:
        """The name and every parameter that changes the result."""
        widths = "" if self.widths is None else f"widths={dict(self.widths)}, "
        return (
            f"{self.name}(multiples={list(self.multiples)}, components={self.components}, "
            f"ridge={self.ridge}, permutations={self.permutations}, "
            f"resamples={self.resamples}, examples={self.examples}, {widths}version=3)"
        )

    def __call__(self, activations: Activations, concept: Concept, *, seed: int) -> xr.Dataset:
        """Measure the dependence at every site.

        Args:
            activations: One row per statement of the concept, in its order.
            concept: The statements, labels and groups.
            seed: Draws permutations and half samples, the same ones at every site and checkpoint.

        Returns:
            See `kernel_dependence`.

        Raises:
            ValueError: The activations do not belong to this concept's statements, the concept has
                fewer than 8 groups, or `widths` lacks a site.
        """
        _check(activations, concept)
        fixed_widths = self._fixed_widths(activations.sites)
        rows = draw_rows(concept.groups, most=self.examples, seed=seed)
        groups = [concept.groups[row] for row in rows]
        rotations = Rotations.draw(groups, permutations=self.permutations, seed=seed)
        # Rows are put in the order of the rotations once, so no kernel matrix needs reordering.
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
            representations = _variants(values[:, site], components)
            results.matched.append(
                representations[1][1].count / max(representations[0][1].count, 1)
            )
            for variant, representation in enumerate(representations):
                references = {"text": text_sides}
                block_sides = block_references[variant]
                if block_sides is not None:
                    references["first_block"] = block_sides
                # A flat spectrum has the same unit at every checkpoint, so it needs no fixed width.
                fixed_width = fixed_widths.get(site_name) if variant == 0 else None
                place = site, variant
                self._compare(
                    results,
                    place,
                    representation,
                    labels,
                    references,
                    design,
                    fixed_width=fixed_width,
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
        representation: tuple[Float[Tensor, "example _"], PrincipalComponents],
        labels: tuple[GaussianSide, LinearSide],
        references: Mapping[str, Reference],
        design: ResamplingDesign,
        *,
        fixed_width: float | None,
    ) -> None:
        """Compare one representation with labels and references, at every width."""
        values, principal = representation
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
        """The ridges of normalised HSIC: the paper's `ε σ²`, with σ multiplied like the widths."""
        return tuple(self.ridge * multiple**2 for multiple in self.multiples)

    def _fixed_widths(self, sites: Sequence[str]) -> dict[str, float]:
        """Return the fixed width of each site; empty if none were given."""
        if self.widths is None:
            return {}
        widths = dict(self.widths)
        unknown = [site for site in sites if site not in widths]
        if unknown:
            raise ValueError(
                f"`widths` holds no width for the site {unknown[0]!r}. It holds those of "
                f"{', '.join(widths)}. Take `median_widths` of activations at the same sites."
            )
        return widths

    def _gaussian(
        self,
        representation: Float[Tensor, "example d"],
        design: ResamplingDesign,
        fixed_width: float | None = None,
    ) -> Iterator[GaussianSide]:
        """Yield the Gaussian kernel of each width; none where all examples are the same."""
        squared = squared_distances(representation, representation)
        median = median_of(squared)
        if isfinite(median):
            for multiple in self.multiples:
                width = multiple * (median if fixed_width is None else fixed_width)
                yield GaussianSide.of(gaussian_of(squared, width), design)

    def _reference(
        self,
        representation: Float[Tensor, "example d"],
        principal: PrincipalComponents,
        design: ResamplingDesign,
        *,
        fixed_width: float | None = None,
    ) -> Reference:
        linear = LinearSide.of(principal, self.ridges, design) if principal.count else None
        return Reference(list(self._gaussian(representation, design, fixed_width)), linear)


def _variants(
    values: Float[Tensor, "example d"], components: int
) -> list[tuple[Float[Tensor, "example _"], PrincipalComponents]]:
    """Compute a representation as it is and with a flat spectrum, each with its components."""
    principal = PrincipalComponents.of(values)
    flat = principal.flat(components)
    return [(values, principal), (flat.vectors * len(values) ** 0.5, flat)]


def median_widths(activations: Activations) -> dict[str, float]:
    """Compute the median distance of two statements at every site: `widths` for a whole series.

    Args:
        activations: The activations of the checkpoint whose units all others are measured in, for
            example the last one.

    Examples:
        >>> last = Activations(torch.eye(3).unsqueeze(1), ("blocks.0.hook_resid_post",), n_layers=1)
        >>> round(median_widths(last)["blocks.0.hook_resid_post"], 3)
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
    """Measure the dependence on the input and on the labels by kernels, with nulls and intervals.

    There are three estimators. None is in nats, and none is mutual information. `cka` (debiased
    CKA) and `hsic` (unbiased HSIC) use Gaussian kernels. `nhsic` (normalised HSIC) counts the
    directions that two representations share. It is the limit of the paper's estimator for wide
    kernels, see `linear_normalised_hsic`. Each has the axis `site` and three more.

    `against` names the variable that activations are compared with. `first_block` is the first
    block's output at the same checkpoint, the paper's X. It is NaN if the site
    `blocks.0.hook_resid_post` is missing. `text` is the representation of the statements by
    `represent_text`, the same at every checkpoint. `label` are the labels, with a delta kernel.

    `variant` is `raw` or `rank_matched`. In `rank_matched` the leading principal components all
    have the same spread (`flatten_spectrum`); this includes the first block's. A change of the raw
    variant alone is a change of the spectrum.

    `width` is a multiple of each representation's median distance, computed anew at every site and
    checkpoint. For `nhsic` it is σ in multiples of the paper's 50, so its ridge is `ridge` times
    the square. `nhsic` uses standardised features, as the paper does.

    These variables accompany each estimator:

    - `…_draws` along `resample`: the estimate on random halves of the groups, shifted to have the
      estimate as their mean. Their spread estimates the sampling error. The halves of a concept are
      the same at every site and checkpoint, so that differences are paired. For `nhsic` they are a
      first-order approximation in the examples' weights. It is too narrow at the null.
    - `…_ci` along `bound`: the 95% interval from these replicates.
    - `…_null` along `bound`: the middle 95% where labels, or the statements of one representation,
      are permuted. Groups are kept together.
    - `…_p`: the one-sided p-value, `(1 + #{≥}) / (1 + permutations)`. `…_p_best` is the same by the
      null of the maximum over sites.
    - `…_n`: the number of statements.

    `rank_matched_share` along `site` is the share of a representation's directions that the
    rank-matched variant holds. Below 1 it does not undo every invertible map. A map that makes
    other directions the leading ones changes it, though it changes no information.

    Labels are permuted by `permute_labels`. Representations are permuted by `Rotations`, of which
    there are as many as groups of one size. The cost is `O(n²)`: about a second a site for 2,000
    statements of width 576.

    Args:
        multiples: The widths of the Gaussian kernels, as multiples of the median distance.
        components: The number of components of the rank-matched variant. None takes the width of
            the activations if there are at least twice as many statements, and else an eighth of
            the statements.
        ridge: The ridge of normalised HSIC at a multiple of 1: the paper's `ε σ²`.
        permutations: The largest number of permutations for a null.
        resamples: The number of half samples.
        examples: The largest number of statements. Of more statements, whole groups are drawn, the
            same ones at every checkpoint.
        widths: A fixed value for each site in place of the median distance, in activation units
            (`median_widths` of one checkpoint). None uses each checkpoint's own. With a fixed
            width, estimates also follow the size of the activations. It affects `cka` and `hsic` of
            the raw variant only; `nhsic` always standardises features.
        protocol: `"calibrated"` is described here. `"tracingllm"` is the exact estimator of Qian et
            al. (`tracingllm_dependence`), which takes no other argument but `permutations`.

    Returns:
        A measure named `kernel_dependence`, or `tracingllm_dependence` by that protocol.

    Raises:
        ValueError: An argument is out of range.

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
