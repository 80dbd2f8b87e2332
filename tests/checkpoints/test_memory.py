import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="peak memory is read from Linux' /proc"
)

CHECKPOINTS = 8


@pytest.fixture(scope="module")
def run(tmp_path_factory, save_model):
    """A run of eight checkpoints of 10 million parameters, 40 MB each."""
    root = tmp_path_factory.mktemp("run")
    first = save_model(root / "step0", "gpt2", n_embd=512, n_head=8)
    weights = load_file(first / "model.safetensors")
    assert 35e6 < (first / "model.safetensors").stat().st_size < 45e6
    for step in range(1, CHECKPOINTS):
        folder = shutil.copytree(first, root / f"step{step}")
        moved = {name: weight + 0.001 * step for name, weight in weights.items()}
        save_file(moved, folder / "model.safetensors", metadata={"format": "pt"})
    return root


@pytest.fixture(scope="module")
def peaks(run):
    """Peak memory after each checkpoint, in bytes, in a process of its own."""
    package = Path(__file__).parents[2]
    paths = [str(package), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "sweep_of_eight.py"), str(run)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return {way: [1024 * peak for peak in found] for way, found in json.loads(done.stdout).items()}


def test_reading_eight_checkpoints_takes_no_more_memory_than_reading_one(run, peaks):
    released = peaks["released"]
    assert len(released) == CHECKPOINTS
    assert released[-1] <= 1.1 * released[0], released
    # Most of a small model's peak is the libraries': measure by the model, too.
    assert released[-1] - released[0] < 0.5 * size_of(run), released


def test_the_measure_would_notice_if_models_were_kept(run, peaks):
    kept = peaks["kept"]
    assert kept[-1] - peaks["released"][-1] > 1.5 * size_of(run), peaks


def size_of(run):
    return (run / "step0" / "model.safetensors").stat().st_size
