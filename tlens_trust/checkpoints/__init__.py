"""Where weights come from: checkpoints, series of them, published families, loading."""

from tlens_trust.checkpoints.checkpoint import Checkpoint
from tlens_trust.checkpoints.hooked import HookedModel, own_bos, own_tokenizer
from tlens_trust.checkpoints.plain import PlainModel

__all__ = ["Checkpoint", "HookedModel", "PlainModel", "own_bos", "own_tokenizer"]
