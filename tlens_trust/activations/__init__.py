"""What a model represents: reading activations at hook points, and keeping them on disk."""

from tlens_trust.activations.activations import Activations

__all__ = ["Activations"]
