"""Run by test_memory.py: the peak memory of reading one checkpoint, and of reading eight."""

import json
import sys
from pathlib import Path


def peak_kilobytes():
    # Not getrusage: what it says begins with the size of the process that started this one.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def main() -> None:
    import torch

    from tlens_trust.checkpoints import CheckpointSeries

    torch.set_num_threads(1)
    tokens = torch.arange(64).reshape(2, 32)
    series = CheckpointSeries.from_directory(sys.argv[1])
    released = []
    for checkpoint in series:
        with checkpoint.loaded_with(device="cpu").loaded() as model, torch.no_grad():
            model(tokens)
        released.append(peak_kilobytes())
    # And what the same measure says where nothing is given back.
    kept, models = [], []
    for checkpoint in series[:4]:
        models.append(checkpoint.loaded_with(device="cpu").load())
        with torch.no_grad():
            models[-1](tokens)
        kept.append(peak_kilobytes())
    sys.stdout.write(json.dumps({"released": released, "kept": kept}))


if __name__ == "__main__":
    main()
