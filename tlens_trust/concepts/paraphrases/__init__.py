"""The five embedded concepts in other sentences, to see whether a probe reads these too."""

from tlens_trust.concepts.paraphrases.paraphrases import PARAPHRASES, paraphrased_concepts

__all__ = ["PARAPHRASES", "paraphrased_concepts"]
