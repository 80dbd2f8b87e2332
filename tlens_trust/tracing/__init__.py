"""The sweep over a series of checkpoints, and its result, the `Trace`."""

from tlens_trust.tracing.comparing import (
    compare_checkpoints,
    direction_genealogy,
    direction_overlap,
    erasure_cost,
    find_forgetting,
    list_flips,
    trace_transfer,
    transfer_matrix,
)
from tlens_trust.tracing.information import (
    Phase,
    Phases,
    find_phases,
    find_turning_points,
    information_plane,
)
from tlens_trust.tracing.kept_results import keep_result, kept_results
from tlens_trust.tracing.onset import find_onset, find_saturation
from tlens_trust.tracing.probing import probe_checkpoints
from tlens_trust.tracing.reading_and_writing import compare_onsets, find_steering_onset
from tlens_trust.tracing.runs import combine_runs
from tlens_trust.tracing.scores import load_scores
from tlens_trust.tracing.sweep import trace_checkpoints
from tlens_trust.tracing.token_projections import project_tokens
from tlens_trust.tracing.token_scores import trace_tokens
from tlens_trust.tracing.trace import Trace, register_trace_accessor

__all__ = [
    "Phase",
    "Phases",
    "Trace",
    "combine_runs",
    "compare_checkpoints",
    "compare_onsets",
    "direction_genealogy",
    "direction_overlap",
    "erasure_cost",
    "find_forgetting",
    "find_onset",
    "find_phases",
    "find_saturation",
    "find_steering_onset",
    "find_turning_points",
    "information_plane",
    "keep_result",
    "kept_results",
    "list_flips",
    "load_scores",
    "probe_checkpoints",
    "project_tokens",
    "register_trace_accessor",
    "trace_checkpoints",
    "trace_tokens",
    "trace_transfer",
    "transfer_matrix",
]
