"""The five embedded sets, and a corpus from the same world to learn them from."""

from tlens_trust.concepts.embedded.corpus import toy_corpus
from tlens_trust.concepts.embedded.sets import embedded_concepts

__all__ = ["embedded_concepts", "toy_corpus"]
