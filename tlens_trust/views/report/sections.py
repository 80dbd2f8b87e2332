"""The sections of a report, in order. A new section is a module of its own and a line here."""

from tlens_trust.views.report.elements import render_figure
from tlens_trust.views.report.findings_section import FINDINGS
from tlens_trust.views.report.information_section import INFORMATION
from tlens_trust.views.report.numbers_section import NUMBERS
from tlens_trust.views.report.run_section import RUN
from tlens_trust.views.report.section import ReportContent, Section
from tlens_trust.views.report.steering_section import STEERING
from tlens_trust.views.report.summary_section import SUMMARY
from tlens_trust.views.report.tokens_section import TOKENS
from tlens_trust.views.report.training_sections import CURVES, MAP


def list_sections(content: ReportContent) -> list[Section]:
    """List the sections of a report; each of the user's own figures has one.

    Args:
        content: What the report shows.
    """
    return [
        FINDINGS,
        SUMMARY,
        MAP,
        CURVES,
        INFORMATION,
        STEERING,
        *(_figure_section(heading) for heading in content.figures),
        TOKENS,
        RUN,
        NUMBERS,
    ]


def _figure_section(heading: str) -> Section:
    return Section(
        heading,
        lambda content: render_figure(
            content.figures[heading],
            heading,
            height=int(content.figures[heading].layout.height or 0),
        ),
    )
