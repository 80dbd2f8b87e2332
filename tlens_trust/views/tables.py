"""A `Trace` in a few lines of text."""

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from tlens_trust.tracing import Trace

if TYPE_CHECKING:
    import pandas

_NEEDED = ("accuracy", "accuracy_ci")


def summarise(trace: Trace, onset: xr.Dataset | None = None) -> "pandas.DataFrame":
    """Say for each concept where it is read best in the end, against what, and since when.

    The layer is the one with the highest accuracy at the last checkpoint. With `onset` it is chosen
    for every fold on the other folds, and scored on the fold; accuracy and interval know of the
    choice, and the layer that is named is the one chosen most often. Without, or where there was
    nothing to choose on, it is chosen by the very numbers that are shown, which are optimistic.

    Args:
        trace: Of one probe, with its accuracy and interval.
        onset: What `find_onset` gives for the run folder of the trace, of the same probe.

    Returns:
        One row a concept: `concept`, `layer`, `site` ("" where nothing is known), `accuracy` with
        `low` and `high`, and `chosen`, `"on other folds"` or `"post hoc"`; at that site, NaN where
        unknown, `null` (upper end of the band), `floor`, `untrained`, and `q` of the best site; at
        the best site of each checkpoint `onset_checkpoint` and `onset_step`, `after_checkpoint` and
        `after_step` (the other end of the set), `at_start` and `lasting_step`, as `find_onset`
        says, and `looked_at`, the number of checkpoints (0: the onset is unknown).

    Raises:
        ValueError: The trace holds no such quantities, or several probes, or `onset` is not of its
            concepts and checkpoints.

    Example:
        >>> from tlens_trust.tracing import find_onset
        >>> trace = Trace.load("run")  # doctest: +SKIP
        >>> summarise(trace, find_onset("run")).onset_step  # doctest: +SKIP
    """
    import pandas as pd

    missing = [name for name in _NEEDED if name not in trace.data]
    if missing or "probe" in trace.data.dims:
        raise ValueError(
            f"A summary needs one probe's {' and '.join(_NEEDED)}, and this trace "
            f"{'lacks ' + ' and '.join(missing) if missing else 'holds several probes'}. "
            "Make one with `probe_checkpoints`, or choose with `trace.sel(probe=...)`."
        )
    if onset is not None:
        _check_same(trace, onset)
    rows = []
    for concept in trace.concepts:
        best = None if onset is None else onset.sel(concept=concept)
        rows.append({"concept": concept} | _row(trace.data.sel(concept=concept), best))
    return pd.DataFrame(rows)


def summary_table(trace: Trace, onset: xr.Dataset | None = None) -> str:
    """`summarise`, laid out for a terminal.

    Args:
        trace: As for `summarise`.
        onset: As for `summarise`.

    Raises:
        ValueError: As `summarise`.
    """
    found = summarise(trace, onset).to_dict(orient="records")
    rows = [{str(column): value for column, value in row.items()} for row in found]
    width = max(7, *(len(row["concept"]) for row in rows))
    known = any(row["looked_at"] for row in rows)
    lines = [
        f"{'concept':<{width}}  layer  accuracy [95% interval]   null  floor  untrained       q"
        + "  onset" * known
    ]
    for row in rows:
        start = f"{row['concept']:<{width}}  "
        if not row["site"]:
            lines.append(f"{start}unknown")
            continue
        levels = "  ".join(
            f"{_number(row[level]):>{space}}"
            for level, space in (("null", 5), ("floor", 5), ("untrained", 9))
        )
        lines.append(
            f"{start}{row['layer']:>5g}  {row['accuracy']:>7.3f} [{row['low']:.3f}, "
            f"{row['high']:.3f}]  {levels}  {_q(row['q']):>6}" + f"  {_since(row)}" * known
        )
    return "\n".join([*lines, "", *_legend(rows, onset if known else None)])


