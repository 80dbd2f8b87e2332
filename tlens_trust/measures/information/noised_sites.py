"""Compute `I(T + Z; X)` at every site of a checkpoint."""

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr

from tlens_trust.activations import Activations
from tlens_trust.concepts import Concept
from tlens_trust.measures.information.bound_variables import empty_dataset
from tlens_trust.measures.information.noised import information_under_noise
from tlens_trust.measures.kernels.components import PrincipalComponents
from tlens_trust.measures.kernels.spectrum_matching import matching_components
from tlens_trust.measures.labelled import Variables, labelled
from tlens_trust.measures.resampling import HalfSamples, draw_rows

VARIANTS = ("raw", "rank_matched")


def noised_dataset(
    activations: Activations,
    concept: Concept,
    *,
    noise: Sequence[float],
    resamples: int,
    examples: int,
    seed: int,
) -> xr.Dataset:
    """Compute `I(T + Z; X)` at every site, by variant and noise level.

    Args:
        activations: One row per statement of the concept, in its order.
        concept: The concept, for its groups.
        noise: The noise levels.
        resamples: The number of half samples.
        examples: If there are more statements than this, whole groups are drawn at random.
        seed: Draws statements, half samples and noise.
    """
    rows = draw_rows(concept.groups, most=examples, seed=seed)
    groups = [concept.groups[row] for row in rows]
    halves = HalfSamples.draw(groups, resamples=resamples, seed=seed)
    sites = len(activations.sites)
    levels = list(noise)
    components = matching_components(len(rows), activations.values.shape[2])
    row_indices = torch.from_numpy(rows)
    value = np.full((sites, len(VARIANTS), len(levels)), np.nan)
    ceiling, on_halves = value.copy(), np.full((*value.shape, resamples), np.nan)
    matched_share = np.full(sites, np.nan)
    for site in range(sites):
        values = activations.values[row_indices, site]
        principal = PrincipalComponents.of(values)
        flat = principal.flat(components)
        matched_share[site] = flat.count / max(principal.count, 1)
        for variant, x in enumerate((values, flat.vectors)):
            # No directions remain where all statements have the same activations.
            if not x.shape[1]:
                continue
            noised = information_under_noise(x, levels, halves, seed=seed)
            value[site, variant] = noised.value
            ceiling[site, variant] = noised.ceiling
            on_halves[site, variant] = noised.on_halves
    replicates = halves.replicates_about(value, on_halves)
    # `ln n` differs between concepts, so its value is an attribute and not part of the name.
    about = "I(T+Z;X) with Gaussian noise Z, at most ln n"
    dims = "site", "variant", "noise"
    attributes = {
        "groups": halves.groups,
        "components": components,
        "cap": float(np.log(len(rows))),
        "noise": "Gaussian, as a fraction of the readings' root mean square distance from "
        "their mean at the site",
    }
    arrays = {
        "": (value, dims, about),
        "_ci": (halves.interval(value, replicates), (*dims, "bound"), f"95% interval of {about}"),
        "_draws": (replicates, (*dims, "resample"), f"half-sample replicates of {about}"),
        "_ceiling": (
            ceiling,
            dims,
            f"least of ln n and what a Gaussian of this covariance has of {about}",
        ),
    }
    variables: Variables = {}
    for suffix, (array, axes, long_name) in arrays.items():
        variables |= labelled(
            f"information_x{suffix}",
            # Seven digits are enough for an interval or a replicate.
            array.astype(np.float32) if suffix in ("_ci", "_draws") else array,
            units="nats",
            long_name=long_name,
            dims=axes,
            attributes=attributes,
        )
    variables |= labelled(
        "information_x_n",
        np.full(sites, len(rows)),
        units="statements",
        long_name=f"statements behind {about}",
    )
    variables |= labelled(
        "information_x_matched_share",
        matched_share,
        units="1",
        long_name=f"share of the directions that the rank-matched variant of {about} holds",
        attributes={"components": components},
    )
    data = empty_dataset(activations.sites, resamples).assign_coords(
        variant=list(VARIANTS),
        noise=(
            "noise",
            levels,
            {
                "units": "1",
                "long_name": "noise along any direction, as a fraction of the readings' root mean "
                "square distance from their mean",
            },
        ),
    )
    return data.assign(variables)
