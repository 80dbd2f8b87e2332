"""Where weights come from: checkpoints, series of them, published families, loading."""

from typing import TYPE_CHECKING

# Before any library that draws bars.
import tlens_trust.checkpoints.progress  # noqa: F401
from tlens_trust.checkpoints.checkpoint import Checkpoint
from tlens_trust.checkpoints.download_plan import DownloadPlan
from tlens_trust.checkpoints.families import FAMILIES, Family
from tlens_trust.checkpoints.hooked_model import HookedModel, own_bos, own_tokenizer
from tlens_trust.checkpoints.loading import release
from tlens_trust.checkpoints.loading_options import Loading
from tlens_trust.checkpoints.plain_model import PlainModel
from tlens_trust.checkpoints.series import CheckpointSeries
from tlens_trust.checkpoints.toy_embedded import load_toy_series

__all__ = [
    "FAMILIES",
    "Checkpoint",
    "CheckpointSeries",
    "DownloadPlan",
    "Family",
    "HookedModel",
    "Loading",
    "PlainModel",
    "load_toy_series",
    "own_bos",
    "own_tokenizer",
    "pretrain_toy_series",
    "release",
    "tune_toy_checkpoint",
]

if TYPE_CHECKING:
    from tlens_trust.checkpoints.toy import pretrain_toy_series
    from tlens_trust.checkpoints.toy_tuning import tune_toy_checkpoint


def __getattr__(name: str) -> object:
    # The toy run brings a corpus with it, which nobody else needs.
    if name == "pretrain_toy_series":
        from tlens_trust.checkpoints.toy import pretrain_toy_series

        return pretrain_toy_series
    if name == "tune_toy_checkpoint":
        from tlens_trust.checkpoints.toy_tuning import tune_toy_checkpoint

        return tune_toy_checkpoint
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
