"""One page about a run, which opens without a network."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import plotly.graph_objects as go
import xarray as xr
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from tlens_trust.analysis.phases.phase_records import Phases
from tlens_trust.files import write_file
from tlens_trust.html import page_file, render
from tlens_trust.tracing import Trace
from tlens_trust.tracing.trace import register_trace_accessor
from tlens_trust.views.report.cautions import find_cautions
from tlens_trust.views.report.section import ReportContent
from tlens_trust.views.report.sections import list_sections
from tlens_trust.views.report.trace_labels import report_lead, report_title
from tlens_trust.views.tokens.page import PagePart
from tlens_trust.views.tokens.script import circuitsvis_script


@register_trace_accessor("report")
class TraceReport:
    """Writes the report of one `Trace`, reached as `trace.report`."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    def __call__(
        self,
        path: str | os.PathLike[str],
        *,
        onset: xr.Dataset | None = None,
        plane: xr.Dataset | None = None,
        phases: Phases | None = None,
        figures: Mapping[str, go.Figure] | None = None,
        steering: Sequence[xr.Dataset] = (),
        tokens: Sequence[PagePart] = (),
        title: str | None = None,
    ) -> Path:
        """Write the results of a run into one HTML file, which opens without a network.

        The report says what was run, and states the results in sentences, each with its interval.
        It warns of what a reader should know first, draws the map and the curves, and holds the
        numbers as CSV. It loads nothing from any server, and names and statements are shown as
        text, never run.

        Args:
            path: A file that ends in `.html`; an existing file is replaced.
            onset: What `find_onset` gives for the run folder; without it no onsets are reported.
            plane: What `information_plane` gives of the trace; its figure is shown.
            phases: What `find_phases` gives for the plane; its verdicts are listed.
            figures: More figures to show, by their headings.
            steering: What `steering_matrix` gives for checkpoints of this run, one for each
                concept.
            tokens: Views of texts to show, as `draw_tokens` and `draw_generations` give them.
            title: Of the page; by default it names the models.

        Returns:
            The file.

        Raises:
            ValueError: The file has another ending, `onset` is not of this trace, or a matrix is of
                other checkpoints.

        Examples:
            >>> from tlens_trust.analysis import find_onset
            >>> trace = Trace.load("run")  # doctest: +SKIP
            >>> trace.report("report.html", onset=find_onset("run"))  # doctest: +SKIP
        """
        return write_report(
            self._trace,
            path,
            onset=onset,
            plane=plane,
            phases=phases,
            figures=figures,
            steering=steering,
            tokens=tokens,
            title=title,
        )


def write_report(
    trace: Trace,
    path: str | os.PathLike[str],
    *,
    onset: xr.Dataset | None = None,
    plane: xr.Dataset | None = None,
    phases: Phases | None = None,
    figures: Mapping[str, go.Figure] | None = None,
    steering: Sequence[xr.Dataset] = (),
    tokens: Sequence[PagePart] = (),
    title: str | None = None,
    command: str = "",
    unfinished: Sequence[str] = (),
) -> Path:
    """Write the report of a trace, as `trace.report` does, with what a run folder knows besides.

    Args:
        trace: A run's results.
        path: As for `TraceReport`.
        onset: As for `TraceReport`.
        plane: As for `TraceReport`.
        phases: As for `TraceReport`.
        figures: As for `TraceReport`.
        steering: As for `TraceReport`.
        tokens: As for `TraceReport`.
        title: As for `TraceReport`.
        command: The shell command that made the run, if there was one.
        unfinished: Checkpoints of the sweep that have not been measured yet, for a warning.

    Returns:
        The file.

    Raises:
        ValueError: As for `TraceReport`.
    """
    file = Path(path).expanduser()
    if file.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"A report is saved as .html, got {str(path)!r}.")
    content = ReportContent(
        trace,
        onset=onset,
        plane=plane,
        phases=phases,
        figures=figures or {},
        steering=steering,
        tokens=tokens,
        command=command,
        unfinished=unfinished,
    )
    # The page is complete before a file is opened, so that an error leaves no file behind.
    page = render_page(content, title=title or report_title(trace))
    write_file(file, page)
    return file


def render_page(content: ReportContent, *, title: str) -> Markup:
    """Make the page of a report.

    Args:
        content: What the report shows.
        title: Of the page.
    """
    bodies = [(section.heading, section.render(content)) for section in list_sections(content)]
    # The page's own script comes last, since it calls plotly.
    scripts = [Markup(get_plotlyjs()), page_file("report/report.js")]
    if content.tokens:
        scripts.insert(1, circuitsvis_script())
    return render(
        "report/page",
        {
            "title": title,
            "lead": report_lead(content.trace),
            "style": page_file("report/report.css"),
            "cautions": find_cautions(content.trace, unfinished=content.unfinished),
            "sections": [(heading, body) for heading, body in bodies if body],
            "scripts": scripts,
        },
    )
