"""Cells that are measured in worker processes while the next checkpoint is read.

The process of the sweep reads models, one at a time, and commits cells. What lies between, the
statistics of a cell, is a pure function of its activations, and runs wherever there is room: in
worker processes that are started when the work is worth it, here where all of them are busy, or in
an executor of the user's. The result is the same, bit for bit, since the number of threads goes by
the size of the problem and not by where it is solved.
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
from tlens_trust.measures import Measure
from tlens_trust.measures.arguments import checked_count
from tlens_trust.threads import choose_threads
from tlens_trust.tracing.cells import measure_cell
from tlens_trust.tracing.netcdf import dataset_to_bytes
from tlens_trust.tracing.untrained_comparison import compact_cell
from tlens_trust.worker_pool import available_cores, worker_pool

# Workers take about this many seconds to start and to import what they need, so that work which
# takes less is done sooner here.
_SECONDS_WORTH_WORKERS = 12.0
# Readings that wait or are being measured: two at least, more only within so many bytes.
_BYTES_IN_FLIGHT = 2**31
_ATTEMPTS = 2


@runtime_checkable
class Executor(Protocol):
    """Where work may be sent, as `concurrent.futures` has it."""

    def submit(self, function: Callable[[Any], Any], argument: Any, /) -> Any:
        """Call a function somewhere; what is returned has `result()`."""


@dataclass(frozen=True)
class CellTask:
    """The statistics of one cell. Can be pickled.

    Attributes:
        activations: What was read of the concept at the checkpoint, the concept with it.
        measures: What to make of it.
        seed: The sweep's.
        threads: How many threads to use.
        is_kept: Whether a file is to be made of the cell.
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
        data: As it is held in memory beside others (`compact_cell`).
        content: All of it as a NetCDF file, which takes as long to encode as a small cell takes to
            measure; None where no file is made of it.
        warned: Warnings on the way: message, category, file and line.
    """

    data: xr.Dataset
    content: bytes | None
    warned: tuple[tuple[Warning, type[Warning], str, int], ...] = ()

    @classmethod
    def of(cls, cell: xr.Dataset, *, is_kept: bool) -> "MeasuredCell":
        """What `measure_cell` gave, ready to be held in memory and written.

        Raises:
            ValueError: No file can hold it.
        """
        return cls(compact_cell(cell), dataset_to_bytes(cell) if is_kept else None)


def measure_shared_cell(task: CellTask) -> MeasuredCell:
    """Measure a cell whose activations another process has read.

    Raises:
        ValueError: As `measure_cell`.
        FileNotFoundError: The activations cannot be seen from here.
    """
    activations = task.activations.open()
    assert activations.concept is not None
    with warnings.catch_warnings(record=True) as caught:
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
    warned = tuple(
        (warning.message, warning.category, warning.filename, warning.lineno)
        for warning in caught
        if isinstance(warning.message, Warning)
    )
    return replace(cell, warned=warned)


def _receive(measures: tuple[Measure, ...]) -> None:
    """Nothing; that it was called shows that a worker lives and knows the measures."""


@dataclass
class _CellInFlight:
    activations: Activations
    shared: SharedActivations
    finish: Callable[[MeasuredCell], None]
    where: str
    future: Any = None
    attempts: int = 0


class CellMeasurer:
    """Measures the cells of a sweep, here or elsewhere, and hands each over when it is finished.

    To be used in a `with`, at whose end every cell is finished. After an error the cells that are
    being measured are waited for and handed over, and those that wait are let go of.

    Args:
        measures: What to make of a reading.
        seed: The sweep's.
        cells: How many cells there may be, at most.
        are_kept: Whether files are to be made of the cells.
        jobs: How many processes measure; 1 for this one alone. None: as many as there are cores,
            where that pays.
        executor: Where to measure in place of that.
        folder: Where activations are handed over to `executor`; None for this machine's memory.
        takes_part: Whether this process is one of those that measure. It is not where it reads on a
            GPU, which then never waits for statistics.

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
                self._rescue()
        finally:
            self._abandon()

    def skip(self) -> None:
        """Count a cell that needs no measuring, so that fewer are expected."""
        self._remaining -= 1

    def measure(
        self, activations: Activations, finish: Callable[[MeasuredCell], None], *, where: str
    ) -> None:
        """Measure a cell, now or soon.

        Args:
            activations: What was read, its concept with it.
            finish: Called in this process with the cell, before the `with` ends.
            where: Concept, checkpoint and sites, for an error.

        Raises:
            ValueError: As `measure_cell`, of this cell or of one before it.
        """
        self._remaining -= 1
        workers = self._wanted_workers(activations)
        if workers and self._has_room(activations, workers):
            shared = self._shared(activations)
            if shared is not None:
                # The mapped values in place of a second copy.
                cell = _CellInFlight(shared.open(), shared, finish, where)
                self._in_flight.append(cell)
                self._submit(cell)
                return
        self._measure_here(activations, finish, where)

    def _measure_here(
        self, activations: Activations, finish: Callable[[MeasuredCell], None], where: str
    ) -> None:
        assert activations.concept is not None
        start = time.perf_counter()
        with error_note(f"This was in measuring {where}."):
            cell = MeasuredCell.of(
                measure_cell(activations, activations.concept, self._measures, seed=self._seed),
                is_kept=self._are_kept,
            )
        self._seconds.append(time.perf_counter() - start)
        finish(cell)

    def _wanted_workers(self, activations: Activations) -> int:
        """How many workers to measure with; 0 for none."""
        if self._executor is not None:
            return int(getattr(self._executor, "_max_workers", None) or available_cores())
        if self._confined:
            return 0
        if not self._workers:
            cells = self._remaining + 1
            processes = 1
            if self._jobs is not None:
                processes = self._jobs
            elif self._is_worth_workers(cells):
                processes = max(1, available_cores() // choose_threads(activations.values))
                processes += processes == 1 and not self._takes_part
            self._workers = min(processes, cells) - (self._takes_part or processes == 1)
        return self._workers

    def _is_worth_workers(self, cells: int) -> bool:
        # The first cell of a process pays for what is imported on the way.
        known = self._seconds[1:] or [s for s in self._seconds if s > _SECONDS_WORTH_WORKERS]
        return bool(known) and min(known) * cells > _SECONDS_WORTH_WORKERS

    def _has_room(self, activations: Activations, workers: int) -> bool:
        """Whether a worker can take a cell now, or soon where this process has nothing to do."""
        n_bytes = activations.values.nbytes
        while True:
            waiting = len(self._in_flight)
            many = waiting >= 2 and (waiting + 1) * n_bytes > _BYTES_IN_FLIGHT
            if waiting <= workers and not many:
                return True
            done = [cell for cell in self._in_flight if _is_done(cell.future)]
            if self._takes_part and not done:
                return False
            self._wait()

    def _shared(self, activations: Activations) -> SharedActivations | None:
        """The activations where a worker can open them."""
        try:
            return SharedActivations.write(activations, self._folder)
        except OSError as error:
            self._confine(f"There is no room to hand activations over ({error}).")
            return None

    def _submit(self, cell: _CellInFlight) -> None:
        threads = choose_threads(cell.activations.values)
        task = CellTask(cell.shared, self._measures, self._seed, threads, self._are_kept)
        cell.attempts += 1
        try:
            cell.future = (self._executor or self._started()).submit(measure_shared_cell, task)
        except BrokenExecutor as error:
            if self._executor is not None:
                raise
            self._do_again(error)
        except Exception as error:
            if self._executor is not None or self._returned:
                raise
            self._give_up(f"Worker processes cannot be started here ({_first_line(error)}).")

    def _started(self) -> Any:
        if self._pool is None:
            remove_abandoned()
            self._pool = worker_pool(self._workers)
        return self._pool

    def _wait(self) -> None:
        """Finish the cells that are measured; wait for one if none is."""
        futures = [cell.future for cell in self._in_flight]
        with suppress(TypeError, AttributeError):  # of a kind that `concurrent.futures` cannot wait
            wait_for(futures, return_when="FIRST_COMPLETED")
        done = [cell for cell in self._in_flight if _is_done(cell.future)]
        for cell in done or self._in_flight[:1]:
            if cell in self._in_flight:  # and was not measured here meanwhile
                self._finish(cell)

    def _finish(self, cell: _CellInFlight) -> None:
        try:
            with error_note(f"This was in measuring {cell.where}."):
                measured: MeasuredCell = cell.future.result()
        except BrokenExecutor as error:
            if self._executor is not None:
                self._in_flight.remove(cell)
                cell.shared.remove()
                raise
            self._do_again(error)
            return
        except pickle.PicklingError as error:
            if self._executor is not None:
                raise
            self._give_up(f"A measure cannot be sent to a worker process ({_first_line(error)}).")
            return
        except BaseException:
            self._in_flight.remove(cell)
            cell.shared.remove()
            raise
        self._returned += 1
        self._in_flight.remove(cell)
        cell.shared.remove()
        for message, category, filename, line in measured.warned:
            warnings.warn_explicit(message, category, filename, line)
        cell.finish(measured)

    def _do_again(self, error: BaseException) -> None:
        """Start workers anew after one of them died, and measure again what they had."""
        lost = list(self._in_flight)
        self._pool = None
        if any(cell.attempts >= _ATTEMPTS for cell in lost):
            which = next(cell.where for cell in lost if cell.attempts >= _ATTEMPTS)
            raise RuntimeError(
                f"A worker process died twice while {len(lost)} cells were measured, one of them "
                f"{which}: {_first_line(error)}. Often the memory is used up. Cells that were "
                "finished are kept. Call again with fewer `jobs=`, or with `jobs=1` to measure in "
                "this process."
            ) from error
        warnings.warn(
            f"A worker process died ({_first_line(error)}). What workers had is measured again.",
            stacklevel=2,
        )
        try:
            # A cell that kills workers must not be measured here, but workers may die of anything.
            self._started().submit(_receive, self._measures).result()
        except Exception as failure:
            self._give_up(f"Worker processes do not live here ({_first_line(failure)}).")
            return
        for cell in lost:
            if cell in self._in_flight:
                self._submit(cell)

    def _give_up(self, why: str) -> None:
        """Measure in this process what workers cannot."""
        self._confine(why)
        lost, self._in_flight = self._in_flight, []
        for cell in lost:
            cell.shared.remove()
            self._measure_here(cell.activations, cell.finish, cell.where)

    def _confine(self, why: str) -> None:
        if not self._confined:
            warnings.warn(
                f"{why} Cells are measured in this process, one after the other.", stacklevel=2
            )
        self._confined = True

    def _rescue(self) -> None:
        """Hand over what is finished or being measured, after an error elsewhere."""
        for cell in self._in_flight:
            with suppress(AttributeError):
                cell.future.cancel()
        for cell in list(self._in_flight):
            # The first error is the one that is told.
            with suppress(Exception):
                if not cell.future.cancelled():
                    self._finish(cell)

    def _abandon(self) -> None:
        left, self._in_flight = self._in_flight, []
        for cell in left:
            with suppress(Exception):
                cell.future.cancel()
            cell.shared.remove()
        if left and self._pool is not None:
            self._pool.shutdown(wait=False, kill_workers=True)
        self._pool = None


def check_workers(jobs: object, executor: object) -> None:
    """Refuse what nothing can be measured with.

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
            f"`executor` is where cells are measured and has `submit(function, argument)`, got a "
            f"{type(executor).__name__}. `concurrent.futures.ProcessPoolExecutor()` makes one; "
            "leave it out for worker processes on this machine."
        )
    if jobs is not None:
        raise ValueError(
            f"`jobs` is for worker processes of the sweep's own, got jobs={jobs} beside an "
            "`executor`, which has its own number. Leave one of them out."
        )


@contextmanager
def error_note(text: str) -> Iterator[None]:
    """Say where an error came from, once."""
    try:
        yield
    except Exception as error:
        error.add_note(text)
        raise


def _is_done(future: Any) -> bool:
    done = getattr(future, "done", None)
    return bool(done()) if callable(done) else False


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
