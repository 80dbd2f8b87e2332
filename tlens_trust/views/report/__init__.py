"""The report of a run: one HTML file, which can be mailed and opens without a network."""

from tlens_trust.views.report.run_folder_report import report_run
from tlens_trust.views.report.trace_report import TraceReport, write_report

__all__ = ["TraceReport", "report_run", "write_report"]
