"""The rows that a lint examines, of a concept or of a raw file."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from tlens_trust.concepts.grouping import join_groups


@dataclass(frozen=True, eq=False)
class Rows:
    """Statements as they are, labels as their source has them.

    Attributes:
        statements: The texts, none empty.
        labels: 0 or 1.
        groups: A name per statement.
        numbers: The number by which the user knows each row.
        grouping: What belongs together, in words; empty where identical statements do, by
            default.
    """

    statements: tuple[str, ...]
    labels: Int[np.ndarray, " example"]
    groups: tuple[str, ...]
    numbers: tuple[int, ...]
    grouping: str = ""

    def __len__(self) -> int:
        return len(self.statements)

    def at(self, positions: Iterable[int] | Bool[np.ndarray, " example"]) -> tuple[int, ...]:
        """Row numbers at positions, or where a mask holds."""
        if isinstance(positions, np.ndarray) and positions.dtype == bool:
            positions = np.flatnonzero(positions).tolist()
        return tuple(self.numbers[int(i)] for i in positions)

    @cached_property
    def group(self) -> Int[np.ndarray, " example"]:
        """The number of each statement's group, from 0."""
        return np.unique(np.array(self.groups, dtype=object), return_inverse=True)[1]

    @property
    def n_groups(self) -> int:
        """How many groups there are."""
        return int(self.group.max()) + 1

    @property
    def majority(self) -> float:
        """Share of the commoner label."""
        ones = float(self.labels.mean())
        return max(ones, 1 - ones)

    @cached_property
    def plain(self) -> tuple[str, ...]:
        """The statements without case, punctuation and superfluous white space."""
        return tuple(plain_text(statement) for statement in self.statements)

    @cached_property
    def kin(self) -> Int[np.ndarray, " example"]:
        """Groups joined by statements that are the same but for case and punctuation."""
        # A probe reads a statement and its twin nearly alike, so a split that parts them leaks.
        return join_groups(self.group.tolist(), self.plain)


def plain_text(statement: str) -> str:
    """A statement without case, punctuation and superfluous white space.

    Examples:
        >>> plain_text(" Well ,  that's IT!")
        'well that s it'
    """
    return " ".join(re.findall(r"\w+", statement.casefold())) or statement.strip()


def association(
    feature: Float[np.ndarray, " example"],
    labels: Int[np.ndarray, " example"],
    group: Int[np.ndarray, " example"],
) -> float:
    """Test how a feature is associated with the label, as a standard normal deviate.

    `z = Σ_g d_g / √(Σ_g d_g²)` with `d_g = Σ_{i in g} (x_i - x̄)(y_i - ȳ)`. This is the score test
    of a logistic regression that takes the statements of one group as dependent. If both sides of
    every group share a feature, it is associated with nothing: 0.
    """
    products = (feature - feature.mean()) * (labels - labels.mean())
    by_group = np.bincount(group, weights=products)
    spread = float(np.sqrt((by_group**2).sum()))
    # Below this, the sums are rounding errors of terms that cancel.
    return float(by_group.sum()) / spread if spread > 1e-9 else 0.0


def share(part: int | float, whole: int | float) -> str:
    """A part of a whole as a percentage that never reads 0% or 100% where it is neither.

    Examples:
        >>> share(1, 3), share(3641, 3642), share(2, 2)
        ('33.3%', '99.97%', '100%')
    """
    if not whole:
        return "none"
    if part in (0, whole):
        return f"{part / whole:.0%}"
    percent = f"{part / whole:.1%}"
    return percent if percent not in ("0.0%", "100.0%") else f"{part / whole:.2%}"


def rows_that(count: int, verb: str) -> str:
    """A count of rows with a verb that agrees.

    Examples:
        >>> rows_that(1, "hold"), rows_that(2, "hold")
        ('1 row holds', '2 rows hold')
    """
    return f"1 row {verb}s" if count == 1 else f"{count} rows {verb}"


def counted(count: int, noun: str) -> str:
    """A count with a noun that agrees.

    Examples:
        >>> counted(1, "group"), counted(2, "group")
        ('1 group', '2 groups')
    """
    return f"{count} {noun}{'s' * (count != 1)}"


def quoted(texts: Sequence[str], *, limit: int = 3, width: int = 60) -> str:
    r"""A few texts in quotes, cut to a width; a backslash stays one, what cannot be seen is spelt.

    Examples:
        >>> print(quoted(["a" * 80, "new\\n", "\x07"], width=10))
        'aaaaaaaaa…', 'new\n', '\x07'
    """
    cut = [text if len(text) <= width else f"{text[: width - 1]}…" for text in texts[:limit]]
    return ", ".join(f"'{text}'" if text.isprintable() else repr(text) for text in cut)
