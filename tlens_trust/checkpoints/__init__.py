"""Checkpoints and series of them: where weights come from, and how they are loaded."""

from typing import TYPE_CHECKING

# This module must come before any library that draws progress bars.
import tlens_trust.checkpoints.progress  # noqa: F401
from tlens_trust.checkpoints.checkpoint import Checkpoint
from tlens_trust.checkpoints.loading_options import Loading
from tlens_trust.checkpoints.series import CheckpointSeries
from tlens_trust.checkpoints.toy_embedded import load_toy_series

__all__ = [
    "Checkpoint",
    "CheckpointSeries",
    "Loading",
    "load_toy_series",
    "pretrain_toy_series",
    "tune_toy_checkpoint",
]

if TYPE_CHECKING:
    from tlens_trust.checkpoints.toy import pretrain_toy_series
    from tlens_trust.checkpoints.toy_tuning import tune_toy_checkpoint


def __getattr__(name: str) -> object:
    # These two load the toy corpus, so they are imported only when they are used.
    if name == "pretrain_toy_series":
        from tlens_trust.checkpoints.toy import pretrain_toy_series

        return pretrain_toy_series
    if name == "tune_toy_checkpoint":
        from tlens_trust.checkpoints.toy_tuning import tune_toy_checkpoint

        return tune_toy_checkpoint
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
