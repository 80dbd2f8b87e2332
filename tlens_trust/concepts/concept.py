"""What a sweep looks for: statements, their labels, and what belongs together."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

import numpy as np
from jaxtyping import Int


@dataclass(frozen=True, eq=False, repr=False)
class Concept:
    """A set of labelled statements about one matter of trust.

    Attributes:
        name: Short name; the `concept` coordinate of a `Trace`.
        dimension: `reliability`, `privacy`, `toxicity`, `fairness`, `robustness`, or the user's own.
        statements: The texts that a model reads.
        labels: 1 where the statement is on the trustworthy side, else 0. Read-only.
        groups: A name per statement; statements of one group never stand on both sides of a split.
        polarity: False where neither label is the trustworthy side.
        provenance: Where the statements come from, and what was dropped on the way.
    """

    name: str
    dimension: str
    statements: tuple[str, ...]
    labels: Int[np.ndarray, " example"]
    groups: tuple[str, ...]
    polarity: bool = True
    provenance: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "statements", tuple(self.statements))
        object.__setattr__(self, "groups", tuple(str(group) for group in self.groups))
        labels = np.array(self.labels, dtype=np.int64)
        labels.flags.writeable = False
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "provenance", MappingProxyType(dict(self.provenance)))

    def __len__(self) -> int:
        return len(self.statements)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of statements, labels and groups, in their order."""
        digest = hashlib.sha256()
        for row in zip(self.statements, self.labels.tolist(), self.groups, strict=True):
            digest.update(repr(row).encode())
        return digest.hexdigest()


def statements_fingerprint(statements: Sequence[str]) -> str:
    """SHA-256 of texts in their order."""
    return hashlib.sha256(repr(tuple(statements)).encode()).hexdigest()
