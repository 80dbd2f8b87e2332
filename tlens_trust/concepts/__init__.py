"""What we look for: concepts, the embedded sets and their corpus, readers for benchmarks, lint."""

from tlens_trust.concepts.concept import Concept, Edit
from tlens_trust.concepts.floor import TextFloor, text_floor
from tlens_trust.concepts.lint import Finding, LintReport, lint_file
from tlens_trust.concepts.load import available_benchmarks, load_concepts

__all__ = [
    "Concept",
    "Edit",
    "Finding",
    "LintReport",
    "TextFloor",
    "available_benchmarks",
    "lint_file",
    "load_concepts",
    "text_floor",
]
