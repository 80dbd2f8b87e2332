"""The sweep over a series of checkpoints, and its result, the `Trace`."""

from tlens_trust.tracing.comparison import compare_checkpoints, list_flips
from tlens_trust.tracing.erasure import erasure_cost
from tlens_trust.tracing.forgetting import find_forgetting
from tlens_trust.tracing.genealogy import direction_genealogy
from tlens_trust.tracing.onset import find_onset, find_saturation
from tlens_trust.tracing.overlap import direction_overlap
from tlens_trust.tracing.probing import probe_checkpoints
from tlens_trust.tracing.scores import load_scores
from tlens_trust.tracing.sweep import trace_checkpoints
from tlens_trust.tracing.trace import Trace, register_trace_accessor
from tlens_trust.tracing.transfer import transfer_matrix

__all__ = [
    "Trace",
    "compare_checkpoints",
    "direction_genealogy",
    "direction_overlap",
    "erasure_cost",
    "find_forgetting",
    "find_onset",
    "find_saturation",
    "list_flips",
    "load_scores",
    "probe_checkpoints",
    "register_trace_accessor",
    "trace_checkpoints",
    "transfer_matrix",
]
