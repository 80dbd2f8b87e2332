"""Hands activations to another process without a copy.

They are in a file that both processes map into their memory, so that no activation passes through a
pipe. The file is on a file system in memory if that has room.
"""

import os
import shutil
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from tlens_trust.activations.activations import Activations
from tlens_trust.activations.positions import Position
from tlens_trust.checkpoints import Checkpoint
from tlens_trust.concepts import Concept

_PREFIX = "tlens-trust-"
_SHARED_MEMORY = Path("/dev/shm")
_STALE_AFTER = 24 * 60 * 60  # seconds until a file that was not removed counts as abandoned


@dataclass(frozen=True)
class SharedActivations:
    """A file of activations that another process can open. This description can be pickled.

    Attributes:
        path: The file, which holds the values site by site and nothing else.
        shape: Numbers of statements and sites, and the width.
        dtype: Number format of the values.
        sites: Site names, as in `Activations`.
        checkpoint: The checkpoint, without a model or tokenizer in memory.
        concept: The concept of the statements.
        position: The token position that was read.
        n_layers: Number of blocks of the model.
    """

    path: Path
    shape: tuple[int, int, int]
    dtype: torch.dtype
    sites: tuple[str, ...]
    checkpoint: Checkpoint | None
    concept: Concept | None
    position: Position
    n_layers: int | None

    @classmethod
    def write(
        cls, activations: Activations, folder: str | os.PathLike[str] | None = None
    ) -> "SharedActivations":
        """Write activations to a file of their own.

        Args:
            activations: The activations to hand over.
            folder: Folder of the file; None for the shared memory of this machine, or for the
                folder of temporary files where shared memory has no room for twice as much.

        Raises:
            OSError: The disk is full.
        """
        # Site by site, as `Activations` holds them in memory.
        values = activations.values.transpose(0, 1)
        if folder is None:
            folder = _roomy_folder(values.nbytes)
        handle, name = tempfile.mkstemp(prefix=_PREFIX, suffix=".activations", dir=folder)
        path = Path(name)
        try:
            # Without this, a full disk would kill the process with a signal at a later write.
            with open(handle, "wb"):
                if hasattr(os, "posix_fallocate") and values.nbytes:
                    os.posix_fallocate(handle, 0, values.nbytes)
            _mapped(path, tuple(values.shape), values.dtype).copy_(values)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        checkpoint = activations.checkpoint
        if checkpoint is not None:
            # A description is sent through a pipe, where a model would be copied whole.
            checkpoint = replace(checkpoint, in_memory=None, tokenizer=None)
        examples, sites, width = activations.values.shape
        return cls(
            path,
            (examples, sites, width),
            values.dtype,
            activations.sites,
            checkpoint,
            activations.concept,
            activations.position,
            activations.n_layers,
        )

    def open(self) -> Activations:
        """Open the activations, with their values mapped from the file.

        Raises:
            FileNotFoundError: The file does not exist on this machine.
        """
        if not self.path.is_file():
            raise FileNotFoundError(
                f"There is no file {str(self.path)!r} of activations. They are handed over within "
                "one machine, or through a run folder that all machines share: pass `out=`."
            )
        examples, sites, width = self.shape
        values = _mapped(self.path, (sites, examples, width), self.dtype)
        return Activations(
            values.transpose(0, 1),
            self.sites,
            self.checkpoint,
            self.concept,
            self.position,
            self.n_layers,
        )

    def remove(self) -> None:
        """Remove the file. Activations that are open already keep their values."""
        self.path.unlink(missing_ok=True)


def remove_abandoned(folder: str | os.PathLike[str] | None = None) -> None:
    """Remove the files of killed processes after a day.

    Args:
        folder: The folder that was given to `SharedActivations.write`.
    """
    places = (_SHARED_MEMORY, Path(tempfile.gettempdir())) if folder is None else (Path(folder),)
    for place in places:
        for path in place.glob(f"{_PREFIX}*.activations"):
            # Another process may have removed it, and a file of another user cannot be removed.
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _STALE_AFTER:
                    path.unlink()


def _roomy_folder(n_bytes: int) -> Path:
    with suppress(OSError):
        if shutil.disk_usage(_SHARED_MEMORY).free >= 2 * n_bytes:
            return _SHARED_MEMORY
    return Path(tempfile.gettempdir())


def _mapped(path: Path, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    numbers = torch.Size(shape).numel()
    # An empty file cannot be mapped into memory.
    if not numbers:
        return torch.empty(shape, dtype=dtype)
    flat = torch.from_file(str(path), shared=True, size=numbers, dtype=dtype)
    return flat.reshape(shape)
