"""Statements that say the same, and whether a split keeps them together."""

import math
import re
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence

import numpy as np

from tlens_trust.concepts.grouping import near_duplicate_pairs
from tlens_trust.concepts.lint.report import LintFinding
from tlens_trust.concepts.lint.rows import Rows, counted, plain_text, quoted, share

# The default of `group_near_duplicates`, by which readers group their rows.
_SIMILARITY = 0.6
_TRAINING_PART = 0.8
# Below these, a chance agreement of a few pairs or rows would be reported.
_LEAST_PAIRS = 4
_LEAST_DEVIATION = 0.1
_LEAST_Z = 3.0
_LEAST_SHIFT = 0.15

# A sentence, or a line, that something follows.
_OPENING = re.compile(r"(?P<opening>[^\t\n]{8,}?(?:[.!?]+[\"'”’)]*(?=\s)|(?=[\t\n])))\s+(?=\S)")


def duplicates(rows: Rows) -> Iterator[LintFinding]:
    """Statements that occur more than once, and those that do with both labels."""
    places = _places(rows.statements)
    repeats = sorted(i for copies in places.values() for i in copies[1:])
    if repeats:
        yield LintFinding(
            "duplicates",
            "warning",
            f"{len(repeats)} of {len(rows)} rows {'repeats' if len(repeats) == 1 else 'repeat'} "
            f"an earlier statement letter by letter: different ones are {len(places)}",
            rows.at(repeats),
            {"repeats": len(repeats), "different": len(places)},
        )
    conflicting = [
        copies for copies in places.values() if len(set(rows.labels[copies].tolist())) == 2
    ]
    if conflicting:
        count = sum(map(len, conflicting))
        examples = [rows.statements[copies[0]] for copies in conflicting[:2]]
        yield LintFinding(
            "conflicting-labels",
            "error",
            f"{count} rows say the same with both labels: {quoted(examples)}"
            f"{', …' if len(conflicting) > len(examples) else ''}",
            rows.at(sorted(i for copies in conflicting for i in copies)),
            {"statements": len(conflicting), "rows": count},
        )


def twins_apart(rows: Rows) -> Iterator[LintFinding]:
    """Statements that differ in case and punctuation alone, in different groups."""
    apart = sorted(_apart(rows, _places(rows.plain)))
    if apart:
        n_statements = len({rows.plain[i] for i in apart})
        yield LintFinding(
            "twins-apart",
            "warning",
            f"{counted(n_statements, 'statement')} {'occurs' if n_statements == 1 else 'occur'} in "
            "several "
            f"groups, the same but for case, punctuation and white space ({len(apart)} "
            f"rows), so that a split can part a statement from its twin; name what "
            f"belongs together in a column, and give it as the group",
            rows.at(apart),
            {"statements": n_statements, "rows": len(apart)},
        )


def near_duplicates_apart(rows: Rows) -> Iterator[LintFinding]:
    """Statements much alike in different groups, where that tells the label."""
    earlier, later = near_duplicate_pairs(rows.statements, similarity=_SIMILARITY)
    apart = rows.kin[earlier] != rows.kin[later]
    earlier, later = earlier[apart], later[apart]
    if len(earlier) < _LEAST_PAIRS:
        return
    ones = rows.labels.mean()
    # How often two statements that are drawn at random have the same label.
    by_chance = float(ones**2 + (1 - ones) ** 2)
    agrees = rows.labels[earlier] == rows.labels[later]
    # Statements of one form are alike whatever they say. Only where such pairs agree on the label
    # more or less often than chance does having seen one tell anything about the other.
    # Summed by group first, since the pairs of one group are not independent.
    excess_by_kin = np.bincount(rows.kin[earlier], weights=agrees - by_chance, minlength=len(rows))
    spread = math.sqrt(float((excess_by_kin**2).sum()))
    deviation = float(agrees.mean()) - by_chance
    if abs(deviation) < _LEAST_DEVIATION or abs(float(excess_by_kin.sum())) < _LEAST_Z * spread:
        return
    rows_in_pairs = sorted({*earlier.tolist(), *later.tolist()})
    yield LintFinding(
        "near-duplicates-apart",
        "warning",
        f"{len(earlier)} pairs of statements share most of their words ({_SIMILARITY} of them or "
        f"more) across groups, and {share(int(agrees.sum()), len(agrees))} of the pairs agree on "
        f"the label, where {by_chance:.0%} would by chance: memory of one tells the other",
        rows.at(rows_in_pairs),
        {
            "pairs": len(earlier),
            "same_label": float(agrees.mean()),
            "by_chance": by_chance,
            "rows": len(rows_in_pairs),
        },
    )


