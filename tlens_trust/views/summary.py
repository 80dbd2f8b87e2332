"""The summary of a trace: a data frame, and a table for a terminal."""

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

_REQUIRED = ("accuracy", "accuracy_ci")
# The one measure that counts its leaks. Its own variables have no axis of probes even where there
# are several probes, and belong to no other probe.
_LEAKING = "tracingllm"
_LEAKS = ("accuracy_unseen", "accuracy_unseen_n")
# Further quantities of a probe, with their headings.
_FURTHER = {
    "selectivity": "selectivity",
    "margin": "margin",
    "collapse_noise": "noise at collapse",
    "calibration_error": "calibration error",
}


def summarise(trace: Trace, onset: xr.Dataset | None = None) -> "pandas.DataFrame":
    """Summarise each concept: its best layer at the last checkpoint, the baselines, and its onset.

    The best layer is the one with the highest accuracy at the last checkpoint. With `onset` it is
    chosen for every fold on the other folds. Accuracy and interval then take the choice into
    account, and `layer` is the one that is chosen most often. Without `onset`, or without folds to
    choose on, the layer is chosen by the same numbers that are shown, which makes them optimistic.

    Args:
        trace: Of one or several probes, with their accuracy and interval.
        onset: What `find_onset` gives for the run folder of the trace.

    Returns:
        One row per concept, and per probe where there are several. The columns are:

        - `concept`, and `probe` ("" for the only one);

        - `layer` and `site` of the best site (NaN and "" where the accuracy is unknown);

        - `accuracy`, with the ends `low` and `high` of its interval;

        - `chosen`: how the site was chosen, `"on other folds"` or `"post hoc"`;

        - `null` (the upper end of the band), `floor` and `untrained`, all at that site, and `q` of
          the best site. Each is NaN where it is unknown;

        - `known`, under the paper's protocol: the share of test statements whose group or text is
          in the training set;

        - `unseen` and `unseen_n`: the accuracy on the other test statements, and their number. `q`
          is then of these alone;

        - `onset_checkpoint`, `onset_step`, `at_start`, `lasting_checkpoint`, `lasting_step` and
          `onset_reason`: as `find_onset` defines them, at the best site of each checkpoint;

        - `after_checkpoint` and `after_step`: the other end of the interval of the onset;

        - `is_lasting`: whether the concept is decodable at every checkpoint from the onset on;

        - `looked_at`: the number of checkpoints (0: the onset is unknown);

        - `onset`: the onset in words, as every table and report has it.

    Raises:
        ValueError: The trace holds no accuracy with an interval, or `onset` is not of its concepts,
            checkpoints and probes.

    Examples:
        >>> from tlens_trust.analysis import find_onset
        >>> trace = Trace.load("run")  # doctest: +SKIP
        >>> summarise(trace, find_onset("run")).onset_step  # doctest: +SKIP
    """
    import pandas as pd

    missing_variables = [name for name in _REQUIRED if name not in trace.data]
    if missing_variables:
        raise ValueError(
            f"A summary needs a probe's {' and '.join(_REQUIRED)}, and this trace lacks "
            f"{' and '.join(missing_variables)}. Make one with `probe_checkpoints`."
        )
    if onset is not None:
        _check_same(trace, onset)
    rows = []
    for concept in trace.concepts:
        for probe, data, best in _by_probe(trace.data.sel(concept=concept), onset):
            concept_onset = None if best is None else best.sel(concept=concept)
            rows.append({"concept": concept, "probe": probe} | _row(data, concept_onset))
    return pd.DataFrame(rows)


def summary_table(trace: Trace, onset: xr.Dataset | None = None) -> str:
    """Lay out `summarise` for a terminal; a quantity that is unknown in all rows has no column.

    Args:
        trace: As for `summarise`.
        onset: As for `summarise`.

    Raises:
        ValueError: As `summarise`.
    """
    records = summarise(trace, onset).to_dict(orient="records")
    rows = [{str(column): value for column, value in record.items()} for record in records]
    columns: list[Column] = [("concept", [row["concept"] for row in rows])]
    if any(row["probe"] for row in rows):
        columns.append(("probe", [row["probe"] for row in rows]))
    columns += [("layer", [_layer(row) for row in rows]), _accuracies(rows)]
    is_known = {
        name: not all(np.isnan(row[name]) for row in rows)
        for name in ("null", "floor", "untrained", "unseen", "known", "q")
    }
    for name in ("null", "floor", "untrained"):
        if is_known[name]:
            columns.append((name, [number(row[name]) for row in rows]))
    if is_known["known"]:
        columns.append(("leaks", [_percent(row["known"]) for row in rows]))
        columns.append(("unseen (n)", [_unseen(row) for row in rows]))
    if is_known["q"]:
        columns.append(("q", [small_number(row["q"]) for row in rows]))
    has_onsets = any(row["looked_at"] for row in rows)
    if has_onsets:
        columns.append(("onset", [row["onset"] if row["site"] else "" for row in rows]))
    lines = lay_out(columns, left=("concept", "probe", "onset"))
    further = _further_table(trace, rows)
    return "\n".join(
        [
            *lines,
            "",
            *_legend(rows, is_known, onset if has_onsets else None),
            *([""] if further else []),
            *further,
        ]
    )


