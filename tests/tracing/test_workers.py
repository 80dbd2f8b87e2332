"""Cells measured in worker processes: the same numbers, whatever becomes of the workers."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from tlens_trust.activations import collect_activations
from tlens_trust.activations.shared_memory import SharedActivations, remove_abandoned
from tlens_trust.tracing import load_scores, probe_checkpoints, trace_checkpoints
from tlens_trust.tracing import workers as workers_module
from tlens_trust.tracing.workers import CellTask
from tlens_trust.worker_pool import available_cores

SPAWN = get_context("spawn")


@dataclass(frozen=True)
class Recorded:
    """What each process did, as a measure's values."""

    folder: str
    name: str = "recorded"

    @property
    def identity(self):
        return self.name

    def __call__(self, activations, concept, *, seed):
        (Path(self.folder) / f"{os.getpid()}-{time.time_ns()}").touch()
        return dataset(activations, threads=torch.get_num_threads())

    def processes(self):
        return {int(path.name.partition("-")[0]) for path in Path(self.folder).iterdir()}


@dataclass(frozen=True)
class Deadly(Recorded):
    """Kills the first processes that measure with it, `deaths` of them, but never this one."""

    deaths: int = 1
    spared: int = os.getpid()

    def __call__(self, activations, concept, *, seed):
        if concept.name == "kindness" and os.getpid() != self.spared:
            for death in range(self.deaths):
                try:
                    os.close(os.open(f"{self.folder}/death{death}", os.O_CREAT | os.O_EXCL))
                except FileExistsError:
                    continue
                os.kill(os.getpid(), signal.SIGKILL)
        return dataset(activations)


@dataclass(frozen=True)
class Odd(Recorded):
    """Warns of every cell."""

    def __call__(self, activations, concept, *, seed):
        warnings.warn(f"{concept.name} is odd", RuntimeWarning, stacklevel=2)
        return dataset(activations)


@dataclass(frozen=True)
class Failing(Recorded):
    """Fails at one concept of one checkpoint, once another cell has been begun."""

    def __call__(self, activations, concept, *, seed):
        if concept.name == "kindness" and activations.checkpoint.step == 8:
            while not self.processes():
                time.sleep(0.01)
            raise ValueError("no optimum")
        return super().__call__(activations, concept, seed=seed)


def dataset(activations, **more):
    described = {"units": "1", "long_name": "mean"}
    values = activations.values.double().mean(dim=(0, 2)).numpy()
    extra = {name: ((), value, described) for name, value in more.items()}
    return xr.Dataset(
        {"mean": ("site", values, described), **extra}, coords={"site": list(activations.sites)}
    )


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "what processes did"
    place.mkdir()
    return str(place)


@pytest.fixture
def no_workers(monkeypatch):
    import loky

    def refuse(*arguments, **options):
        raise OSError("no processes here")

    monkeypatch.setattr(loky, "get_reusable_executor", refuse)


def test_any_number_of_jobs_and_any_executor_give_the_same_trace_and_scores(
    sweep, quick_probe, tmp_path
):
    here = sweep(measures=quick_probe, jobs=1, out=tmp_path / "here")
    runs = {"jobs=2": {"jobs": 2}, "jobs=3": {"jobs": 3}}
    with ThreadPoolExecutor(2) as threads, ProcessPoolExecutor(1, mp_context=SPAWN) as processes:
        runs |= {"threads": {"executor": threads}, "processes": {"executor": processes}}
        for name, options in runs.items():
            assert sweep(measures=quick_probe, out=tmp_path / name, **options) == here, name
    scores = [load_scores(tmp_path / name, "truth") for name in ("here", *runs)]
    for other in scores[1:]:
        xr.testing.assert_identical(other.drop_attrs(), scores[0].drop_attrs())


def test_cells_are_measured_in_as_many_processes_as_there_are_jobs(sweep, folder):
    sweep(measures=Recorded(folder), jobs=2)
    others = Recorded(folder).processes() - {os.getpid()}
    assert len(others) == 1


