"""What a reader must know before relying on the numbers of a trace."""

from collections.abc import Sequence

import numpy as np

from tlens_trust.tracing import Trace

# A rule of thumb: intervals resample groups, and those of fewer groups are rough.
_FEW_GROUPS = 30
_BASELINES = {
    "floor": "a text-only baseline",
    "untrained": "untrained weights",
    "null": "permuted labels",
}


def find_cautions(trace: Trace, *, unfinished: Sequence[str] = ()) -> list[str]:
    """List what is missing, what leaks, and which baselines are lacking, one sentence each.

    Args:
        trace: Any.
        unfinished: Checkpoints of the sweep that have not been measured yet.
    """
    data = trace.data
    cautions = []
    if unfinished:
        cautions.append(describe_unfinished(unfinished, len(trace.checkpoints)))
    cautions += _unknown_cells(trace)
    if "accuracy" in data:
        for level, baseline in _BASELINES.items():
            name = f"accuracy_{level}"
            if name in data and data[name].notnull().any():
                continue
            reason = data[name].attrs.get("untrained", "") if name in data else ""
            reason = reason.removeprefix("unknown: ") if reason.startswith("unknown") else ""
            cautions.append(
                f"Accuracies are not compared with {baseline}{f' ({reason})' if reason else ''}."
            )
    for name in map(str, data.data_vars):
        if name.startswith("leak_") and float(data[name].max()) > 0:
            meaning = data[name].attrs.get("long_name", name)
            # The split depends on seed and concept alone: all known checkpoints have the same
            # count.
            counts = data[name].max([dim for dim in data[name].dims if dim != "concept"])
            leaks = ", ".join(
                f"{concept} {count:,.0f}"
                for concept, count in zip(trace.concepts, counts.values.tolist(), strict=True)
                if count > 0
            )
            cautions.append(f"Statements leak from training into the test ({meaning}): {leaks}.")
    if "unconverged" in data and float(data["unconverged"].sum()) > 0:
        cautions.append(f"{float(data['unconverged'].sum()):,.0f} probe fits did not converge.")
    return cautions + _concept_cautions(trace)


def describe_unfinished(names: Sequence[str], n_finished: int) -> str:
    """Say that a sweep is not finished: without its last checkpoints, "never" means little.

    Args:
        names: Checkpoints that have not been measured yet.
        n_finished: The number of checkpoints that have been measured.
    """
    return (
        f"The sweep is not finished: {len(names)} of {len(names) + n_finished} checkpoints have "
        f"not been measured ({_first_three(names)}). Run the same command or call again to measure "
        "them. Until then all results are about the other checkpoints."
    )


def _unknown_cells(trace: Trace) -> list[str]:
    # A cell is committed as a whole, so any one quantity shows whether it is there.
    values = trace.data[trace.quantities[0]]
    if not {"concept", "checkpoint"} <= set(values.dims):
        return []
    is_unknown = values.isnull().all(
        [dim for dim in values.dims if dim not in ("concept", "checkpoint")]
    )
    names = [
        f"{concept} at {checkpoint}"
        for concept in trace.concepts
        for checkpoint in trace.checkpoints
        if bool(is_unknown.sel(concept=concept, checkpoint=checkpoint))
    ]
    if not names:
        return []
    total = len(trace.concepts) * len(trace.checkpoints)
    return [
        f"{len(names)} of {total} cells (a concept at a checkpoint) are unknown: they failed, or "
        f"have not been measured yet ({_first_three(names)})."
    ]


def _first_three(names: Sequence[str]) -> str:
    return f"{', '.join(names[:3])}{', …' * (len(names) > 3)}"


def _concept_cautions(trace: Trace) -> list[str]:
    cautions = []
    data = trace.data
    if "polarity" in data.coords:
        names = [
            name
            for name, polarity in zip(trace.concepts, data["polarity"].values, strict=True)
            if not polarity
        ]
        if names:
            cautions.append(
                f"Neither label is the trustworthy side of {', '.join(names)}: a probe tells only "
                "which of two kinds a statement is."
            )
    if "n_groups" in data.coords:
        counts = np.asarray(data["n_groups"].values, dtype=float)
        small = [
            f"{name} ({count:.0f})"
            for name, count in zip(trace.concepts, counts, strict=True)
            if count < _FEW_GROUPS
        ]
        if small:
            cautions.append(
                f"There are few independent groups of statements for {', '.join(small)}: their "
                "intervals are rough."
            )
    return cautions
