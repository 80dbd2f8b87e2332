"""The one way to write a file: beside its place, flushed to the disk, then renamed into its place.

A reader finds the old content or the new one, never a part of it, even after a crash. Several
processes may write to one place: each writes to a temporary name of its own, and the last to finish
wins. Files and folders get the permissions that the user's umask allows.
"""

import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# A younger file may belong to a process that is still writing.
_ABANDONED_AFTER = 24 * 60 * 60  # seconds


def write_file(path: str | os.PathLike[str], content: str | bytes) -> str:
    """Write a text (in UTF-8) or bytes to a file, and replace what was there.

    Args:
        path: The file. Folders that are missing are made.
        content: All that the file will hold.

    Returns:
        SHA-256 of the bytes that were written.
    """
    data = content.encode() if isinstance(content, str) else content
    with replaced_file(path) as unfinished:
        unfinished.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


@contextmanager
def replaced_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary file, which takes the place of `path` at the end of the `with`.

    After an error inside the `with`, the temporary file is removed and `path` is as it was.

    Args:
        path: The file. Folders that are missing are made.

    Yields:
        An empty file in the same folder, for a library that writes to a path.
    """
    place = Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    unfinished = _temporary_path(place)
    try:
        # The file is made here, and not by the library that fills it, to learn which permissions
        # the umask gives to a new file.
        with open(unfinished, "xb") as file:
            mode = os.fstat(file.fileno()).st_mode
        yield unfinished
        _settle(unfinished, mode & 0o777)
        # The content is flushed before the rename. Otherwise a crash could leave an empty file in
        # place.
        os.replace(unfinished, place)
        _flush_folder(place.parent)
    finally:
        # After a rename there is nothing to remove.
        unfinished.unlink(missing_ok=True)


@contextmanager
def replaced_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder, which takes the place of `path` at the end of the `with`.

    After an error inside the `with`, the temporary folder is removed and `path` is as it was.

    Args:
        path: The folder. Folders above it that are missing are made.

    Yields:
        An empty folder of the same name, in a hidden folder beside `path`.
    """
    place = Path(path)
    # One level deeper, so that whoever lists the folders beside `path` finds no half-written model.
    hidden = _temporary_path(place)
    unfinished, replaced = hidden / place.name, hidden / "replaced"
    try:
        unfinished.mkdir(parents=True)
        # The new folder shows what the umask allows. Files get the same, without the right to
        # execute.
        mode = unfinished.stat().st_mode & 0o666
        yield unfinished
        for member in unfinished.rglob("*"):
            if member.is_file():
                _settle(member, mode)
        # A folder cannot be renamed onto another one that holds something.
        with suppress(FileNotFoundError):
            os.replace(place, replaced)
        try:
            os.replace(unfinished, place)
        except BaseException:
            # Ctrl-C between the two renames must not lose the old folder either.
            with suppress(OSError):
                os.replace(replaced, place)
            raise
        _flush_folder(place.parent)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def remove_abandoned(folder: str | os.PathLike[str]) -> None:
    """Remove temporary files and folders of processes that were killed a day ago or longer.

    Args:
        folder: Where to look, at any depth.
    """
    for parent, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(parent, name)
            if not (name.startswith(".") and name.endswith(".tmp")):
                continue
            with suppress(OSError):
                # Another process may remove it at the same time, which is no error.
                if time.time() - path.stat().st_mtime > _ABANDONED_AFTER:
                    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()


def _temporary_path(place: Path) -> Path:
    # It is in the same folder, since a rename is atomic only within one file system. A random name
    # is not shared by processes of several machines, as a process id may be.
    return place.with_name(f".{uuid.uuid4().hex}.tmp")


def _settle(file: Path, mode: int) -> None:
    """Flush a file to the disk; some libraries (safetensors) make it private to its owner."""
    # It is opened for writing, since Windows flushes no file that is open for reading only.
    with open(file, "r+b") as content:
        os.fsync(content.fileno())
    file.chmod(mode)


def _flush_folder(folder: Path) -> None:
    # Windows opens no folder, and some network file systems do not flush one.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
