"""Trace when, during pre-training, a language model comes to know what is trustworthy.

The public names are loaded when they are first used, so that importing the package is cheap.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_HOME = {
    "Activations": "activations",
    "Checkpoint": "checkpoints",
    "CheckpointSeries": "checkpoints",
    "Concept": "concepts",
    "SteeringVector": "steering",
    "Trace": "tracing",
    "collect_activations": "activations",
    "extract_steering_vector": "steering",
    "load_concepts": "concepts",
    "load_toy_series": "checkpoints",
    "pretrain_toy_series": "checkpoints",
    "probe_checkpoints": "tracing",
    "steer": "steering",
    "trace_checkpoints": "tracing",
}

# The names stand here again, since type checkers understand a literal list only.
__all__ = [
    "Activations",
    "Checkpoint",
    "CheckpointSeries",
    "Concept",
    "SteeringVector",
    "Trace",
    "collect_activations",
    "extract_steering_vector",
    "load_concepts",
    "load_toy_series",
    "pretrain_toy_series",
    "probe_checkpoints",
    "steer",
    "trace_checkpoints",
]

# Type checkers and editors do not run `__getattr__`, so they need real imports.
if TYPE_CHECKING:
    from tlens_trust.activations import Activations, collect_activations
    from tlens_trust.checkpoints import (
        Checkpoint,
        CheckpointSeries,
        load_toy_series,
        pretrain_toy_series,
    )
    from tlens_trust.concepts import Concept, load_concepts
    from tlens_trust.steering import SteeringVector, extract_steering_vector, steer
    from tlens_trust.tracing import Trace, probe_checkpoints, trace_checkpoints


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'tlens_trust' has no attribute {name!r}")
    value = getattr(import_module(f"tlens_trust.{_HOME[name]}"), name)
    # Python calls `__getattr__` only for a missing name, so the next use is an ordinary lookup.
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
