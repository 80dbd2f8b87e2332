"""The toy series that comes with the package: its files, what they hold, and how it is opened."""

import hashlib
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from scipy.stats import binom

import tlens_trust
from tlens_trust import load_concepts, load_toy_series, pretrain_toy_series, probe_checkpoints
from tlens_trust.checkpoints import toy_embedded
from tlens_trust.checkpoints.series import CheckpointSeries
from tlens_trust.checkpoints.toy import run_settings, train_toy_run

ROOT = Path(__file__).parents[2]
STEPS = (0, 8, 32, 64, 128, 256, 384, 512, 768)
MOST_BYTES = 6_000_000
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def series():
    return load_toy_series()


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("make", ROOT / "tools" / "make_toy_series.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def copied(series, tmp_path):
    return Path(shutil.copytree(series.model, tmp_path / "toy"))


def test_it_holds_nine_checkpoints_with_tokens_and_loss(series):
    assert series.steps == STEPS
    assert [checkpoint.name for checkpoint in series] == [f"toy@step{step}" for step in STEPS]
    assert series.tokens == tuple(1000 * step for step in STEPS)
    assert all(0 < checkpoint.loss < 7 for checkpoint in series)
    assert series.ignored == ()


def test_it_lies_in_the_package_and_is_small_enough(series):
    place = Path(series.model)
    assert place.is_relative_to(Path(tlens_trust.__file__).parent)
    files = [file for file in place.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < MOST_BYTES
    # Nothing but what is read: weights and settings of each checkpoint, and one tokenizer.
    expected = {f"step{step}/{name}" for step in STEPS for name in (WEIGHTS, "config.json")}
    expected |= {"series.json", "tokenizer.json", "tokenizer_config.json"}
    assert {file.relative_to(place).as_posix() for file in files} == expected


def test_its_weights_are_float16_and_those_that_the_record_names(series):
    record = json.loads((Path(series.model) / "series.json").read_text(encoding="utf-8"))
    for checkpoint in series:
        content = (checkpoint.folder / WEIGHTS).read_bytes()
        assert hashlib.sha256(content).hexdigest() == record["weights"][str(checkpoint.step)]
        with safe_open(checkpoint.folder / WEIGHTS, "pt") as file:
            assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"F16"}  # noqa: SIM118


def test_transformers_loads_every_checkpoint_whole_and_widens_it_to_float32(series):
    from transformers import AutoModelForCausalLM

    for checkpoint in series:
        model, report = AutoModelForCausalLM.from_pretrained(
            checkpoint.folder, output_loading_info=True
        )
        assert not any(report.values())
        stored = load_file(checkpoint.folder / WEIGHTS)
        # In memory transformers calls the unembedding otherwise than in the file.
        loaded = {
            name.replace("lm_head", "embed_out"): weight
            for name, weight in model.named_parameters()
        }
        assert loaded.keys() == stored.keys()
        for name, weight in loaded.items():
            assert weight.dtype == torch.float32
            assert torch.equal(weight, stored[name].float())


def test_a_sweep_reads_it_in_float32(series):
    concept = load_concepts()["toxicity"]
    concept = concept.take(np.arange(len(concept)) < 40)
    trace = {
        dtype: probe_checkpoints(
            series[-1:].loaded_with(**options),
            concept,
            store=None,
            untrained=None,
            progress=False,
        )
        for dtype, options in {
            "default": {},
            "float32": {"dtype": torch.float32},
            "float16": {"dtype": torch.float16},
        }.items()
    }
    scores = {dtype: found.data.cross_entropy.values for dtype, found in trace.items()}
    np.testing.assert_array_equal(scores["default"], scores["float32"])
    assert np.abs(scores["default"] - scores["float16"]).max() > 0


def test_opening_it_neither_trains_nor_writes(tmp_path):
    """An audit hook sees every file that is opened, made, moved or removed."""
    code = """
import os, sys
import tlens_trust.checkpoints
writes = []
def look(event, arguments):
    if event == "open" and isinstance(arguments[0], str):
        mode, flags = arguments[1], arguments[2]
        if (mode and set(mode) & set("wax+")) or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            writes.append(arguments[0])
    elif event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.copyfile"):
        writes.append(event)
sys.dont_write_bytecode = True
sys.addaudithook(look)
series = tlens_trust.load_toy_series()
[checkpoint.identity for checkpoint in series]
print(writes)
print([name for name in ("tlens_trust.checkpoints.toy", "transformers") if name in sys.modules])
open(sys.argv[1], "w").close()
print(len(writes))
"""
    told = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "written")],
        capture_output=True, text=True, check=True, cwd=ROOT,
    ).stdout.splitlines()  # fmt: skip
    assert told == ["[]", "[]", "1"]


def test_an_altered_file_is_refused(copied):
    assert toy_embedded._open(copied).steps == STEPS
    file = copied / "step256" / WEIGHTS
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"step256.model\.safetensors is missing or altered"):
        toy_embedded._open(copied)


