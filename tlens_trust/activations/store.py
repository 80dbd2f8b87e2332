"""Activations kept on disk, so that what was read once is not read again.

An entry is found by its content address: the SHA-256 of everything that changes a reading. It
lies in one or more safetensors files, each holding some sites, one tensor a site; asking for
further sites adds a file, and asking for fewer reads only those tensors. Every tensor is stored
with its own SHA-256, which also covers the entry and the site it belongs to: what does not match
is removed and counts as absent.

Files are written beside their place and renamed into it, so that several processes may share a
store: a reader sees a whole file or none, and two that write the same entry write the same thing.
"""

import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tlens_trust.activations.positions import Position
from tlens_trust.files import remove_abandoned, replaced_file

_FORMAT = "tlens-trust-activations-1"


@dataclass(frozen=True)
class ActivationKey:
    """Everything that changes a reading, beside the site.

    Attributes:
        checkpoint: `Checkpoint.identity`, a hash of the weights' content.
        tokenizer: `tokenizer_identity` of the model's tokenizer.
        bos: As `collect_activations` takes it.
        backend: What runs the model, with the version of each part.
        dtype: What the model computes in.
        position: As `collect_activations` takes it.
        statements: Fingerprint of the texts in their order.
    """

    checkpoint: str
    tokenizer: str
    bos: bool | None
    backend: str
    dtype: str
    position: Position
    statements: str

    @property
    def digest(self) -> str:
        """The entry's content address."""
        return hashlib.sha256(_text(self).encode()).hexdigest()


