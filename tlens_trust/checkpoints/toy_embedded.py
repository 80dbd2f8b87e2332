"""The toy series that comes with the package, already trained.

Nine checkpoints of `pretrain_toy_series(seed=0)`, rounded to float16. The figures in the README and
in the documentation come from them, so that everybody who runs the same code sees the same figures,
whatever machine trained the model.
"""

import json
from importlib.resources import files
from pathlib import Path

from tlens_trust.checkpoints.series import CheckpointSeries
from tlens_trust.checkpoints.weights import file_sha256


def load_toy_series() -> CheckpointSeries:
    """Open the toy series that comes with the package, without training or download.

    A GPT-NeoX of 4 blocks and 64 dimensions was trained on the embedded corpus: the run that
    `pretrain_toy_series(seed=0)` makes. Its checkpoints at the steps 0, 8, 32, 64, 128, 256, 384,
    512 and 768 take 5 MB. The figures in the README and in the documentation come from them.

    Weights are stored in float16. Read in float32, the default, they are exactly the stored values:
    every float16 number is a float32 number, too. The float32 weights of the run itself differ from
    them by the rounding. Training loss is that of the run. `tools/make_toy_series.py` in the
    repository makes the files.

    Nothing is written or copied: the checkpoints are read where the package is installed. To save
    others beside them, take a folder of your own. For other seeds, and to see the training, use
    `pretrain_toy_series`.

    Returns:
        The series, with tokens and training loss known at every checkpoint.

    Raises:
        ValueError: A file is missing or is not the one that the package was published with.

    Examples:
        >>> from tlens_trust import load_toy_series
        >>> series = load_toy_series()
        >>> series.steps
        (0, 8, 32, 64, 128, 256, 384, 512, 768)
        >>> series[-1]
        Checkpoint('toy@step768', step=768, tokens=768000, loss=0.68...)
    """
    # Checkpoints are named after the last part: toy@step512.
    return _open(Path(str(files("tlens_trust.checkpoints").joinpath("embedded", "toy"))))


def _open(place: Path) -> CheckpointSeries:
    """The series in a folder, if it holds the weights that `series.json` names.

    Raises:
        ValueError: It does not.
    """
    for name, expected in _needed_files(place).items():
        file = place / name
        if not file.is_file() or (expected and file_sha256(file) != expected):
            raise ValueError(
                f"{name} is missing or altered in {str(place)!r}, where the toy series of this "
                "package lies. Install tlens-trust again, or train a series with "
                "`pretrain_toy_series`."
            )
    return CheckpointSeries.from_directory(place)


def _needed_files(place: Path) -> dict[str, str]:
    """The files of the series, each with its SHA-256 where the record has one, else ""."""
    record = place / "series.json"
    needed = dict.fromkeys(("series.json", "tokenizer.json"), "")
    if record.is_file():
        weights = json.loads(record.read_text(encoding="utf-8"))["weights"]
        needed |= {f"step{step}/config.json": "" for step in weights}
        needed |= {f"step{step}/model.safetensors": sha256 for step, sha256 in weights.items()}
    return needed
