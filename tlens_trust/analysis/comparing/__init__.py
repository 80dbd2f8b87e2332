"""Comparisons between checkpoints and between concepts: transfer, change, directions, erasure."""
