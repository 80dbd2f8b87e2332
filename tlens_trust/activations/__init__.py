"""The activations of a model at hook points: collecting them, and keeping them on disk."""

from tlens_trust.activations.activations import Activations
from tlens_trust.activations.collect import collect_activations
from tlens_trust.activations.store import ActivationStore

__all__ = [
    "ActivationStore",
    "Activations",
    "collect_activations",
]
