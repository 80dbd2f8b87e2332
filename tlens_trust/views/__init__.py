"""Figures, tables and reports of results."""

from tlens_trust.views.comparing.changes import comparison_table, draw_comparison, draw_forgetting
from tlens_trust.views.comparing.matrix_figures import (
    draw_erasure,
    draw_genealogy,
    draw_overlap,
    draw_transfer,
)
from tlens_trust.views.comparing.transfers import draw_transfer_curves, transfer_table
from tlens_trust.views.figure import Figure
from tlens_trust.views.information.information_curves import draw_information
from tlens_trust.views.information.plane_figure import draw_plane
from tlens_trust.views.information.plane_table import plane_table
from tlens_trust.views.onset_figure import draw_onsets
from tlens_trust.views.onset_table import onset_table
from tlens_trust.views.report.run_folder_report import report_run
from tlens_trust.views.report.trace_report import TraceReport
from tlens_trust.views.steering.effect_figures import draw_steering, draw_steering_curve
from tlens_trust.views.steering.matrix_table import matrix_table
from tlens_trust.views.steering.steering_table import generations_table, steering_table
from tlens_trust.views.steering.trade_off import draw_trade_off
from tlens_trust.views.summary import summarise, summary_table
from tlens_trust.views.tokens.generations_view import GenerationsView, draw_generations
from tlens_trust.views.tokens.token_view import TokenView, draw_tokens
from tlens_trust.views.trace_plot import TracePlot

__all__ = [
    "Figure",
    "GenerationsView",
    "TokenView",
    "TracePlot",
    "TraceReport",
    "comparison_table",
    "draw_comparison",
    "draw_erasure",
    "draw_forgetting",
    "draw_genealogy",
    "draw_generations",
    "draw_information",
    "draw_onsets",
    "draw_overlap",
    "draw_plane",
    "draw_steering",
    "draw_steering_curve",
    "draw_tokens",
    "draw_trade_off",
    "draw_transfer",
    "draw_transfer_curves",
    "generations_table",
    "matrix_table",
    "onset_table",
    "plane_table",
    "report_run",
    "steering_table",
    "summarise",
    "summary_table",
    "transfer_table",
]
