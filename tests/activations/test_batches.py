from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tlens_trust.activations import batches
from tlens_trust.activations.batches import (
    is_out_of_memory,
    pad_batch,
    plan_batches,
    read_in_batches,
)

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=50)


@given(LENGTHS, st.integers(1, 300))
def test_every_statement_is_in_one_batch_and_every_batch_in_its_budget(lengths, budget):
    planned = plan_batches(lengths, budget)
    assert sorted(i for batch in planned for i in batch) == list(range(len(lengths)))
    for batch in planned:
        padded = max(lengths[i] for i in batch) * len(batch)
        assert padded <= budget or len(batch) == 1


@given(LENGTHS, st.integers(1, 300))
def test_no_batch_could_have_taken_the_next_statement_too(lengths, budget):
    planned = plan_batches(lengths, budget)
    for batch, following in pairwise(planned):
        assert max(lengths[i] for i in batch) * (len(batch) + 1) > budget
        assert lengths[batch[-1]] >= lengths[following[0]]


def test_sorting_by_length_spares_padding():
    lengths = [50, 2] * 20
    sorted_cost = sum(
        max(lengths[i] for i in b) * len(b) for b in plan_batches(lengths, batch_tokens=200)
    )
    unsorted_cost = sum(max(lengths[i : i + 4]) * 4 for i in range(0, 40, 4))
    assert sorted_cost < 0.6 * unsorted_cost
    assert sorted_cost == sum(lengths)


def test_a_budget_of_nothing_is_refused():
    with pytest.raises(ValueError, match="must be a whole number from 1, got 0"):
        plan_batches([1], 0)


@pytest.fixture(scope="module", autouse=True)
def without_collecting():
    """Collecting garbage takes long in a process that holds all the tests' models."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches.gc, "collect", lambda: 0)
        yield


class Memory:
    """Reads batches of up to so many padded tokens, and runs out beyond that."""

    def __init__(self, lengths, limit, error=torch.OutOfMemoryError):
        self.lengths, self.limit, self.error = lengths, limit, error
        self.read, self.failures = [], 0

    def __call__(self, batch):
        if max(self.lengths[i] for i in batch) * len(batch) > self.limit:
            self.failures += 1
            raise self.error("CUDA out of memory. Tried to allocate 2.00 GiB")
        self.read.extend(batch)


@given(LENGTHS, st.integers(60, 300))
def test_running_out_of_memory_halves_the_budget_and_reads_all_the_same(lengths, limit):
    memory = Memory(lengths, limit)
    left = read_in_batches(lengths, 4096, memory)
    assert sorted(memory.read) == list(range(len(lengths)))
    assert memory.failures <= 8
    assert left == 4096 if not memory.failures else left <= 4096 // 2


def test_a_statement_that_does_not_fit_alone_ends_it_with_the_way_out():
    memory = Memory([10, 80], limit=60)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        read_in_batches([10, 80], 100, memory)
    assert "one statement of 80 tokens" in caught.value.__notes__[0]


def test_another_error_is_not_taken_for_want_of_memory():
    def read(batch):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        read_in_batches([1, 2], 100, read)


def test_what_the_cpu_allocator_says_counts_as_out_of_memory():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert not isinstance(caught.value, torch.OutOfMemoryError)
    assert is_out_of_memory(caught.value)
    # What it says on Windows.
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: not enough memory: you tried"))
    assert not is_out_of_memory(RuntimeError("index out of range"))
    assert not is_out_of_memory(ValueError("out of memory"))


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_keeps_every_token_in_order(side):
    rows = [[5, 6, 7], [8], [9, 10]]
    tokens, kept = pad_batch(rows, padding_side=side)
    assert [tokens[i][kept[i]].tolist() for i in range(3)] == rows
    assert kept[:, 0 if side == "right" else -1].all()
    assert kept.sum() == 6
