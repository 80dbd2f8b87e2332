"""The information plane along training, and what of its phases can be claimed."""

from tlens_trust.tracing.information.phases import Phase, Phases, find_phases
from tlens_trust.tracing.information.plane import information_plane
from tlens_trust.tracing.information.turning_points import find_turning_points

__all__ = ["Phase", "Phases", "find_phases", "find_turning_points", "information_plane"]
