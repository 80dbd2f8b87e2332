"""Paths of vector files, checked before a file is written or read."""

import os
from pathlib import Path


def writable(path: str | os.PathLike[str]) -> Path:
    """Expand the path of a file that is to be written.

    Raises:
        ValueError: Its folder is not there.
    """
    place = Path(path).expanduser()
    if not place.parent.is_dir():
        raise ValueError(f"No folder {str(place.parent)!r} to write {place.name!r} to. Make it.")
    return place


def existing(path: str | os.PathLike[str]) -> Path:
    """A file that is to be read.

    Raises:
        ValueError: It is not there.
    """
    place = Path(path).expanduser()
    if not place.is_file():
        raise ValueError(f"No file {str(path)!r}. Name one that a steering vector was written to.")
    return place
