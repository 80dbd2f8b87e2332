"""The settings for loading a checkpoint, in one value that the checkpoint carries."""

from dataclasses import dataclass
from typing import Any

import torch

BACKENDS = ("auto", "hooked_transformer", "bridge")


@dataclass(frozen=True)
class Loading:
    """The settings for loading a checkpoint: device, number format and backend.

    Attributes:
        device: Torch device; None for a GPU where there is one, else the CPU.
        dtype: Number format of the weights.
        backend: `"hooked_transformer"` (TransformerLens 3.9), `"bridge"` or `"auto"`. `"auto"` is
            the `HookedTransformer` if the installed release has it and converts the architecture,
            and otherwise the bridge.
        device_map: How transformers spreads a model that is larger than one device: `"auto"`, or a
            mapping from module to device. Only the bridge supports it. None for one device.
        trust_remote_code: Whether Python files that come with the model may run.

    Raises:
        ValueError: The device is unknown to torch or missing on this machine, or `device_map` is
            given as well. Or `dtype` is not a floating-point format, the backend is unknown, or
            `trust_remote_code` is not True or False.

    Examples:
        >>> Loading(dtype=torch.bfloat16).dtype
        torch.bfloat16
        >>> Loading(backend="jax")
        Traceback (most recent call last):
        ValueError: There is no backend 'jax'. Choose 'auto', 'hooked_transformer' or 'bridge'.
    """

    device: str | torch.device | None = None
    dtype: torch.dtype = torch.float32
    backend: str = "auto"
    device_map: str | dict[str, Any] | None = None
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        _check_device(self.device)
        _check_dtype(self.dtype)
        if self.backend not in BACKENDS:
            raise ValueError(
                f"There is no backend {self.backend!r}. "
                "Choose 'auto', 'hooked_transformer' or 'bridge'."
            )
        if not isinstance(self.trust_remote_code, bool):
            raise ValueError(
                "`trust_remote_code` says whether Python files that come with a model may run, got "
                f"{self.trust_remote_code!r}. Give True or False."
            )
        if self.device is not None and self.device_map is not None:
            raise ValueError(
                "`device` puts a model in one place and `device_map` spreads it, got "
                f"{self.device!r} and {self.device_map!r}. Give one of them."
            )

    @property
    def target_device(self) -> str | torch.device | None:
        """The device of the loaded model; None where `device_map` spreads it over several."""
        if self.device is not None or self.device_map is not None:
            return self.device
        return "cuda" if torch.cuda.is_available() else "cpu"


def _check_dtype(dtype: Any) -> None:
    if isinstance(dtype, torch.dtype) and dtype.is_floating_point:
        return
    named_dtype = getattr(torch, dtype, None) if isinstance(dtype, str) else None
    # A name such as "bfloat16" is a likely mistake, so the message gives the format itself.
    is_format = isinstance(named_dtype, torch.dtype) and named_dtype.is_floating_point
    raise ValueError(
        f"`dtype` must be a floating-point format of torch, got {dtype!r}. Give "
        f"{named_dtype if is_format else 'torch.float32, torch.bfloat16 or torch.float16'}."
    )


def _check_device(device: Any) -> None:
    if device is None:
        return
    try:
        torch_device = torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(
            f"`device` must be a device that torch knows, got {device!r}. Give 'cpu', 'cuda', "
            "'cuda:1' or 'mps', or leave it out for the GPU where there is one."
        ) from None
    count = 1
    if torch_device.type == "cuda":
        # torch accepts the name of a device that this machine lacks, and fails at its use.
        count = torch.cuda.device_count()
    elif torch_device.type == "mps":
        count = int(torch.backends.mps.is_available())
    if not count or (torch_device.type == "cuda" and (torch_device.index or 0) >= count):
        available = f"{count} of them, numbered from 0" if count else "none"
        raise ValueError(
            f"`device` is {str(torch_device)!r}, and torch finds {available} on this machine. "
            "Leave it out to use what this machine has, or give 'cpu'."
        )
