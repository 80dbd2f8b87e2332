"""What the hub has of a model, and what of it lies in the cache already.

Everything goes through `huggingface_hub`: its token for gated models, its cache, its settings.
With `HF_HUB_OFFLINE` set, what the cache holds is what there is.
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
        """What the file is called in the cache."""
        return self.sha256 or self.oid


@dataclass(frozen=True)
class Snapshot:
    """A repository at one commit.

    Attributes:
        model: Model id.
        commit: The commit's hash, which no push can change.
        files: What it holds.
    """

    model: str
    commit: str
    files: tuple[HubFile, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the files."""
        return tuple(file.name for file in self.files)

    def weight_files(self) -> tuple[WeightFile, ...]:
        """The weight files with their SHA-256, as the hub knows them without a download."""
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
                if file.sha256 is None:
                    return file.oid
                return git_oid(self.fetch_file("config.json").read_bytes())
        raise ValueError(
            f"No config.json in {self.model!r} at {self.commit}. Name a model that transformers "
            "can load."
        )

    def needed(self, *, weights: bool = True, remote_code: bool = False) -> tuple[HubFile, ...]:
        """The files that loading reads, with or without the weights."""
        names = set(needed_names(self.names, weights=weights, remote_code=remote_code))
        return tuple(file for file in self.files if file.name in names)

    def is_cached(self, file: HubFile) -> bool:
        """Whether a file's content lies in the cache, under this commit or another."""
        folder = _cache_folder(self.model)
        pointer = folder / "snapshots" / self.commit / file.name
        return pointer.exists() or (folder / "blobs" / file.blob).exists()

    def fetch(
        self, revision: str | None, *, weights: bool = True, remote_code: bool = False
    ) -> Path:
        """The folder in the cache that holds what loading reads, downloaded where it must be.

        Args:
            revision: Branch or tag that was asked for, so that the cache knows it by this name.
            weights: Whether the weights are wanted too, and not the small files alone.
            remote_code: Whether the repository's own Python files are wanted too.

        Raises:
            ValueError: The branch has moved since this snapshot was described.
        """
        folder = _cache_folder(self.model) / "snapshots" / self.commit
        wanted = self.needed(weights=weights, remote_code=remote_code)
        if all((folder / file.name).exists() for file in wanted):
            return folder
        from huggingface_hub import snapshot_download

        with explained(self.model, revision):
            got = snapshot_download(
                self.model, revision=revision, allow_patterns=[file.name for file in wanted]
            )
        if Path(got).name != self.commit:
            raise ValueError(
                f"{self.model!r} at {revision!r} moved from {self.commit} to {Path(got).name} "
                "while it was being read. Name the series again."
            )
        return Path(got)

    def fetch_file(self, name: str) -> Path:
        """One small file, from the cache or downloaded."""
        from huggingface_hub import hf_hub_download

        with explained(self.model, self.commit):
            return Path(hf_hub_download(self.model, name, revision=self.commit))

    def _sha256(self, file: HubFile) -> str:
        return file.sha256 or file_sha256(self.fetch_file(file.name))


def is_offline() -> bool:
    """Whether the user has asked that the hub be left alone."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def list_revisions(model: str) -> tuple[str, ...]:
    """Names of a repository's branches and tags; offline, of those that the cache knows.

    Raises:
        ValueError: There is no such repository, or, offline, nothing of it in the cache.
        OSError: The hub cannot be reached, or does not let this user in.
    """
    if is_offline():
        return _cached_revisions(model)
    from huggingface_hub import HfApi

    with explained(model, None):
        refs = HfApi().list_repo_refs(model)
    return tuple(dict.fromkeys(ref.name for ref in (*refs.branches, *refs.tags)))


def describe(model: str, revision: str | None) -> Snapshot:
    """A repository's files at a revision, with sizes and hashes, without a download.

    Raises:
        ValueError: There is no such repository or revision, or, offline, it is not in the cache.
        OSError: The hub cannot be reached, or does not let this user in.
    """
    if is_offline():
        return _describe_cached(model, revision)
    from huggingface_hub import HfApi

    with explained(model, revision):
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
    """Where the tokenizer lies: at the revision, else on the repository's main branch."""
    if has_tokenizer(snapshot.names):
        return snapshot.fetch(revision, weights=False)
    try:
        main = describe(snapshot.model, None)
    except ValueError:  # offline, and the cache does not hold the main branch
        return None
    return main.fetch(None, weights=False) if has_tokenizer(main.names) else None


