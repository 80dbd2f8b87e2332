"""Measuring cells in worker processes while the next checkpoint is read.

The process of the sweep reads models, one at a time, and commits cells. Between the two, the
statistics of a cell are a pure function of its activations. They run in worker processes, which are
started if there is enough work; in this process if all workers are busy; or in the user's executor.
The result is the same, bit for bit: the number of threads depends on the size of the problem, not
on the process.
"""

import pickle
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from concurrent.futures import wait as wait_for
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

import xarray as xr

from tlens_trust.activations import Activations
from tlens_trust.activations.shared_memory import SharedActivations, remove_abandoned
from tlens_trust.arguments import checked_count
from tlens_trust.measures import Measure
from tlens_trust.threads import choose_threads
from tlens_trust.tracing.cells import measure_cell
from tlens_trust.tracing.netcdf import dataset_to_bytes
from tlens_trust.tracing.untrained_comparison import compact_cell
from tlens_trust.worker_pool import available_cores, worker_pool

# Workers take about this many seconds to start and to import libraries. Less work than this is done
# sooner without them.
_SECONDS_WORTH_WORKERS = 12.0
# Cells that wait for workers or are in work: at least two, more only within this many bytes.
_BYTES_IN_FLIGHT = 2**31
# A worker may die for a reason outside. A cell that was in work twice is likely the cause.
_ATTEMPTS = 2


@runtime_checkable
class Executor(Protocol):
    """An object that runs functions elsewhere, like those of `concurrent.futures`."""

    def submit(self, function: Callable[[Any], Any], argument: Any, /) -> Any:
        """Call a function elsewhere, and return an object with `result()`."""


@dataclass(frozen=True)
class CellTask:
    """The statistics of one cell. Can be pickled.

    Attributes:
        activations: The activations of the concept at the checkpoint, with the concept.
        measures: The measures to take.
        seed: The seed of the sweep.
        threads: Number of threads.
        is_kept: Whether the cell is encoded as a file.
    """

    activations: SharedActivations
    measures: tuple[Measure, ...]
    seed: int
    threads: int
    is_kept: bool = False


@dataclass(frozen=True)
class MeasuredCell:
    """The statistics of one cell.

    Attributes:
        data: The part that stays in memory (`compact_cell`).
        content: The whole cell as a NetCDF file; None if no file is written. Workers encode it,
            since that takes as long as measuring a small cell.
        warnings: Warnings that were given meanwhile: message, category, file and line.
    """

    data: xr.Dataset
    content: bytes | None
    warnings: tuple[tuple[Warning, type[Warning], str, int], ...] = ()

    @classmethod
    def of(cls, cell: xr.Dataset, *, is_kept: bool) -> "MeasuredCell":
        """Prepare a result of `measure_cell` for memory and, if it is kept, for a file.

        Raises:
            ValueError: A file cannot hold the cell.
        """
        return cls(compact_cell(cell), dataset_to_bytes(cell) if is_kept else None)


def measure_shared_cell(task: CellTask) -> MeasuredCell:
    """Measure a cell whose activations another process has read.

    Raises:
        ValueError: As `measure_cell`.
        FileNotFoundError: This process cannot open the activations.
    """
    activations = task.activations.open()
    assert activations.concept is not None
    with warnings.catch_warnings(record=True) as caught_warnings:
        # The worker records every warning. The filters of the caller decide which are shown.
        warnings.simplefilter("always")
        cell = MeasuredCell.of(
            measure_cell(
                activations,
                activations.concept,
                task.measures,
                seed=task.seed,
                threads=task.threads,
            ),
            is_kept=task.is_kept,
        )
    given_warnings = tuple(
        (warning.message, warning.category, warning.filename, warning.lineno)
        for warning in caught_warnings
        if isinstance(warning.message, Warning)
    )
    return replace(cell, warnings=given_warnings)


def _receive(measures: tuple[Measure, ...]) -> None:
    """Do nothing. A call that returns shows that a worker runs and can unpickle the measures."""