def _by_probe(
    data: xr.Dataset, onset: xr.Dataset | None
) -> Iterator[tuple[str, xr.Dataset, xr.Dataset | None]]:
    """Split by probe: its name ("" for the only one), its data, and its onset if there is one."""
    if "probe" not in data.dims:
        yield "", data, onset
        return
    for probe in data["probe"].values.tolist():
        probe_data = data.sel(probe=probe)
        if probe != _LEAKING:
            leaks = [name for name in _LEAKS if name in data and "probe" not in data[name].dims]
            probe_data = probe_data.drop_vars(leaks)
        best = onset
        if onset is not None and "probe" in onset.dims:
            # `find_onset` leaves out a probe of a single split, which has a row all the same.
            has_onset = probe in onset["probe"].values
            best = onset.sel(probe=probe) if has_onset else None
        yield str(probe), probe_data, best


def _accuracies(rows: list[dict[str, Any]]) -> Column:
    cells = [with_interval(row["accuracy"], row["low"], row["high"]) for row in rows]
    return "accuracy [95% interval]", cells


def _further_table(trace: Trace, rows: list[dict[str, Any]]) -> list[str]:
    """Lay out further quantities of a probe at the layer above, with the meaning of each."""
    names = [
        name
        for name in _FURTHER
        if {name, f"{name}_ci"} <= set(trace.data)
        and {"concept", "checkpoint", "site"} <= set(trace.data[name].dims)
    ]
    if not names:
        return []
    known_rows = [row for row in rows if row["site"]]
    # Quantities of a single probe have no axis of probes: one row per concept, at the layer of its
    # first row.
    if all("probe" not in trace.data[name].dims for name in names):
        known_rows = [
            row
            for i, row in enumerate(known_rows)
            if row["concept"] not in {earlier["concept"] for earlier in known_rows[:i]}
        ]
    if not known_rows:
        return []
    columns: list[Column] = [("concept", [row["concept"] for row in known_rows])]
    columns.append(("layer", [_layer(row) for row in known_rows]))
    columns += [
        (_FURTHER[name], [_with_interval(trace, name, row) for row in known_rows]) for name in names
    ]
    width = max(len(_FURTHER[name]) for name in names)
    meanings = [
        f"{_FURTHER[name]:<{width}}  {trace.data[name].attrs['long_name']} "
        f"({trace.data[name].attrs['units']})"
        for name in names
    ]
    return [*lay_out(columns, left=("concept",)), "", *meanings]


def _with_interval(trace: Trace, name: str, row: dict[str, Any]) -> str:
    cell = trace.data[[name, f"{name}_ci"]].sel(concept=row["concept"], site=row["site"])
    cell = cell.isel(checkpoint=-1)
    if "probe" in cell.dims:
        cell = cell.sel(probe=row["probe"])
    value = float(cell[name])
    low, high = cell[f"{name}_ci"].sel(bound=["low", "high"]).values.tolist()
    return with_interval(value, low, high)


def _row(data: xr.Dataset, onset: xr.Dataset | None) -> dict[str, Any]:
    """The summary of one concept and probe."""
    accuracies = data.accuracy.isel(checkpoint=-1)
    # All columns are filled in first: a cell that failed has them too, and unknown is never 0.
    row: dict[str, Any] = {"layer": np.nan, "site": "", "looked_at": 0, "onset": "unknown"}
    row |= dict.fromkeys(("accuracy", "low", "high", "null", "floor", "untrained", "q"), np.nan)
    row |= dict.fromkeys(("known", "unseen", "unseen_n"), np.nan)
    row |= {"chosen": "", "onset_checkpoint": "", "onset_step": np.nan, "after_checkpoint": ""}
    row |= {"after_step": np.nan, "at_start": False, "lasting_checkpoint": ""}
    row |= {"lasting_step": np.nan, "is_lasting": False, "onset_reason": NOT_MEASURED}
    if not accuracies.notnull().any():
        return row
    best = None if onset is None else onset.sel(site="best")
    last_best = None if best is None else best.isel(checkpoint=-1)
    if onset is not None and last_best is not None and last_best.accuracy.notnull():
        # Every fold may choose another layer. The one chosen most often gives the row its name, and
        # the accuracy is that of all the choices, not of this layer.
        share = onset.best_share.isel(checkpoint=-1).sel(site=data["site"].values)
        row["site"], row["chosen"] = str(share.idxmax("site").item()), "on other folds"
        accuracy, interval = last_best.accuracy, last_best.accuracy_ci
    else:
        row["site"], row["chosen"] = str(accuracies.idxmax("site").item()), "post hoc"
        accuracy = accuracies.sel(site=row["site"])
        interval = data.accuracy_ci.isel(checkpoint=-1).sel(site=row["site"])
    cell = data.isel(checkpoint=-1).sel(site=row["site"])
    row["layer"] = float(cell["layer"])
    row["accuracy"] = float(accuracy)
    row["low"], row["high"] = interval.sel(bound=["low", "high"]).values.tolist()
    for column, name in (("floor", "accuracy_floor"), ("q", "accuracy_q")):
        row[column] = float(cell[name]) if name in cell else np.nan
    if "accuracy_null" in cell:
        row["null"] = float(cell.accuracy_null.sel(bound="high"))
    row["untrained"] = _untrained(data, cell)
    if set(_LEAKS) <= set(cell) and cell.accuracy_unseen_n.notnull():
        row["unseen"], row["unseen_n"] = float(cell.accuracy_unseen), int(cell.accuracy_unseen_n)
        # A test statement is either unseen, or its group or text is in the training set.
        row["known"] = 1 - row["unseen_n"] / float(cell.accuracy_n)
    if best is not None and int(best.onset_n):
        row |= _onset_of(best)
    return row


