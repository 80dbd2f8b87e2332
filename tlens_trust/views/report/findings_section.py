"""The section of a report that states the results of a probe in sentences.

Each sentence carries its number and its interval.
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from markupsafe import Markup

from tlens_trust.html import render
from tlens_trust.tracing import Trace
from tlens_trust.views.report.elements import render_subsections
from tlens_trust.views.report.section import ReportContent, Section, SummaryRow

_LEVEL = 0.05


@dataclass(frozen=True)
class ConceptFindings:
    """What a report states about one concept.

    Attributes:
        name: Name of the concept, with its probe where there are several.
        sentences: Each can be read by itself.
        caution: Why the accuracy may not show knowledge of the model; may be empty.
    """

    name: str
    sentences: tuple[str, ...]
    caution: str = ""


def list_findings(
    trace: Trace, summary: list[SummaryRow], *, above_text: bool = False
) -> list[ConceptFindings]:
    """State for each concept its accuracy at the last checkpoint, the gains and the onset.

    Args:
        trace: Of a probe, with its accuracy.
        summary: The rows of `summarise`.
        above_text: Whether an onset requires more than the text-only baseline.
    """
    return [_findings(trace, row, above_text) for row in summary]


def _findings(trace: Trace, row: SummaryRow, above_text: bool) -> ConceptFindings:
    name = row["concept"] + (f" ({row['probe']})" if row["probe"] else "")
    if not row["site"]:
        return ConceptFindings(name, ("The accuracy at the last checkpoint is unknown.",))
    data = trace.data.sel(concept=row["concept"])
    if "probe" in data.dims:
        data = data.sel(probe=row["probe"])
    cell = data.isel(checkpoint=-1).sel(site=row["site"])
    n = f", n = {int(cell.accuracy_n)}" if "accuracy_n" in cell else ""
    sentences = [
        f"Held-out accuracy {_with_interval(row['accuracy'], row['low'], row['high'])} at layer "
        f"{row['layer']:g}, {_checkpoint_label(cell)}{n}."
    ]
    if row["chosen"] != "on other folds":
        sentences.append("The layer was chosen by this same accuracy, which makes it optimistic.")
    cautions = []
    for stem, level, baseline in (
        ("floor", row["floor"], "the text-only baseline"),
        ("untrained", row["untrained"], "untrained weights at the same layer"),
    ):
        gain = _gain(cell, stem)
        if gain is None or np.isnan(level):
            continue
        value, low, high = gain
        sentences.append(
            f"Gain over {baseline} ({level:.3f}): "
            f"{_signed(value)} [{_signed(low)}, {_signed(high)}]."
        )
        # The interval of the difference decides; two intervals that overlap would decide nothing.
        if low <= 0:
            cautions.append(f"the accuracy is not shown to be above {baseline}")
    if not np.isnan(row["q"]):
        sentences.append(
            f"Test of whether the labels can be decoded at any layer: q {_small(row['q'])}, "
            "corrected for layers, concepts and checkpoints."
        )
        if row["q"] > _LEVEL:
            cautions.append("the labels are not shown to be decodable at any layer")
    if not np.isnan(row["known"]):
        sentences.append(
            f"{row['known']:.0%} of the test statements share a twin, a question or a text with "
            "the training statements."
        )
        cautions.append("test statements leak from the training statements")
    if row["looked_at"]:
        sentences.append(_onset_sentence(row, above_text))
    caution = "; ".join(cautions)
    caution = f"{caution[:1].upper()}{caution[1:]}." if caution else ""
    return ConceptFindings(name, tuple(sentences), caution)


def _onset_sentence(row: SummaryRow, above_text: bool) -> str:
    baselines = "its permutation null" + (" and its text-only baseline" * above_text)
    # Onsets that begin with a word name their unit, a checkpoint, or the reason for none.
    unit = ("steps " if "–" in row["onset"] else "step ") if row["onset"][0].isdigit() else ""
    plural_clause = f"{row['looked_at']} checkpoints were tested, each"
    clause = "One checkpoint was tested" if row["looked_at"] == 1 else plural_clause
    return f"Onset: {unit}{row['onset']}. {clause} against {baselines}."


def _gain(cell: xr.Dataset, level: str) -> tuple[float, float, float] | None:
    name = f"accuracy_above_{level}"
    if name not in cell or f"{name}_ci" not in cell or not cell[name].notnull():
        return None
    low, high = cell[f"{name}_ci"].sel(bound=["low", "high"]).values.tolist()
    return float(cell[name]), low, high


def _checkpoint_label(cell: xr.Dataset) -> str:
    step = float(cell["step"])
    return f"step {step:,.0f}" if np.isfinite(step) else str(cell["checkpoint"].item())


def _with_interval(value: float, low: float, high: float) -> str:
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _small(value: float) -> str:
    return "< .001" if value < 0.001 else f"= {value:.3f}"


def _render(content: ReportContent) -> Markup:
    above_text = content.onset is not None and content.onset.attrs.get("floor") == "True"
    bodies = {}
    for run, rows in content.summaries.items():
        findings = list_findings(content.runs[run], rows, above_text=above_text)
        bodies[run] = render("report/findings", {"findings": findings}) if findings else Markup("")
    return render_subsections(bodies)


FINDINGS = Section("Findings", _render)