@dataclass
class _CellInFlight:
    activations: Activations
    shared_activations: SharedActivations
    finish: Callable[[MeasuredCell], None]
    location: str
    future: Any = None
    attempts: int = 0


class CellMeasurer:
    """Measures the cells of a sweep, in this or other processes, and reports each finished cell.

    Use it in a `with`. At its end every cell is finished. After an error, cells in work are
    finished and reported, and waiting ones are dropped.

    Args:
        measures: The measures to take.
        seed: The seed of the sweep.
        cells: Number of cells, at most.
        are_kept: Whether cells are encoded as files.
        jobs: Number of processes that measure; 1 for this one alone. None: one for each core, if
            there is enough work.
        executor: Where to measure in place of `jobs`.
        folder: Where activations are written for `executor`; None for this machine's shared memory.
        takes_part: Whether this process measures too. It does not if it reads on a GPU, which
            would then wait for statistics.

    Raises:
        ValueError: `jobs` is no whole number from 1, `executor` has no `submit`, or both are given.
    """

    def __init__(
        self,
        measures: Sequence[Measure],
        *,
        seed: int,
        cells: int,
        are_kept: bool = False,
        jobs: int | None = None,
        executor: Executor | None = None,
        folder: Path | None = None,
        takes_part: bool = True,
    ) -> None:
        check_workers(jobs, executor)
        self._measures = tuple(measures)
        self._seed = seed
        self._remaining = cells
        self._are_kept = are_kept
        self._jobs = jobs
        self._executor = executor
        self._folder = folder
        # With an executor this process only reads, since the user wants to measure elsewhere.
        self._takes_part = takes_part and executor is None
        self._pool: Any = None
        self._workers = 0
        self._seconds: list[float] = []
        self._in_flight: list[_CellInFlight] = []
        self._returned = 0
        self._confined = jobs == 1

    def __enter__(self) -> "CellMeasurer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                while self._in_flight:
                    self._wait()
            elif issubclass(kind, Exception):
                # Ctrl-C is no `Exception`. After it, nobody waits for cells in work.
                self._rescue()
        finally:
            self._abandon()

    def skip(self) -> None:
        """Count a cell that needs no measuring, so that fewer remain."""
        self._remaining -= 1

    def measure(
        self, activations: Activations, finish: Callable[[MeasuredCell], None], *, location: str
    ) -> None:
        """Measure a cell at once, or send it to a worker.

        Args:
            activations: The activations of the cell, with their concept.
            finish: Called in this process with the measured cell, before the `with` ends.
            location: Concept, checkpoint and sites, for an error message.

        Raises:
            ValueError: As `measure_cell`, for this cell or an earlier one.
        """
        self._remaining -= 1
        workers = self._wanted_workers(activations)
        if workers and self._has_room(activations, workers):
            shared_activations = self._share(activations)
            if shared_activations is not None:
                # The values are mapped from shared memory, so that there is no second copy.
                cell = _CellInFlight(
                    shared_activations.open(), shared_activations, finish, location
                )
                self._in_flight.append(cell)
                self._submit(cell)
                return
        self._measure_here(activations, finish, location)

    def _measure_here(
        self, activations: Activations, finish: Callable[[MeasuredCell], None], location: str
    ) -> None:
        assert activations.concept is not None
        start = time.perf_counter()
        with error_note(f"This was in measuring {location}."):
            cell = MeasuredCell.of(
                measure_cell(activations, activations.concept, self._measures, seed=self._seed),
                is_kept=self._are_kept,
            )
        self._seconds.append(time.perf_counter() - start)
        finish(cell)

    def _wanted_workers(self, activations: Activations) -> int:
        """The number of workers to measure with; 0 for none."""
        if self._executor is not None:
            # Pools of the standard library tell their size only by this private attribute.
            return int(getattr(self._executor, "_max_workers", None) or available_cores())
        if self._confined:
            return 0
        if not self._workers:
            # `measure` has subtracted this cell already.
            cells = self._remaining + 1
            processes = 1
            if self._jobs is not None:
                processes = self._jobs
            elif self._is_worth_workers(cells):
                # A worker runs its statistics on so many threads.
                processes = max(1, available_cores() // choose_threads(activations.values))
                # A process that reads on a GPU does not measure, and 1 would mean no worker.
                processes += processes == 1 and not self._takes_part
            # This process is one of them, if it takes part or is the only one.
            self._workers = min(processes, cells) - (self._takes_part or processes == 1)
        return self._workers

    def _is_worth_workers(self, cells: int) -> bool:
        # The first cell also imports libraries, so its time counts only if it is very long.
        seconds = self._seconds[1:] or [s for s in self._seconds if s > _SECONDS_WORTH_WORKERS]
        return bool(seconds) and min(seconds) * cells > _SECONDS_WORTH_WORKERS

    def _has_room(self, activations: Activations, workers: int) -> bool:
        """Whether a worker can take a cell. A process that does not measure waits until one can."""
        n_bytes = activations.values.nbytes
        while True:
            n_cells = len(self._in_flight)
            exceeds_memory = n_cells >= 2 and (n_cells + 1) * n_bytes > _BYTES_IN_FLIGHT
            # One cell more than workers, so that a worker that finishes finds the next one.
            if n_cells <= workers and not exceeds_memory:
                return True
            is_any_done = any(_is_done(cell.future) for cell in self._in_flight)
            if self._takes_part and not is_any_done:
                return False
            self._wait()

    def _share(self, activations: Activations) -> SharedActivations | None:
        """Write the activations where a worker can open them; None if there is no room."""
        try:
            return SharedActivations.write(activations, self._folder)
        except OSError as error:
            self._confine(f"There is no room to hand activations over ({error}).")
            return None

    def _submit(self, cell: _CellInFlight) -> None:
        threads = choose_threads(cell.activations.values)
        task = CellTask(
            cell.shared_activations, self._measures, self._seed, threads, self._are_kept
        )
        cell.attempts += 1
        try:
            cell.future = (self._executor or self._start_pool()).submit(measure_shared_cell, task)
        except BrokenExecutor as error:
            if self._executor is not None:
                raise
            self._restart_workers(error)
        except Exception as error:
            # Once a worker has returned a result, the reason cannot be that none can start.
            if self._executor is not None or self._returned:
                raise
            self._measure_without_workers(
                f"Worker processes cannot be started here ({_first_line(error)})."
            )

    def _start_pool(self) -> Any:
        if self._pool is None:
            remove_abandoned()
            self._pool = worker_pool(self._workers)
        return self._pool

    def _wait(self) -> None:
        """Finish the cells that are measured; if none is, wait for one."""
        futures = [cell.future for cell in self._in_flight]
        # `concurrent.futures` cannot wait for the futures of some executors.
        with suppress(TypeError, AttributeError):
            wait_for(futures, return_when="FIRST_COMPLETED")
        measured_cells = [cell for cell in self._in_flight if _is_done(cell.future)]
        for cell in measured_cells or self._in_flight[:1]:
            # Finishing one cell may have made this process measure all others.
            if cell in self._in_flight:
                self._finish(cell)

    def _finish(self, cell: _CellInFlight) -> None:
        try:
            with error_note(f"This was in measuring {cell.location}."):
                measured: MeasuredCell = cell.future.result()
        except BrokenExecutor as error:
            if self._executor is not None:
                self._in_flight.remove(cell)
                cell.shared_activations.remove()
                raise
            self._restart_workers(error)
            return
        except pickle.PicklingError as error:
            # The pool pickles tasks in a thread of its own, so that an error comes with the result.
            if self._executor is not None:
                raise
            self._measure_without_workers(
                f"A measure cannot be sent to a worker process ({_first_line(error)})."
            )
            return
        except BaseException:
            # `_rescue` must not finish this cell a second time.
            self._in_flight.remove(cell)
            cell.shared_activations.remove()
            raise
        self._returned += 1
        self._in_flight.remove(cell)
        cell.shared_activations.remove()
        for message, category, filename, line in measured.warnings:
            # The original file and line let the caller's filters apply as if it had measured here.
            warnings.warn_explicit(message, category, filename, line)
        cell.finish(measured)

    def _restart_workers(self, error: BaseException) -> None:
        """Start new workers after one of them died, and send the lost cells again."""
        lost_cells = list(self._in_flight)
        # The next `worker_pool` replaces the broken pool by a new one.
        self._pool = None
        locations = [cell.location for cell in lost_cells if cell.attempts >= _ATTEMPTS]
        if locations:
            raise RuntimeError(
                f"A worker process died twice while {len(lost_cells)} cells were measured, one of "
                f"them {locations[0]}: {_first_line(error)}. Often the memory is used up. Finished "
                "cells are kept. Call again with fewer `jobs=`, or with `jobs=1` to measure in "
                "this process."
            ) from error
        warnings.warn(
            f"A worker process died ({_first_line(error)}). Its cells are measured again.",
            stacklevel=2,
        )
        try:
            # A task that does nothing shows whether workers run here at all. Only if they do not
            # are the cells measured in this process, which a cell that kills workers would kill.
            self._start_pool().submit(_receive, self._measures).result()
        except Exception as failure:
            self._measure_without_workers(
                f"Worker processes cannot run here ({_first_line(failure)})."
            )
            return
        for cell in lost_cells:
            if cell in self._in_flight:
                # Submitting an earlier cell may have made this process measure all of them.
                self._submit(cell)

    def _measure_without_workers(self, reason: str) -> None:
        """Measure in this process what workers cannot, now and later."""
        self._confine(reason)
        lost_cells, self._in_flight = self._in_flight, []
        for cell in lost_cells:
            cell.shared_activations.remove()
            self._measure_here(cell.activations, cell.finish, cell.location)

    def _confine(self, reason: str) -> None:
        """Use no more workers, and say so once."""
        if not self._confined:
            warnings.warn(
                f"{reason} Cells are measured in this process, one after the other.", stacklevel=2
            )
        self._confined = True

    def _rescue(self) -> None:
        """Finish the cells that are measured or in work, after an error elsewhere."""
        # All are cancelled before one is awaited, so that no worker begins another cell.
        for cell in self._in_flight:
            # The protocol asks for `result` alone.
            with suppress(AttributeError):
                cell.future.cancel()
        for cell in list(self._in_flight):
            # The error that came first is the one to raise.
            with suppress(Exception):
                if not cell.future.cancelled():
                    self._finish(cell)

    def _abandon(self) -> None:
        """Drop the cells that are not finished, and stop workers that still measure some."""
        dropped_cells, self._in_flight = self._in_flight, []
        for cell in dropped_cells:
            with suppress(Exception):
                cell.future.cancel()
            cell.shared_activations.remove()
        if dropped_cells and self._pool is not None:
            self._pool.shutdown(wait=False, kill_workers=True)
        self._pool = None


def check_workers(jobs: object, executor: object) -> None:
    """Check the arguments that say where cells are measured.

    Raises:
        ValueError: `jobs` is no whole number from 1, `executor` has no `submit`, or both are given.

    Examples:
        >>> check_workers(0, None)
        Traceback (most recent call last):
        ValueError: `jobs` must be a whole number from 1, got 0. Leave it out for the default.
    """
    if jobs is not None:
        checked_count("jobs", jobs)
    if executor is None:
        return
    if not isinstance(executor, Executor):
        raise ValueError(
            "`executor` must have a method `submit(function, argument)`, got a "
            f"{type(executor).__name__}. `concurrent.futures.ProcessPoolExecutor()` is one. Leave "
            "it out for worker processes on this machine."
        )
    if jobs is not None:
        raise ValueError(
            f"`jobs` is the number of the sweep's own worker processes, got jobs={jobs} beside an "
            "`executor`, which has its own number. Leave one of them out."
        )


@contextmanager
def error_note(text: str) -> Iterator[None]:
    """Add a note to an exception that is raised inside the `with`."""
    try:
        yield
    except Exception as error:
        error.add_note(text)
        raise


def _is_done(future: Any) -> bool:
    # The protocol asks for `result` alone, so that a future may lack `done`.
    method = getattr(future, "done", None)
    return bool(method()) if callable(method) else False


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
