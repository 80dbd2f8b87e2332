"""Since when a concept is read, and since when no better."""

from tlens_trust.analysis.onset.onset import find_onset, find_saturation

__all__ = ["find_onset", "find_saturation"]
