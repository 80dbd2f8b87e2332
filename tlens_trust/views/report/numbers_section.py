"""The section of a report that holds its numbers, as files to download."""

from markupsafe import Markup

from tlens_trust.html import render
from tlens_trust.views.report.downloads import make_downloads
from tlens_trust.views.report.elements import render_table
from tlens_trust.views.report.section import ReportContent, Section


def _render(content: ReportContent) -> Markup:
    data = content.trace.data
    downloads = make_downloads(content.trace, content.steering)
    columns = {column for download in downloads for column in download.columns}
    meanings = [
        [str(name), *(str(variable.attrs.get(key, "")) for key in ("units", "long_name"))]
        for name, variable in sorted(data.data_vars.items(), key=lambda item: str(item[0]))
        # An interval `accuracy_ci` fills two columns, `accuracy_low` and `accuracy_high`.
        if columns & {str(name), f"{str(name).removesuffix('_ci')}_low"}
    ]
    table = render_table(["variable", "unit", "meaning"], meanings)
    return render("report/downloads", {"downloads": downloads, "columns": table})


NUMBERS = Section("Numbers", _render)
