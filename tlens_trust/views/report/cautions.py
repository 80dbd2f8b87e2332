"""What a reader must know before believing a trace."""

from collections.abc import Sequence

import numpy as np

from tlens_trust.tracing import Trace

_FEW_GROUPS = 30


def find_cautions(trace: Trace, *, unfinished: Sequence[str] = ()) -> list[str]:
    """Sentences on what is missing, leaks, or was not held against anything.

    Args:
        trace: Any.
        unfinished: Checkpoints that the sweep was to read and has not read yet.
    """
    data = trace.data
    found = []
    if unfinished:
        found.append(tell_unfinished(unfinished, len(trace.checkpoints)))
    found += _unknown(trace)
    if "accuracy" in data:
        for level, what in (
            ("floor", "a classifier of the text alone"),
            ("untrained", "untrained weights"),
            ("null", "permuted labels"),
        ):
            name = f"accuracy_{level}"
            if name not in data or not data[name].notnull().any():
                why = data[name].attrs.get("untrained", "") if name in data else ""
                told = f" ({why.removeprefix('unknown: ')})" if why.startswith("unknown") else ""
                found.append(f"Accuracies are not held against {what}{told}.")
    for leak in map(str, data.data_vars):
        if leak.startswith("leak_") and float(data[leak].max()) > 0:
            told = data[leak].attrs.get("long_name", leak)
            worst = data[leak].max([dim for dim in data[leak].dims if dim != "concept"])
            each = ", ".join(
                f"{concept} {count:,.0f}"
                for concept, count in zip(trace.concepts, worst.values.tolist(), strict=True)
                if count > 0
            )
            found.append(f"Statements leak from training into the test ({told}): {each}.")
    if "unconverged" in data and float(data["unconverged"].sum()) > 0:
        total = float(data["unconverged"].sum())
        found.append(f"{total:,.0f} fits of probes did not reach their optimum.")
    found += _concepts(trace)
    return found


def tell_unfinished(names: Sequence[str], finished: int) -> str:
    """That a run has stopped short: without its last checkpoints, "never" says little."""
    return (
        f"The sweep is not finished: of {len(names) + finished} checkpoints, {len(names)} have not "
        f"been read ({', '.join(names[:3])}{', …' * (len(names) > 3)}). The same command, or call, "
        "reads them; until then all that is said is of the others."
    )


def _unknown(trace: Trace) -> list[str]:
    first = trace.data[trace.quantities[0]]
    if not {"concept", "checkpoint"} <= set(first.dims):
        return []
    lost = first.isnull().all([dim for dim in first.dims if dim not in ("concept", "checkpoint")])
    missing = [
        f"{concept} at {checkpoint}"
        for concept in trace.concepts
        for checkpoint in trace.checkpoints
        if bool(lost.sel(concept=concept, checkpoint=checkpoint))
    ]
    if not missing:
        return []
    total = len(trace.concepts) * len(trace.checkpoints)
    return [
        f"{len(missing)} of {total} cells of a concept and a checkpoint are unknown: they failed, "
        f"or were not measured yet ({', '.join(missing[:3])}{', …' * (len(missing) > 3)})."
    ]


def _concepts(trace: Trace) -> list[str]:
    found = []
    data = trace.data
    if "polarity" in data.coords:
        without = [
            name
            for name, polarity in zip(trace.concepts, data["polarity"].values, strict=True)
            if not polarity
        ]
        if without:
            found.append(
                f"Neither label is the trustworthy side of {', '.join(without)}: what is read is "
                "which of two kinds a statement is."
            )
    if "n_groups" in data.coords:
        counts = np.asarray(data["n_groups"].values, dtype=float)
        few = [
            f"{name} ({count:.0f})"
            for name, count in zip(trace.concepts, counts, strict=True)
            if count < _FEW_GROUPS
        ]
        if few:
            found.append(
                f"There are few independent groups of statements of {', '.join(few)}: intervals "
                "from so few are rough."
            )
    return found
