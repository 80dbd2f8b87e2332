"""Traces in a text of the programs that it went through."""

import re
from collections.abc import Iterator

from tlens_trust.concepts.lint.report import LintFinding
from tlens_trust.concepts.lint.rows import Rows, quoted, rows_that, share

_ARTEFACTS: dict[str, re.Pattern[str]] = {
    "an escape of a spreadsheet": re.compile(r"_x[0-9A-Fa-f]{4}_"),
    # Before a small letter, `\t` may begin a word, as in LaTeX's `\text`.
    "a line break or tab written out with a backslash": re.compile(r"\\+[nrt](?![a-z])|\\+[nr]"),
    "a quote with a backslash": re.compile(r"\\+[\"']"),
    "a character written out as its code": re.compile(r"\\+(?:u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2})"),
    "an HTML entity": re.compile(r"&(?:[a-zA-Z]{2,8}|#\d{1,6}|#x[0-9a-fA-F]{1,5});"),
    "an HTML tag": re.compile(
        r"</?(?:br|p|b|i|em|strong|div|span|a|li|ul|ol|td|tr)\b[^<>]*>", re.I
    ),
    "a bracket written out as in a treebank": re.compile(r"-[lr][rsc]b-", re.I),
    "bytes written out as text": re.compile(r"^b(['\"]).*\1$", re.DOTALL),
    # UTF-8 read as Latin-1 or as Windows' code page, and characters lost on the way.
    "damage by a wrong encoding": re.compile(
        "[ÂÃ][\u0080-\u00bf\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u2018-\u203a\u20ac\u2122]"
        "|â(?:€|\u0080)|ðŸ|ï»¿|\ufffd"
    ),
    "a control character": re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"),
    "an invisible character": re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]"),
    "white space at its beginning": re.compile(r"\A\s+"),
    "white space at its end": re.compile(r"\s+\Z"),
}


def artefacts(rows: Rows) -> Iterator[LintFinding]:
    """Each kind of trace with the rows that carry it, and how their labels fall."""
    for kind, pattern in _ARTEFACTS.items():
        matches = [pattern.search(statement) for statement in rows.statements]
        positions = [i for i, match in enumerate(matches) if match]
        if not positions:
            continue
        ones = int(rows.labels[positions].sum())
        marks = list(dict.fromkeys(match[0] for match in matches if match))
        blank = kind.startswith("white space")
        examples = "" if blank else f" ({quoted(marks, width=20)})"
        yield LintFinding(
            "artefact",
            "warning",
            f"{rows_that(len(positions), 'hold')} {kind}{examples}; {share(ones, len(positions))} "
            "of these carry "
            f"label 1, and {share(int(rows.labels.sum()), len(rows))} of all",
            rows.at(positions),
            {"rows": len(positions), "share_1": ones / len(positions)},
        )
