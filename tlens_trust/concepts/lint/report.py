"""The result of a lint: findings with their rows and numbers, to read and to compute with."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from tlens_trust.concepts.floor_scores import TextFloor
from tlens_trust.concepts.tables import list_rows
from tlens_trust.html import render

if TYPE_CHECKING:
    import pandas

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class LintFinding:
    """One thing that may mislead a probe.

    Attributes:
        rule: Short name of the rule that was checked, as `conflicting-labels`.
        severity: `error` where a result would be wrong or trivial; `warning` where it would be
            too optimistic or hard to interpret; `note` otherwise.
        message: What was found, in words.
        rows: Rows that it was found in, numbered as the report's `counting` says; empty where it
            is a matter of the whole set.
        numbers: The figures behind the message, by name; shares and accuracies are fractions.
    """

    rule: str
    severity: Severity
    message: str
    rows: tuple[int, ...] = ()
    numbers: Mapping[str, int | float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", tuple(int(row) for row in self.rows))
        object.__setattr__(self, "numbers", MappingProxyType(dict(self.numbers)))

    def __reduce__(self) -> tuple[Any, ...]:
        # A mapping proxy cannot be pickled.
        return LintFinding, (self.rule, self.severity, self.message, self.rows, dict(self.numbers))

    def __hash__(self) -> int:
        return hash((self.rule, self.severity, self.message, self.rows))

    def __str__(self) -> str:
        rows = f" ({list_rows(self.rows, limit=5)})" if self.rows else ""
        return f"{self.severity:<8}{self.rule}: {self.message}{rows}"


@dataclass(frozen=True, repr=False)
class LintReport:
    """The findings for a set of statements, the most severe first.

    Attributes:
        subject: The concept or the file.
        n: How many statements were examined.
        n_groups: In how many groups.
        share: Fraction of them with label 1.
        counting: How the rows of the findings are numbered.
        labels: What the labels mean, where it is known.
        findings: The findings; empty for a set without any.
        floor: How well the text alone predicts the labels; None where it cannot be computed.
    """

    subject: str
    n: int
    n_groups: int
    share: float
    counting: str
    labels: str
    findings: tuple[LintFinding, ...]
    floor: TextFloor | None = None

    def __post_init__(self) -> None:
        # Sorting is stable, so findings of one severity stay in the order of the checks.
        ordered = sorted(self.findings, key=lambda finding: SEVERITIES.index(finding.severity))
        object.__setattr__(self, "findings", tuple(ordered))

    def __len__(self) -> int:
        return len(self.findings)

    def __bool__(self) -> bool:
        # A report without findings is still a report.
        return True

    def __iter__(self) -> Iterator[LintFinding]:
        return iter(self.findings)

    def of(self, rule: str) -> tuple[LintFinding, ...]:
        """The findings of one rule."""
        return tuple(finding for finding in self.findings if finding.rule == rule)

    @property
    def rules(self) -> tuple[str, ...]:
        """The rules that found something, each once, the most severe first."""
        return tuple(dict.fromkeys(finding.rule for finding in self.findings))

    @property
    def errors(self) -> tuple[LintFinding, ...]:
        """The findings that are errors."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    def to_frame(self) -> "pandas.DataFrame":
        """A row per finding: `severity`, `rule`, `message`, `n_rows`, `rows`, `numbers`."""
        import pandas

        columns: dict[str, list[Any]] = {
            "severity": [finding.severity for finding in self.findings],
            "rule": [finding.rule for finding in self.findings],
            "message": [finding.message for finding in self.findings],
            "n_rows": [len(finding.rows) for finding in self.findings],
            "rows": [finding.rows for finding in self.findings],
            "numbers": [dict(finding.numbers) for finding in self.findings],
        }
        index = pandas.RangeIndex(len(self.findings), name="finding")
        return pandas.DataFrame(columns, index=index)

    def __repr__(self) -> str:
        lines = [self._head]
        lines += [f"  {finding}" for finding in self.findings] or ["  nothing found"]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = [
            (finding, list_rows(finding.rows, limit=5) if finding.rows else "")
            for finding in self.findings
        ]
        return render("notebook/lint", {"title": self._head, "rows": rows})

    @property
    def _head(self) -> str:
        parts = ["no statement with a label is left"]
        if self.n:
            statements = f"{self.n} statement{'s' * (self.n != 1)}"
            parts = [
                f"{statements} in {self.n_groups} group{'s' * (self.n_groups != 1)}",
                f"{self.share:.1%} carry label 1" + (f" ({self.labels})" if self.labels else ""),
            ]
        if self.floor is not None:
            parts.append(
                f"text alone: {self.floor.accuracy('words'):.1%} by words, "
                f"{self.floor.accuracy('characters'):.1%} by characters"
            )
        return f"Lint of {self.subject}: {'; '.join(parts)}; rows {self.counting}"
