"""Questions asked of results: onset, phases, comparisons between checkpoints, tokens."""

from tlens_trust.analysis.collecting import collect_run, collect_series
from tlens_trust.analysis.comparing import (
    compare_checkpoints,
    direction_genealogy,
    direction_overlap,
    erasure_cost,
    find_forgetting,
    list_flips,
    trace_transfer,
    transfer_matrix,
)
from tlens_trust.analysis.onset import find_onset, find_saturation
from tlens_trust.analysis.onset.decodable_and_steerable import compare_onsets, find_steering_onset
from tlens_trust.analysis.phases import (
    Phase,
    Phases,
    find_phases,
    find_turning_points,
    information_plane,
)
from tlens_trust.analysis.readings import SeriesReadings
from tlens_trust.analysis.token_scores import project_tokens, trace_tokens

__all__ = [
    "Phase",
    "Phases",
    "SeriesReadings",
    "collect_run",
    "collect_series",
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
    "list_flips",
    "project_tokens",
    "trace_tokens",
    "trace_transfer",
    "transfer_matrix",
]
