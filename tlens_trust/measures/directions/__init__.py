"""Directions other than those of the logistic and the mass-mean probe, one topic per module."""
