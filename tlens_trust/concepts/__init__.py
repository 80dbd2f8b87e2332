"""What we look for: concepts, the embedded sets and their corpus, readers for benchmarks."""

from tlens_trust.concepts.concept import Concept, Edit
from tlens_trust.concepts.load import available_benchmarks, load_concepts

__all__ = ["Concept", "Edit", "available_benchmarks", "load_concepts"]
