"""The worker processes of this process, which all sweeps share.

Importing this module is quick, so that a command can start workers first. They import libraries
while the command does so itself.
"""

from collections.abc import Sequence
from concurrent.futures import BrokenExecutor
from importlib import import_module
from typing import Any

# Workers without work stop after this time.
_IDLE_SECONDS = 60


def available_cores() -> int:
    """Count the cores that this process may use, by its affinity and its control group."""
    # `os.cpu_count` also counts cores that a container or a cluster job may not use.
    from loky import cpu_count

    return int(cpu_count())


def worker_pool(workers: int) -> Any:
    """Give an executor with a number of processes; the existing one if it is as large.

    Args:
        workers: Number of processes.

    Raises:
        OSError: No process can be started.
    """
    # Unlike the standard library's pool, loky runs no script a second time in its workers. It also
    # sends functions and classes that a script or a notebook defines.
    from loky import get_reusable_executor

    return get_reusable_executor(max_workers=workers, timeout=_IDLE_SECONDS)


def start_workers(workers: int, *, modules: Sequence[str]) -> None:
    """Start workers and let them import modules, so that they are ready when there is work.

    No error is raised if none can be started. The sweep that needs them warns.

    Args:
        workers: Number of workers, or 0.
        modules: Names of the modules to import.
    """
    try:
        # One task for each worker, so that all of them import.
        for _ in range(workers):
            worker_pool(workers).submit(_import, tuple(modules))
    except (OSError, BrokenExecutor):
        return


def _import(modules: Sequence[str]) -> None:
    for name in modules:
        import_module(name)