def openings_apart(rows: Rows) -> Iterator[LintFinding]:
    """Statements that begin with the same sentence or question, in different groups."""
    matches = [_OPENING.match(statement) for statement in rows.statements]
    # A statement without an opening gets its number, which no other statement has.
    openings: list[Hashable] = [
        plain_text(match["opening"]) if match else i for i, match in enumerate(matches)
    ]
    # What a large part of the statements begins with is a form, and not a matter of its own.
    limit = max(10, len(rows) // 20)
    places = {
        name: positions for name, positions in _places(openings).items() if len(positions) <= limit
    }
    apart = sorted(_apart(rows, places))
    if len(apart) < max(4, len(rows) // 50):
        return
    n_openings = len({openings[i] for i in apart})
    first_match = matches[apart[0]]
    yield LintFinding(
        "openings-apart",
        "warning",
        f"{len(apart)} rows begin with a sentence that a row of another group begins with, "
        f"{n_openings} such sentences in all, as "
        f"{quoted([first_match['opening']] if first_match else [])}; if it is "
        f"a question or a context with several continuations, make it the group",
        rows.at(apart),
        {"openings": n_openings, "rows": len(apart)},
    )


def sequential_split(rows: Rows) -> Iterator[LintFinding]:
    """Groups that an unshuffled 80/20 split would have on both sides."""
    # As the paper cuts its files.
    cut = int(_TRAINING_PART * len(rows))
    training_kin = set(rows.kin[:cut].tolist())
    rows_with_kin = [i for i in range(cut, len(rows)) if int(rows.kin[i]) in training_kin]
    astride = len({int(rows.kin[i]) for i in rows_with_kin})
    # One group may happen to stand where the cut falls.
    if astride < 2:
        return
    grouping = f" ({rows.grouping})" if rows.grouping else ""
    tested = len(rows) - cut
    yield LintFinding(
        "sequential-split",
        "warning",
        f"{astride} of {len(np.unique(rows.kin))} groups{grouping} are scattered over the file, so "
        f"that a split into the first 80% and the last 20% without shuffling has them on both "
        f"sides: {len(rows_with_kin)} of its {tested} test rows have their own group among the "
        "training "
        f"rows; split by group",
        rows.at(rows_with_kin),
        {"groups_astride": astride, "test_rows": tested, "test_rows_known": len(rows_with_kin)},
    )


def label_order(rows: Rows) -> Iterator[LintFinding]:
    """Labels that an unshuffled 80/20 split would have in different shares on its two sides."""
    cut = int(_TRAINING_PART * len(rows))
    training_labels, test_labels = rows.labels[:cut], rows.labels[cut:]
    if not len(training_labels) or not len(test_labels):
        return
    ones = float(rows.labels.mean())
    shift = float(test_labels.mean() - training_labels.mean())
    # The standard error of the difference of two shares, if the order were random.
    spread = math.sqrt(ones * (1 - ones) * (1 / len(training_labels) + 1 / len(test_labels)))
    if abs(shift) < _LEAST_SHIFT or abs(shift) < _LEAST_Z * spread:
        return
    yield LintFinding(
        "label-order",
        "error" if test_labels.mean() in (0, 1) or training_labels.mean() in (0, 1) else "warning",
        "the rows are not in random order: "
        f"{share(int(training_labels.sum()), len(training_labels))} of the first 80% "
        f"carry label 1, and {share(int(test_labels.sum()), len(test_labels))} of the last 20%, so "
        "that a split "
        f"without shuffling would train on one mixture and test on another",
        (),
        {"first": float(training_labels.mean()), "last": float(test_labels.mean())},
    )


def _places(names: Sequence[Hashable]) -> dict[Hashable, list[int]]:
    places: dict[Hashable, list[int]] = defaultdict(list)
    for i, name in enumerate(names):
        places[name].append(i)
    return places


def _apart(rows: Rows, places: dict[Hashable, list[int]]) -> Iterator[int]:
    for positions in places.values():
        if len(set(rows.group[positions].tolist())) > 1:
            yield from positions
