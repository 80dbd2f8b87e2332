"""Cross-validation folds, dealt in `concepts` so that the text floor has the same ones."""

from tlens_trust.concepts.folds import assign_folds

__all__ = ["assign_folds"]
