"""Keeps activations on disk, so that no statement is read twice.

An entry is found by its content address: the SHA-256 of everything that the activations depend on.
It is in one or more safetensors files with one tensor per site. New sites of an entry go to a new
file, and only the tensors of the requested sites are loaded. Every tensor is stored with a SHA-256
of its values, its entry and its site. A file that does not match its hashes is removed.

Files are written under a temporary name and then renamed, so that several processes may share a
store. A process sees a whole file or none, and two processes that write the same entry write the
same content.
"""

import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tlens_trust.activations.positions import Position
from tlens_trust.files import remove_abandoned, replaced_file

# A part of every key, so that files of another format are not found.
_FORMAT = "tlens-trust-activations-1"


@dataclass(frozen=True)
class ActivationKey:
    """Everything that activations depend on, apart from the site.

    Attributes:
        checkpoint: `Checkpoint.identity`, a hash of the weights' content.
        tokenizer: `tokenizer_identity` of the model's tokenizer.
        bos: The setting that `collect_activations` takes.
        backend: The backend that runs the model, with the releases of its libraries.
        dtype: The model's number format.
        position: The position that `collect_activations` takes.
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
    """A folder of activations of limited size, which processes can share.

    `ActivationKey` lists what identifies an entry. The batch budget, the padding side, the device
    and the number of threads are left out, since they change activations by less than 1e-4 of their
    size. So activations that were collected on a GPU can be used on a laptop.

    Args:
        folder: The folder; None for `activations` in this package's cache folder, which the
            environment variable `TLENS_TRUST_CACHE` moves.
        max_gb: Largest size in GB (10⁹ bytes). The entries used least recently are removed first.

    Raises:
        ValueError: `max_gb` is not positive.

    Examples:
        >>> import tempfile
        >>> ActivationStore(tempfile.mkdtemp(), max_gb=1).n_bytes
        0
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, *, max_gb: float | int = 20.0):
        size: object = max_gb
        # `not … > 0` refuses NaN as well.
        if isinstance(size, bool) or not isinstance(size, Real) or not float(size) > 0:
            raise ValueError(
                f"`max_gb` is the largest size of the store and must be positive, got {max_gb!r}. "
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
        """Size of the store in bytes."""
        return sum(size for _, size, _ in self._files())

    def facts(self, key: ActivationKey) -> dict[str, Any] | None:
        """Return the facts stored with an entry, such as the model's shape; None if absent."""
        for path in self._parts(key):
            with suppress(OSError, SafetensorError, ValueError):
                facts: dict[str, Any] = json.loads(_header(path, key)["facts"])
                return facts
        return None

    def read(
        self, key: ActivationKey, sites: Sequence[str]
    ) -> dict[str, Float[Tensor, "example d_model"]]:
        """Load sites of an entry.

        Args:
            key: The key of the entry.
            sites: Site names.

        Returns:
            The activations by site, for those sites that the store holds. Files that are torn or
            altered are removed.
        """
        # Sites of one entry may be in several files, and in more than one of them.
        requested = set(sites)
        values_by_site: dict[str, Tensor] = {}
        for path in self._parts(key):
            if not requested - values_by_site.keys():
                break
            try:
                values_in_file = _read_part(path, key, requested - values_by_site.keys())
                if values_in_file:
                    os.utime(path)  # the time of last use
            except OSError:  # another process removed it
                continue
            except (SafetensorError, ValueError):
                with suppress(OSError):
                    path.unlink()
                continue
            values_by_site.update(values_in_file)
        return values_by_site

    def write(
        self,
        key: ActivationKey,
        values_by_site: Mapping[str, Float[Tensor, "example d_model"]],
        *,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Store sites of an entry, and remove the least recently used files if there is no room.

        Args:
            key: The key of the entry.
            values_by_site: Activations by site. Finite.
            facts: Facts to store with the entry, such as the model's shape. They become JSON.
        """
        limit = int(self.max_gb * 1e9)
        # Checked before writing, or this file would push out all others.
        size = sum(values.numel() * values.element_size() for values in values_by_site.values())
        if size > limit:
            warnings.warn(
                f"{size / 1e9:.2g} GB of activations are more than {self!r} may hold, so they are "
                "not kept. Raise `max_gb`.",
                stacklevel=2,
            )
            return
        # safetensors refuses tensors that are not contiguous.
        tensors = {site: values.contiguous() for site, values in values_by_site.items()}
        facts_text = json.dumps(dict(facts or {}), sort_keys=True)
        digests = {site: _digest(key, site, row, facts_text) for site, row in tensors.items()}
        header = {"key": _text(key), "facts": facts_text, "digests": json.dumps(digests)}
        path = self._path(key, list(values_by_site))
        try:
            with replaced_file(path) as unfinished:
                save_file(tensors, unfinished, metadata=header)
        except PermissionError:
            # Windows cannot replace a file that another process has open. That file holds the same.
            if not path.exists():
                raise
        self._evict(limit, keep=path)

    def _path(self, key: ActivationKey, sites: Sequence[str]) -> Path:
        # The same sites go to the same file, so processes that read them at once do not store them
        # twice.
        part = hashlib.sha256(json.dumps(list(sites)).encode()).hexdigest()[:16]
        return self.folder / key.digest[:2] / f"{key.digest}-{part}.safetensors"

    def _parts(self, key: ActivationKey) -> list[Path]:
        return sorted((self.folder / key.digest[:2]).glob(f"{key.digest}-*.safetensors"))

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        for path in self.folder.glob("*/*.safetensors"):
            with suppress(FileNotFoundError):  # another process removed it
                stat = path.stat()
                yield stat.st_mtime, stat.st_size, path

    def _evict(self, limit: int, *, keep: Path) -> None:
        remove_abandoned(self.folder)
        # The time of last use comes first in each entry.
        files = sorted(self._files())
        total = sum(size for _, size, _ in files)
        for _, size, path in files:
            if total <= limit:
                return
            # The file just written stays, or writing it would have been of no use.
            if path != keep:
                with suppress(OSError):  # removed already, or open in another process on Windows
                    path.unlink()
                total -= size


def _text(key: ActivationKey) -> str:
    return json.dumps([_FORMAT, asdict(key)], sort_keys=True)


def _header(path: Path, key: ActivationKey) -> dict[str, str]:
    """Load the header of one file.

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


def _read_part(path: Path, key: ActivationKey, requested: set[str]) -> dict[str, Tensor]:
    """Load the requested sites of one file.

    Raises:
        OSError: The file cannot be read.
        SafetensorError: It is torn.
        ValueError: It belongs to something else, or it was altered.
    """
    with safe_open(path, framework="numpy") as file:
        header = _checked_header(file, path, key)
        names_in_file = set(file.keys())
        values_by_site = {
            site: torch.from_numpy(file.get_tensor(site))
            for site in sorted(requested & names_in_file)
        }
    digests = json.loads(header["digests"])
    for site, values in values_by_site.items():
        if digests.get(site) != _digest(key, site, values, header["facts"]):
            raise ValueError(f"{path} was altered")
    return values_by_site


def _digest(key: ActivationKey, site: str, values: Tensor, facts_text: str) -> str:
    # With the entry and the site, since a whole file or tensor may have been put in another's
    # place.
    description = [key.digest, site, str(values.dtype), list(values.shape), facts_text]
    digest = hashlib.sha256(json.dumps(description).encode())
    digest.update(values.contiguous().numpy().data)
    return digest.hexdigest()
