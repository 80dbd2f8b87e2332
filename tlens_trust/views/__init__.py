"""Looking at results: figures of a `Trace`."""

from tlens_trust.views.figures import TracePlot

__all__ = ["TracePlot"]
