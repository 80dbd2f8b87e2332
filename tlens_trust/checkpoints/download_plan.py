"""Computes what a sweep over a series would download, without a download."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tlens_trust.checkpoints.checkpoint import Checkpoint
from tlens_trust.html import render


@dataclass(frozen=True)
class PlannedCheckpoint:
    """One checkpoint in a `DownloadPlan`.

    Attributes:
        name: Short label.
        step: Optimiser steps; None where unknown.
        size: Bytes of the files that loading needs; 0 for a model in memory.
        fetch: Bytes to download. A file that an earlier row counts is not counted again.
        weights: The SHA-256s of the weight files, joined; empty where there are no files.
        problem: Why the checkpoint cannot be loaded; empty where it can.
    """

    name: str
    step: int | None
    size: int
    fetch: int
    weights: str = ""
    problem: str = ""


@dataclass(frozen=True, repr=False)
class DownloadPlan:
    """The sizes of all checkpoints of a series, and what has to be downloaded.

    Attributes:
        model: Name of the series.
        rows: One entry per checkpoint, in the order of the series.
    """

    model: str
    rows: tuple[PlannedCheckpoint, ...]

    @property
    def n_checkpoints(self) -> int:
        """The number of checkpoints."""
        return len(self.rows)

    @property
    def size_gb(self) -> float:
        """Size of all files that loading needs, in GB (10⁹ bytes)."""
        return sum(row.size for row in self.rows) / 1e9

    @property
    def fetch_gb(self) -> float:
        """Size of the downloads in GB. A file that several revisions share counts once."""
        return sum(row.fetch for row in self.rows) / 1e9

    @property
    def cached_gb(self) -> float:
        """Size in GB of the files that are here, or are shared with an earlier checkpoint."""
        return self.size_gb - self.fetch_gb

    @property
    def problems(self) -> tuple[str, ...]:
        """Why checkpoints cannot be loaded, as far as that is known beforehand."""
        return tuple(row.problem for row in self.rows if row.problem)

    @property
    def identical(self) -> tuple[tuple[str, ...], ...]:
        """Groups of checkpoints that have the same weights, by name."""
        groups: dict[str, list[str]] = {}
        for row in self.rows:
            if row.weights:
                groups.setdefault(row.weights, []).append(row.name)
        return tuple(tuple(names) for names in groups.values() if len(names) > 1)

    def _repr_html_(self) -> str:
        summary = repr(self).splitlines()[:2]
        return render("notebook/plan", {"summary": summary, "rows": self.rows})

    def __repr__(self) -> str:
        width = max(len(row.name) for row in self.rows)
        lines = [
            f"{self.n_checkpoints} checkpoints of {self.model}",
            f"to fetch {_gb(self.fetch_gb)}, here already {_gb(self.cached_gb)}",
            f"{'checkpoint':<{width}}  {'size':>10}  {'to fetch':>10}",
        ]
        for row in self.rows:
            details = row.problem or f"{_gb(row.size / 1e9):>10}  {_gb(row.fetch / 1e9):>10}"
            lines.append(f"{row.name:<{width}}  {details}")
        lines += [f"identical weights: {' = '.join(names)}" for names in self.identical]
        return "\n".join(lines)


def plan_checkpoints(model: str, checkpoints: Sequence[Checkpoint]) -> DownloadPlan:
    """Compute what loading the checkpoints would download.

    Asks the hub for the files' sizes and hashes, for several checkpoints at once, and downloads
    nothing.

    Raises:
        OSError: The hub cannot be reached.
    """
    # The time goes into waiting for the hub's answers. Each checkpoint keeps its answer, so the
    # rows below are made without another request.
    with ThreadPoolExecutor(max_workers=8) as pool:
        problems = list(pool.map(_problem, checkpoints))
    # Rows are made in order, since the first checkpoint with a file counts its download.
    counted_blobs: set[str] = set()
    rows = [
        _row(checkpoint, problem, counted_blobs)
        for checkpoint, problem in zip(checkpoints, problems, strict=True)
    ]
    return DownloadPlan(model, tuple(rows))


def _problem(checkpoint: Checkpoint) -> str:
    try:
        # Finding the files asks the hub, and refuses missing revisions and incomplete weights.
        _ = checkpoint.weight_files
    except ValueError as error:
        return str(error)
    return ""


def _row(checkpoint: Checkpoint, problem: str, counted_blobs: set[str]) -> PlannedCheckpoint:
    name, step = checkpoint.name, checkpoint.step
    if problem:
        return PlannedCheckpoint(name, step, 0, 0, problem=problem)
    files = checkpoint.weight_files
    weights = " ".join(sorted(file.sha256 for file in files))
    if checkpoint.folder is not None or checkpoint.in_memory is not None:
        return PlannedCheckpoint(name, step, sum(file.size for file in files), 0, weights)
    snapshot = checkpoint.snapshot
    size = fetch = 0
    for file in snapshot.needed():
        size += file.size
        if file.blob not in counted_blobs and not snapshot.is_cached(file):
            fetch += file.size
        counted_blobs.add(file.blob)
    return PlannedCheckpoint(name, step, size, fetch, weights)


def _gb(value: float) -> str:
    return f"{value:.2f} GB" if value >= 0.1 else f"{1000 * value:.1f} MB"
