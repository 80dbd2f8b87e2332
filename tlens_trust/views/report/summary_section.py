"""The section of a report that holds the summary table."""

from markupsafe import Markup

from tlens_trust.views.onset_text import explain_onset
from tlens_trust.views.report.elements import render_columns, render_notes
from tlens_trust.views.report.section import ReportContent, Section
from tlens_trust.views.text_tables import number, small_number, with_interval

_LEVELS = {"null": "null", "text only": "floor", "untrained": "untrained"}
_ACCURACY = "accuracy [95% interval]"
_NOTE = (
    "Null: the upper end of the 95% band of the accuracy with permuted labels. Text only: a "
    "classifier of the statements' words and characters. Untrained: the same layer at step 0, or "
    "with random weights. q: test of whether the labels can be decoded at any layer, corrected for "
    "concepts and checkpoints."
)
_CHOSEN_NOTE = (
    " The layer is chosen for each fold on the other folds, and the accuracy is that of the chosen "
    "layers. The table names the layer that is chosen most often; its own curve below may lie a "
    "little higher."
)


def _render(content: ReportContent) -> Markup:
    rows = [row for summary in content.summaries.values() for row in summary]
    if not rows:
        return Markup("")
    columns = {
        "concept": [row["concept"] for row in rows],
        "run": [row["run"] for row in rows],
        "probe": [row["probe"] for row in rows],
        "layer": [f"{row['layer']:g}" if row["site"] else "unknown" for row in rows],
        _ACCURACY: [with_interval(row["accuracy"], row["low"], row["high"]) for row in rows],
        **{heading: [number(row[key]) for row in rows] for heading, key in _LEVELS.items()},
        "q": [small_number(row["q"]) for row in rows],
        "onset": [row["onset"] if row["looked_at"] else "" for row in rows],
    }
    chosen_on_folds = any(row["chosen"] == "on other folds" for row in rows)
    notes = [_NOTE + _CHOSEN_NOTE * chosen_on_folds]
    if content.onset is not None and any(columns["onset"]):
        notes.append(f"Onset: {' '.join(explain_onset(content.onset, columns['onset']))}")
    table = render_columns(columns, numbers=["layer", _ACCURACY, *_LEVELS, "q"])
    return table + render_notes(notes)


SUMMARY = Section("Summary", _render)
