"""Checkpoints held against each other, and concepts: transfer, change, directions, erasure."""

from tlens_trust.analysis.comparing.checkpoint_change import compare_checkpoints, list_flips
from tlens_trust.analysis.comparing.checkpoint_transfer import transfer_matrix
from tlens_trust.analysis.comparing.erasure import erasure_cost
from tlens_trust.analysis.comparing.forgetting import find_forgetting
from tlens_trust.analysis.comparing.genealogy import direction_genealogy
from tlens_trust.analysis.comparing.overlap import direction_overlap
from tlens_trust.analysis.comparing.set_transfer import trace_transfer

__all__ = [
    "compare_checkpoints",
    "direction_genealogy",
    "direction_overlap",
    "erasure_cost",
    "find_forgetting",
    "list_flips",
    "trace_transfer",
    "transfer_matrix",
]