def test_a_process_that_reads_on_a_gpu_measures_nothing(sweep, folder, monkeypatch):
    from tlens_trust.tracing import sweep as sweep_module

    monkeypatch.setattr(sweep_module, "_reads_on_cpu", lambda device: False)
    sweep(measures=Recorded(folder), jobs=2)
    assert os.getpid() not in Recorded(folder).processes()


def test_one_job_is_this_process(sweep, folder):
    sweep(measures=Recorded(folder), jobs=1)
    assert Recorded(folder).processes() == {os.getpid()}


def test_work_that_is_small_stays_in_this_process(sweep, folder):
    sweep(measures=Recorded(folder))
    assert Recorded(folder).processes() == {os.getpid()}


def test_work_that_is_worth_it_goes_to_worker_processes(sweep, folder, monkeypatch):
    monkeypatch.setattr(workers_module, "_SECONDS_WORTH_WORKERS", 1e-6)
    monkeypatch.setattr(workers_module, "available_cores", lambda: 2)
    sweep(measures=Recorded(folder))
    others = Recorded(folder).processes() - {os.getpid()}
    assert len(others) == 1


def test_one_core_has_no_workers(sweep, folder, monkeypatch):
    monkeypatch.setattr(workers_module, "_SECONDS_WORTH_WORKERS", 1e-6)
    monkeypatch.setattr(workers_module, "available_cores", lambda: 1)
    sweep(measures=Recorded(folder))
    assert Recorded(folder).processes() == {os.getpid()}


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_the_default_heeds_the_affinity_of_the_process():
    script = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from tlens_trust.worker_pool import available_cores; print(available_cores())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "1", done.stderr
    assert available_cores() <= len(os.sched_getaffinity(0))


def test_there_are_never_more_workers_than_cells(sweep, concepts, checkpoints, folder):
    sweep(checkpoints[:1], concepts[:1], measures=Recorded(folder), jobs=8)
    assert Recorded(folder).processes() == {os.getpid()}


def test_statistics_in_a_worker_run_on_the_threads_that_they_have_here(sweep, folder):
    here = sweep(measures=Recorded(folder), jobs=1)
    assert (here.data["threads"] == 1).all()
    assert sweep(measures=Recorded(folder), jobs=2) == here


def test_a_worker_that_is_killed_costs_its_cells_alone(sweep, folder, tmp_path):
    expected = sweep(measures=Deadly(folder, deaths=0), jobs=1)
    with pytest.warns(UserWarning, match="A worker process died"):
        found = sweep(measures=Deadly(folder), jobs=2, out=tmp_path / "run")
    assert (Path(folder) / "death0").exists()
    np.testing.assert_array_equal(found.data["mean"], expected.data["mean"])


def test_a_cell_that_kills_every_worker_is_named_and_the_others_are_kept(
    sweep, folder, tmp_path, concepts
):
    sweep(wanted=concepts[0], measures=Deadly(folder, deaths=9), jobs=2, out=tmp_path / "run")
    finished = sorted((tmp_path / "run" / "cells").rglob("*.nc"))
    assert len(finished) == 3
    with (
        pytest.warns(UserWarning, match="A worker process died"),
        pytest.raises(RuntimeError, match=r"died twice.*'kindness'.*jobs=1"),
    ):
        sweep(wanted=concepts, measures=Deadly(folder, deaths=9), jobs=2, out=tmp_path / "run")
    # This process may have measured some of the others meanwhile.
    assert set((tmp_path / "run" / "cells").rglob("*.nc")) >= set(finished)
    assert all(path.exists() for path in finished)


def test_where_no_process_can_start_cells_are_measured_here(sweep, no_workers, folder):
    with pytest.warns(UserWarning, match=r"cannot be started here \(no processes here\)"):
        found = sweep(measures=Recorded(folder), jobs=2)
    assert Recorded(folder).processes() == {os.getpid()}
    assert found == sweep(measures=Recorded(folder), jobs=1)


def test_where_every_process_dies_at_once_cells_are_measured_here(sweep, folder, monkeypatch):
    monkeypatch.setattr(workers_module, "measure_shared_cell", _die)
    monkeypatch.setattr(workers_module, "_receive", _die)
    with (
        pytest.warns(UserWarning, match="A worker process died"),
        pytest.warns(UserWarning, match="cannot run here"),
    ):
        sweep(measures=Recorded(folder), jobs=2)
    assert Recorded(folder).processes() == {os.getpid()}


