"""Options that choose a series of checkpoints, and how its checkpoints are loaded."""

from dataclasses import dataclass
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


Series = Annotated[str, typer.Argument(help="A hub model, or a folder of checkpoint folders.")]
Steps = Annotated[
    str, typer.Option(help="'log', 'all', numbers ('0,512,1000') or a range ('0:100000:10000').")
]


@dataclass(frozen=True)
class FamilyOptions:
    """Which training run of a published family a series is."""

    run: Annotated[str | None, typer.Option("--run", help="Seed or variant of the family.")] = None
    stage: Annotated[str | None, typer.Option(help="One of several training stages.")] = None


@dataclass(frozen=True)
class LoadingOptions:
    """How checkpoints are loaded."""

    device: Annotated[str | None, typer.Option(help="Torch device, such as 'cuda'.")] = None
    dtype: Annotated[Dtype, typer.Option(help="Number format of the weights.")] = Dtype.float32
    backend: Annotated[Backend, typer.Option(help="Which hooked model of TransformerLens.")] = (
        Backend.auto
    )

    def apply(self, series: "CheckpointSeries") -> "CheckpointSeries":
        """Give a series whose checkpoints are loaded in this way.

        Raises:
            ValueError: Torch does not know the device, or it is not available.
        """
        import torch

        return series.loaded_with(
            device=checked_device(self.device),
            dtype=getattr(torch, self.dtype.value),
            backend=self.backend.value,
        )


def open_series(
    model: str,
    steps: str,
    family: FamilyOptions,
    loading: LoadingOptions | None = None,
) -> "CheckpointSeries":
    """Open the series in a folder or, if there is no such folder, of a hub model.

    Args:
        model: The SERIES or MODEL argument of a command.
        steps: The text of `--steps`.
        family: The training run, for a hub model.
        loading: How checkpoints are loaded; None if the command loads none.

    Raises:
        ValueError: There is no such folder, or the options do not go with a folder.
    """
    chosen_steps = parse_steps(steps)
    folder = Path(model)
    if folder.is_file():
        raise ValueError(
            f"{model!r} is a file. Name the folder that holds the checkpoints' folders, or a hub "
            "model."
        )
    # No hub model begins like this, so that the path must be mistyped.
    if not folder.is_dir() and model.startswith((".", "/", "~")):
        raise ValueError(f"No folder {model!r}. Name a folder of checkpoints, or a hub model.")
    from tlens_trust import CheckpointSeries

    if not folder.is_dir():
        series = CheckpointSeries.from_hub(
            model, steps=chosen_steps, run=family.run, stage=family.stage
        )
    elif family != FamilyOptions():
        raise ValueError(f"--run and --stage choose among a hub family, but {model!r} is a folder.")
    else:
        series = CheckpointSeries.from_directory(model)
        series = series if chosen_steps == "all" else series.at(chosen_steps)
    return series if loading is None else loading.apply(series)


def parse_steps(text: str) -> str | list[int] | range:
    """Turn the text of `--steps` into a word, step numbers, or a range.

    Raises:
        ValueError: The text is none of these.
    """
    if text in ("log", "all"):
        return text
    try:
        if ":" not in text:
            return [int(part) for part in text.split(",")]
        parts = [int(part) for part in text.split(":")]
        # An empty range selects nothing, and is refused below.
        if len(parts) <= 3 and (steps := range(*parts)):
            return steps
    except ValueError:
        # A word that is no number, or a step of 0, gets the same message as the other mistakes.
        pass
    raise ValueError(
        f"--steps got {text!r}. Give 'log', 'all', numbers ('0,512,1000') or a range "
        "('0:100000:10000': first step, end, which is left out, and distance)."
    )


def checked_device(text: str | None) -> str | None:
    """Check that Torch can use a device.

    Raises:
        ValueError: Torch does not know the device, or it is not available.
    """
    if text is None:
        return None
    import torch

    try:
        # Torch accepts the name of a device that is absent. Only making a tensor shows it.
        torch.empty(0, device=text)
    except (RuntimeError, AssertionError) as error:
        # A Torch that was built without CUDA raises an AssertionError.
        first_line = str(error).splitlines()[0]
        raise ValueError(
            f"--device got {text!r}, which cannot be used here ({first_line.rstrip('.')}). Leave "
            "it out to use what is available, or give 'cpu'."
        ) from None
    return text
