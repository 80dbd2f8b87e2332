"""What a reader of a public benchmark declares about it.

A benchmark is added in two steps: a module beside this one that makes a `Benchmark`, and its name
in the list of `benchmarks/__init__.py`. `load_concepts`, `available_benchmarks` and the lint read
everything else from here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Int

from tlens_trust.concepts.draft import Draft
from tlens_trust.concepts.tables import Table


@dataclass(frozen=True)
class PaperFile:
    """The file in which Qian et al. (2024) released a benchmark.

    Attributes:
        name: Name of the file.
        sha256: SHA-256 of the file as it was released.
        read: Makes a draft from the columns `statement` and `label` of the file; the second
            argument is whether to clean it.
        meaning_of_1: What label 1 means in this file.
        trustworthy: Which label is the trustworthy side; None where neither is.
        caution: What the lint says about the labels; empty where there is nothing to say.
        severity: Severity of that caution, where the user did not say which label is trustworthy.
        form: The form of its statements, in words that follow "statements"; empty where they have
            no form of their own.
        in_form: Gives the share of statements in that form, from statements and labels; None where
            they have no form of their own.
        form_rank: Forms of a lower rank are tried first. A more particular form needs a lower rank
            than a general one that its statements satisfy too.
    """

    name: str
    sha256: str
    read: Callable[[Table, bool], Draft]
    meaning_of_1: str
    trustworthy: int | None
    caution: str = ""
    severity: Literal["error", "warning", "note"] = "note"
    form: str = ""
    in_form: Callable[[Sequence[str], Int[np.ndarray, " example"]], float] | None = None
    form_rank: int = 0


@dataclass(frozen=True)
class ReleaseFiles:
    """Files in a format of the benchmark's own, for one that is neither CSV nor Parquet.

    Attributes:
        names: Files that hold statements. Each is read alone; those of one folder, together.
        companion: A file in the same folder that each of them needs.
        origin: Where the files are published, for a message.
        read: Makes a table from the content of the files (by name), the content of the companion,
            and the source as a message names it.
    """

    names: tuple[str, ...]
    companion: str
    origin: str
    read: Callable[[Mapping[str, bytes], bytes, str], Table]


@dataclass(frozen=True)
class Benchmark:
    """One public benchmark, and how its files become statements.

    Attributes:
        name: The name under which `load_concepts` knows it.
        dimension: The dimension of trustworthiness that it measures.
        summary: What the two labels mean, in a line.
        read_rows: Makes a draft from the benchmark's own columns; the second argument is the seed.
        columns: The benchmark's own columns; a table with one of them is a file of the benchmark.
        paper: The file of Qian et al. (2024); None where the paper does not have it.
        release: The benchmark's own files; None where they are tables in CSV or Parquet.
        repository: Data set on the Hugging Face hub; empty where it is not there.
        folders: Folder of the repository for each configuration; the first is the default.
        splits: Default split for each configuration.
    """

    name: str
    dimension: str
    summary: str
    read_rows: Callable[[Table, int], Draft]
    columns: tuple[str, ...]
    paper: PaperFile | None = None
    release: ReleaseFiles | None = None
    repository: str = ""
    folders: Mapping[str, str] = field(default_factory=dict)
    splits: Mapping[str, str] = field(default_factory=dict)

    @property
    def file_names(self) -> tuple[str, ...]:
        """Names of the files that hold its statements."""
        paper = () if self.paper is None else (self.paper.name,)
        return (*paper, *(() if self.release is None else self.release.names))
