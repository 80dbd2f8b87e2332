"""How a checkpoint is loaded."""

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Loading:
    """How a checkpoint is loaded, as `Checkpoint.load` takes it."""

    device: str | torch.device | None = None
    dtype: torch.dtype = torch.float32
    backend: str = "auto"
    device_map: Any = None
    trust_remote_code: bool = False
