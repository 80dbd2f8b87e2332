"""ToxiGen: statements about groups of people (Hartvigsen et al. 2022, arXiv:2203.09509).

The texts carry escapes of the programs that they went through: `_x000D_` of a spreadsheet, line
breaks and quotes with a backslash. They are turned back into the characters that they stand for.
White space around a text is removed, since activations are read at the last token.
"""

import ast
import math
import re

from tlens_trust.concepts.benchmarks.benchmark import Benchmark, PaperFile
from tlens_trust.concepts.draft import Draft
from tlens_trust.concepts.grouping import group_near_duplicates
from tlens_trust.concepts.tables import Table, binary_labels, is_missing, texts

# The benchmark's own rule, on two ratings from 1 to 5: of a text said to be by a machine, and of
# the same text said to be by a person.
_TOXIC_ABOVE = 5.5

_BREAKS = re.compile(r"[^\S\n]*(?:_x000[DA]_|\\+[nr]|\n|\r)(?:_x000[DA]_|\\+[nr]|\s)*")
_CODE_UNITS = re.compile(r"(?:\\+u[0-9a-fA-F]{4})+")
# The default of `group_near_duplicates`, stated here since it decides the groups.
_SIMILARITY = 0.6


def read_paper(table: Table, clean: bool = True) -> Draft:
    """The revised set in the paper's file; label 1 is toxic there, and is turned round."""
    draft = Draft(
        statements=texts(table, "statement"),
        labels=(1 - binary_labels(table, "label")).tolist(),
        groups=[""] * len(table.rows),
        rows=list(table.rows),
        label_note="column 'label', turned round (1 is toxic there); 1 is benign, the trustworthy "
        "side",
        clean=clean,
    )
    _clean(draft)
    _group(draft)
    return draft


def read_rows(table: Table, seed: int) -> Draft:
    """Rows of the hub's data set; `seed` has nothing to decide here.

    The configuration `annotated` is rated by people. In `train`, the label says what the prompt
    asked the generator for, and the statements of one prompt belong together.
    """
    if "toxicity_human" in table.columns:
        draft = _annotated(table)
    else:
        draft = Draft(
            statements=_texts_or_nothing(table, "generation"),
            labels=(1 - binary_labels(table, "prompt_label")).tolist(),
            groups=texts(table, "prompt"),
            rows=list(table.rows),
            label_note="column 'prompt_label', turned round; 1 where the prompt asked for a benign "
            "text, the trustworthy side (not judged by people)",
            group_note="the prompt",
        )
    # First, since the escapes within the bytes become characters that are cleaned next.
    draft.rewrite(_decoded, "bytes written out as text (b'…') decoded")
    _clean(draft)
    if not draft.group_note:
        _group(draft)
    return draft


def _annotated(table: Table) -> Draft:
    pairs = zip(_numbers(table, "toxicity_ai"), _numbers(table, "toxicity_human"), strict=True)
    ratings = [as_machine + as_person for as_machine, as_person in pairs]
    draft = Draft(
        statements=_texts_or_nothing(table, "text"),
        labels=[int(rating <= _TOXIC_ABOVE) for rating in ratings],
        groups=[""] * len(table.rows),
        rows=list(table.rows),
        label_note=f"columns 'toxicity_ai' and 'toxicity_human'; 1 where they add up to at most "
        f"{_TOXIC_ABOVE}, the trustworthy side, and 0 above (toxic)",
    )
    draft.drop([i for i, rating in enumerate(ratings) if math.isnan(rating)], "not rated")
    return draft


def _clean(draft: Draft) -> None:
    draft.rewrite(
        lambda text: _CODE_UNITS.sub(_characters, text), r"\u escapes turned into characters"
    )
    draft.rewrite(
        lambda text: re.sub(r"\\+(['\"])", r"\1", text), "backslashes before quotes taken off"
    )
    draft.rewrite(lambda text: re.sub(r"(?:\\+t)+", " ", text), r"\t turned into a space")
    draft.rewrite(
        lambda text: _BREAKS.sub("\n", text), r"_x000D_, \n and \r turned into one line break"
    )
    draft.rewrite(str.strip, "white space around the text taken off")
    # Last, since cleaning can empty a statement and make two of them the same.
    empty = [i for i, text in enumerate(draft.statements) if not text]
    draft.drop(empty, "nothing left after cleaning")
    draft.drop_repeats()


def _group(draft: Draft) -> None:
    draft.group_by_first(group_near_duplicates(draft.statements, similarity=_SIMILARITY))
    draft.group_note = f"near-duplicates: sets of words alike to {_SIMILARITY} (Jaccard)"


def _numbers(table: Table, column: str) -> list[float]:
    numbers = []
    for row, cell in zip(table.rows, table.column(column), strict=True):
        try:
            numbers.append(math.nan if is_missing(cell) else float(cell))
        except ValueError as error:
            raise ValueError(
                f"Column {column!r} of {table.source} must hold numbers, got {cell!r} (row {row}; "
                f"{table.counting})."
            ) from error
    return numbers


def _texts_or_nothing(table: Table, column: str) -> list[str]:
    # The hub's rows cannot be mended by the user: an empty one is dropped, and reported.
    return ["" if is_missing(cell) else str(cell) for cell in table.column(column)]


def _characters(units: re.Match[str]) -> str:
    # As UTF-16, so that the two halves of an emoji become one character.
    codes = re.findall(r"u([0-9a-fA-F]{4})", units[0])
    return bytes.fromhex("".join(codes)).decode("utf-16-be", errors="replace")


def _decoded(text: str) -> str:
    if not re.fullmatch(r"b(['\"]).*\1", text, re.DOTALL):
        return text
    try:
        # Reads a literal only, and runs nothing of the text.
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else text


TOXIGEN = Benchmark(
    name="toxigen",
    dimension="toxicity",
    summary="a benign (1) or a toxic (0) statement about a group of people",
    read_rows=read_rows,
    columns=("toxicity_human", "prompt_label"),
    paper=PaperFile(
        name="toxigen.csv",
        sha256="8f7ead8fbde13b4e56c1c1b4df8de89d56047768b81e746b6b565bb4b0108047",
        read=read_paper,
        meaning_of_1="toxic",
        trustworthy=0,
        caution="label 1 is toxic in this file, where the paper says that it is benign: its labels "
        "are turned round",
        severity="warning",
    ),
    repository="toxigen/toxigen-data",
    folders={"annotated": "annotated", "train": "train"},
    splits={"annotated": "train", "train": "train"},
)
