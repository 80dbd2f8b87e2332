"""Read a benchmark's rows from their source: a file, an address, a folder or the Hugging Face hub.

`huggingface_hub` resolves a revision on the hub to a commit before anything is read; its cache,
token and offline mode are used as they are. Then `datasets` reads the rows. `datasets.load_dataset`
is not used with the name: without a connection it reads whichever version is cached, whatever
revision was requested.
"""

import os
import re
import urllib.request
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from tlens_trust.concepts.tables import Table, missing_file, read_file

_TIMEOUT = 30.0  # seconds
_FROM_0 = "counted from 0 within the split"


def is_address(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is an address on the web rather than a file."""
    return isinstance(path, str) and bool(re.match(r"https?://", path, re.IGNORECASE))


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The content of a file, or of what an http or https address answers.

    Raises:
        ValueError: The address answers with a web page.
        OSError: No such file, or no answer.
    """
    if not is_address(path):
        return read_file(path)
    request = urllib.request.Request(str(path), headers={"User-Agent": "tlens-trust"})
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
        content: bytes = answer.read()
    # The address of a page about a file is a likely mistake, and its HTML might parse as CSV.
    if content.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        raise ValueError(
            f"{path} is a web page, not a file. On GitHub, take the address behind 'Raw' "
            f"(https://raw.githubusercontent.com/…)."
        )
    return content


def read_hub(
    repository: str, *, config: str, folder: str, split: str, revision: str | None
) -> tuple[Table, str]:
    """Rows of one split of a data set on the hub, and the commit that they are of.

    Args:
        repository: As `owner/name`.
        config: Configuration of the data set.
        folder: Where the repository keeps that configuration's Parquet files.
        split: Name of the split.
        revision: Branch, tag, or commit; None for the newest.

    Raises:
        ValueError: This revision holds no Parquet files of that configuration and split.
        OSError: The hub cannot be reached, and its cache does not hold the revision.
    """
    from huggingface_hub import snapshot_download

    patterns = _layouts(config, folder, split)
    try:
        snapshot = Path(
            snapshot_download(
                repository, repo_type="dataset", revision=revision, allow_patterns=patterns
            )
        )
    except Exception as error:
        error.add_note(
            f"Asked for revision {revision or 'main'!r} of the data set {repository!r} on the hub. "
            f"Without a connection, give a copy of its files as `path=`."
        )
        raise
    files = sorted(file for pattern in patterns for file in snapshot.glob(pattern))
    if not files:
        raise ValueError(
            f"Revision {revision or 'main'!r} of {repository!r} ({snapshot.name}) holds no Parquet "
            f"files of configuration {config!r} and split {split!r}. Choose another split, or a "
            f"newer revision: early ones hold a script, which is not run."
        )
    source = f"{repository!r} on the hub, configuration {config!r}, split {split!r}"
    # The cache names a snapshot's folder after its commit.
    return _parquet_table(files, source), snapshot.name


def read_folder(path: Path, *, config: str, folder: str, split: str) -> Table | None:
    """Rows of a copy of a hub data set on disk, or of what `Dataset.save_to_disk` wrote.

    Returns:
        None where the folder holds neither.

    Raises:
        ValueError: A data set without that split.
    """
    source = f"{os.fspath(path)!r}, split {split!r}"
    # The files that `Dataset.save_to_disk` leaves, for several splits and for one.
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        import datasets

        dataset = datasets.load_from_disk(os.fspath(path))
        if isinstance(dataset, datasets.DatasetDict):
            if split not in dataset:
                raise ValueError(
                    f"No split {split!r} in {os.fspath(path)!r}, which has: "
                    f"{', '.join(map(repr, dataset))}. Choose one with `split=`."
                )
            dataset = dataset[split]
        rows = tuple(range(len(dataset)))
        return Table(dataset.to_dict(), rows, source, _FROM_0)
    for pattern in _layouts(config, folder, split):
        if files := sorted(path.glob(pattern)):
            return _parquet_table(files, f"{source}, configuration {config!r}")
    # Last, since a file in the folder itself does not say of which configuration it is.
    if files := sorted(path.glob(f"{split}*.parquet")):
        return _parquet_table(files, source)
    return None


def read_parquet(path: str | os.PathLike[str]) -> Table:
    """Rows of one Parquet file, counted from 0."""
    if not Path(path).is_file():
        raise missing_file(path)
    return _parquet_table([Path(path)], repr(os.fspath(path)))


def sibling(path: str | os.PathLike[str], name: str) -> str | Path:
    """The file or address of another name in the same folder."""
    if is_address(path):
        # A query, such as a token, belongs to the neighbour's address too.
        head, mark, query = str(path).partition("?")
        return str(head).rpartition("/")[0] + "/" + name + mark + query
    return Path(path).with_name(name)


def file_name(path: str | os.PathLike[str]) -> str:
    """The last part of a path or an address."""
    if is_address(path):
        return PurePosixPath(str(path).partition("?")[0]).name
    return Path(path).name


def _layouts(config: str, folder: str, split: str) -> list[str]:
    # As the repository lays its files out, and as the hub's own conversion (the revision
    # `refs/convert/parquet`) does.
    return [f"{folder}/{split}-*.parquet", f"{config}/{split}/*.parquet"]


def _parquet_table(files: Sequence[Path], source: str) -> Table:
    import datasets

    dataset = datasets.Dataset.from_parquet([os.fspath(file) for file in files])
    return Table(dataset.to_dict(), tuple(range(len(dataset))), source, _FROM_0)