def _die(task):
    os._exit(1)


def test_a_measure_that_cannot_be_pickled_is_taken_here(sweep, folder):
    measure = Recorded(folder)
    object.__setattr__(measure, "lock", threading.Lock())
    with pytest.warns(UserWarning, match="cannot be sent to a worker process"):
        sweep(measures=measure, jobs=2)
    assert Recorded(folder).processes() == {os.getpid()}


def test_an_error_in_a_worker_says_where_and_finished_cells_are_kept(sweep, folder, tmp_path):
    with pytest.raises(ValueError, match="no optimum") as caught:
        sweep(measures=Failing(folder), jobs=2, out=tmp_path / "run")
    (note,) = caught.value.__notes__
    for word in ("'kindness'", "'tiny@step8'", "blocks.0.hook_resid_post to blocks.1"):
        assert word in note
    assert list((tmp_path / "run" / "cells").rglob("*.nc"))


def test_a_warning_in_a_worker_reaches_the_caller(sweep, folder):
    with pytest.warns(RuntimeWarning, match="is odd"):
        sweep(measures=Odd(folder), jobs=2)


def test_nothing_is_left_where_activations_were_handed_over(sweep, folder, tmp_path, monkeypatch):
    import tlens_trust.activations.shared_memory as shared

    place = tmp_path / "handed over"
    place.mkdir()
    monkeypatch.setattr(shared, "_roomy_folder", lambda n_bytes: place)
    sweep(measures=Recorded(folder), jobs=2)
    assert Recorded(folder).processes() != {os.getpid()}
    assert list(place.iterdir()) == []
    with pytest.raises(ValueError, match="no optimum"):
        sweep(measures=Failing(folder), jobs=2)
    assert list(place.iterdir()) == []


class Slow:
    """An executor that begins nothing before it is asked for a result."""

    def __init__(self, folder):
        self._max_workers = 3
        self.folder = folder
        self.most = 0

    def submit(self, function, argument):
        self.most = max(self.most, len(list(self.folder.iterdir())))
        return Late(function, argument)


class Late:
    def __init__(self, function, argument):
        self.call = function, argument

    def result(self):
        function, argument = self.call
        return function(argument)


@pytest.mark.parametrize(("limit", "most"), [(2**31, 4), (1, 2)])
def test_readings_that_wait_are_bounded_in_number_and_in_bytes(
    sweep, monkeypatch, tmp_path, limit, most, folder
):
    import tlens_trust.activations.shared_memory as shared

    place = tmp_path / "handed over"
    place.mkdir()
    monkeypatch.setattr(shared, "_roomy_folder", lambda n_bytes: place)
    monkeypatch.setattr(workers_module, "_BYTES_IN_FLIGHT", limit)
    executor = Slow(place)
    found = sweep(measures=Recorded(folder), executor=executor)
    assert executor.most == most
    assert found == sweep(measures=Recorded(folder), jobs=1)


