"""Keeps loaded checkpoints in memory for a second use, as far as they fit.

A steering matrix needs some checkpoints twice: first to extract their vectors, later to steer them.
A target can be steered only after every source has been read. What fits in memory stays loaded in
between, and the rest is loaded again.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from tlens_trust.arguments import checked_count
from tlens_trust.checkpoints.checkpoint import Checkpoint
from tlens_trust.checkpoints.hooked_model import HookedModel
from tlens_trust.checkpoints.loading import release
from tlens_trust.checkpoints.loading_options import Loading

# Kept models may take a quarter of the free memory: activations and other programs need some too.
_FREE_MEMORY_DIVISOR = 4

# Larger than any memory, for a container without a limit.
_NO_LIMIT = 1 << 62


class ModelCache:
    """Loaded checkpoints, some of which stay loaded for a second use.

    Use it in a `with`, which releases all of them at its end. A checkpoint whose model is in memory
    already is neither loaded nor released, and is not counted.

    Args:
        loading: How the checkpoints are loaded, which decides whose memory is measured.
        at_once: How many checkpoints may be loaded at one time. None allows as many as fit in a
            quarter of the free memory, and always one.

    Raises:
        ValueError: `at_once` is not a whole number from 1.
    """

    def __init__(self, loading: Loading, at_once: int | None) -> None:
        check_loaded_at_once(at_once)
        self._at_once = at_once
        # Measured once, before any model is loaded, so that loaded models count against it.
        self._budget = free_memory(loading) // _FREE_MEMORY_DIVISOR if at_once is None else 0
        self._entries: list[tuple[Checkpoint, HookedModel]] = []
        self._largest = 0

    def __enter__(self) -> "ModelCache":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        while self._entries:
            release(self._entries.pop()[1])

    @contextmanager
    def open_model(self, checkpoint: Checkpoint, *, keep: bool = False) -> Iterator[HookedModel]:
        """Give a checkpoint's model for the length of a `with`, and load it if need be.

        Args:
            checkpoint: The checkpoint to open.
            keep: Whether the model is needed again. It then stays loaded until its next use, unless
                another model needs its memory.
        """
        if checkpoint.in_memory is not None:
            yield checkpoint.load()
            return
        model = self._pop(checkpoint)
        if model is None:
            self._make_room()
            model = checkpoint.load()
        self._largest = max(self._largest, _size(model))
        stays_loaded = False
        try:
            yield model
            if keep:
                self._entries.append((checkpoint, model))
                stays_loaded = True
        finally:
            if not stays_loaded:
                release(model)

    def order_loaded_first(self, checkpoints: Sequence[Checkpoint]) -> list[int]:
        """Order checkpoints so that those already loaded come first, since using them frees memory.

        Returns:
            The checkpoints' positions in the sequence.
        """
        is_loaded = [self._index_of(checkpoint) is not None for checkpoint in checkpoints]
        # Sorting is stable, so the order is otherwise that of the sequence.
        return sorted(range(len(checkpoints)), key=lambda index: not is_loaded[index])

    def _pop(self, checkpoint: Checkpoint) -> HookedModel | None:
        index = self._index_of(checkpoint)
        return None if index is None else self._entries.pop(index)[1]

    def _index_of(self, checkpoint: Checkpoint) -> int | None:
        for index, (loaded_checkpoint, _) in enumerate(self._entries):
            if same_model(loaded_checkpoint, checkpoint):
                return index
        return None

    def _make_room(self) -> None:
        """Release models, the latest first, until one more may be loaded."""
        while self._entries and not self._has_room_for_one():
            release(self._entries.pop()[1])

    def _has_room_for_one(self) -> bool:
        if self._at_once is not None:
            return len(self._entries) < self._at_once
        used_bytes = sum(_size(model) for _, model in self._entries)
        # The next model's size is unknown before it is loaded. The largest so far stands for it.
        return used_bytes + self._largest <= self._budget


def check_loaded_at_once(at_once: object) -> None:
    """Check how many checkpoints may be loaded at one time.

    Raises:
        ValueError: `at_once` is neither None nor a whole number from 1.
    """
    if at_once is not None:
        checked_count(
            "loaded_at_once",
            at_once,
            hint="Leave it out to use as much as the free memory allows.",
        )


def same_model(one: Checkpoint, other: Checkpoint) -> bool:
    """Whether two checkpoints are loaded to the same model."""
    # Checkpoints compare equal whatever their tokenizer and settings for loading.
    return one == other and one.tokenizer is other.tokenizer and one.loading == other.loading


def free_memory(loading: Loading) -> int:
    """Return the free bytes where a checkpoint is loaded; 0 where that is unknown."""
    is_spread = loading.device_map is not None
    device = torch.device(loading.device) if loading.device is not None else None
    if torch.cuda.is_available() and (device is None or device.type == "cuda"):
        gpus: Any = range(torch.cuda.device_count()) if is_spread else [device or "cuda"]
        return sum(torch.cuda.mem_get_info(gpu)[0] for gpu in gpus)
    if device is not None and device.type not in ("cpu", "mps"):
        return 0
    # In a container, the machine's free memory may be far more than the container may use.
    return min(_machine_memory(), _container_memory())


def _machine_memory() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvail"))
    except (OSError, StopIteration):
        pass
    try:
        # Other systems report the memory that is installed; half of it is a guess at what is free.
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, OSError, ValueError):
        return 0


def _container_memory(folder: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the bytes that a container's limit leaves free.

    File caches count as free, since the kernel drops them when memory is needed.
    """
    try:
        limit = int((folder / "memory.max").read_text(encoding="ascii"))
        used_bytes = int((folder / "memory.current").read_text(encoding="ascii"))
        lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):  # there is no such file, or it says "max"
        return _NO_LIMIT
    cached_bytes = sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
    return max(0, limit - used_bytes + cached_bytes)


def _size(model: HookedModel) -> int:
    module: Any = model
    # By id, since tied weights are one tensor under two names.
    tensors = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
