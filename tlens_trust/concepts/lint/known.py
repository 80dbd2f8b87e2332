"""The paper's five files, which are known, and what their labels really are.

What a label means cannot be seen in the statements, so it is told here, from the study of each
file; everything else is found in the rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath

from tlens_trust.concepts.benchmarks import BENCHMARKS, Benchmark
from tlens_trust.concepts.lint.report import Finding, Severity
from tlens_trust.concepts.lint.rows import plain_text
from tlens_trust.concepts.tables import Table


@dataclass(frozen=True)
class Meaning:
    """What the labels of a known file say.

    Attributes:
        of_1: What label 1 says.
        trustworthy: Which label is the trustworthy side; None where neither is.
        caution: What whoever reads the file should know.
        severity: Of that caution, where the user said nothing about the labels.
    """

    of_1: str
    trustworthy: int | None
    caution: str = ""
    severity: Severity = "note"


_MEANINGS = {
    "truthfulqa": Meaning("a true answer", 1),
    "confaide": Meaning(
        "a violation of privacy", 0, "label 1 is a violation, the untrustworthy side"
    ),
    "toxigen": Meaning(
        "toxic",
        0,
        "label 1 is toxic in this file, where the paper says that it is benign: its labels are "
        "turned round",
        "warning",
    ),
    "stereoset": Meaning(
        "a continuation that has to do with the context",
        None,
        "label 0 is a continuation that has nothing to do with its context, and label 1 one that "
        "has: what the labels contrast is coherence, not a stereotype, and neither is the "
        "trustworthy side",
        "error",
    ),
    "sst2": Meaning(
        "perturbed letters", 0, "label 1 is the perturbed sentence, the untrustworthy side"
    ),
}


@dataclass(frozen=True)
class KnownFile:
    """One of the paper's files.

    Attributes:
        benchmark: Its benchmark's name.
        released: Whether it is byte for byte the released one; else its name alone tells.
        groups: What each row belongs to.
        grouping: What a group is, in words.
    """

    benchmark: str
    released: bool
    groups: tuple[str, ...]
    grouping: str

    @property
    def meaning(self) -> Meaning:
        """What its labels say."""
        return _MEANINGS[self.benchmark]


def told_by(table: Table, path: str) -> tuple[Benchmark, bool] | None:
    """Of which benchmark the paper's file is, and whether its content tells so or its name alone.

    Args:
        table: What was read from it.
        path: Where it lies.
    """
    benchmarks = BENCHMARKS.values()
    for benchmark in benchmarks:
        if table.sha256 == benchmark.paper_sha256:
            return benchmark, True
    name = PurePath(path).name
    return next(((each, False) for each in benchmarks if name == each.paper_file), None)


def recognise(table: Table, path: str) -> KnownFile | None:
    """The paper's file that a table was read from, told by its content or else by its name."""
    told = told_by(table, path)
    if told is not None:
        benchmark, released = told
        try:
            draft = benchmark.read_paper(table, True)
        except ValueError:  # another file of that name, or one spoilt; it is read as any other
            return None
        kept = dict(zip(draft.rows, draft.groups, strict=True))
        texts = [plain_text(str(text)) for text in table.column("statement")]
        # The reader groups what it keeps; a row that it drops belongs with its copy.
        of_text = {texts[i]: kept[row] for i, row in enumerate(table.rows) if row in kept}
        groups = tuple(
            kept.get(row, of_text.get(texts[i], f"text {texts[i]}"))
            for i, row in enumerate(table.rows)
        )
        return KnownFile(benchmark.name, released, groups, draft.group_note)
    return None


def label_meaning(benchmark: str, trustworthy: int | None) -> Iterator[Finding]:
    """What to know of a known file's labels, and whether the user has them the right way round."""
    meaning = _MEANINGS[benchmark]
    numbers = {} if meaning.trustworthy is None else {"trustworthy": meaning.trustworthy}
    if trustworthy is not None and trustworthy != meaning.trustworthy:
        side = (
            f"label {trustworthy} was said to be the trustworthy side, but "
            f"{'neither is' if meaning.trustworthy is None else f'label {meaning.trustworthy} is'}"
        )
        what = meaning.caution or f"label 1 is {meaning.of_1}"
        yield Finding("label-meaning", "error", f"{side}: {what}", (), numbers)
    elif meaning.caution:
        severity: Severity = "note" if trustworthy is not None else meaning.severity
        yield Finding("label-meaning", severity, meaning.caution, (), numbers)
