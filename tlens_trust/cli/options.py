"""Options that several commands share, and what their texts stand for."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tlens_trust.checkpoints import CheckpointSeries


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
Series = Annotated[str, typer.Argument(help="A hub model, or a folder of checkpoint folders.")]
Concepts = Annotated[
    list[str] | None,
    typer.Option(
        help="Embedded set, control ('controls' for all) or benchmark, repeated or separated "
        "by commas; NAME=PATH reads a benchmark from a file. All embedded sets by default."
    ),
]
Csv = Annotated[Path | None, typer.Option(help="A concept of your own, from a CSV file.")]
StatementColumn = Annotated[str, typer.Option(help="Column of --csv.")]
LabelColumn = Annotated[str, typer.Option(help="Column of --csv.")]
GroupColumn = Annotated[str | None, typer.Option(help="Column of --csv.")]
Trustworthy = Annotated[
    int | None, typer.Option(help="Which label of --csv is the trustworthy side: 0 or 1.")
]
Sites = Annotated[
    str, typer.Option(help="'resid_post', 'attn_out', 'mlp_out', 'z', or layers ('0,4,8').")
]
PositionText = Annotated[str, typer.Option(help="'last', 'mean', or a token index.")]
Out = Annotated[Path, typer.Option(help="Run folder; continued if it is there.")]
Seed = Annotated[int, typer.Option(help="Seed of the folds and resamples.")]
Device = Annotated[str | None, typer.Option(help="Torch device, as 'cuda'.")]
DtypeName = Annotated[Dtype, typer.Option(help="Number format of the weights.")]
BackendName = Annotated[Backend, typer.Option(help="Which hooked model.")]
Against = Annotated[
    Untrained,
    typer.Option(
        help="What checkpoints are held against: step 0 of the series, random weights of the "
        "same architecture (one more to read), or as it is there."
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        help="How many processes measure; 1 for one alone. By default one for each core, where "
        "there is enough to do."
    ),
]
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


def loaded_with(
    series: "CheckpointSeries", device: str | None, dtype: Dtype, backend: Backend
) -> "CheckpointSeries":
    """A series whose checkpoints are loaded as `--device`, `--dtype` and `--backend` say.

    Raises:
        ValueError: torch does not know the device, or it is not there.
    """
    import torch

    return series.loaded_with(
        device=read_device(device), dtype=getattr(torch, dtype.value), backend=backend.value
    )


def check_out(out: Path) -> None:
    """Refuse a file, before minutes go into what would then have no place.

    Raises:
        ValueError: --out is a file.
    """
    if out.is_file():
        raise ValueError(f"--out got {str(out)!r}, which is a file. Give a folder.")
