"""What a reader of a public benchmark has to say of itself."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int

from tlens_trust.concepts.draft import Draft
from tlens_trust.concepts.tables import Table


@dataclass(frozen=True)
class Benchmark:
    """One public benchmark, and how its files become statements.

    Attributes:
        name: The name under which `load_concepts` knows it.
        dimension: The dimension of trustworthiness that it measures.
        summary: What the two labels are, in a line.
        paper_file: Name of the file in which Qian et al. (2024) released it.
        paper_sha256: Of that file, as released.
        read_paper: Draft from the columns `statement` and `label` of that file; the second
            argument is whether to clean it.
        read_rows: Draft from the benchmark's own columns; the second argument is the seed.
        columns: The benchmark's own columns, one of which tells it.
        form: How its statements stand in the paper's file, in words that follow "statements";
            empty where they have no form of their own.
        in_form: From the statements and labels of a file, the share that stand in that form.
        repository: Data set on the Hugging Face hub; empty where it is not there.
        folders: Folder of the repository for each configuration; the first is the default.
        splits: Default split for each configuration.
    """

    name: str
    dimension: str
    summary: str
    paper_file: str
    paper_sha256: str
    read_paper: Callable[[Table, bool], Draft]
    read_rows: Callable[[Table, int], Draft]
    columns: tuple[str, ...]
    form: str = ""
    in_form: Callable[[Sequence[str], Int[np.ndarray, " example"]], float] | None = None
    repository: str = ""
    folders: Mapping[str, str] = field(default_factory=dict)
    splits: Mapping[str, str] = field(default_factory=dict)
