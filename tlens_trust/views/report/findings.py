"""What a probe's trace says, in sentences that each carry their number and its interval."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from tlens_trust.tracing import Trace


@dataclass(frozen=True)
class Finding:
    """What is said of one concept.

    Attributes:
        concept: Its name.
        sentences: A few, each of which can be read alone.
        caution: What speaks against taking the number for knowledge of the model's; may be empty.
    """

    concept: str
    sentences: tuple[str, ...]
    caution: str = ""


def find_findings(
    trace: Trace, summary: list[dict[str, Any]], *, above_text: bool = False
) -> list[Finding]:
    """Say for each concept how well it is read in the end, above what, and its onset.

    Args:
        trace: Of a probe, with its accuracy.
        summary: The rows of `summarise`.
        above_text: Whether an onset asks for more than the text-only baseline.
    """
    return [_finding(trace, row, above_text) for row in summary]


def _finding(trace: Trace, row: dict[str, Any], above_text: bool) -> Finding:
    name = row["concept"] + (f" ({row['probe']})" if row["probe"] else "")
    if not row["site"]:
        return Finding(name, ("Nothing is known of it at the last checkpoint.",))
    data = trace.data.sel(concept=row["concept"])
    if "probe" in data.dims:
        data = data.sel(probe=row["probe"])
    there = data.isel(checkpoint=-1).sel(site=row["site"])
    n = f", n = {int(there.accuracy_n)}" if "accuracy_n" in there else ""
    chosen = "" if row["chosen"] == "on other folds" else ", chosen by this very number"
    sentences = [
        f"Held-out accuracy {_told(row['accuracy'], row['low'], row['high'])} at layer "
        f"{row['layer']:g}{chosen}, {_when(there)}{n}."
    ]
    cautions = []
    for stem, level, what, against in (
        ("floor", row["floor"], "a classifier of the text alone", "the text alone"),
        ("untrained", row["untrained"], "the same layer of untrained weights", "untrained weights"),
    ):
        gain = _gain(there, stem)
        if gain is None or np.isnan(level):
            continue
        value, low, high = gain
        sentences.append(
            f"Against {what} ({level:.3f}): {_signed(value)} [{_signed(low)}, {_signed(high)}]."
        )
        if low <= 0:
            cautions.append(f"it is not shown to be above {against}")
    if not np.isnan(row["q"]):
        sentences.append(
            f"Are its labels read at all, in any layer? q {_small(row['q'])}, corrected for "
            "layers, concepts and checkpoints."
        )
        if row["q"] > 0.05:
            cautions.append("its labels are not shown to be read at all")
    if not np.isnan(row["known"]):
        sentences.append(
            f"{row['known']:.0%} of the statements tested have a twin, a question or a text in "
            "common with those trained on."
        )
        cautions.append("its test statements leak from training")
    if row["looked_at"]:
        sentences.append(_onset(row, above_text))
    caution = "; ".join(cautions)
    told = f"{caution[:1].upper()}{caution[1:]}." if caution else ""
    return Finding(name, tuple(sentences), told)


def _onset(row: dict[str, Any], above_text: bool) -> str:
    held_against = "its permutation null" + (" and its text-only baseline" * above_text)
    unit = ("steps " if "–" in row["onset"] else "step ") if row["onset"][0].isdigit() else ""
    several = f"{row['looked_at']} checkpoints were tested, each"
    tested = "One checkpoint was tested" if row["looked_at"] == 1 else several
    return f"Onset: {unit}{row['onset']}. {tested} against {held_against}."


def _gain(there: xr.Dataset, level: str) -> tuple[float, float, float] | None:
    name = f"accuracy_above_{level}"
    if name not in there or f"{name}_ci" not in there or not there[name].notnull():
        return None
    low, high = there[f"{name}_ci"].sel(bound=["low", "high"]).values.tolist()
    return float(there[name]), low, high


def _when(there: xr.Dataset) -> str:
    step = float(there["step"])
    return f"step {step:,.0f}" if np.isfinite(step) else str(there["checkpoint"].item())


def _told(value: float, low: float, high: float) -> str:
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _small(value: float) -> str:
    return "< .001" if value < 0.001 else f"= {value:.3f}"
