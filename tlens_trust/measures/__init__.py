"""What an activation says about a concept: probes and how they are scored."""

from tlens_trust.measures.measure import Measure

__all__ = ["Measure"]
