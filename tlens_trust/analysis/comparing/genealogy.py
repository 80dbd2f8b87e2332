"""Genealogy of a concept's direction: its cosines and angles between checkpoints."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from einops import rearrange
from jaxtyping import Float

from tlens_trust.analysis.comparing.cosines import cosine_dataset, cross_cosines
from tlens_trust.analysis.comparing.half_directions import (
    SPACES,
    HalfDirections,
    SplitHalves,
    check_direction,
    fit_half_directions,
)
from tlens_trust.analysis.readings import SeriesReadings, of_one_concept
from tlens_trust.concepts import Concept
from tlens_trust.tracing.cells import cell_seed


def direction_genealogy(
    readings: SeriesReadings,
    concept: str | Concept | None = None,
    *,
    direction: str = "logistic",
    C: float = 0.1,
    splits: int = 8,
    blocks: int = 10,
    permutations: int = 40,
    subspace: int = 2,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    """Compare a concept's direction between all pairs of checkpoints.

    Groups are halved at random, several times. The direction fitted to one half at one checkpoint
    is compared with that fitted to the other half at another checkpoint. So two directions never
    share a statement, and no accident of the sample makes them alike.

    Two levels belong to every cosine. Two fits of one and the same direction stay below 1, because
    each is noisy. Fits to permuted labels may lie far from 0, where activations vary along few
    axes.

    The diagonal is the reliability: how well two halves agree on the direction at one checkpoint.
    Where it is not above the null, no direction is shown, and `cosine_corrected` is NaN.

    Cosines are taken in two spaces. `raw` is the model's own coordinates, where a few large
    features may decide. In `standardised`, each feature is in units of its deviation at the
    checkpoint, as for the logistic probe. The direction that a probe uses to decode (its weights)
    differs from the one along which class means differ: choose with `direction`. Neither shows that
    the model uses it.

    Args:
        readings: Activations at the checkpoints, as `collect_series` gives them.
        concept: Which concept, by name or as a `Concept`; None where `readings` hold only one.
        direction: `"logistic"`, the weights of a logistic probe, or `"mass_mean"`, the difference
            of the class means.
        C: Inverse strength of the logistic probe's penalty, the same at all checkpoints, since the
            penalty turns the direction. A strong penalty weighs each standardised feature by its
            own difference of means. A weak one allows for correlated features, and is noisier.
        splits: Number of random halvings. All numbers are means over them.
        blocks: Number of blocks of groups that the jackknife leaves out, one at a time.
        permutations: Number of draws of permuted labels for the null.
        subspace: Dimension of the subspaces whose principal angles are taken.
        seed: Seed of the halves and of the permuted labels.
        progress: Whether to show a bar.

    Returns:
        Along `space`, `source`, `target` (both checkpoints) and `site`:

        - `cosine`, with a jackknife interval (`cosine_ci`) and `cosine_n`, its number of groups;

        - `cosine_same`, the expected cosine of two fits of one direction, `√(r_i r_j)`;

        - `cosine_null`, the middle 95% for permuted labels (by their standard deviation);

        - `cosine_corrected`, `cosine` over `cosine_same`, and its interval. It estimates the cosine
          without the noise of fitting, and is 1 where the direction has not turned. It is not
          clipped.

        - `principal_angle`, along `angle` too, in degrees, averaged over the splits. Each half has
          a subspace: the first `subspace` singular vectors of its fits without one block each. The
          angles are between the subspaces of the two halves. On the diagonal both halves are of one
          checkpoint.

        - `principal_angle_null`, the middle 95% of the angles between subspaces of as many fits to
          permuted labels.

    Raises:
        ValueError: There are several concepts and none is chosen, there are too few groups, or an
            argument is out of range.

    Source:
        Spearman (1904), American Journal of Psychology 15, for the correction; Björck and Golub
        (1973), Mathematics of Computation 27, for principal angles.

    Examples:
        >>> import torch
        >>> from tlens_trust.activations import Activations
        >>> from tlens_trust.checkpoints import Checkpoint
        >>> labels = np.arange(200) % 2
        >>> texts = tuple(f"statement {row}" for row in range(200))
        >>> concept = Concept("truth", "reliability", texts, labels, texts)
        >>> def read(step, angle):
        ...     values = torch.randn(200, 1, 4, generator=torch.Generator().manual_seed(step))
        ...     turned = torch.tensor([np.cos(angle), np.sin(angle), 0, 0])
        ...     values[:, 0] += 9 * torch.from_numpy(labels)[:, None] * turned
        ...     where = Checkpoint("planted", f"step{step}", step=step)
        ...     return Activations(values, ("blocks.0.hook_resid_post",), where, concept)
        >>> readings = SeriesReadings.from_activations([read(1, 0.0), read(2, np.pi / 3)])
        >>> turning = direction_genealogy(readings, direction="mass_mean", progress=False)
        >>> turning.cosine_corrected.sel(space="raw").squeeze().round(1).values.tolist()
        [[1.0, 0.5], [0.5, 1.0]]
    """
    from tqdm.auto import tqdm

    check_direction(direction, C)
    if not 1 <= subspace <= min(blocks, permutations // 2):
        raise ValueError(
            f"`subspace` must be between 1 and {min(blocks, permutations // 2)}, the number of "
            f"blocks, or half that of permutations, got {subspace}."
        )
    readings = of_one_concept(readings, concept)
    (only_concept,) = readings.concepts
    halves = SplitHalves.draw(
        only_concept,
        splits=splits,
        blocks=blocks,
        permutations=permutations,
        seed=cell_seed(seed, only_concept),
    )
    directions: list[HalfDirections] = []
    for (activations,) in tqdm(
        readings, desc="genealogy", unit="checkpoint", total=len(readings), disable=not progress
    ):
        if activations.values.shape[2] < subspace:
            raise ValueError(
                f"`subspace` is {subspace}, and the activations are only "
                f"{activations.values.shape[2]} wide."
            )
        if directions and directions[0].fitted.shape[-1] != activations.values.shape[2]:
            raise ValueError(
                f"{readings.checkpoints[len(directions)]!r} is {activations.values.shape[2]} wide "
                f"and {readings.checkpoints[0]!r} {directions[0].fitted.shape[-1]}. Compare "
                "checkpoints of one architecture."
            )
        directions.append(
            fit_half_directions(activations, only_concept, halves, direction=direction, C=C)
        )

    pairs = [[cross_cosines(source, target) for target in directions] for source in directions]
    data = cosine_dataset(
        np.array([[cosines for cosines, _ in row] for row in pairs]),
        np.array([[null for _, null in row] for row in pairs]),
        np.full((len(directions), len(directions)), len(set(only_concept.groups))),
        axes=("source", "target"),
    )
    data = data.merge(_angle_dataset(directions, subspace))
    return data.assign_coords(
        readings.along("source") | readings.along("target") | readings.along_sites(activations)
    ).assign_attrs(concept=only_concept.name, direction=direction, C=C, splits=splits, seed=seed)


def _angle_dataset(directions: Sequence[HalfDirections], dimension: int) -> xr.Dataset:
    """Principal angles between the subspaces of all pairs of checkpoints."""
    bases = [_basis(half_directions.fitted, dimension) for half_directions in directions]
    draws = directions[0].permuted.shape[4]
    null_bases = [
        np.stack(
            [
                _basis(half_directions.permuted[:, :, :, :, start : start + dimension], dimension)
                for start in range(0, draws - dimension + 1, dimension)
            ],
            axis=2,
        )
        for half_directions in directions
    ]
    angles = np.array([[_angles(a, b).mean(axis=2) for b in bases] for a in bases])
    null = np.array([[_angles(a, b).mean(axis=3) for b in null_bases] for a in null_bases])
    band = np.quantile(null, [0.025, 0.975], axis=4)
    angle_name = "principal angle between subspaces of directions of disjoint halves"
    return xr.Dataset(
        {
            "principal_angle": (
                ("space", "source", "target", "site", "angle"),
                rearrange(angles, "source target space ... -> space source target ..."),
                {"units": "degrees", "long_name": angle_name},
            ),
            "principal_angle_null": (
                ("space", "source", "target", "site", "angle", "bound"),
                rearrange(band, "bound source target space ... -> space source target ... bound"),
                {
                    "units": "degrees",
                    "long_name": f"middle 95% of the {angle_name} where labels are permuted",
                    "permutations": draws // dimension,
                },
            ),
        },
        coords={"angle": np.arange(1, dimension + 1), "space": list(SPACES)},
    )


def _basis(
    directions: Float[np.ndarray, "*where fit d_model"], dimension: int
) -> Float[np.ndarray, "*where dimension d_model"]:
    """An orthonormal basis of the subspace that fits the directions best."""
    basis: np.ndarray = np.linalg.svd(directions.astype(np.float64), full_matrices=False)[2]
    return basis[..., :dimension, :]


def _angles(
    first_bases: Float[np.ndarray, "*where split 2 dimension d_model"],
    second_bases: Float[np.ndarray, "*where split 2 dimension d_model"],
) -> Float[np.ndarray, "*where split dimension"]:
    """Angles in degrees between one half of `one` and the other of `other`, mean of both ways."""
    cosines = [
        np.linalg.svd(
            first_bases[..., half, :, :] @ np.swapaxes(second_bases[..., 1 - half, :, :], -1, -2),
            compute_uv=False,
        )
        for half in (0, 1)
    ]
    degrees: np.ndarray = np.degrees(np.arccos(np.clip(cosines, 0, 1))).mean(axis=0)
    return degrees