def _row(data: xr.Dataset, onset: xr.Dataset | None) -> dict[str, Any]:
    """What is said of one concept."""
    last = data.accuracy.isel(checkpoint=-1)
    row: dict[str, Any] = {"layer": np.nan, "site": "", "looked_at": 0}
    row |= dict.fromkeys(("accuracy", "low", "high", "null", "floor", "untrained", "q"), np.nan)
    row |= {"chosen": "", "onset_checkpoint": "", "onset_step": np.nan, "after_checkpoint": ""}
    row |= {"after_step": np.nan, "at_start": False, "lasting_step": np.nan}
    if not last.notnull().any():
        return row
    best = None if onset is None else onset.sel(site="best")
    in_the_end = None if best is None else best.isel(checkpoint=-1)
    if onset is not None and in_the_end is not None and in_the_end.accuracy.notnull():
        share = onset.best_share.isel(checkpoint=-1).sel(site=data["site"].values)
        row["site"], row["chosen"] = str(share.idxmax("site").item()), "on other folds"
        accuracy, interval = in_the_end.accuracy, in_the_end.accuracy_ci
    else:
        row["site"], row["chosen"] = str(last.idxmax("site").item()), "post hoc"
        accuracy = last.sel(site=row["site"])
        interval = data.accuracy_ci.isel(checkpoint=-1).sel(site=row["site"])
    there = data.isel(checkpoint=-1).sel(site=row["site"])
    row["layer"] = float(there["layer"])
    row["accuracy"] = float(accuracy)
    row["low"], row["high"] = interval.sel(bound=["low", "high"]).values.tolist()
    for column, name in (("floor", "accuracy_floor"), ("q", "accuracy_q")):
        row[column] = float(there[name]) if name in there else np.nan
    if "accuracy_null" in there:
        row["null"] = float(there.accuracy_null.sel(bound="high"))
    row["untrained"] = _untrained(data, there)
    if best is not None and int(best.onset_n):
        row |= _onset_of(best)
    return row


def _untrained(data: xr.Dataset, there: xr.Dataset) -> float:
    if "accuracy_untrained" in there:
        return float(there.accuracy_untrained)
    at_step_0 = data.accuracy.sel(site=there["site"].item()).values[data["step"].values == 0]
    return float(at_step_0[0]) if len(at_step_0) else np.nan


def _onset_of(best: xr.Dataset) -> dict[str, Any]:
    first = best["checkpoint"].values[best.onset_set.values][0]
    return {
        "onset_checkpoint": str(best.onset_checkpoint.item()),
        "onset_step": float(best.onset_step),
        "after_checkpoint": str(first),
        "after_step": float(best.onset_step_ci.sel(bound="low")),
        "at_start": bool(best.onset_at_start),
        "lasting_step": float(best.lasting_step),
        "looked_at": int(best.onset_n),
    }


def _check_same(trace: Trace, onset: xr.Dataset) -> None:
    for axis, names in (("concept", trace.concepts), ("checkpoint", trace.checkpoints)):
        if set(names) - set(onset[axis].values.tolist()):
            raise ValueError(
                f"The trace and `onset` are not of the same {axis}s: {', '.join(names)}, and "
                f"{', '.join(onset[axis].values.tolist())}. Give `find_onset(run_folder)` of the "
                "run folder that the trace is from."
            )
    if "probe" in onset.dims:
        raise ValueError("`onset` holds several probes. Choose one with `onset.sel(probe=...)`.")


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.3f}"


def _q(value: float) -> str:
    return "<0.001" if value < 0.0005 else _number(value)


def _since(row: dict[str, Any]) -> str:
    """The set, as it is read aloud."""
    if not row["looked_at"]:
        return "unknown"

    def at(which: str) -> str:
        step = row[f"{which}_step"]
        return row[f"{which}_checkpoint"].split("@")[-1] if np.isnan(step) else f"{step:.0f}"

    if not row["onset_checkpoint"]:
        return "never"
    if not row["at_start"]:
        return f"{at('onset')} (after {at('after')})"
    only = row["onset_checkpoint"] == row["after_checkpoint"]
    return f"{at('onset')} (from the start)" if only else f"{at('onset')} (or before)"


def _legend(rows: list[dict[str, Any]], onset: xr.Dataset | None) -> list[str]:
    chosen = "chosen on folds that it is not scored on"
    if any(row["chosen"] == "post hoc" for row in rows):
        chosen = "chosen by these very numbers: optimistic"
    lines = [
        f"layer   with the highest accuracy at the last checkpoint, {chosen}",
        "null    where labels mean nothing, the upper end of the middle 95% at that layer",
        "floor   of a classifier of the text alone; untrained: of random weights, at that layer",
        "q       of labels being read at any layer (by AUROC), corrected for concepts, checkpoints",
    ]
    if onset is None:
        return lines
    level = (1 + float(onset.attrs["confidence"])) / 2
    against = "null and floor" if onset.attrs["floor"] == "True" else "null"
    margin = float(onset.attrs["margin"])
    return [
        *lines,
        f"onset   step by which it is read above {against}, and the step after which: up to there,",
        f"        by at most {margin:g} (each {level:.1%} sure, over all steps looked at)",
    ]
