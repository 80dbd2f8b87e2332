"""The sweep over a series of checkpoints, and its result, the `Trace`."""

from tlens_trust.tracing.onset import find_onset, find_saturation
from tlens_trust.tracing.scores import load_scores
from tlens_trust.tracing.sweep import probe_checkpoints, trace_checkpoints
from tlens_trust.tracing.trace import Trace, register_trace_accessor

__all__ = [
    "Trace",
    "find_onset",
    "find_saturation",
    "load_scores",
    "probe_checkpoints",
    "register_trace_accessor",
    "trace_checkpoints",
]
