"""`I(T + Z; X)` at every site of a checkpoint."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr

from tlens_trust.activations import Activations
from tlens_trust.concepts import Concept
from tlens_trust.measures.information.bound_variables import empty_dataset
from tlens_trust.measures.information.noised import information_under_noise
from tlens_trust.measures.kernels.components import PrincipalComponents
from tlens_trust.measures.kernels.spectrum_matching import matching_components
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
    """`I(T + Z; X)` at every site, by variant and level of noise.

    Args:
        activations: One reading per statement of the concept, in its order.
        concept: Its groups.
        noise: Levels.
        resamples: How many half samples.
        examples: Of more statements, whole groups are drawn at random.
        seed: Draws them, half samples and noise.
    """
    rows = draw_rows(concept.groups, most=examples, seed=seed)
    groups = [concept.groups[row] for row in rows]
    halves = HalfSamples.draw(groups, resamples=resamples, seed=seed)
    sites = len(activations.sites)
    levels = list(noise)
    components = matching_components(len(rows), activations.values.shape[2])
    chosen = torch.from_numpy(rows)
    value = np.full((sites, len(VARIANTS), len(levels)), np.nan)
    ceiling, on_halves = value.copy(), np.full((*value.shape, resamples), np.nan)
    matched = np.full(sites, np.nan)
    for site in range(sites):
        values = activations.values[chosen, site]
        principal = PrincipalComponents.of(values)
        flat = principal.flat(components)
        matched[site] = flat.count / max(principal.count, 1)
        for number, x in enumerate((values, flat.vectors)):
            if not x.shape[1]:
                continue
            noised = information_under_noise(x, levels, halves, seed=seed)
            value[site, number] = noised.value
            ceiling[site, number] = noised.ceiling
            on_halves[site, number] = noised.on_halves
    replicates = halves.replicates_about(value, on_halves)
    interval = halves.interval(value, replicates)
    # What differs from concept to concept, as ln n does, has no place in a variable's name.
    about = "I(T+Z;X) with Gaussian noise Z, at most ln n"
    parts = {
        "": ((), value, "{}"),
        "_ci": (("bound",), interval, "95% interval of {}"),
        "_draws": (("resample",), replicates, "half-sample replicates of {}"),
        "_ceiling": ((), ceiling, "least of ln n and what a Gaussian of this covariance has of {}"),
    }
    variables: dict[str, Any] = {}
    empty = empty_dataset(activations.sites, resamples).assign_coords(
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
    for suffix, (more, array, told) in parts.items():
        variables[f"information_x{suffix}"] = (
            ("site", "variant", "noise", *more),
            array.astype(np.float32) if more else array,
            {
                "units": "nats",
                "long_name": told.format(about),
                "groups": halves.groups,
                "components": components,
                "cap": float(np.log(len(rows))),
                "noise": "Gaussian, as a fraction of the readings' root mean square distance from "
                "their mean at the site",
            },
        )
    variables["information_x_n"] = (
        ("site",),
        np.full(sites, len(rows)),
        {"units": "statements", "long_name": f"statements behind {about}"},
    )
    variables["information_x_matched_share"] = (
        ("site",),
        matched,
        {
            "units": "1",
            "long_name": f"share of the directions that the rank-matched variant of {about} holds",
            "components": components,
        },
    )
    return empty.assign(variables)
