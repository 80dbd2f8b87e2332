"""The paper's five files: how they are recognised, and what their labels mean.

What a label means cannot be seen in the statements, so each benchmark declares it
(`PaperFile` in `concepts.benchmarks`); everything else is found in the rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath

from tlens_trust.concepts.benchmarks import BENCHMARKS
from tlens_trust.concepts.benchmarks.benchmark import Benchmark, PaperFile
from tlens_trust.concepts.lint.report import LintFinding, Severity
from tlens_trust.concepts.lint.rows import plain_text
from tlens_trust.concepts.tables import Table


@dataclass(frozen=True)
class RecognisedPaperFile:
    """A file that was recognised as one of the paper's.

    Attributes:
        paper: What its benchmark declares about it.
        is_released: Whether it is byte for byte the released file; if not, it has its name only.
        groups: The group of each row.
        grouping: What a group is, in words.
    """

    paper: PaperFile
    is_released: bool
    groups: tuple[str, ...]
    grouping: str


def identify_paper_file(table: Table, path: str) -> tuple[Benchmark, bool] | None:
    """Find the benchmark whose paper file a table was read from.

    Args:
        table: The rows of the file.
        path: Where the file lies.

    Returns:
        The benchmark, and whether the content is that of the released file (True) or only the name
        (False); None where neither is.
    """
    # The content decides first, since a file may have been renamed.
    for benchmark in BENCHMARKS.values():
        if benchmark.paper is not None and table.sha256 == benchmark.paper.sha256:
            return benchmark, True
    name = PurePath(path).name
    for benchmark in BENCHMARKS.values():
        if benchmark.paper is not None and name == benchmark.paper.name:
            return benchmark, False
    return None


def recognise(table: Table, path: str) -> RecognisedPaperFile | None:
    """Recognise the paper's file that a table was read from, and group its rows.

    Args:
        table: The rows of the file.
        path: Where the file lies.

    Returns:
        None for any other file, and for one of the name that the benchmark's reader refuses.
    """
    identified = identify_paper_file(table, path)
    if identified is None or identified[0].paper is None:
        return None
    paper, is_released = identified[0].paper, identified[1]
    try:
        draft = paper.read(table, True)
    except ValueError:
        return None
    group_of_row = dict(zip(draft.rows, draft.groups, strict=True))
    texts = [plain_text(str(text)) for text in table.column("statement")]
    # The reader groups the rows that it keeps; a row that it drops belongs with its copy.
    group_of_text = {
        texts[i]: group_of_row[row] for i, row in enumerate(table.rows) if row in group_of_row
    }
    groups = tuple(
        group_of_row.get(row, group_of_text.get(texts[i], f"text {texts[i]}"))
        for i, row in enumerate(table.rows)
    )
    return RecognisedPaperFile(paper, is_released, groups, draft.group_note)


def label_meaning(paper: PaperFile, trustworthy: int | None) -> Iterator[LintFinding]:
    """Report what to know about the labels, and whether the user has them the right way round.

    Args:
        paper: What the benchmark declares about its file.
        trustworthy: Which label the user holds to be the trustworthy side; None if not said.
    """
    numbers = {} if paper.trustworthy is None else {"trustworthy": paper.trustworthy}
    if trustworthy is not None and trustworthy != paper.trustworthy:
        side = (
            f"label {trustworthy} was said to be the trustworthy side, but "
            f"{'neither is' if paper.trustworthy is None else f'label {paper.trustworthy} is'}"
        )
        reason = paper.caution or f"label 1 is {paper.meaning_of_1}"
        yield LintFinding("label-meaning", "error", f"{side}: {reason}", (), numbers)
    elif paper.caution:
        severity: Severity = "note" if trustworthy is not None else paper.severity
        yield LintFinding("label-meaning", severity, paper.caution, (), numbers)
