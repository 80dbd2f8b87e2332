"""A `Trace` in a few lines of text."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from tlens_trust.analysis.onset.reasons import NOT_MEASURED
from tlens_trust.tracing import Trace
from tlens_trust.tracing.assembly import at_step_0
from tlens_trust.views.onset_text import explain_onset, onset_text
from tlens_trust.views.text_tables import (
    Column,
    lay_out,
    number,
    small_number,
    with_heading,
    with_interval,
)

if TYPE_CHECKING:
    import pandas

_NEEDED = ("accuracy", "accuracy_ci")
# The one measure that counts its leaks. Where there are several, what it alone gives carries no
# name of a probe, and is of no other one.
_LEAKING = "tracingllm"
_LEAKS = ("accuracy_unseen", "accuracy_unseen_n")
# What is said of a probe beside its scores, with a heading each.
_MORE = {
    "selectivity": "selectivity",
    "margin": "margin",
    "collapse_noise": "noise at collapse",
    "calibration_error": "calibration error",
}


def summarise(trace: Trace, onset: xr.Dataset | None = None) -> "pandas.DataFrame":
    """Say for each concept where it is read best in the end, against what, and its onset.

    The layer is the one with the highest accuracy at the last checkpoint. With `onset` it is chosen
    for every fold on the other folds, and scored on the fold; accuracy and interval know of the
    choice, and the layer that is named is the one chosen most often. Without, or where there was
    nothing to choose on, it is chosen by the very numbers that are shown, which are optimistic.

    Args:
        trace: Of one or several probes, with their accuracy and interval.
        onset: What `find_onset` gives for the run folder of the trace.

    Returns:
        One row a concept, and for each probe where there are several: `concept`, `probe` ("" for
        the only one), `layer`, `site` ("" where nothing is known), `accuracy` with `low` and
        `high`, and `chosen`, `"on other folds"` or `"post hoc"`; at that site, NaN where
        unknown, `null` (upper end of the band), `floor`, `untrained`, and `q` of the best site. By
        the paper's protocol `known`, the share of the test statements whose group or text is
        trained on, `unseen`, the accuracy in the others, and `unseen_n`, how many these are; `q` is
        of these alone. At the best site of each checkpoint `onset_checkpoint` and `onset_step`,
        `after_checkpoint` and `after_step` (the other end of the set), `at_start`,
        `lasting_checkpoint`, `lasting_step` and `onset_reason` (why there is none), as `find_onset`
        says; `is_lasting`, whether it is decodable at every checkpoint from the onset on;
        `looked_at`, the number of checkpoints (0: the onset is unknown); `onset`, all this in
        words, as every table and report has it.

    Raises:
        ValueError: The trace holds no such quantities, or `onset` is not of its concepts,
            checkpoints and probes.

    Examples:
        >>> from tlens_trust.analysis import find_onset
        >>> trace = Trace.load("run")  # doctest: +SKIP
        >>> summarise(trace, find_onset("run")).onset_step  # doctest: +SKIP
    """
    import pandas as pd

    missing = [name for name in _NEEDED if name not in trace.data]
    if missing:
        raise ValueError(
            f"A summary needs a probe's {' and '.join(_NEEDED)}, and this trace lacks "
            f"{' and '.join(missing)}. Make one with `probe_checkpoints`."
        )
    if onset is not None:
        _check_same(trace, onset)
    rows = []
    for concept in trace.concepts:
        for probe, data, best in _by_probe(trace.data.sel(concept=concept), onset):
            found = None if best is None else best.sel(concept=concept)
            rows.append({"concept": concept, "probe": probe} | _row(data, found))
    return pd.DataFrame(rows)


def summary_table(trace: Trace, onset: xr.Dataset | None = None) -> str:
    """`summarise`, laid out for a terminal; what is unknown for all rows has no column.

    Args:
        trace: As for `summarise`.
        onset: As for `summarise`.

    Raises:
        ValueError: As `summarise`.
    """
    found = summarise(trace, onset).to_dict(orient="records")
    rows = [{str(column): value for column, value in row.items()} for row in found]
    columns = [_named(rows, "concept", least=7)]
    if any(row["probe"] for row in rows):
        columns.append(_named(rows, "probe", least=5))
    columns += [("layer", [_layer(row) for row in rows]), _accuracies(rows)]
    known = {
        name: not all(np.isnan(row[name]) for row in rows)
        for name in ("null", "floor", "untrained", "unseen", "known", "q")
    }
    for name in ("null", "floor", "untrained"):
        if known[name]:
            columns.append((name, [number(row[name]) for row in rows]))
    if known["known"]:
        columns.append(("leaks", [_percent(row["known"]) for row in rows]))
        columns.append(("unseen (n)", [_unseen(row) for row in rows]))
    if known["q"]:
        columns.append(("q", [small_number(row["q"]) for row in rows]))
    dated = any(row["looked_at"] for row in rows)
    if dated:
        columns.append(("onset", [row["onset"] if row["site"] else "" for row in rows]))
    lines = lay_out(columns, left=("concept", "probe", "onset"))
    more = _more_of(trace, rows)
    return "\n".join(
        [
            *lines,
            "",
            *_legend(rows, known, onset if dated else None),
            *([""] if more else []),
            *more,
        ]
    )


def _by_probe(
    data: xr.Dataset, onset: xr.Dataset | None
) -> Iterator[tuple[str, xr.Dataset, xr.Dataset | None]]:
    """Each probe by its name ("" for the only one), with its onset where it has one."""
    if "probe" not in data.dims:
        yield "", data, onset
        return
    for probe in data["probe"].values.tolist():
        own = data.sel(probe=probe)
        if probe != _LEAKING:
            own = own.drop_vars([n for n in _LEAKS if n in data and "probe" not in data[n].dims])
        best = onset
        if onset is not None and "probe" in onset.dims:
            there = probe in onset["probe"].values
            best = onset.sel(probe=probe) if there else None
        yield str(probe), own, best


def _named(rows: list[dict[str, Any]], column: str, *, least: int) -> Column:
    width = max(least, *(len(row[column]) for row in rows))
    return column, [f"{row[column]:<{width}}" for row in rows]


def _accuracies(rows: list[dict[str, Any]]) -> Column:
    told = [with_interval(row["accuracy"], row["low"], row["high"]) for row in rows]
    return "accuracy [95% interval]", told


def _more_of(trace: Trace, rows: list[dict[str, Any]]) -> list[str]:
    """What else was measured of a probe, at the layer named above, with the meaning of each."""
    held = [n for n in _MORE if n in trace.data and f"{n}_ci" in trace.data]
    held = [n for n in held if {"concept", "checkpoint", "site"} <= set(trace.data[n].dims)]
    if not held:
        return []
    shown = [row for row in rows if row["site"]]
    # Of one probe only, these carry no name of it: one row a concept, at its first row's layer.
    if all("probe" not in trace.data[name].dims for name in held):
        shown = [row for i, row in enumerate(shown) if row["concept"] not in _above(shown, i)]
    columns = [_named(shown, "concept", least=7)] if shown else []
    if not columns:
        return []
    columns.append(("layer", [_layer(row) for row in shown]))
    columns += [(_MORE[name], [_with_interval(trace, name, row) for row in shown]) for name in held]
    width = max(len(_MORE[name]) for name in held)
    told = [
        f"{_MORE[name]:<{width}}  {trace.data[name].attrs['long_name']} "
        f"({trace.data[name].attrs['units']})"
        for name in held
    ]
    return [*lay_out(columns, left=("concept",)), "", *told]


def _above(rows: list[dict[str, Any]], number: int) -> set[str]:
    return {row["concept"] for row in rows[:number]}


def _with_interval(trace: Trace, name: str, row: dict[str, Any]) -> str:
    there = trace.data[[name, f"{name}_ci"]].sel(concept=row["concept"], site=row["site"])
    there = there.isel(checkpoint=-1)
    if "probe" in there.dims:
        there = there.sel(probe=row["probe"])
    value = float(there[name])
    low, high = there[f"{name}_ci"].sel(bound=["low", "high"]).values.tolist()
    return with_interval(value, low, high)


def _row(data: xr.Dataset, onset: xr.Dataset | None) -> dict[str, Any]:
    """What is said of one concept."""
    last = data.accuracy.isel(checkpoint=-1)
    row: dict[str, Any] = {"layer": np.nan, "site": "", "looked_at": 0, "onset": "unknown"}
    row |= dict.fromkeys(("accuracy", "low", "high", "null", "floor", "untrained", "q"), np.nan)
    row |= dict.fromkeys(("known", "unseen", "unseen_n"), np.nan)
    row |= {"chosen": "", "onset_checkpoint": "", "onset_step": np.nan, "after_checkpoint": ""}
    row |= {"after_step": np.nan, "at_start": False, "lasting_checkpoint": ""}
    row |= {"lasting_step": np.nan, "is_lasting": False, "onset_reason": NOT_MEASURED}
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
    if set(_LEAKS) <= set(there) and there.accuracy_unseen_n.notnull():
        row["unseen"], row["unseen_n"] = float(there.accuracy_unseen), int(there.accuracy_unseen_n)
        row["known"] = 1 - row["unseen_n"] / float(there.accuracy_n)
    if best is not None and int(best.onset_n):
        row |= _onset_of(best)
    return row


def _untrained(data: xr.Dataset, there: xr.Dataset) -> float:
    if "accuracy_untrained" in there:
        return float(there.accuracy_untrained)
    own = data.accuracy.sel(site=there["site"].item()).values[at_step_0(data)]
    return float(own[0]) if len(own) else np.nan


def _onset_of(best: xr.Dataset) -> dict[str, Any]:
    first = best["checkpoint"].values[best.onset_set.values][0]
    by, lasting = str(best.onset_checkpoint.item()), str(best.lasting_checkpoint.item())
    return {
        "onset_checkpoint": by,
        "onset_step": float(best.onset_step),
        "after_checkpoint": str(first),
        "after_step": float(best.onset_step_ci.sel(bound="low")),
        "at_start": bool(best.onset_at_start),
        "lasting_checkpoint": lasting,
        "lasting_step": float(best.lasting_step),
        "is_lasting": bool(by) and by == lasting,
        "onset_reason": str(best.onset_reason.item()),
        "looked_at": int(best.onset_n),
        "onset": onset_text(best),
    }


def _check_same(trace: Trace, onset: xr.Dataset) -> None:
    for axis, names in (("concept", trace.concepts), ("checkpoint", trace.checkpoints)):
        if set(names) - set(onset[axis].values.tolist()):
            raise ValueError(
                f"The trace and `onset` are not of the same {axis}s: {', '.join(names)}, and "
                f"{', '.join(onset[axis].values.tolist())}. Give `find_onset(run_folder)` of the "
                "run folder that the trace is from."
            )
    if "probe" in onset.dims and "probe" not in trace.data.dims:
        raise ValueError("`onset` holds several probes. Choose one with `onset.sel(probe=...)`.")


def _percent(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.0%}"


def _layer(row: dict[str, Any]) -> str:
    return f"{row['layer']:g}" if row["site"] else "unknown"


def _unseen(row: dict[str, Any]) -> str:
    if np.isnan(row["unseen_n"]):
        return ""
    return f"{number(row['unseen']) or 'unknown'} ({row['unseen_n']:.0f})"


def _legend(
    rows: list[dict[str, Any]], known: dict[str, bool], onset: xr.Dataset | None
) -> list[str]:
    chosen = "chosen on folds that it is not scored on"
    if any(row["chosen"] == "post hoc" for row in rows):
        chosen = "chosen by these very numbers: optimistic"
    lines = [f"layer   with the highest accuracy at the last checkpoint, {chosen}"]
    if known["null"]:
        lines.append(
            "null    where labels mean nothing, the upper end of the middle 95% at that layer"
        )
    if known["floor"]:
        lines.append("floor   of a classifier of the text alone")
    if known["untrained"]:
        told = "of step 0, or of random weights, at that layer"
        if known["floor"]:
            lines[-1] += f"; untrained: {told}"
        else:
            lines.append(f"untrained  {told}")
    if known["known"]:
        lines += [
            "leaks   share of the test statements whose group or text is trained on too: these",
            "        flatter the accuracy; unseen: accuracy in the n others, at that layer",
        ]
    if known["q"]:
        lines.append(
            "q       of labels being read at any layer (by AUROC), corrected for concepts, "
            "checkpoints"
        )
    if known["q"] and known["known"]:
        of_all = all(not np.isnan(row["known"]) for row in rows)
        lines[-1] = "q       of labels being read at any layer, in the unseen statements alone"
        lines[-1] += "" if of_all else " where there are such"
        lines.append("        (by AUROC), corrected for concepts, checkpoints")
    if onset is None:
        return lines
    texts = [row["onset"] for row in rows if row["site"]]
    return [*lines, *with_heading("onset", explain_onset(onset, texts), indent=8)]
