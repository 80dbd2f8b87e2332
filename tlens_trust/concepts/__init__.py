"""What we look for: concepts, the embedded sets and their corpus, readers for benchmarks."""

from tlens_trust.concepts.concept import Concept

__all__ = ["Concept"]