def test_no_room_to_hand_activations_over_means_this_process(sweep, folder, monkeypatch):
    def refuse(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    with pytest.warns(UserWarning, match="no room to hand activations over"):
        sweep(measures=Recorded(folder), jobs=2)
    assert Recorded(folder).processes() == {os.getpid()}


def test_activations_do_not_pass_through_the_pipe(checkpoints, concepts, quick_probe):
    few = collect_activations(checkpoints[0], concepts[0])
    sizes = []
    for values in (few.values, few.values.repeat(1, 1, 1000)):
        activations = type(few)(values.transpose(0, 1).contiguous().transpose(0, 1), few.sites,
                                few.checkpoint, few.concept)  # fmt: skip
        shared = SharedActivations.write(activations)
        sizes.append(len(pickle.dumps(CellTask(shared, (quick_probe,), 0, 1))))
        opened = shared.open()
        assert torch.equal(opened.values, values)
        assert opened.values.stride() == activations.values.stride()
        shared.remove()
        assert torch.equal(opened.values, values)
    assert abs(sizes[1] - sizes[0]) < 100


def test_a_model_in_memory_is_not_handed_over(checkpoints, concepts):
    read = collect_activations(checkpoints[0], concepts[0])
    shared = SharedActivations.write(read)
    assert read.checkpoint.in_memory is not None
    assert shared.checkpoint.in_memory is None
    assert (shared.checkpoint.name, shared.checkpoint.step) == ("tiny@step0", 0)
    shared.remove()


def test_activations_that_are_gone_say_so(checkpoints, concepts):
    shared = SharedActivations.write(collect_activations(checkpoints[0], concepts[0]))
    shared.remove()
    with pytest.raises(FileNotFoundError, match=r"There is no file .*`out=`"):
        shared.open()


def test_only_what_is_a_day_old_counts_as_abandoned(tmp_path):
    old, new = (tmp_path / f"tlens-trust-{name}.activations" for name in ("old", "new"))
    other = tmp_path / "mine.activations"
    for path in (old, new, other):
        path.touch()
    for path in (old, other):
        os.utime(path, (0, 0))
    remove_abandoned(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([new, other])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"jobs": 0}, "`jobs` must be a whole number from 1, got 0"),
        ({"jobs": -1}, "`jobs` must be a whole number from 1, got -1"),
        ({"jobs": True}, "got True"),
        ({"executor": ThreadPoolExecutor(), "jobs": 2}, "got jobs=2 beside"),
    ],
)
def test_what_nothing_can_be_measured_with_is_refused_before_anything_is_read(
    sweep, checkpoints, concepts, loads, options, words
):
    with pytest.raises(ValueError, match=words):
        sweep(**options)
    with pytest.raises(ValueError, match=words):
        probe_checkpoints(checkpoints, concepts, **options)
    assert loads == []


def test_an_executor_that_breaks_says_so_and_finished_cells_are_kept(sweep, folder, tmp_path):
    with (
        ProcessPoolExecutor(1, mp_context=SPAWN) as pool,
        pytest.raises(Exception, match="terminated abruptly"),
    ):
        sweep(measures=Deadly(folder), executor=pool, out=tmp_path / "run")
    assert list((tmp_path / "run" / "cells").rglob("truth*.nc"))


SCRIPT = """
import os, sys
print("once")
from tests.tracing.test_workers import make_tiny_sweep
from dataclasses import dataclass
from tests.tracing.test_workers import Recorded, dataset

@dataclass(frozen=True)
class Mine(Recorded):
    name: str = "mine"
    def __call__(self, activations, concept, *, seed):
        super().__call__(activations, concept, seed=seed)
        return dataset(activations)

found = make_tiny_sweep(sys.argv[1], Mine(sys.argv[2]))
print(sorted(found.data), len(Mine(sys.argv[2]).processes()))
"""


def make_tiny_sweep(folder, measure):
    from tlens_trust import CheckpointSeries
    from tlens_trust.concepts import Concept

    statements = tuple(f"w{i} w{i % 7}" for i in range(20))
    concept = Concept("a", "a", statements, np.arange(20) % 2, tuple(f"g{i}" for i in range(20)))
    series = CheckpointSeries.from_directory(folder)
    return trace_checkpoints(series, concept, measures=measure, jobs=2, store=None, progress=False)


def test_a_script_without_a_main_guard_runs_once_and_its_own_measure_works(
    run_of_checkpoints, folder, tmp_path
):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), str(run_of_checkpoints), folder],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    assert done.stdout.splitlines() == ["once", "['mean'] 2"], done.stderr


def test_an_interruption_stops_the_workers_and_leaves_nothing(sweep, folder, monkeypatch):
    stopped = []

    class Pool:
        def submit(self, function, argument):
            return Future()

        def shutdown(self, **options):
            stopped.append(options)

    import loky

    monkeypatch.setattr(loky, "get_reusable_executor", lambda **options: Pool())

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(workers_module, "wait_for", interrupt)
    with pytest.raises(KeyboardInterrupt):
        sweep(measures=Recorded(folder), jobs=2)
    assert stopped == [{"wait": False, "kill_workers": True}]
