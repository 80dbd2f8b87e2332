"""Steering matrices in a run folder: what the demo makes, and what a report takes up."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr

    from tlens_trust.checkpoints import CheckpointSeries
    from tlens_trust.concepts import Concept

# Two whose sentences the toy series goes on from in either of two ways.
STEERED = ("toxicity", "reliability")
_STEPS = (256, 384, 768)
_GROUPS = 80
_DRAWS = 60
_KL = 0.1


def steer_toy(
    series: "CheckpointSeries",
    concepts: "Mapping[str, Concept]",
    out: Path,
    *,
    seed: int,
    progress: bool,
) -> "tuple[list[xr.Dataset], str]":
    """Steer the trained toy by vectors from along its training; the matrices, and what to print.

    Args:
        series: The toy's checkpoints.
        concepts: The embedded sets.
        out: The run folder, where `steering_….nc` and `steering_….html` go.
        seed: Draws groups and directions.
        progress: Whether to show bars.
    """
    from tlens_trust.steering import FOLLOW_UPS, steering_matrix
    from tlens_trust.tracing.netcdf import dataset_to_bytes, write_atomically
    from tlens_trust.views import draw_steering_curve, matrix_table, steering_effects

    sources = series.at(_STEPS)
    layer = int(series[-1].load_config().num_hidden_layers) // 2
    found, told = [], []
    for name in STEERED:
        matrix = steering_matrix(
            sources,
            series[-1],
            _some_groups(concepts[name], _GROUPS, seed),
            site=layer,
            target_kl=_KL,
            choices=[FOLLOW_UPS[name]],
            # The toy has never heard of snow.
            everyday=False,
            draws=_DRAWS,
            seed=seed,
            progress=progress,
        )
        write_atomically(out / f"steering_{name}.nc", dataset_to_bytes(matrix))
        drawn = draw_steering_curve(matrix, steering_effects(matrix)[0])
        figure = drawn.save(out / f"steering_{name}.html")
        found.append(matrix)
        told.append(f"{matrix_table(matrix)}\n\nsteering {figure}")
    return found, "\n\n".join(told)


def read_matrices(run: Path) -> "list[xr.Dataset]":
    """The steering matrices in a run folder, files named `steering_….nc`, by their names.

    Raises:
        ValueError: One is no whole file, or no steering matrix.
    """
    from tlens_trust.tracing.netcdf import dataset_from_bytes
    from tlens_trust.views import steering_effects

    found = []
    for file in sorted(run.glob("steering_*.nc")):
        try:
            matrix = dataset_from_bytes(file.read_bytes())
            steering_effects(matrix)
        except ValueError as error:
            raise ValueError(
                f"{str(file)!r} is taken for a steering matrix by its name. {error} Move it "
                "elsewhere, or make it again."
            ) from error
        found.append(matrix)
    return found


def _some_groups(concept: "Concept", groups: int, seed: int) -> "Concept":
    """So many of its groups, drawn evenly."""
    import numpy as np

    names = list(dict.fromkeys(concept.groups))
    if len(names) <= groups:
        return concept
    kept = {*np.random.default_rng(seed).choice(names, groups, replace=False).tolist()}
    return concept.take(np.array([name in kept for name in concept.groups]))