def _untrained(data: xr.Dataset, cell: xr.Dataset) -> float:
    if "accuracy_untrained" in cell:
        return float(cell.accuracy_untrained)
    # A trace without that comparison may still hold the run's own step 0.
    untrained = data.accuracy.sel(site=cell["site"].item()).values[at_step_0(data)]
    return float(untrained[0]) if len(untrained) else np.nan


def _onset_of(best: xr.Dataset) -> dict[str, Any]:
    # The set begins with the last checkpoint before the onset.
    start = best["checkpoint"].values[best.onset_set.values][0]
    onset_checkpoint = str(best.onset_checkpoint.item())
    lasting_checkpoint = str(best.lasting_checkpoint.item())
    return {
        "onset_checkpoint": onset_checkpoint,
        "onset_step": float(best.onset_step),
        "after_checkpoint": str(start),
        "after_step": float(best.onset_step_ci.sel(bound="low")),
        "at_start": bool(best.onset_at_start),
        "lasting_checkpoint": lasting_checkpoint,
        "lasting_step": float(best.lasting_step),
        # Two unknown checkpoints are equal as well, and are no onset that lasts.
        "is_lasting": bool(onset_checkpoint) and onset_checkpoint == lasting_checkpoint,
        "onset_reason": str(best.onset_reason.item()),
        "looked_at": int(best.onset_n),
        "onset": onset_text(best),
    }


def _check_same(trace: Trace, onset: xr.Dataset) -> None:
    for axis, names in (("concept", trace.concepts), ("checkpoint", trace.checkpoints)):
        # A part of the run may be summarised, so that `onset` may hold more than the trace.
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
    # Where all test statements leak, there are 0 unseen ones and no accuracy.
    return f"{number(row['unseen']) or 'unknown'} ({row['unseen_n']:.0f})"


def _legend(
    rows: list[dict[str, Any]], is_known: dict[str, bool], onset: xr.Dataset | None
) -> list[str]:
    choice = "chosen on folds that it is not scored on"
    if any(row["chosen"] == "post hoc" for row in rows):
        choice = "chosen by these same numbers: optimistic"
    lines = [f"layer   with the highest accuracy at the last checkpoint, {choice}"]
    if is_known["null"]:
        lines.append(
            "null    upper end of the 95% band of the accuracy with permuted labels at that layer"
        )
    if is_known["floor"]:
        lines.append("floor   of a text-only classifier")
    if is_known["untrained"]:
        meaning = "at step 0, or with random weights, at that layer"
        if is_known["floor"]:
            lines[-1] += f"; untrained: {meaning}"
        else:
            lines.append(f"untrained  {meaning}")
    if is_known["known"]:
        lines += [
            "leaks   share of test statements whose group or text is in the training set, which",
            "        flatters the accuracy; unseen: accuracy on the n others, at that layer",
        ]
    if is_known["q"]:
        lines.append(
            "q       whether labels can be decoded at any layer (AUROC), corrected for concepts, "
            "checkpoints"
        )
    if is_known["q"] and is_known["known"]:
        of_all = all(not np.isnan(row["known"]) for row in rows)
        lines[-1] = "q       whether labels of the unseen statements"
        lines[-1] += "" if of_all else " (of all statements where leaks are not counted)"
        lines.append(
            "        can be decoded at any layer (AUROC), corrected for concepts, checkpoints"
        )
    if onset is None:
        return lines
    texts = [row["onset"] for row in rows if row["site"]]
    return [*lines, *with_heading("onset", explain_onset(onset, texts), indent=8)]
