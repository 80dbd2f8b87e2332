"""A `Trace` in a few lines of text."""

from typing import TYPE_CHECKING

import numpy as np

from tlens_trust.tracing import Trace

if TYPE_CHECKING:
    import pandas


def summarise(trace: Trace) -> "pandas.DataFrame":
    """Say for each concept where it is read best in the end, and since when.

    The layer is the one with the highest accuracy at the last checkpoint. It is chosen by the
    numbers that are shown, so they are optimistic. A concept counts as read above chance at a
    checkpoint where the labels are read at that site with a permutation p-value of at most 5%, by
    the null of the maximum over sites; `since_step` is the first step from which on it does so at
    every checkpoint. The repeated look at every checkpoint is not corrected for.

    Args:
        trace: Of one probe, with `accuracy`, its interval and `accuracy_p_best`.

    Returns:
        One row a concept: `concept`, `layer`, `site`, `accuracy`, `low`, `high`, `untrained`
        (accuracy there at step 0; NaN without one) and `since_step` (NaN for never).

    Raises:
        ValueError: The trace holds no such quantities, or several probes.
    """
    import pandas as pd

    data = trace.data
    wanted = ["accuracy", "accuracy_ci", "accuracy_p_best"]
    missing = [name for name in wanted if name not in data]
    if missing or "probe" in data.dims:
        raise ValueError(
            f"A summary needs one probe's {', '.join(wanted)}, and this trace "
            f"{'lacks ' + ', '.join(missing) if missing else 'holds several probes'}. "
            "Make one with `probe_checkpoints`, or choose with `trace.sel(probe=...)`."
        )
    steps = np.asarray(data["step"].values, dtype=float)
    rows: list[dict[str, str | float]] = []
    for concept in trace.concepts:
        accuracy = data.accuracy.sel(concept=concept).transpose("checkpoint", "site")
        last = accuracy.isel(checkpoint=-1)
        if not last.notnull().any():
            rows.append({"concept": concept, "site": ""})
            continue
        site = int(last.argmax("site"))
        there = data.sel(concept=concept).isel(site=site)
        above = (there.accuracy_p_best <= 0.05).values
        held = np.logical_and.accumulate(above[::-1])[::-1]
        low, high = there.accuracy_ci.isel(checkpoint=-1).sel(bound=["low", "high"]).values
        untrained = accuracy.isel(site=site).values[steps == 0]
        rows.append(
            {
                "concept": concept,
                "layer": float(there["layer"]),
                "site": str(there["site"].values),
                "accuracy": float(last[site]),
                "low": float(low),
                "high": float(high),
                "untrained": float(untrained[0]) if len(untrained) else np.nan,
                "since_step": float(steps[held.argmax()]) if held.any() else np.nan,
            }
        )
    return pd.DataFrame(rows)


def summary_table(trace: Trace) -> str:
    """`summarise`, laid out for a terminal.

    Raises:
        ValueError: As `summarise`.
    """
    frame = summarise(trace)
    width = max(7, *(len(name) for name in frame["concept"]))
    lines = [
        f"{'concept':<{width}}  best layer  accuracy [95% interval]  untrained  above chance from"
    ]
    for row in frame.to_dict(orient="records"):
        if not row["site"]:
            lines.append(f"{row['concept']:<{width}}  unknown")
            continue
        since = "never" if np.isnan(row["since_step"]) else f"step {row['since_step']:.0f}"
        untrained = "" if np.isnan(row["untrained"]) else f"{row['untrained']:.3f}"
        interval = f"[{row['low']:.3f}, {row['high']:.3f}]"
        lines.append(
            f"{row['concept']:<{width}}  {row['layer']:>10g}  "
            f"{row['accuracy']:>8.3f} {interval}  {untrained:>9}  {since:>17}"
        )
    return "\n".join(lines)
