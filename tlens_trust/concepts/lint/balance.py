"""Balance of labels and sizes of groups."""

from collections.abc import Iterator

import numpy as np

from tlens_trust.concepts.lint.report import LintFinding
from tlens_trust.concepts.lint.rows import Rows, counted, share

_EVEN = (0.4, 0.6)
_USABLE = (0.1, 0.9)
# A bootstrap that resamples fewer groups than these gives intervals that are too narrow.
_FEW_GROUPS = 20
_LARGE_GROUP = 0.1


def balance(rows: Rows) -> Iterator[LintFinding]:
    """A label that is much commoner than the other."""
    ones = float(rows.labels.mean())
    if _EVEN[0] <= ones <= _EVEN[1]:
        return
    yield LintFinding(
        "imbalance",
        "warning" if _USABLE[0] <= ones <= _USABLE[1] else "error",
        f"{share(int(rows.labels.sum()), len(rows))} of {len(rows)} statements carry label 1, so "
        f"that always answering {int(ones > 0.5)} is right in {rows.majority:.1%}; read balanced "
        f"accuracy or AUROC",
        (),
        {"share_1": ones, "majority": rows.majority},
    )


def group_sizes(rows: Rows) -> Iterator[LintFinding]:
    """Too few groups to resample, or one that holds much of the set."""
    sizes = np.bincount(rows.group)
    if len(sizes) < _FEW_GROUPS:
        yield LintFinding(
            "few-groups",
            # The default of five folds takes five groups.
            "error" if len(sizes) < 5 else "warning",
            f"{counted(len(rows), 'statement')} in {counted(len(sizes), 'group')} alone, too "
            f"few for an interval that resamples groups"
            + (", and for five folds" if len(sizes) < 5 else "")
            + "; add groups rather than statements",
            (),
            {"groups": len(sizes), "statements": len(rows)},
        )
    largest = int(sizes.argmax())
    # Of a few groups, each holds a large share, so that one counts as large at twice the mean.
    if len(sizes) >= 5 and sizes[largest] > max(
        _LARGE_GROUP * len(rows), 2 * len(rows) / len(sizes)
    ):
        in_largest = rows.group == largest
        name = rows.groups[int(np.flatnonzero(in_largest)[0])]
        yield LintFinding(
            "large-group",
            "warning",
            f"the group {name[:60]!r} holds {share(int(sizes[largest]), len(rows))} of all "
            f"statements, which stay on one side of every split",
            rows.at(in_largest),
            {"rows": int(sizes[largest]), "share": float(sizes[largest] / len(rows))},
        )


def single_label_groups(rows: Rows) -> Iterator[LintFinding]:
    """Groups without a contrast among groups that have one, or groups that give the label away."""
    sizes = np.bincount(rows.group)
    ones = np.bincount(rows.group, weights=rows.labels)
    mixed = (ones > 0) & (ones < sizes)
    in_mixed = int(sizes[mixed].sum())
    is_shared = sizes > 1
    single_label = np.flatnonzero(~mixed)
    if 2 * in_mixed >= len(rows) and len(single_label):
        without_contrast = ~mixed[rows.group]
        yield LintFinding(
            "single-label-groups",
            "note",
            f"{len(single_label)} of {len(sizes)} groups "
            f"{'holds' if len(single_label) == 1 else 'hold'} one "
            f"label only, where the others hold both: their "
            f"{counted(int(without_contrast.sum()), 'statement')} can be contrasted with nothing",
            rows.at(without_contrast),
            {"groups": len(single_label), "rows": int(without_contrast.sum())},
        )
    # Statements of a group then share their label, so that the sample size is the number of groups.
    elif not in_mixed and 2 * int(sizes[is_shared].sum()) >= len(rows):
        yield LintFinding(
            "single-label-groups",
            "warning",
            f"every one of the {len(sizes)} groups holds one label only, so that what tells groups "
            f"apart can pass for the concept; a null has to shuffle whole groups, of which "
            f"{int((ones > 0).sum())} carry label 1",
            (),
            {"groups": len(sizes), "rows": len(rows)},
        )
