"""Checkpoints that are read for their vectors first and steered later, loaded as seldom as fits.

A target can be steered only when every source has been read, so that whoever is both is wanted
twice: what fits into memory stays loaded in between, the rest is loaded again.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from tlens_trust.checkpoints.checkpoint import Checkpoint
from tlens_trust.checkpoints.hooked import HookedModel
from tlens_trust.checkpoints.loading import release
from tlens_trust.checkpoints.loading_options import Loading

# Of the memory that is free; activations, and whatever else the machine does, need some too.
_SHARE = 4


class KeptModels:
    """Loaded checkpoints, of which some stay for a second use.

    To be used in a `with`, at the end of which all are let go of. A model in memory is neither
    loaded nor let go of, and counts for nothing.

    Args:
        loading: How the checkpoints are loaded, which tells where memory is needed.
        at_once: How many may be loaded at one time; None for as many as a quarter of the free
            memory holds, and one in any case.

    Raises:
        ValueError: `at_once` is no whole number above 0.
    """

    def __init__(self, loading: Loading, at_once: int | None) -> None:
        if at_once is not None and (
            isinstance(at_once, bool) or not isinstance(at_once, int) or at_once < 1
        ):
            raise ValueError(
                "`loaded_at_once` is how many checkpoints may be loaded at one time, at least 1, "
                f"got {at_once!r}. Leave it out to go by the free memory."
            )
        self._at_once = at_once
        self._budget = free_memory(loading) // _SHARE if at_once is None else 0
        self._kept: list[tuple[Checkpoint, HookedModel]] = []
        self._largest = 0

    def __enter__(self) -> "KeptModels":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        while self._kept:
            release(self._kept.pop()[1])

    @contextmanager
    def opened(self, checkpoint: Checkpoint, *, keep: bool = False) -> Iterator[HookedModel]:
        """A checkpoint's model for the length of a `with`, loaded if it was not kept.

        Args:
            checkpoint: Which.
            keep: Whether it is wanted again. It is there still at the next call, unless others
                needed its room.
        """
        if checkpoint.in_memory is not None:
            yield checkpoint.load()
            return
        model = self._taken(checkpoint)
        if model is None:
            self._make_room()
            model = checkpoint.load()
        self._largest = max(self._largest, _size(model))
        kept = False
        try:
            yield model
            if keep:
                self._kept.append((checkpoint, model))
                kept = True
        finally:
            if not kept:
                release(model)

    def kept_first(self, checkpoints: Sequence[Checkpoint]) -> list[int]:
        """The numbers of checkpoints, those first that are loaded, whose use makes room."""
        loaded = [self._place(each) is not None for each in checkpoints]
        return sorted(range(len(checkpoints)), key=lambda k: not loaded[k])

    def _taken(self, checkpoint: Checkpoint) -> HookedModel | None:
        place = self._place(checkpoint)
        return None if place is None else self._kept.pop(place)[1]

    def _place(self, checkpoint: Checkpoint) -> int | None:
        return next(
            (k for k, (each, _) in enumerate(self._kept) if same_model(each, checkpoint)), None
        )

    def _make_room(self) -> None:
        """Let go of what was kept last until one more may be loaded."""
        while self._kept and not self._room_for_one():
            release(self._kept.pop()[1])

    def _room_for_one(self) -> bool:
        if self._at_once is not None:
            return len(self._kept) < self._at_once
        held = sum(_size(model) for _, model in self._kept)
        return held + self._largest <= self._budget


def same_model(one: Checkpoint, other: Checkpoint) -> bool:
    """Whether two checkpoints are loaded to the same model."""
    return one == other and one.tokenizer is other.tokenizer and one.loading == other.loading


def free_memory(loading: Loading) -> int:
    """Bytes that are free where a checkpoint is loaded; 0 where that is not known."""
    spread = loading.device_map is not None
    device = torch.device(loading.device) if loading.device is not None else None
    if torch.cuda.is_available() and (device is None or device.type == "cuda"):
        devices: Any = range(torch.cuda.device_count()) if spread else [device or "cuda"]
        return sum(torch.cuda.mem_get_info(each)[0] for each in devices)
    if device is not None and device.type not in ("cpu", "mps"):
        return 0
    return min(_of_machine(), _of_container())


def _of_machine() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvail"))
    except (OSError, StopIteration):
        pass
    try:
        # What the rest of the machine has taken of it is not known here.
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, OSError, ValueError):
        return 0


def _of_container(folder: Path = Path("/sys/fs/cgroup")) -> int:
    """What a container's limit leaves, where it has one; of what is used, caches can be had."""
    try:
        limit = int((folder / "memory.max").read_text(encoding="ascii"))
        used = int((folder / "memory.current").read_text(encoding="ascii"))
        lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):  # there is none, or it says "max"
        return 1 << 62
    cached = sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
    return max(0, limit - used + cached)


def _size(model: HookedModel) -> int:
    module: Any = model
    tensors = {id(each): each for each in (*module.parameters(), *module.buffers())}
    return sum(each.numel() * each.element_size() for each in tensors.values())
