"""Writing beside a file's place and renaming into it, so that no torn file is ever read."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_beside(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A file to write, which takes its place at the end of the `with`, whole or not at all.

    Raises:
        ValueError: Its folder is not there.
    """
    place = Path(path).expanduser()
    if not place.parent.is_dir():
        raise ValueError(f"No folder {str(place.parent)!r} to write {place.name!r} to. Make it.")
    # The ending stays, since some writers go by it.
    unfinished = place.with_name(f".{uuid.uuid4().hex}-{place.name}")
    try:
        yield unfinished
        os.replace(unfinished, place)
    finally:
        unfinished.unlink(missing_ok=True)


def existing(path: str | os.PathLike[str]) -> Path:
    """A file that is to be read.

    Raises:
        ValueError: It is not there.
    """
    place = Path(path).expanduser()
    if not place.is_file():
        raise ValueError(f"No file {str(path)!r}. Name one that a steering vector was written to.")
    return place
