"""What a section of a report is, and what it is made from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import plotly.graph_objects as go
import xarray as xr
from markupsafe import Markup

from tlens_trust.analysis.phases.phase_records import Phases
from tlens_trust.tracing import Trace
from tlens_trust.views.summary import summarise
from tlens_trust.views.tokens.page import PagePart

SummaryRow = dict[str, Any]


@dataclass(frozen=True)
class ReportContent:
    """The results that a report shows.

    Attributes:
        trace: The results of a run.
        onset: What `find_onset` gives for the run folder; None where onsets are unknown.
        plane: What `information_plane` gives of the trace; None to show none.
        phases: What `find_phases` gives for the plane; None where phases were not tested.
        figures: Further figures, by their headings.
        steering: What `steering_matrix` gives for checkpoints of this run, one per concept.
        tokens: Views of texts.
        command: The shell command that made the run; "" where there was none.
        unfinished: Checkpoints of the sweep that have not been measured yet.
    """

    trace: Trace
    onset: xr.Dataset | None = None
    plane: xr.Dataset | None = None
    phases: Phases | None = None
    figures: Mapping[str, go.Figure] = field(default_factory=dict)
    steering: Sequence[xr.Dataset] = ()
    tokens: Sequence[PagePart] = ()
    command: str = ""
    unfinished: Sequence[str] = ()

    @cached_property
    def runs(self) -> dict[str, Trace]:
        """Each run by its name; the trace itself, under "", where it is of one run."""
        if "run" not in self.trace.data.dims:
            return {"": self.trace}
        names = self.trace.data["run"].values.tolist()
        return {str(name): self.trace.sel(run=name) for name in names}

    @cached_property
    def summaries(self) -> dict[str, list[SummaryRow]]:
        """The rows of `summarise` for each run; empty for a trace without accuracies."""
        if not {"accuracy", "accuracy_ci"} <= set(self.trace.data):
            return {}
        return {name: self._summary(name, run) for name, run in self.runs.items()}

    def _summary(self, name: str, run: Trace) -> list[SummaryRow]:
        # Onsets come from one run folder, and so belong to no single run of a combination.
        onset = self.onset if run is self.trace else None
        rows = summarise(run, onset).to_dict(orient="records")
        return [{"run": name, **{str(key): value for key, value in row.items()}} for row in rows]


@dataclass(frozen=True)
class Section:
    """One section of a report.

    Attributes:
        heading: Above it, and in the page's list of contents.
        render: Makes its HTML; an empty text where the section does not apply to the content, which
            leaves it out.
    """

    heading: str
    render: Callable[[ReportContent], Markup]
