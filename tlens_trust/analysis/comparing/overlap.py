"""Overlap of concepts: cosines between their directions at one checkpoint."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from tlens_trust.analysis.comparing.cosines import cosine_dataset, cross_cosines
from tlens_trust.analysis.comparing.half_directions import (
    SplitHalves,
    check_direction,
    fit_half_directions,
)
from tlens_trust.analysis.readings import SeriesReadings, check_readings
from tlens_trust.concepts import Concept
from tlens_trust.tracing.provenance import listed


def direction_overlap(
    readings: SeriesReadings,
    *,
    direction: str = "logistic",
    C: float = 0.1,
    splits: int = 8,
    blocks: int = 10,
    permutations: int = 40,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    """Compare the directions of several concepts with each other, at each checkpoint.

    This is `direction_genealogy` between concepts in place of checkpoints. Every direction is
    fitted to halves of its concept's groups. The diagonal shows how well two halves of one concept
    agree. A group that is in two concepts (by name) lies in the same half of both, so that
    directions of disjoint halves never share a statement.

    The sign has a meaning: label 1 is the trustworthy side of each concept. A positive cosine says
    that the trustworthy sides of both lie in the same direction. For a concept without polarity the
    sign means nothing. A cosine describes how directions lie, not what uses them. `erasure_cost`
    measures what removing one concept costs the others.

    Args:
        readings: Activations of at least two concepts, as `collect_series` gives them.
        direction: `"logistic"` or `"mass_mean"`, as in `direction_genealogy`.
        C: Inverse strength of the logistic probe's penalty, the same for all.
        splits: Number of random halvings.
        blocks: Number of blocks of groups that the jackknife leaves out, one at a time.
        permutations: Number of draws of permuted labels for the null.
        seed: Seed of the halves and of the permuted labels.
        progress: Whether to show a bar.

    Returns:
        Along `checkpoint`, `space`, `concept`, `other_concept` and `site`: `cosine`, `cosine_ci`,
        `cosine_n` (groups of both), `cosine_same`, `cosine_null`, `cosine_corrected` and its
        interval, as `direction_genealogy` gives them.

    Raises:
        ValueError: There are fewer than two concepts, or one has too few groups.

    Examples:
        >>> import torch
        >>> from tlens_trust.activations import Activations
        >>> labels = np.arange(200) % 2
        >>> def read(name, direction):
        ...     texts = tuple(f"{name} {row}" for row in range(200))
        ...     concept = Concept(name, name, texts, labels, texts)
        ...     values = torch.randn(200, 1, 4, generator=torch.Generator().manual_seed(len(name)))
        ...     values[:, 0] += 4 * torch.from_numpy(labels)[:, None] * torch.tensor(direction)
        ...     return Activations(values, ("blocks.0.hook_resid_post",), concept=concept)
        >>> readings = SeriesReadings.from_activations(
        ...     [read("truth", [1.0, 0, 0, 0]), read("kindness", [0, 1.0, 0, 0])])
        >>> overlap = direction_overlap(readings, direction="mass_mean", progress=False)
        >>> abs(overlap.cosine.sel(space="raw").squeeze()).round(1).values.tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    from tqdm.auto import tqdm

    check_direction(direction, C)
    check_readings(readings)
    concepts = readings.concepts
    check_several(concepts)
    halves = [
        # One seed for all, so that a group that two concepts share is halved in one way.
        SplitHalves.draw(
            concept, splits=splits, blocks=blocks, permutations=permutations, seed=seed
        )
        for concept in concepts
    ]
    groups = np.array([[len({*a.groups, *b.groups}) for b in concepts] for a in concepts])
    parts = []
    for checkpoint_activations in tqdm(
        readings, desc="overlap", unit="checkpoint", total=len(readings), disable=not progress
    ):
        directions = [
            fit_half_directions(activations, concept, half, direction=direction, C=C)
            for activations, concept, half in zip(
                checkpoint_activations, concepts, halves, strict=True
            )
        ]
        pairs = [
            [cross_cosines(first_directions, second_directions) for second_directions in directions]
            for first_directions in directions
        ]
        parts.append(
            cosine_dataset(
                np.array([[cosines for cosines, _ in row] for row in pairs]),
                np.array([[null for _, null in row] for row in pairs]),
                groups,
                axes=("concept", "other_concept"),
            )
        )
    names = [concept.name for concept in concepts]
    return (
        xr.concat(parts, dim="checkpoint")
        .assign_coords(
            readings.along("checkpoint") | readings.along_sites(checkpoint_activations[0])
        )
        .assign_coords(
            concept=names,
            other_concept=names,
            dimension=("concept", [concept.dimension for concept in concepts]),
            polarity=("concept", [concept.polarity for concept in concepts]),
        )
        .assign_attrs(direction=direction, C=C, splits=splits, seed=seed)
    )


def check_several(concepts: Sequence[Concept]) -> None:
    """Refuse fewer than two concepts.

    Raises:
        ValueError: There are fewer.
    """
    if len(concepts) < 2:
        raise ValueError(
            f"Concepts are compared with each other, and there is only "
            f"{listed([concept.name for concept in concepts])}. Give at least two, "
            "`load_concepts()` for five."
        )
