"""The section of a report that shows views of texts."""

from markupsafe import Markup

from tlens_trust.views.report.section import ReportContent, Section


def _render(content: ReportContent) -> Markup:
    return Markup("").join(Markup(view.fragment()) for view in content.tokens)


TOKENS = Section("Tokens", _render)
