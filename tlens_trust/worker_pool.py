"""The worker processes of this process, which all sweeps share.

Importing this module takes next to no time, so that a command can start workers first of all: they
import what they need while it does so itself.
"""

from collections.abc import Sequence
from concurrent.futures import BrokenExecutor
from importlib import import_module
from typing import Any

_IDLE_SECONDS = 60  # after which workers that nothing is asked of stop


def available_cores() -> int:
    """How many cores this process may use, by its affinity and its control group."""
    from loky import cpu_count

    return int(cpu_count())


def worker_pool(workers: int) -> Any:
    """An executor with so many processes: the one that was here before, if it is as large.

    Args:
        workers: How many.

    Raises:
        OSError: No process can be started.
    """
    from loky import get_reusable_executor

    return get_reusable_executor(max_workers=workers, timeout=_IDLE_SECONDS)


def start_workers(workers: int, *, modules: Sequence[str]) -> None:
    """Start workers now and let them import, so that they are ready when there is work.

    Where none can be started, whatever needs them says so.

    Args:
        workers: How many, or 0.
        modules: What to import.
    """
    try:
        for _ in range(workers):
            worker_pool(workers).submit(_import, tuple(modules))
    except (OSError, BrokenExecutor):
        return


def _import(modules: Sequence[str]) -> None:
    for name in modules:
        import_module(name)
