"""Groups statements of similar length into batches that hold at most a budget of tokens.

The cost of a batch is its padded size, statements × longest. Sorting by length keeps the padding
small. The longest statements come first, so that a budget too large for the memory fails at once.
"""

import gc
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from tlens_trust.activations.reading_options import check_batch_tokens

# Parts of PyTorch's messages where it has no exception type for missing memory: the CPU allocator
# on Linux and on Windows, and Apple's GPUs.
_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


def plan_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Split statements into batches that hold at most a budget of tokens, padding included.

    Args:
        lengths: Tokens of each statement.
        batch_tokens: The budget. A statement that is longer is a batch by itself.

    Returns:
        Batches of indices into `lengths`, longest first. They depend on nothing but the arguments.

    Raises:
        ValueError: `batch_tokens` is not positive.

    Examples:
        >>> plan_batches([3, 9, 4, 8], batch_tokens=18)
        [[1, 3], [2, 0]]
    """
    check_batch_tokens(batch_tokens)
    batches: list[list[int]] = []
    # The index breaks ties, so that the batches, and so the bits, are the same in every run.
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        # The first statement of a batch is its longest, so its length is the padded width.
        if not batches or lengths[batches[-1][0]] * (len(batches[-1]) + 1) > batch_tokens:
            batches.append([])
        batches[-1].append(index)
    return batches


def read_in_batches(
    lengths: Sequence[int], batch_tokens: int, read_batch: Callable[[list[int]], None]
) -> int:
    """Read every statement, and continue with smaller batches when memory runs out.

    Args:
        lengths: Tokens of each statement.
        batch_tokens: Budget of a batch, padding included.
        read_batch: Reads one batch, given the indices of its statements. It is called again for
            the same statements after it ran out of memory.

    Returns:
        The last budget; `batch_tokens` if memory never ran out.

    Raises:
        torch.OutOfMemoryError: There is no memory for a single statement. (A `RuntimeError` on the
            CPU.)
    """
    batches = plan_batches(lengths, batch_tokens)
    while batches:
        batch = batches[0]
        try:
            read_batch(batch)
        except (RuntimeError, MemoryError) as error:
            # The CPU allocator raises a plain RuntimeError, as many other faults do.
            if not is_out_of_memory(error):
                raise
            if len(batch) == 1:
                error.add_note(
                    f"A batch of one statement of {lengths[batch[0]]} tokens needs more memory "
                    "than there is. Load the model in a smaller dtype, or spread it over devices "
                    "with `device_map`."
                )
                raise
        else:
            batches.pop(0)
            continue
        # Not inside the `except`, where the traceback still refers to the batch's tensors.
        _release_memory()
        # Half of what the failed batch held, since it may have been much less than the budget.
        batch_tokens = max(1, min(batch_tokens, lengths[batch[0]] * len(batch)) // 2)
        remaining = sorted(index for batch in batches for index in batch)
        batches = [
            [remaining[index] for index in batch]
            for batch in plan_batches([lengths[index] for index in remaining], batch_tokens)
        ]
    return batch_tokens


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        sign in str(error).lower() for sign in _OUT_OF_MEMORY
    )


def pad_batch(
    rows: Sequence[Sequence[int]], *, padding_side: str
) -> tuple[Int[Tensor, "batch pos"], Bool[Tensor, "batch pos"]]:
    """Stack token ids of different lengths into one tensor.

    Args:
        rows: Token ids of each statement.
        padding_side: `"right"` or `"left"`.

    Returns:
        The ids, padded with 0, which every vocabulary has, and a mask that is False at padding.

    Examples:
        >>> pad_batch([[5, 6], [7]], padding_side="left")
        (tensor([[5, 6], [0, 7]]), tensor([[ True,  True], [False,  True]]))
    """
    width = max(map(len, rows))
    tokens = torch.zeros(len(rows), width, dtype=torch.long)
    is_token = torch.zeros(len(rows), width, dtype=torch.bool)
    for row, ids in enumerate(rows):
        start = width - len(ids) if padding_side == "left" else 0
        tokens[row, start : start + len(ids)] = torch.tensor(ids)
        is_token[row, start : start + len(ids)] = True
    return tokens, is_token


def _release_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
