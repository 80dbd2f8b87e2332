"""Figures and tables of comparisons: between checkpoints, concepts, and sets of statements."""
