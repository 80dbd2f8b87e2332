"""Analysis of results: onset, phases, comparisons between checkpoints, tokens."""

from tlens_trust.analysis.collecting import collect_run, collect_series
from tlens_trust.analysis.comparing.checkpoint_change import compare_checkpoints, list_flips
from tlens_trust.analysis.comparing.checkpoint_transfer import transfer_matrix
from tlens_trust.analysis.comparing.erasure import erasure_cost
from tlens_trust.analysis.comparing.forgetting import find_forgetting
from tlens_trust.analysis.comparing.genealogy import direction_genealogy
from tlens_trust.analysis.comparing.overlap import direction_overlap
from tlens_trust.analysis.comparing.set_transfer import trace_transfer
from tlens_trust.analysis.onset.decodable_and_steerable import compare_onsets, find_steering_onset
from tlens_trust.analysis.onset.onset import find_onset, find_saturation
from tlens_trust.analysis.phases.phases import find_phases
from tlens_trust.analysis.phases.plane import information_plane
from tlens_trust.analysis.phases.turning_points import find_turning_points
from tlens_trust.analysis.readings import SeriesReadings
from tlens_trust.analysis.token_scores import project_tokens, trace_tokens

__all__ = [
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
