"""The sweep over a series of checkpoints, and its result, the `Trace`."""

from tlens_trust.tracing.combined_runs import combine_runs
from tlens_trust.tracing.probing import probe_checkpoints
from tlens_trust.tracing.replicates import unpack_replicates
from tlens_trust.tracing.run_results import load_results, save_result
from tlens_trust.tracing.statement_scores import load_scores
from tlens_trust.tracing.sweep import trace_checkpoints
from tlens_trust.tracing.trace import Trace

__all__ = [
    "Trace",
    "combine_runs",
    "load_results",
    "load_scores",
    "probe_checkpoints",
    "save_result",
    "trace_checkpoints",
    "unpack_replicates",
]