@pytest.mark.parametrize("gone", [f"step8/{WEIGHTS}", "step8/config.json", "series.json"])
def test_a_file_that_is_gone_is_missed(copied, gone):
    (copied / gone).unlink()
    with pytest.raises(ValueError, match=rf"{gone.replace('/', '.')} is missing or altered.*again"):
        toy_embedded._open(copied)


def test_the_script_rounds_a_run_and_keeps_what_is_known_of_it(script, tmp_path):
    run, place = tmp_path / "run" / "toy", tmp_path / "embedded" / "toy"
    train_toy_run(run, run_settings(steps=(0, 1, 2), d_model=16, n_layers=2, n_heads=2, rows=60))
    script.embed(run, place, steps=(0, 2))
    first = {file: file.read_bytes() for file in place.rglob("*") if file.is_file()}
    script.embed(run, place, steps=(0, 2))
    assert first == {file: file.read_bytes() for file in place.rglob("*") if file.is_file()}

    whole, embedded = CheckpointSeries.from_directory(run), toy_embedded._open(place)
    assert embedded.steps == (0, 2)
    assert [c.loss for c in embedded] == [whole[0].loss, whole[2].loss]
    assert embedded.tokens == (0, 2000)
    for checkpoint, original in zip(embedded, (whole[0], whole[2]), strict=True):
        stored, trained = (load_file(c.folder / WEIGHTS) for c in (checkpoint, original))
        assert stored.keys() == trained.keys()
        assert all(torch.equal(stored[name], trained[name].half()) for name in trained)
        texts = ["The sparrow is a bird."]
        ours, theirs = (c.load_tokenizer()(texts)["input_ids"] for c in (checkpoint, original))
        assert ours == theirs


def test_the_embedded_series_is_of_the_run_that_seed_0_makes_today(series, script):
    record = json.loads((Path(series.model) / "series.json").read_text(encoding="utf-8"))
    assert record["settings"] == run_settings(seed=0)
    assert script.STEPS == STEPS
    assert Path(series.model) == script.PLACE


def test_a_weight_beyond_the_range_of_float16_is_refused(script, tmp_path):
    from safetensors.torch import save_file

    run = tmp_path / "toy"
    train_toy_run(run, run_settings(steps=(0, 1), d_model=16, n_layers=2, n_heads=2, rows=60))
    weights = load_file(run / "step1" / WEIGHTS)
    weights["embed_out.weight"][0, 0] = 1e6
    save_file(weights, run / "step1" / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"beyond the range of float16.*embed_out"):
        script.embed(run, tmp_path / "embedded", steps=(0, 1))


def differing(one, other):
    """The cells in which two accuracies differ by more than the intervals of both allow."""
    values, low, high = zip(*map(bounds_of, (one, other)), strict=True)
    change = values[1] - values[0]
    below = np.hypot(values[1] - low[1], high[0] - values[0])
    above = np.hypot(high[1] - values[1], values[0] - low[0])
    return (change - below > 0) | (change + above < 0)


def bounds_of(data):
    return data.accuracy.values, *(data.accuracy_ci.sel(bound=b).values for b in ("low", "high"))


@pytest.mark.slow
def test_training_anew_gives_the_accuracies_of_the_embedded_series(series, tmp_path):
    """By 95% intervals of the difference, in as many cells as chance allows.

    5% of the cells are expected to differ where nothing does. The sites of a checkpoint go
    together, so that a concept at a checkpoint counts as one draw: of 45 draws, 5 may differ
    (the 97.5% point of the binomial distribution, 11%).

    On the machine that made the series none of 180 cells differed, and all accuracies lay inside
    its own intervals. Training amplifies how a processor rounds, which no interval over statements
    knows of: with torch's code for old processors 6% differed, and 12% lay outside. Of another seed
    19% differed, and 33% lay outside: that is another run.
    """
    anew = pretrain_toy_series(tmp_path / "toy", seed=0, progress=False).at(STEPS)
    # Before rounding has grown, it is the same run.
    early = slice(0, 4)
    losses = [[checkpoint.loss for checkpoint in each[early]] for each in (series, anew)]
    np.testing.assert_allclose(*losses, atol=1e-3)

    embedded, trained = (
        probe_checkpoints(each, load_concepts(), seed=0, store=None, progress=False).data.squeeze()
        for each in (series, anew)
    )
    assert embedded.accuracy.shape == (5, 9, 4)
    most = binom.ppf(0.975, 45, 0.05) / 45
    assert differing(embedded, trained).mean() <= most
    # A run that is one checkpoint behind is told from it.
    ahead, behind = embedded.isel(checkpoint=slice(1, None)), embedded.isel(checkpoint=slice(-1))
    assert differing(behind, ahead).mean() > 1.5 * most
