"""What we look for: concepts, the embedded sets and their corpus, readers for benchmarks, lint."""

from tlens_trust.concepts.concept import Concept
from tlens_trust.concepts.floor import text_floor
from tlens_trust.concepts.lint.lint import lint_file
from tlens_trust.concepts.load import available_benchmarks, load_concepts

__all__ = [
    "Concept",
    "available_benchmarks",
    "lint_file",
    "load_concepts",
    "text_floor",
]
