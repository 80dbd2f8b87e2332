"""Lists and downloads the files of models on the Hugging Face hub.

Everything goes through `huggingface_hub`, with its token for gated models, its cache and its
settings. If `HF_HUB_OFFLINE` is set, only the files in the cache exist for this module.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tlens_trust.checkpoints.weights import (
    WeightFile,
    are_complete,
    check_weights,
    file_sha256,
    git_oid,
    has_tokenizer,
    needed_names,
    weight_names,
)


@dataclass(frozen=True)
class HubFile:
    """One file of a repository.

    Attributes:
        name: Path in the repository.
        size: Bytes.
        oid: Git's hash of the content, or of the pointer where the file is in LFS.
        sha256: SHA-256 of the content where the file is in LFS, else None.
    """

    name: str
    size: int
    oid: str
    sha256: str | None = None

    @property
    def blob(self) -> str:
        """Name of the file's content in the cache."""
        return self.sha256 or self.oid


@dataclass(frozen=True)
class Snapshot:
    """A repository at one commit.

    Attributes:
        model: Model id.
        commit: The commit's hash, which no push can change.
        files: Its files.
    """

    model: str
    commit: str
    files: tuple[HubFile, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the files."""
        return tuple(file.name for file in self.files)

    def weight_files(self) -> tuple[WeightFile, ...]:
        """Return the weight files with the SHA-256s that the hub publishes, without a download."""
        by_name = {file.name: file for file in self.files}
        names = weight_names(by_name)
        check_weights(names, f"{self.model!r} at {self.commit}")
        return tuple(
            WeightFile(name, by_name[name].size, self._sha256(by_name[name])) for name in names
        )

    def config_oid(self) -> str:
        """Git's hash of `config.json`."""
        for file in self.files:
            if file.name == "config.json":
                # In LFS, the oid is that of the pointer and not of the content.
                if file.sha256 is None:
                    return file.oid
                return git_oid(self.fetch_file("config.json").read_bytes())
        raise ValueError(
            f"No config.json in {self.model!r} at {self.commit}. Name a model that transformers "
            "can load."
        )

    def needed(self, *, weights: bool = True, remote_code: bool = False) -> tuple[HubFile, ...]:
        """Return the files that loading needs, with or without the weights."""
        names = set(needed_names(self.names, weights=weights, remote_code=remote_code))
        return tuple(file for file in self.files if file.name in names)

    def is_cached(self, file: HubFile) -> bool:
        """Whether a file's content is in the cache, for this commit or another."""
        folder = _cache_folder(self.model)
        pointer = folder / "snapshots" / self.commit / file.name
        return pointer.exists() or (folder / "blobs" / file.blob).exists()

    def fetch(
        self, revision: str | None, *, weights: bool = True, remote_code: bool = False
    ) -> Path:
        """Download the files that loading needs, and return their folder in the cache.

        Args:
            revision: Branch or tag under whose name the cache records the files.
            weights: Whether to include the weights, and not only the small files.
            remote_code: Whether to include the repository's Python files.

        Raises:
            ValueError: The branch has moved since this snapshot was described.
        """
        folder = _cache_folder(self.model) / "snapshots" / self.commit
        files = self.needed(weights=weights, remote_code=remote_code)
        # Without a request, which could find that the branch has moved.
        if all((folder / file.name).exists() for file in files):
            return folder
        from huggingface_hub import snapshot_download

        with readable_hub_errors(self.model, revision):
            downloaded = snapshot_download(
                # By name and not by commit: the cache then records the name, and finds it offline.
                self.model,
                revision=revision,
                allow_patterns=[file.name for file in files],
            )
        if Path(downloaded).name != self.commit:
            raise ValueError(
                f"{self.model!r} at {revision!r} moved from {self.commit} to "
                f"{Path(downloaded).name} while it was downloaded. Create the series again."
            )
        return Path(downloaded)

    def fetch_file(self, name: str) -> Path:
        """Return the path of one small file, and download it if the cache does not have it."""
        from huggingface_hub import hf_hub_download

        with readable_hub_errors(self.model, self.commit):
            return Path(hf_hub_download(self.model, name, revision=self.commit))

    def _sha256(self, file: HubFile) -> str:
        # The hub publishes no SHA-256 of a file outside LFS. Such files are small.
        return file.sha256 or file_sha256(self.fetch_file(file.name))


def is_offline() -> bool:
    """Whether the user set `HF_HUB_OFFLINE`, so that the hub must not be contacted."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def list_revisions(model: str) -> tuple[str, ...]:
    """List a repository's branches and tags, or, offline, those whose weights are in the cache.

    Raises:
        ValueError: The hub has no such repository, or, offline, nothing of it is in the cache.
        OSError: The hub cannot be reached, or refuses access.
    """
    if is_offline():
        return _cached_revisions(model)
    from huggingface_hub import HfApi

    with readable_hub_errors(model, None):
        # Tags too: BLOOM names its checkpoints by tags.
        refs = HfApi().list_repo_refs(model)
    return tuple(dict.fromkeys(ref.name for ref in (*refs.branches, *refs.tags)))


def describe(model: str, revision: str | None) -> Snapshot:
    """List a repository's files at a revision, with sizes and hashes, without a download.

    Raises:
        ValueError: The hub has no such repository or revision, or, offline, the cache has not.
        OSError: The hub cannot be reached, or refuses access.
    """
    if is_offline():
        return _describe_cached(model, revision)
    from huggingface_hub import HfApi

    with readable_hub_errors(model, revision):
        info = HfApi().model_info(model, revision=revision, files_metadata=True)
    files = tuple(
        HubFile(
            name=sibling.rfilename,
            size=sibling.size or 0,
            oid=sibling.blob_id or "",
            sha256=None if sibling.lfs is None else sibling.lfs.sha256,
        )
        for sibling in info.siblings or ()
    )
    return Snapshot(model, str(info.sha), files)


def tokenizer_folder(snapshot: Snapshot, revision: str | None) -> Path | None:
    """Download the tokenizer of a revision, or of the main branch if the revision has none.

    Returns:
        The folder that holds it; None if there is no tokenizer.
    """
    if has_tokenizer(snapshot.names):
        return snapshot.fetch(revision, weights=False)
    try:
        main = describe(snapshot.model, None)
    except ValueError:  # offline, and the cache does not hold the main branch
        return None
    return main.fetch(None, weights=False) if has_tokenizer(main.names) else None


@contextmanager
def readable_hub_errors(model: str, revision: str | None) -> Iterator[None]:
    """Turn the hub's errors into messages that say what to do."""
    from huggingface_hub import errors

    model_and_revision = repr(model) if revision is None else f"{model!r} at {revision!r}"
    try:
        yield
    # Before RepositoryNotFoundError, of which it is a subclass.
    except errors.GatedRepoError as error:
        raise OSError(
            f"{model_and_revision} is gated, and the hub refuses access to it. Ask for access on "
            "its page, then run `hf auth login` or set HF_TOKEN."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ValueError(
            f"The hub has no revision {revision!r} of {model!r}. List them with "
            f"`tlens-trust checkpoints {model}`."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ValueError(
            f"The hub has no model {model!r}, or it is private. Write it as 'organisation/name'. "
            "For a private model, run `hf auth login` or set HF_TOKEN."
        ) from error
    except errors.HFValidationError as error:
        raise ValueError(
            f"{model!r} is not a model id of the hub. Write it as 'organisation/name', or name a "
            "folder that exists."
        ) from error
    # These say themselves what went wrong.
    except (errors.EntryNotFoundError, errors.HfHubHTTPError):
        raise
    except Exception as error:
        # huggingface_hub has changed its HTTP library twice, so the connection errors are
        # recognised by the name of a base class and not imported.
        if not any(kind.__name__ == "TransportError" for kind in type(error).__mro__):
            raise
        raise OSError(
            f"The hub could not be reached for {model_and_revision}: {error}. Try again, or set "
            "HF_HUB_OFFLINE=1 to use what is in the cache."
        ) from error


def _cache_folder(model: str) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    name = repo_folder_name(repo_id=model, repo_type="model")
    return Path(constants.HF_HUB_CACHE) / name


def _cached_revisions(model: str) -> tuple[str, ...]:
    refs = _cache_folder(model) / "refs"
    # A branch with a slash in its name is a file in a subfolder.
    names = sorted(p.relative_to(refs).as_posix() for p in refs.rglob("*") if p.is_file())
    revisions = tuple(name for name in names if _has_weights(model, name))
    if not revisions:
        raise ValueError(
            f"Nothing of {model!r} is in the cache, and HF_HUB_OFFLINE is set. Download it where "
            "there is a network, or unset HF_HUB_OFFLINE."
        )
    return revisions


def _has_weights(model: str, revision: str) -> bool:
    try:
        return are_complete(weight_names(_describe_cached(model, revision).names))
    except ValueError:
        return False


def _describe_cached(model: str, revision: str | None) -> Snapshot:
    folder = _cache_folder(model)
    ref = folder / "refs" / (revision or "main")
    # A commit has no ref, and is itself the name of a snapshot's folder.
    commit = ref.read_text().strip() if ref.is_file() else revision or "main"
    snapshot = folder / "snapshots" / commit
    if not snapshot.is_dir():
        model_and_revision = repr(model) if revision is None else f"{model!r} at {revision!r}"
        raise ValueError(
            f"{model_and_revision} is not in the cache, and HF_HUB_OFFLINE is set. Download it "
            "where there is a network, or unset HF_HUB_OFFLINE."
        )
    # A link may point at a file that was never finished or has been deleted.
    paths = [path for path in sorted(snapshot.iterdir()) if path.is_file()]
    return Snapshot(model, commit, tuple(_cached_file(path) for path in paths))


def _cached_file(path: Path) -> HubFile:
    size = path.stat().st_size
    blob = path.resolve().name
    # The cache names a file in LFS by its SHA-256, of 64 digits, and others by git's hash. In a
    # cache that was copied without links, a file keeps its own name.
    if weight_names([path.name]) or len(blob) == 64:
        return HubFile(path.name, size, "", file_sha256(path))
    return HubFile(path.name, size, git_oid(path.read_bytes()))
