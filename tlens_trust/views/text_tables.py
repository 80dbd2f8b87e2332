"""Plain-text tables, for a terminal."""

import math
import textwrap
from collections.abc import Sequence

Column = tuple[str, Sequence[str]]


def lay_out(columns: Sequence[Column], *, left: Sequence[str]) -> list[str]:
    r"""Lay out a table in lines, headings first.

    Args:
        columns: Heading and cells of each column, with equally many cells.
        left: Headings of the columns that are aligned to the left; the others go to the right.

    Examples:
        >>> print("\n".join(lay_out([("name", ["a", "bcd"]), ("n", ["10", "9"])], left=["name"])))
        name   n
        a     10
        bcd    9
    """
    # The 0 serves a column without cells: `max` needs at least two numbers.
    widths = [max(len(heading), *map(len, cells), 0) for heading, cells in columns]
    names = [heading for heading, _ in columns]
    lines = [names, *(list(row) for row in zip(*(cells for _, cells in columns), strict=True))]
    return [
        "  ".join(
            cell.ljust(width) if name in left else cell.rjust(width)
            for name, cell, width in zip(names, line, widths, strict=True)
        ).rstrip()
        for line in lines
    ]


def with_heading(
    heading: str, sentences: Sequence[str], *, indent: int = 12, width: int = 100
) -> list[str]:
    r"""Lay out an entry of a legend: a heading, and right of it sentences that explain it.

    Every sentence begins on a new line.

    Args:
        heading: What is explained.
        sentences: The explanation.
        indent: The number of characters left of the sentences.
        width: The largest number of characters in a line.

    Examples:
        >>> print("\n".join(with_heading("n", ["How many there are.", "At least 1."], indent=3)))
        n  How many there are.
           At least 1.
    """
    body = [line for sentence in sentences for line in textwrap.wrap(sentence, width - indent)]
    return [f"{'' if i else heading:<{indent}}{line}" for i, line in enumerate(body)]


def number(value: float, *, digits: int = 3) -> str:
    """Format a number; an unknown number gives an empty text."""
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def small_number(value: float) -> str:
    """Format a probability; a small one is not rounded to 0.

    Examples:
        >>> small_number(0.0123), small_number(0.0004), small_number(float("nan"))
        ('0.012', '<0.001', '')
    """
    # With three digits, a smaller number would be shown as 0.000.
    return "<0.001" if value < 0.0005 else number(value)


def with_interval(value: float, low: float, high: float) -> str:
    """Format a number and its interval; an unknown number gives an empty text."""
    return "" if math.isnan(value) else f"{value:.3f} [{low:.3f}, {high:.3f}]"
