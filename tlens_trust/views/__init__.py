"""Looking at results: figures and tables of a `Trace`."""

from tlens_trust.views.figures import TracePlot
from tlens_trust.views.tables import summarise, summary_table

__all__ = ["TracePlot", "summarise", "summary_table"]
