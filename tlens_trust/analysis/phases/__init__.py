"""The information plane along training, and what of its phases can be claimed."""

from tlens_trust.analysis.phases.phase_records import Phase, Phases
from tlens_trust.analysis.phases.phases import find_phases
from tlens_trust.analysis.phases.plane import information_plane
from tlens_trust.analysis.phases.turning_points import find_turning_points

__all__ = ["Phase", "Phases", "find_phases", "find_turning_points", "information_plane"]
