"""The sweep over a series of checkpoints, and its result, the `Trace`."""

from tlens_trust.tracing.kept_results import keep_result, kept_results
from tlens_trust.tracing.probing import probe_checkpoints
from tlens_trust.tracing.replicates import replicates
from tlens_trust.tracing.runs import combine_runs
from tlens_trust.tracing.scores import load_scores
from tlens_trust.tracing.sweep import trace_checkpoints
from tlens_trust.tracing.trace import Trace, register_trace_accessor

__all__ = [
    "Trace",
    "combine_runs",
    "keep_result",
    "kept_results",
    "load_scores",
    "probe_checkpoints",
    "register_trace_accessor",
    "replicates",
    "trace_checkpoints",
]
