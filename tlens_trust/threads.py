"""The number of threads that the statistics of a cell run on.

Probes and nulls are batches of small products of matrices. Every product waits for its slowest
thread. On two idle cores a second thread makes a probe 1.2 to 1.45 times faster, if rows times
width is between 2¹⁷ and 2²². If two other processes use these cores, it makes the same probe 1.3 to
8 times slower than one thread. Other processes are usual, since several measure cells. So
statistics run on one thread unless the matrices are larger than that. Forward passes of a model
keep torch's own setting.
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

# A further thread is used for each of so many numbers in the matrix of one site.
NUMBERS_PER_THREAD = 2**22

VARIABLE = "TLENS_TRUST_THREADS"


def choose_threads(activations: Float[Tensor, "example site d_model"]) -> int:
    """Choose the number of threads that the statistics of these activations run on.

    It is one for each `NUMBERS_PER_THREAD` of `example × d_model`, and at least one. Upper bounds
    are `torch.set_num_threads`, `OMP_NUM_THREADS` and the settings of the BLAS libraries. The
    environment variable `TLENS_TRUST_THREADS` replaces the rule by a number, within the same
    bounds.

    Raises:
        ValueError: `TLENS_TRUST_THREADS` is not a whole number from 1.

    Examples:
        >>> choose_threads(torch.zeros(200, 4, 64))
        1
    """
    text = os.environ.get(VARIABLE, "")
    if text and not (text.isdecimal() and int(text) > 0):
        raise ValueError(
            f"The environment variable {VARIABLE} got {text!r}. Give a whole number from 1, or "
            "unset it for a number that depends on the size of the problem."
        )
    # Sites do not count. They are a batch of products, each as large as the matrix of one site.
    examples, _, width = activations.shape
    threads = int(text) if text else max(1, examples * width // NUMBERS_PER_THREAD)
    # The usual case needs no limits, and finding the libraries takes as long as a small probe.
    if threads == 1:
        return 1
    limits: list[int] = [library.num_threads for library in _libraries().lib_controllers]
    return min(threads, torch.get_num_threads(), *limits)


@contextmanager
def limited_threads(threads: int) -> Iterator[None]:
    """Set the number of threads of torch, BLAS and OpenMP inside a `with`, and restore it after.

    Args:
        threads: Number of threads.

    Examples:
        >>> before = torch.get_num_threads()
        >>> with limited_threads(1):
        ...     torch.get_num_threads()
        1
        >>> torch.get_num_threads() == before
        True
    """
    torch_threads = torch.get_num_threads()
    with _libraries().limit(limits=threads):
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(torch_threads)


def _libraries() -> ThreadpoolController:
    """The BLAS and OpenMP libraries that are loaded now."""
    return _find_libraries(len(sys.modules))


@lru_cache(maxsize=1)
def _find_libraries(modules: int) -> ThreadpoolController:
    # Looking for libraries takes as long as a small probe. A new library can only be loaded by
    # importing a module, so the result is kept until the number of modules changes.
    return ThreadpoolController()
