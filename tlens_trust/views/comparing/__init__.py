"""Figures and tables of comparisons: between checkpoints, concepts, and sets of statements."""

from tlens_trust.views.comparing.changes import comparison_table, draw_comparison, draw_forgetting
from tlens_trust.views.comparing.matrix_figures import (
    draw_erasure,
    draw_genealogy,
    draw_overlap,
    draw_transfer,
)
from tlens_trust.views.comparing.transfers import draw_transfer_curves, transfer_table

__all__ = [
    "comparison_table",
    "draw_comparison",
    "draw_erasure",
    "draw_forgetting",
    "draw_genealogy",
    "draw_overlap",
    "draw_transfer",
    "draw_transfer_curves",
    "transfer_table",
]
