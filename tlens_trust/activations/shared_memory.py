"""Activations that another process takes over without a copy.

They lie in a file that both processes map into their memory, on a file system in memory where there
is room on one, so that no activation passes through a pipe.
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
_STALE_AFTER = 24 * 60 * 60  # seconds until a file that nobody removed counts as abandoned


@dataclass(frozen=True)
class SharedActivations:
    """Where activations lie that another process may open. Can be pickled.

    Attributes:
        path: The file, which holds the values site by site and nothing else.
        shape: Statements, sites and width.
        dtype: Of the values.
        sites: As in `Activations`, and so are the following.
        checkpoint: Without its weights or tokenizer where these are in memory.
        concept: What was read.
        position: Which token was read.
        n_layers: Blocks of the model.
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
            activations: What to hand over.
            folder: Where; None for the shared memory of this machine, or the folder of temporary
                files where there is not room for twice as much.

        Raises:
            OSError: There is no room for them.
        """
        values = activations.values.transpose(0, 1)
        if folder is None:
            folder = _roomy_folder(values.nbytes)
        handle, name = tempfile.mkstemp(prefix=_PREFIX, suffix=".activations", dir=folder)
        path = Path(name)
        try:
            # A disk that is full is an error here, and a signal when a mapped page is written to.
            with open(handle, "wb"):
                if hasattr(os, "posix_fallocate") and values.nbytes:
                    os.posix_fallocate(handle, 0, values.nbytes)
            _mapped(path, tuple(values.shape), values.dtype).copy_(values)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        checkpoint = activations.checkpoint
        if checkpoint is not None:
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
        """The activations, their values mapped from the file.

        Raises:
            FileNotFoundError: The file is not there, or not on this machine.
        """
        if not self.path.is_file():
            raise FileNotFoundError(
                f"The activations in {str(self.path)!r} are not there. They are handed over "
                "within one machine, or through a run folder that all machines see: pass `out=`."
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
        """Remove the file; who has it open keeps the values."""
        self.path.unlink(missing_ok=True)


def remove_abandoned(folder: str | os.PathLike[str] | None = None) -> None:
    """Remove files of processes that were killed, once they are a day old.

    Args:
        folder: As for `SharedActivations.write`.
    """
    places = (_SHARED_MEMORY, Path(tempfile.gettempdir())) if folder is None else (Path(folder),)
    for place in places:
        for path in place.glob(f"{_PREFIX}*.activations"):
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
    if not numbers:
        return torch.empty(shape, dtype=dtype)
    flat = torch.from_file(str(path), shared=True, size=numbers, dtype=dtype)
    return flat.reshape(shape)