class ActivationStore:
    """A folder of activations, of bounded size, safe to share between processes.

    What the entry is keyed by is in `ActivationKey`. The batch budget, the padding side, the
    device and the number of threads are no part of it: they move a reading by less than 1e-4 of
    its size, so that what a GPU read can be used on a laptop.

    Args:
        folder: Where; None for `activations` in this package's cache folder, which the
            environment variable `TLENS_TRUST_CACHE` moves.
        max_gb: How much it may hold, in 10⁹ bytes. What was used least recently goes first.

    Raises:
        ValueError: `max_gb` is not positive.

    Examples:
        >>> import tempfile
        >>> ActivationStore(tempfile.mkdtemp(), max_gb=1).n_bytes
        0
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, *, max_gb: float | int = 20.0):
        if not max_gb > 0:
            raise ValueError(
                f"`max_gb` is how much the store may hold and must be positive, got {max_gb}. "
                "To keep nothing, pass store=None where activations are collected."
            )
        if folder is None:
            from tlens_trust.checkpoints.cache import cache_folder

            folder = cache_folder() / "activations"
        self.folder = Path(folder)
        self.max_gb = float(max_gb)

    def __repr__(self) -> str:
        return f"ActivationStore({str(self.folder)!r}, max_gb={self.max_gb:g})"

    @property
    def n_bytes(self) -> int:
        """What the store holds now, in bytes."""
        return sum(size for _, size, _ in self._files())

    def facts(self, key: ActivationKey) -> dict[str, Any] | None:
        """What was noted beside an entry, such as the model's shape; None where there is none."""
        for path in self._parts(key):
            with suppress(OSError, SafetensorError, ValueError):
                facts: dict[str, Any] = json.loads(_header(path, key)["facts"])
                return facts
        return None

    def read(
        self, key: ActivationKey, sites: Sequence[str]
    ) -> dict[str, Float[Tensor, "example d_model"]]:
        """Take sites out of an entry.

        Args:
            key: What was read.
            sites: Site names.

        Returns:
            The readings of those sites that the store holds whole; nothing where it holds none
            of them. What was torn or altered is removed.
        """
        wanted = set(sites)
        found: dict[str, Tensor] = {}
        for path in self._parts(key):
            if not wanted - found.keys():
                break
            try:
                taken = _read_part(path, key, wanted - found.keys())
                if taken:
                    os.utime(path)  # the time of last use
            except OSError:  # gone: another process let go of it
                continue
            except (SafetensorError, ValueError):
                with suppress(OSError):
                    path.unlink()
                continue
            found.update(taken)
        return found

    def write(
        self,
        key: ActivationKey,
        readings: Mapping[str, Float[Tensor, "example d_model"]],
        *,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep sites of an entry, and let go of what was used least recently if need be.

        Args:
            key: What was read.
            readings: By site, finite.
            facts: What to note beside them, as JSON holds it.
        """
        limit = int(self.max_gb * 1e9)
        size = sum(values.numel() * values.element_size() for values in readings.values())
        if size > limit:
            warnings.warn(
                f"{size / 1e9:.2g} GB of activations are more than {self!r} may hold, and are not "
                "kept. Raise `max_gb`.",
                stacklevel=2,
            )
            return
        tensors = {site: values.contiguous() for site, values in readings.items()}
        noted = json.dumps(dict(facts or {}), sort_keys=True)
        digests = {site: _digest(key, site, row, noted) for site, row in tensors.items()}
        header = {"key": _text(key), "facts": noted, "digests": json.dumps(digests)}
        path = self._path(key, list(readings))
        try:
            with replaced_file(path) as unfinished:
                save_file(tensors, unfinished, metadata=header)
        except PermissionError:
            # Windows does not replace a file that another process reads. That one is as good.
            if not path.exists():
                raise
        self._evict(limit, keep=path)

    def _path(self, key: ActivationKey, sites: Sequence[str]) -> Path:
        part = hashlib.sha256(json.dumps(list(sites)).encode()).hexdigest()[:16]
        return self.folder / key.digest[:2] / f"{key.digest}-{part}.safetensors"

    def _parts(self, key: ActivationKey) -> list[Path]:
        return sorted((self.folder / key.digest[:2]).glob(f"{key.digest}-*.safetensors"))

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        for path in self.folder.glob("*/*.safetensors"):
            with suppress(FileNotFoundError):  # another process let go of it
                stat = path.stat()
                yield stat.st_mtime, stat.st_size, path

    def _evict(self, limit: int, *, keep: Path) -> None:
        remove_abandoned(self.folder)
        files = sorted(self._files())
        total = sum(size for _, size, _ in files)
        for _, size, path in files:
            if total <= limit:
                return
            if path != keep:
                with suppress(OSError):  # gone already, or being read on Windows
                    path.unlink()
                total -= size


def _text(key: ActivationKey) -> str:
    return json.dumps([_FORMAT, asdict(key)], sort_keys=True)


def _header(path: Path, key: ActivationKey) -> dict[str, str]:
    """The header of one file.

    Raises:
        OSError: The file cannot be read.
        SafetensorError: It is torn.
        ValueError: It belongs to something else.
    """
    with safe_open(path, framework="numpy") as file:
        return _checked_header(file, path, key)


def _checked_header(file: Any, path: Path, key: ActivationKey) -> dict[str, str]:
    header: dict[str, str] = file.metadata() or {}
    if header.get("key") != _text(key) or not header.keys() >= {"facts", "digests"}:
        raise ValueError(f"{path} does not hold what its name says")
    return header


def _read_part(path: Path, key: ActivationKey, wanted: set[str]) -> dict[str, Tensor]:
    """Wanted sites of one file; raises as `_header` does, `ValueError` for altered contents."""
    with safe_open(path, framework="numpy") as file:
        header = _checked_header(file, path, key)
        here = set(file.keys())
        taken = {site: torch.from_numpy(file.get_tensor(site)) for site in sorted(wanted & here)}
    digests = json.loads(header["digests"])
    for site, values in taken.items():
        if digests.get(site) != _digest(key, site, values, header["facts"]):
            raise ValueError(f"{path} was altered")
    return taken


def _digest(key: ActivationKey, site: str, values: Tensor, noted: str) -> str:
    what = [key.digest, site, str(values.dtype), list(values.shape), noted]
    digest = hashlib.sha256(json.dumps(what).encode())
    digest.update(values.contiguous().numpy().data)
    return digest.hexdigest()
