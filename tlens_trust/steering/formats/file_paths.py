"""Paths of vector files, checked before a file is written or read."""

import os
from pathlib import Path


def path_to_write(path: str | os.PathLike[str]) -> Path:
    """Expand the path of a file to write.

    Raises:
        ValueError: Its folder does not exist.
    """
    file = Path(path).expanduser()
    if not file.parent.is_dir():
        raise ValueError(f"No folder {str(file.parent)!r} to write {file.name!r} to. Make it.")
    return file


def path_to_read(path: str | os.PathLike[str]) -> Path:
    """Expand the path of a file to read.

    Raises:
        ValueError: It does not exist.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise ValueError(f"No file {str(path)!r}. Name one that a steering vector was written to.")
    return file
