"""Figures and tables of steering."""
