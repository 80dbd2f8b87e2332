"""Opens the trained toy series that comes with the package.

It has nine checkpoints of `pretrain_toy_series(seed=0)`, rounded to float16. The figures in the
README and in the documentation come from them. So everybody who runs the same code sees the same
figures, although training itself differs slightly from machine to machine.
"""

import json
from importlib.resources import files
from pathlib import Path

from tlens_trust.checkpoints.series import CheckpointSeries
from tlens_trust.checkpoints.weights import file_sha256


def load_toy_series() -> CheckpointSeries:
    """Open the toy series that comes with the package, without training or download.

    The model is a GPT-NeoX of 4 blocks and 64 dimensions, trained on the embedded corpus by
    `pretrain_toy_series(seed=0)`. Its checkpoints at the steps 0, 8, 32, 64, 128, 256, 384, 512 and
    768 take 5 MB. The figures in the README and in the documentation come from them.

    Weights are stored in float16. Loaded in float32, the default, they are exactly the stored
    values, since every float16 number is also a float32 number. The weights of the run itself
    differ from them by the rounding. The training loss is that of the run.
    `tools/make_toy_series.py` in the repository makes the files.

    Nothing is written or copied: the checkpoints are loaded from where the package is installed. To
    save other files, use another folder. For other seeds, and to watch the training, use
    `pretrain_toy_series`.

    Returns:
        The series, with the tokens and the training loss of every checkpoint.

    Raises:
        ValueError: A file is missing or differs from the published one.

    Examples:
        >>> from tlens_trust import load_toy_series
        >>> series = load_toy_series()
        >>> series.steps
        (0, 8, 32, 64, 128, 256, 384, 512, 768)
        >>> series[-1]
        Checkpoint('toy@step768', step=768, tokens=768000, loss=0.68...)
    """
    # Checkpoints get their name from the last part of the path: toy@step512.
    return _open(Path(str(files("tlens_trust.checkpoints").joinpath("embedded", "toy"))))


def _open(folder: Path) -> CheckpointSeries:
    """Open the series in a folder after checking its files against `series.json`.

    Raises:
        ValueError: A file is missing or altered.
    """
    for name, expected in _needed_files(folder).items():
        file = folder / name
        # An altered file would give other figures than the documentation, without an error.
        if not file.is_file() or (expected and file_sha256(file) != expected):
            raise ValueError(
                f"{name} is missing or altered in {str(folder)!r}, the folder of the toy series of "
                "this package. Install tlens-trust again, or train a series with "
                "`pretrain_toy_series`."
            )
    return CheckpointSeries.from_directory(folder)


def _needed_files(folder: Path) -> dict[str, str]:
    """Return the files of the series with their recorded SHA-256; empty where none is recorded."""
    record = folder / "series.json"
    needed = dict.fromkeys(("series.json", "tokenizer.json"), "")
    if record.is_file():
        weights = json.loads(record.read_text(encoding="utf-8"))["weights"]
        needed |= {f"step{step}/config.json": "" for step in weights}
        needed |= {f"step{step}/model.safetensors": sha256 for step, sha256 in weights.items()}
    return needed
