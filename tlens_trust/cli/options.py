"""Options that several commands share, and what their texts stand for."""

from enum import StrEnum
from typing import Annotated

import typer


class Backend(StrEnum):
    """Which hooked model reads a checkpoint."""

    auto = "auto"
    hooked_transformer = "hooked_transformer"
    bridge = "bridge"


class Dtype(StrEnum):
    """The number format a checkpoint is loaded in."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Protocol(StrEnum):
    """How a probe is fitted and scored."""

    grouped = "grouped"
    tracingllm = "tracingllm"


class Untrained(StrEnum):
    """Which weights tell how much was there before training."""

    auto = "auto"
    step0 = "step0"
    random = "random"
    none = "none"


Steps = Annotated[
    str, typer.Option(help="'log', 'all', numbers ('0,512,1000') or a range ('0:100000:10000').")
]
RunName = Annotated[str | None, typer.Option("--run", help="Seed or variant of the family.")]
Stage = Annotated[str | None, typer.Option(help="One of several training stages.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]


def several(texts: list[str] | None, option: str) -> list[str]:
    """The entries of an option that may be repeated and hold commas; empty where it is not given.

    Raises:
        ValueError: It is given, and names nothing.
    """
    entries = [part.strip() for text in texts or [] for part in text.split(",")]
    entries = [entry for entry in entries if entry]
    if texts and not entries:
        raise ValueError(
            f"{option} got {','.join(texts)!r}, which names nothing. Leave it out, or name some."
        )
    return entries


def read_steps(text: str) -> str | list[int] | range:
    """What `--steps` says.

    Raises:
        ValueError: Nothing that can be read as steps.
    """
    if text in ("log", "all"):
        return text
    try:
        if ":" not in text:
            return [int(part) for part in text.split(",")]
        parts = [int(part) for part in text.split(":")]
        if len(parts) <= 3 and (chosen := range(*parts)):
            return chosen
    except ValueError:
        pass
    raise ValueError(
        f"--steps got {text!r}. Give 'log', 'all', numbers ('0,512,1000') or a range "
        "('0:100000:10000', from the first to before the second by the third)."
    )


def read_sites(text: str) -> str | list[int] | list[str]:
    """What `--sites` says: a kind of site, layers, or hook names."""
    parts = [part.strip() for part in text.split(",")]
    if all(part.lstrip("-").isdigit() for part in parts):
        return [int(part) for part in parts]
    return parts if len(parts) > 1 or "." in text else text


def read_position(text: str) -> str | int:
    """What `--position` says: a word, or the number of a token."""
    return int(text) if text.lstrip("-").isdigit() else text


def read_device(text: str | None) -> str | None:
    """What `--device` says, if Torch knows it and it is there.

    Raises:
        ValueError: It is not.
    """
    if text is None:
        return None
    import torch

    try:
        # Only a tensor that is made tells whether the device is there.
        torch.empty(0, device=text)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise ValueError(
            f"--device got {text!r}, which cannot be used here ({first.rstrip('.')}). Leave it out "
            "for what there is, or give 'cpu'."
        ) from None
    return text
