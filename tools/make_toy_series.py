"""Make the toy series that comes with the package: `python tools/make_toy_series.py`.

It trains `pretrain_toy_series(seed=0)` anew, about a minute on one core, takes nine of its fifteen
checkpoints, and writes them to `tlens_trust/checkpoints/embedded/toy`. The same machine writes the
same bytes each time. Another processor may round otherwise while it trains, and then ends with
other weights: therefore they are in the repository, and are not made when the package is built.
After a change of the weights, `python tools/documented_figures.py --write` brings the numbers of
the documentation up to date.
"""

import argparse
import hashlib
import json
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tlens_trust.checkpoints.toy import pretrain_toy_series

PLACE = Path(__file__).resolve().parents[1] / "tlens_trust" / "checkpoints" / "embedded" / "toy"
STEPS = (0, 8, 32, 64, 128, 256, 384, 512, 768)
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


def embed(run: Path, place: Path, steps: tuple[int, ...] = STEPS) -> None:
    """Write checkpoints of a toy run in half the size.

    Weights are rounded to float16. `config.json` stays as it was, so that transformers, too, loads
    them as float32. The tokenizer, which all checkpoints share, is stored once, above them.

    Args:
        run: A folder that `pretrain_toy_series` has made.
        place: Where the checkpoints go. What it holds is removed.
        steps: Which checkpoints are taken.

    Raises:
        ValueError: A weight is too large for float16.
    """
    record = json.loads((run / "series.json").read_text(encoding="utf-8"))
    shutil.rmtree(place, ignore_errors=True)
    hashes = {}
    for step in steps:
        source, target = run / f"step{step}", place / f"step{step}"
        target.mkdir(parents=True)
        weights = {
            name: tensor.to(torch.float16)
            for name, tensor in load_file(source / "model.safetensors").items()
        }
        too_large = [name for name, tensor in weights.items() if not tensor.isfinite().all()]
        if too_large:
            raise ValueError(
                f"Step {step} has weights beyond the range of float16, first in {too_large[0]!r}. "
                "Embed another run."
            )
        file = target / "model.safetensors"
        save_file(weights, file, metadata={"format": "pt"})
        file.chmod(0o644)  # safetensors' own mode shuts out everybody else
        hashes[str(step)] = hashlib.sha256(file.read_bytes()).hexdigest()
        shutil.copyfile(source / "config.json", target / "config.json")
    for name in TOKENIZER:
        shutil.copyfile(run / f"step{steps[0]}" / name, place / name)
    series = {
        "made_by": "tools/make_toy_series.py",
        "releases": {name: version(name) for name in ("tokenizers", "torch", "transformers")},
        "settings": record["settings"],
        "tokens_per_step": record["tokens_per_step"],
        "loss": {str(step): record["loss"][str(step)] for step in steps},
        "weights": hashes,
    }
    (place / "series.json").write_text(json.dumps(series, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Train the run, or take one that is there, and embed it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument(
        "--run", type=Path, help="A folder for the run of seed 0; by default it is not kept."
    )
    given = parser.parse_args().run
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "toy" if given is None else given
        pretrain_toy_series(run, seed=0)
        embed(run, PLACE)


if __name__ == "__main__":
    main()
