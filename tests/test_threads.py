"""On how many threads statistics run, and that nothing of it stays."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from tlens_trust.threads import NUMBERS_PER_THREAD, choose_threads, limited_threads


@pytest.fixture
def four_threads():
    """Torch and all libraries as on a machine of four cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    with threadpool_limits(4):
        yield
    torch.set_num_threads(before)


def large(threads):
    return torch.empty(NUMBERS_PER_THREAD // 64 * threads, 1, 64)


def everywhere():
    return {torch.get_num_threads(), *(each["num_threads"] for each in threadpool_info())}


def test_small_matrices_get_one_thread_and_large_ones_one_for_each_so_many_numbers(four_threads):
    assert choose_threads(torch.empty(200, 4, 64)) == 1
    assert choose_threads(large(1)) == 1
    assert choose_threads(large(2)) == 2
    assert choose_threads(large(3)) == 3


def test_the_number_of_sites_does_not_count(four_threads):
    assert choose_threads(torch.empty(200, 4000, 64)) == 1


def test_what_torch_was_set_to_is_an_upper_bound(four_threads):
    torch.set_num_threads(2)
    assert choose_threads(large(3)) == 2


def test_what_a_library_was_set_to_is_an_upper_bound(four_threads):
    with threadpool_limits(3, user_api="blas"):
        assert choose_threads(large(9)) == 3
    assert choose_threads(large(9)) == 4


def test_omp_num_threads_is_an_upper_bound():
    script = (
        "import torch; from tlens_trust.threads import choose_threads;"
        "print(choose_threads(torch.empty(2**22, 1, 64)))"
    )
    for bound in (1, 2):
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "OMP_NUM_THREADS": str(bound)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert int(done.stdout) <= bound


def test_a_variable_replaces_the_rule_within_the_bounds(four_threads, monkeypatch):
    monkeypatch.setenv("TLENS_TRUST_THREADS", "3")
    assert choose_threads(torch.empty(200, 4, 64)) == 3
    monkeypatch.setenv("TLENS_TRUST_THREADS", "9")
    assert choose_threads(torch.empty(200, 4, 64)) == 4


@pytest.mark.parametrize("given", ["0", "-1", "two", "1.5"])
def test_a_variable_that_is_no_number_is_refused(monkeypatch, given):
    monkeypatch.setenv("TLENS_TRUST_THREADS", given)
    with pytest.raises(ValueError, match=rf"TLENS_TRUST_THREADS got '{given}'"):
        choose_threads(torch.empty(200, 4, 64))


def test_torch_and_every_library_are_limited_and_restored(four_threads):
    np.ones((2, 2)) @ np.ones((2, 2))
    with limited_threads(1):
        assert everywhere() == {1}
    assert everywhere() == {4}


def test_they_are_restored_after_an_exception(four_threads):
    with pytest.raises(RuntimeError, match="midway"), limited_threads(1):
        raise RuntimeError("midway")
    assert everywhere() == {4}
