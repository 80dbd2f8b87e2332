"""One file that tells what a run found, to be mailed and opened without a network."""

from tlens_trust.views.report.of_run import report_run
from tlens_trust.views.report.writing import TraceReport, write_report

__all__ = ["TraceReport", "report_run", "write_report"]
