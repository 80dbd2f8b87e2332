"""Directions beside the logistic and the mass-mean probe's, one topic a module."""
