"""Figures and tables of steering."""

from tlens_trust.views.steering.figures import draw_onsets, draw_steering, draw_steering_curve

__all__ = ["draw_onsets", "draw_steering", "draw_steering_curve"]
