"""How many threads the statistics of a reading run on.

Probes and nulls are batches of small products of matrices. Every product waits for its slowest
thread. On two idle cores a second thread makes a probe 1.2 to 1.45 times faster, from 2¹⁷ to 2²²
numbers of rows times width. Where two other processes use these cores, it makes the same probe
1.3 to 8 times slower than one thread. Other processes are usual, since cells are measured in
several. So statistics run on one thread unless the matrices are larger than that. Forward passes of
a model keep torch's own setting.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from jaxtyping import Float
from threadpoolctl import ThreadpoolController
from torch import Tensor

# Numbers of one site's matrix that each thread must have to itself before another one pays.
NUMBERS_PER_THREAD = 2**22

VARIABLE = "TLENS_TRUST_THREADS"


def choose_threads(activations: Float[Tensor, "example site d_model"]) -> int:
    """How many threads the statistics of these activations run on.

    One for each `NUMBERS_PER_THREAD` of `example × d_model`, at least one, and no more than the
    caller allows: `torch.set_num_threads`, `OMP_NUM_THREADS` and the settings of the BLAS libraries
    are upper bounds. The environment variable `TLENS_TRUST_THREADS` replaces the rule by a number,
    within the same bounds.

    Raises:
        ValueError: `TLENS_TRUST_THREADS` is no whole number from 1.

    Examples:
        >>> choose_threads(torch.zeros(200, 4, 64))
        1
    """
    asked = os.environ.get(VARIABLE, "")
    if asked and not (asked.isdecimal() and int(asked) > 0):
        raise ValueError(
            f"The environment variable {VARIABLE} got {asked!r}. Give a whole number from 1, or "
            "unset it for a number that goes by the size of the problem."
        )
    examples, _, width = activations.shape
    wanted = int(asked) if asked else max(1, examples * width // NUMBERS_PER_THREAD)
    if wanted == 1:
        return 1
    allowed: list[int] = [library.num_threads for library in _libraries().lib_controllers]
    return min(wanted, torch.get_num_threads(), *allowed)


@contextmanager
def limited_threads(threads: int) -> Iterator[None]:
    """Torch, BLAS and OpenMP on so many threads, and as they were after, come what may.

    Args:
        threads: How many.

    Examples:
        >>> before = torch.get_num_threads()
        >>> with limited_threads(1):
        ...     torch.get_num_threads()
        1
        >>> torch.get_num_threads() == before
        True
    """
    before = torch.get_num_threads()
    with _libraries().limit(limits=threads):
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def _libraries() -> ThreadpoolController:
    """The BLAS and OpenMP libraries that are loaded now."""
    return _libraries_beside(len(sys.modules))


@lru_cache(maxsize=1)
def _libraries_beside(modules: int) -> ThreadpoolController:
    # Looking for them takes as long as a small probe; a library comes along with a module.
    return ThreadpoolController()
