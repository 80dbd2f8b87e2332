"""Held-out scores of a run as arrays, for comparisons between checkpoints."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from tlens_trust.tracing.provenance import listed
from tlens_trust.tracing.run_folder import RunFolder
from tlens_trust.tracing.selection import checkpoint_numbers
from tlens_trust.tracing.statement_scores import load_scores, one_split_message


@dataclass(frozen=True, eq=False)
class RunScores:
    """The scores that one probe gave the statements of one concept, at every checkpoint of a run.

    Attributes:
        scores: Log-odds of label 1, in nats; NaN where a cell is not finished.
        fewer: Scores by probes without one more fold; None where the sweep kept none.
        intervals: Intervals of the accuracy; None where the sweep kept none.
        checkpoints: Names along `checkpoint`.
        steps: Training steps; NaN where unknown.
        labels: 0 or 1 for each statement.
        groups: The group of each statement.
        fold: The fold of each statement; None where it is not known.
        site_coordinates: `site`, `layer` and `depth`, and `head` where there are heads.
        example_coordinates: `statement`, `label` and `group`.
        checkpoint_coordinates: `checkpoint`, `step` and `tokens`.
    """

    scores: Float[np.ndarray, "checkpoint example site"]
    fewer: Float[np.ndarray, "checkpoint fold example site"] | None
    intervals: Float[np.ndarray, "checkpoint site bound"] | None
    checkpoints: tuple[str, ...]
    steps: Float[np.ndarray, " checkpoint"]
    labels: Int[np.ndarray, " example"]
    groups: tuple[str, ...]
    fold: Int[np.ndarray, " example"] | None
    site_coordinates: dict[str, Any]
    example_coordinates: dict[str, Any]
    checkpoint_coordinates: dict[str, Any]

    def checkpoint_number(self, which: str | int) -> int:
        """The place of a checkpoint, by name or step.

        Raises:
            ValueError: It is not there, is not finished, or several have that step.
        """
        (number,) = checkpoint_numbers(self.checkpoints, self.steps, [which])
        if np.isnan(self.scores[number]).any():
            raise ValueError(
                f"Not every score at {self.checkpoints[number]!r} is there. Call the sweep with "
                "the same arguments; it continues."
            )
        return number

    def correct(self, checkpoint: int) -> Bool[np.ndarray, "example site"]:
        """Where a statement is on its label's side. A score of 0 counts as label 0's."""
        correct: np.ndarray = (self.scores[checkpoint] > 0) == (self.labels == 1)[:, None]
        return correct

    def interval(self, checkpoint: int) -> Float[np.ndarray, "site bound"] | None:
        """The interval of the accuracy at one checkpoint; None where a site has none."""
        if self.intervals is None:
            return None
        interval: np.ndarray = self.intervals[checkpoint]
        return None if np.isnan(interval).any() else interval


def read_run_scores(
    run_folder: str | os.PathLike[str], concept: str, *, probe: str | None = None
) -> RunScores:
    """Read the scores of one concept, and the intervals of its accuracy.

    Args:
        run_folder: The `out=` of a sweep.
        concept: Its name.
        probe: Which measure's scores, where several kept some.

    Raises:
        ValueError: As `load_scores`; there are several probes and none was chosen; or the sweep
            used one split.
    """
    scores = load_scores(run_folder, concept)
    names = [str(name) for name in scores["probe"].values] if "probe" in scores.dims else []
    if names:
        if probe not in names:
            raise ValueError(
                f"The run folder {str(run_folder)!r} holds the scores of {listed(names)}, and "
                f"`probe` is {probe!r}. Choose one of them."
            )
        scores = scores.sel(probe=probe)
    elif probe is not None:
        # One measure's scores carry no name of their own; the settings do.
        identities = RunFolder.at(run_folder).manifest["settings"]["measures"]
        measure_names = [str(identity).partition("(")[0] for identity in identities]
        if probe not in measure_names:
            raise ValueError(
                f"The run folder {str(run_folder)!r} holds the scores of {listed(measure_names)}, "
                f"and `probe` is {probe!r}. Choose one of them, or leave it out."
            )
    scores = scores.transpose("checkpoint", "example", "site")
    unscored = scores.isnull().all(["checkpoint", "site"])
    if unscored.any() and not unscored.all():
        raise ValueError(one_split_message(run_folder))
    interval = None
    accuracy_intervals = RunFolder.at(run_folder).trace_data().get("accuracy_ci")
    if accuracy_intervals is not None:
        accuracy_intervals = accuracy_intervals.sel(concept=concept)
        if "probe" in accuracy_intervals.dims:
            accuracy_intervals = accuracy_intervals.reindex(probe=[probe]).isel(probe=0)
        accuracy_intervals = accuracy_intervals.reindex(
            checkpoint=scores["checkpoint"], site=scores["site"]
        )
        interval = accuracy_intervals.transpose("checkpoint", "site", "bound").values
    fold = scores["fold"].values.astype(np.int64) if "fold" in scores.coords else None
    return RunScores(
        scores=scores.values.astype(np.float64),
        fewer=None if fold is None else _fewer(run_folder, concept, probe),
        intervals=interval,
        checkpoints=tuple(str(name) for name in scores["checkpoint"].values),
        steps=np.asarray(scores["step"].values, dtype=float),
        labels=scores["label"].values.astype(np.int64),
        groups=tuple(str(name) for name in scores["group"].values),
        fold=fold,
        site_coordinates=_coordinates(scores, "site", ("layer", "head", "depth")),
        example_coordinates=_coordinates(scores, "example", ("statement", "label", "group")),
        checkpoint_coordinates=_coordinates(scores, "checkpoint", ("step", "tokens")),
    )


def _fewer(
    run_folder: str | os.PathLike[str], concept: str, probe: str | None
) -> Float[np.ndarray, "checkpoint fold example site"] | None:
    """Scores by probes without one more fold, where the sweep kept them."""
    try:
        fewer = load_scores(run_folder, concept, variable="score_fewer")
    except ValueError:
        return None
    if "probe" in fewer.dims:
        fewer = fewer.reindex(probe=[probe]).isel(probe=0)
    values: np.ndarray = fewer.transpose("checkpoint", "left_out", "example", "site").values.astype(
        np.float64
    )
    return values


def site_number(
    sites: Sequence[str], layers: Sequence[int], layer: int | None, site: str | None
) -> int:
    """The place of one site, by its name or its layer.

    Args:
        sites: All names.
        layers: The layer of each.
        layer: The layer; None where `site` is given.
        site: The site; None where `layer` is given. Where there is only one site, neither is
            needed.

    Raises:
        ValueError: There is no such site, or there are several.

    Examples:
        >>> site_number(["blocks.0.hook_resid_post", "blocks.1.hook_resid_post"], [0, 1], 1, None)
        1
    """
    numbers = [
        i
        for i, (name, block) in enumerate(zip(sites, layers, strict=True))
        if (site is None or name == site) and (layer is None or block == layer)
    ]
    if len(numbers) == 1:
        return numbers[0]
    choice = " and ".join(
        f"{key}={value!r}" for key, value in (("layer", layer), ("site", site)) if value is not None
    )
    raise ValueError(
        f"One site is needed, and {len(numbers) or 'none'} {'have' if len(numbers) > 1 else 'has'} "
        f"{choice or 'been chosen'}. Choose by `layer=` or `site=` among {listed(sites)}."
    )


def _coordinates(scores: Any, axis: str, names: Sequence[str]) -> dict[str, Any]:
    axis_coordinate = {axis: scores[axis].values.tolist()} if axis in scores.coords else {}
    return axis_coordinate | {
        name: (axis, scores[name].values, dict(scores[name].attrs))
        for name in names
        if name in scores.coords
    }
