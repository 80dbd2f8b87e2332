"""A concept in the making: rows that a reader cleans, and what it did to them.

A reader changes rows through a draft only, so that everything it drops or changes is recorded.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tlens_trust.concepts.concept import Concept, RowEdit
from tlens_trust.concepts.tables import Table


@dataclass
class Draft:
    """Rows of a benchmark, on their way to a `Concept`.

    Attributes:
        statements: The texts.
        labels: 1 on the trustworthy side, else 0.
        groups: A name per statement.
        rows: The number by which the user knows each row; several statements may come of one row.
        label_note: What the labels were made from.
        group_note: What the groups were made from.
        polarity: False where neither label is the trustworthy side.
        clean: Whether statements may be dropped and rewritten. If not, `drop` and `rewrite` do
            nothing, and all rows stay as they are, in their order.
        edits: What was dropped or changed so far.
    """

    statements: list[str]
    labels: list[int]
    groups: list[str]
    rows: list[int]
    label_note: str = ""
    group_note: str = ""
    polarity: bool = True
    clean: bool = True
    edits: list[RowEdit] = field(default_factory=list)

    def rewrite(self, change: Callable[[str], str], reason: str) -> None:
        """Apply `change` to every statement, and record the rows that it changed."""
        if not self.clean:
            return
        new_statements = [change(statement) for statement in self.statements]
        pairs = zip(self.statements, new_statements, strict=True)
        self._record("changed", reason, [i for i, (old, new) in enumerate(pairs) if old != new])
        self.statements = new_statements

    def drop(self, positions: Iterable[int], reason: str) -> None:
        """Remove statements, and record their rows."""
        to_drop = set(positions) if self.clean else set()
        self._record("dropped", reason, sorted(to_drop))
        positions_left = [i for i in range(len(self.statements)) if i not in to_drop]
        self.statements = [self.statements[i] for i in positions_left]
        self.labels = [self.labels[i] for i in positions_left]
        self.groups = [self.groups[i] for i in positions_left]
        self.rows = [self.rows[i] for i in positions_left]

    def drop_repeats(
        self, *, contradiction: str = "the same statement carries both labels"
    ) -> None:
        """Keep one of each statement, and none whose copies disagree on the label.

        Args:
            contradiction: What a statement with both labels means in this benchmark.
        """
        # Contradictions go first: with one copy left, a statement no longer shows that it had two
        # labels.
        labels_of: dict[str, set[int]] = {}
        for statement, label in zip(self.statements, self.labels, strict=True):
            labels_of.setdefault(statement, set()).add(label)
        self.drop(
            [i for i, s in enumerate(self.statements) if len(labels_of[s]) > 1], contradiction
        )
        # The first copy stays, under the row number that the user meets first.
        first_position: dict[str, int] = {}
        repeats = [i for i, s in enumerate(self.statements) if first_position.setdefault(s, i) != i]
        self.drop(repeats, "repeats an earlier statement, label and all")

    def group_by_first(self, first: Sequence[int] | np.ndarray) -> None:
        """Name groups after the row of their first statement."""
        self.groups = [f"row {self.rows[int(i)]}" for i in first]

    def concept(
        self, name: str, dimension: str, table: Table, provenance: Mapping[str, str]
    ) -> Concept:
        """Make the finished concept; `provenance` comes before the notes of the draft."""
        if len(set(self.labels)) < 2:
            raise ValueError(
                f"Nothing to classify in {table.source}: of {len(table.rows)} rows, "
                f"{len(self.statements)} statements are left, all on one side. "
                + " ".join(f"{edit}." for edit in self.edits)
            )
        notes = {**provenance, "labels": self.label_note, "groups": self.group_note}
        return Concept(
            name=name,
            dimension=dimension,
            statements=tuple(self.statements),
            labels=np.array(self.labels, dtype=np.int64),
            groups=tuple(self.groups),
            polarity=self.polarity,
            provenance=notes | {"dropped": self._summary("dropped")},
            edits=tuple(self.edits),
        )

    def _record(self, action: str, reason: str, positions: Sequence[int]) -> None:
        if positions:
            self.edits.append(RowEdit(action, reason, tuple(self.rows[i] for i in positions)))

    def _summary(self, action: str) -> str:
        reasons = [f"{len(edit)}: {edit.reason}" for edit in self.edits if edit.action == action]
        return "; ".join(reasons) or ("nothing" if self.clean else "nothing, by `clean=False`")