@contextmanager
def explained(model: str, revision: str | None) -> Iterator[None]:
    """Turn the hub's errors into sentences that say what to do."""
    from huggingface_hub import errors

    where = repr(model) if revision is None else f"{model!r} at {revision!r}"
    try:
        yield
    except errors.GatedRepoError as error:
        raise OSError(
            f"The hub does not let this user into {where}, which is gated. Ask for access on its "
            "page, then run `hf auth login` or set HF_TOKEN."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ValueError(
            f"The hub has no revision {revision!r} of {model!r}. List them with "
            f"`tlens-trust checkpoints {model}`."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ValueError(
            f"The hub has no model {model!r}, or keeps it from this user. Write it as "
            "'organisation/name'; for a private one, run `hf auth login` or set HF_TOKEN."
        ) from error
    except errors.HFValidationError as error:
        raise ValueError(
            f"{model!r} is no model id of the hub. Write it as 'organisation/name', or name a "
            "folder that is there."
        ) from error
    except (errors.EntryNotFoundError, errors.HfHubHTTPError):
        raise
    except Exception as error:
        # Which HTTP library huggingface_hub speaks through has changed twice: its connection
        # errors are known here only by their base classes' names.
        if not any(kind.__name__ == "TransportError" for kind in type(error).__mro__):
            raise
        raise OSError(
            f"The hub could not be reached for {where}: {error}. Try again, or set "
            "HF_HUB_OFFLINE=1 to work with what is in the cache."
        ) from error


def _cache_folder(model: str) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    name = repo_folder_name(repo_id=model, repo_type="model")
    return Path(constants.HF_HUB_CACHE) / name


def _cached_revisions(model: str) -> tuple[str, ...]:
    refs = _cache_folder(model) / "refs"
    names = sorted(p.relative_to(refs).as_posix() for p in refs.rglob("*") if p.is_file())
    found = tuple(name for name in names if _has_weights(model, name))
    if not found:
        raise ValueError(
            f"Nothing of {model!r} is in the cache, and HF_HUB_OFFLINE is set. Fetch it where "
            "there is a network, or unset HF_HUB_OFFLINE."
        )
    return found


def _has_weights(model: str, revision: str) -> bool:
    try:
        return are_complete(weight_names(_describe_cached(model, revision).names))
    except ValueError:
        return False


def _describe_cached(model: str, revision: str | None) -> Snapshot:
    folder = _cache_folder(model)
    ref = folder / "refs" / (revision or "main")
    commit = ref.read_text().strip() if ref.is_file() else revision or "main"
    snapshot = folder / "snapshots" / commit
    if not snapshot.is_dir():
        where = repr(model) if revision is None else f"{model!r} at {revision!r}"
        raise ValueError(
            f"{where} is not in the cache, and HF_HUB_OFFLINE is set. Fetch it where there is a "
            "network, or unset HF_HUB_OFFLINE."
        )
    # A name may point at a blob that was never finished or has been deleted.
    present = [path for path in sorted(snapshot.iterdir()) if path.is_file()]
    return Snapshot(model, commit, tuple(_cached_file(path) for path in present))


def _cached_file(path: Path) -> HubFile:
    size = path.stat().st_size
    blob = path.resolve().name
    if weight_names([path.name]) or len(blob) == 64:
        return HubFile(path.name, size, "", file_sha256(path))
    return HubFile(path.name, size, git_oid(path.read_bytes()))
