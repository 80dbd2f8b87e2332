"""Lint for a concept, and for a file before it becomes one."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tlens_trust.accessors import register_on
from tlens_trust.concepts.benchmarks import BENCHMARKS
from tlens_trust.concepts.concept import Concept
from tlens_trust.concepts.floor import text_floor
from tlens_trust.concepts.floor_scores import TextFloor
from tlens_trust.concepts.lint.artefacts import artefacts
from tlens_trust.concepts.lint.balance import balance, group_sizes, single_label_groups
from tlens_trust.concepts.lint.cues import cues
from tlens_trust.concepts.lint.paper_files import label_meaning, recognise
from tlens_trust.concepts.lint.repeats import (
    duplicates,
    label_order,
    near_duplicates_apart,
    openings_apart,
    sequential_split,
    twins_apart,
)
from tlens_trust.concepts.lint.report import LintFinding, LintReport, Severity
from tlens_trust.concepts.lint.rows import Rows, quoted, rows_that
from tlens_trust.concepts.tables import as_label, is_missing, read_csv

_CHECKS = (
    duplicates,
    twins_apart,
    near_duplicates_apart,
    openings_apart,
    sequential_split,
    label_order,
    cues,
    artefacts,
    balance,
    group_sizes,
    single_label_groups,
)
_PAPER_COLUMNS = ("statement", "label")
_IDENTICAL = "identical statements"
# Balanced accuracies at which the text alone is taken to say nothing of the label.
_FLOOR_BAND = (0.4, 0.6)
_FLOOR_ERROR = 0.9
_FLOOR_Z = 2.58  # two-sided, at 1%


@register_on(Concept, "lint")
class ConceptLint:
    """`concept.lint()`: look for what may mislead a probe in the statements of a concept.

    Made by reading `concept.lint`, and called with the optional arguments of `lint_concept`.

    Args:
        concept: The statements.

    Examples:
        >>> statements = tuple(f"{'Yea' if i % 2 else 'Nay'}, {i}." for i in range(60))
        >>> labels, groups = np.array([0, 1] * 30), tuple(str(i // 2) for i in range(60))
        >>> report = Concept("assent", "assent", statements, labels, groups).lint(seed=0)
        >>> report.rules
        ('token-cue', 'text-floor')
    """

    def __init__(self, concept: Concept) -> None:
        self._concept = concept

    def __call__(self, *, seed: int = 0) -> LintReport:
        """Call `lint_concept` on the concept.

        Args:
            seed: Draws the folds of the text floor.
        """
        return lint_concept(self._concept, seed=seed)


def lint_concept(concept: Concept, *, seed: int = 0) -> LintReport:
    """Look for what may mislead a probe in the statements of a concept.

    It checks for duplicates, statements with both labels, and near copies in different groups. It
    checks for groups that an unshuffled 80/20 split would have on both sides. It looks for rules
    on length, letters and single tokens that predict the label, and for traces of other programs
    in the texts. It checks the label's balance, the groups' sizes and contrasts, and the accuracy
    of a text classifier (`text_floor`). Nothing is changed.

    Args:
        concept: The statements. Rows are their positions, counted from 0.
        seed: Draws the folds of the text floor.

    Examples:
        >>> labels, groups = np.array([0, 1] * 30), tuple(str(i // 2) for i in range(60))
        >>> said = tuple(f"{i} is {'even' if i % 2 else 'ODD'}." for i in range(60))
        >>> report = lint_concept(Concept("parity", "arithmetic", said, labels, groups))
        >>> print(report.of("case-cue")[0])
        error   case-cue: contains an upper-case letter → 0, otherwise 1: right 100% ...
    """
    grouping = concept.provenance.get("groups", "")
    rows = Rows(
        statements=concept.statements,
        labels=np.array(concept.labels),
        groups=concept.groups,
        numbers=tuple(range(len(concept))),
        grouping="" if grouping == _IDENTICAL else grouping,
    )
    findings: list[LintFinding] = []
    benchmark = BENCHMARKS.get(concept.provenance.get("benchmark", ""))
    paper = None if benchmark is None else benchmark.paper
    # Labels that have a trustworthy side were turned to it when the concept was read.
    if paper is not None and paper.trustworthy is None and not concept.polarity:
        findings += label_meaning(paper, None)
    return _report(
        repr(concept.name),
        rows,
        "counted from 0",
        "the trustworthy side" if concept.polarity else "neither label is the trustworthy side",
        findings,
        seed,
    )


def lint_file(
    path: str | os.PathLike[str],
    *,
    statement: str = "statement",
    label: str = "label",
    group: str | None = None,
    trustworthy: int | None = None,
    seed: int = 0,
) -> LintReport:
    r"""Look for what may mislead a probe in a CSV file, as it is, before anything is cleaned.

    What a `Concept` would refuse, an empty statement or a third label, is a finding here. The
    files released with Qian et al. (2024) are recognised by their content, or else by their name.
    Their groups are then known, and the meaning of their labels is reported. Labels are quoted
    as they stand in the file, whatever `trustworthy` says.

    Args:
        path: A UTF-8 file whose first row names the columns. Rows are numbered as in the file,
            the header being row 1.
        statement: Column of the texts.
        label: Column of the labels, 0 and 1.
        group: Column that names what belongs together. None: what the recognised file is known
            to have, or identical statements.
        trustworthy: Which label you hold to be the trustworthy side; checked where it is known.
        seed: Draws the folds of the text floor.

    Raises:
        ValueError: Not a CSV file, no such column, no rows, or a `trustworthy` other than 0 and 1.
        OSError: The file cannot be read.

    Examples:
        >>> import pathlib, tempfile
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "mine.csv"
        >>> _ = file.write_text("statement,label\nYes.,1\nYes.,0\nNo &amp; no.,0\n")
        >>> [finding.rows for finding in lint_file(file).of("conflicting-labels")]
        [(2, 3)]
    """
    if trustworthy not in (0, 1, None):
        raise ValueError(
            f"`trustworthy` is the label on the trustworthy side, 0 or 1, got {trustworthy!r}."
        )
    table = read_csv(path)
    if statement == label:
        raise ValueError(
            f"The statements and their labels cannot both be column {label!r} of {table.source}, "
            f"whose columns are: {', '.join(map(repr, table.columns))}. Name two."
        )
    texts, labels = table.column(statement), [as_label(cell) for cell in table.column(label)]
    group_cells = None if group is None else table.column(group)
    if not len(texts):
        raise ValueError(
            f"{table.source} holds no rows under its header. There is nothing to lint."
        )
    # The paper's files have these two columns.
    known_file = recognise(table, os.fspath(path)) if (statement, label) == _PAPER_COLUMNS else None

    findings: list[LintFinding] = []
    empty = [i for i, text in enumerate(texts) if is_missing(text)]
    if empty:
        row_numbers = tuple(table.rows[i] for i in empty)
        message = f"{rows_that(len(empty), 'lack')} a statement: left out of what follows"
        numbers = {"rows": len(empty)}
        findings.append(LintFinding("empty-statements", "error", message, row_numbers, numbers))
    strange = [i for i, value in enumerate(labels) if value is None]
    if strange:
        cells = [str(table.column(label)[i]) for i in strange]
        kinds = list(dict.fromkeys(cells))
        row_numbers = tuple(table.rows[i] for i in strange)
        message = (
            f"{rows_that(len(strange), 'give')} a label that is neither 0 nor 1 "
            f"({quoted(kinds, limit=5, width=30)}{', …' if len(kinds) > 5 else ''}): left out of "
            "what follows"
        )
        numbers = {"rows": len(strange)}
        findings.append(LintFinding("unknown-labels", "error", message, row_numbers, numbers))
    if group_cells is not None:
        nameless = tuple(
            row for row, cell in zip(table.rows, group_cells, strict=True) if is_missing(cell)
        )
        if nameless:
            message = f"{rows_that(len(nameless), 'lack')} a group: taken to stand alone"
            numbers = {"rows": len(nameless)}
            findings.append(LintFinding("missing-groups", "error", message, nameless, numbers))
    positions = [i for i in range(len(texts)) if i not in {*empty, *strange}]
    if not positions:
        return LintReport(
            repr(Path(path).name), 0, 0, float("nan"), table.counting, "", tuple(findings)
        )

    if group_cells is not None:
        groups = [
            f"row {table.rows[i]}" if is_missing(group_cells[i]) else str(group_cells[i])
            for i in range(len(texts))
        ]
        grouping = f"column {group!r}"
    elif known_file is not None:
        groups, grouping = list(known_file.groups), known_file.grouping
    else:
        # As in a concept without a group column: identical statements belong together.
        groups, grouping = list(texts), ""
    rows = Rows(
        statements=tuple(texts[i] for i in positions),
        labels=np.array([labels[i] for i in positions], dtype=np.int64),
        groups=tuple(groups[i] for i in positions),
        numbers=tuple(table.rows[i] for i in positions),
        grouping=grouping,
    )
    subject, meaning = repr(Path(path).name), ""
    if known_file is not None:
        origin = "as released with" if known_file.is_released else "by its name the file of"
        subject += f" ({origin} Qian et al. 2024)"
        meaning = known_file.paper.meaning_of_1
        findings += label_meaning(known_file.paper, trustworthy)
    elif trustworthy is not None:
        meaning = "the trustworthy side" if trustworthy == 1 else "the untrustworthy side"
    return _report(subject, rows, table.counting, meaning, findings, seed)


def _report(
    subject: str, rows: Rows, counting: str, labels: str, findings: list[LintFinding], seed: int
) -> LintReport:
    ones = float(rows.labels.mean())
    floor = None
    if ones in (0, 1):
        message = (
            f"all {len(rows)} statements carry label {int(ones)}, so there is nothing to predict"
        )
        findings.append(LintFinding("one-label", "error", message, (), {"share_1": ones}))
        # The other checks compare the two labels.
        findings += [*duplicates(rows), *artefacts(rows)]
    else:
        for check in _CHECKS:
            findings += check(rows)
        floor, floor_findings = _floor(rows, seed)
        findings += floor_findings
    return LintReport(
        subject=subject,
        n=len(rows),
        n_groups=rows.n_groups,
        share=ones,
        counting=counting,
        labels=labels,
        findings=tuple(findings),
        floor=floor,
    )


def _floor(rows: Rows, seed: int) -> tuple[TextFloor | None, list[LintFinding]]:
    # Twins in different groups are kept together here, or the floor would be what it warns of.
    kin = tuple(f"group {number}" for number in rows.kin.tolist())
    concept = Concept("lint", "lint", rows.statements, rows.labels, kin)
    try:
        floor = text_floor(concept, seed=seed)
    except ValueError as error:
        message = f"the text floor cannot be computed: {error}"
        return None, [LintFinding("text-floor", "note", message)]
    return floor, list(_judge_floor(floor, rows))


def _judge_floor(floor: TextFloor, rows: Rows) -> Iterator[LintFinding]:
    balanced = floor.accuracy("chosen", balanced=True)
    groups = len(np.unique(rows.kin))
    low, high = _FLOOR_BAND
    # The second condition is a test: a share of one half over independent groups has the standard
    # error `0.5 / √groups`.
    if low <= balanced <= high or abs(balanced - 0.5) < _FLOOR_Z * 0.5 / np.sqrt(groups):
        return
    shares = {name: floor.accuracy(name) for name in ("chosen", "words", "characters", "majority")}
    message = (
        f"TF-IDF and a logistic classifier, grouped 5-fold, are right in "
        f"{shares['words']:.1%} by words and {shares['characters']:.1%} by characters, where "
        f"always answering the commoner label is in {shares['majority']:.1%}"
    )
    severity: Severity
    if balanced > high:
        severity = "error" if balanced >= _FLOOR_ERROR else "warning"
        message += "; a probe says something about the model only above that"
    else:
        severity = "warning"
        message += (
            "; far below one half is a cue turned round, as where a word that goes with one label "
            "in some groups goes with the other in the rest"
        )
    numbers = {**shares, "balanced_chosen": balanced}
    yield LintFinding("text-floor", severity, message, (), numbers)
