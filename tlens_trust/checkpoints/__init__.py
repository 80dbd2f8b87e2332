"""Where weights come from: checkpoints, series of them, published families, loading."""

from tlens_trust.checkpoints.checkpoint import Checkpoint
from tlens_trust.checkpoints.hooked import HookedModel

__all__ = ["Checkpoint", "HookedModel"]
