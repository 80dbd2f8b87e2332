"""What a model represents: reading activations at hook points, and keeping them on disk."""

from tlens_trust.activations.activations import Activations
from tlens_trust.activations.collect import collect_activations, collect_concepts
from tlens_trust.activations.reading_options import ReadingOptions
from tlens_trust.activations.sites import resolve_sites, site_depth, site_head, site_layer
from tlens_trust.activations.store import ActivationStore
from tlens_trust.activations.token_activations import TokenActivations, collect_tokens

__all__ = [
    "ActivationStore",
    "Activations",
    "ReadingOptions",
    "TokenActivations",
    "collect_activations",
    "collect_concepts",
    "collect_tokens",
    "resolve_sites",
    "site_depth",
    "site_head",
    "site_layer",
]
