"""Concepts that have nothing to do with trust, to hold beside those that have."""

from tlens_trust.concepts.controls.controls import CONTROLS, control_concepts

__all__ = ["CONTROLS", "control_concepts"]
