"""What users get wrong is told in words, without the type checks that tests run under."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOLD = {
    "onset of None": r"run folder is named by its path, got None\. Give the folder",
    "onset of a trace": r"path, got a Trace\. A trace holds nothing by statement.*out='run'",
    "onset of a number": r"path, got 3",
    "onset by a negative seed": r"`seed` must be a whole number from 0, got -1",
    "onset by a seed in letters": r"`seed` must be a whole number from 0, got 'a'",
    "onset by a margin in letters": r"`margin` must lie between 0 and 1, got 'a'.*fraction of",
    "onset by a confidence in percent": r"`confidence` must lie between 0 and 1, got 95",
    "onset by resamples in letters": r"`resamples` must be a whole number from 1, got 'many'",
    "onset at half a step": r"by its name or its training step, got 0.5\. Choose one of",
    "sweep by jobs in letters": r"`jobs` must be a whole number from 1, got .two.",
    "sweep by half a job": r"`jobs` must be a whole number from 1, got 2.5",
    "sweep by the name of an executor": r"must have a method `submit.*got a str",
    "scores of None": r"run folder is named by its path, got None",
    "comparison of a list of concepts": r"name of one concept, got \['truth'\].*call once for each",
    "comparison with None": r"by its name or its training step, got None",
    "comparison of None": r"run folder is named by its path, got None",
    "comparison by no permutations": r"`permutations` must be a whole number from 1, got 0",
    "flips of another data set": r"takes what `compare_checkpoints` gives, got a Dataset of",
    "flips of a folder": r"takes what `compare_checkpoints` gives, got a str",
    "forgetting by checkpoints": r"`readings` must be SeriesReadings, got a list.*collect_run",
    "forgetting by a name": r"`probe` must be the measure.*got 'lda'\. Call .*lda_probe\(\)",
    "matrix by a name": r"`probe` must be the measure.*got 'lda'\. Call .*lda_probe\(\)",
    "matrix by a margin": r"`probe` must be the measure of a probe, such as.*MarginMeasure",
    "matrix of None": r"`readings` must be SeriesReadings, got a NoneType.*collect_series",
    "matrix of activations": r"`readings` must be SeriesReadings, got a list.*from_activations",
    "matrix of a number": r"takes names of concepts, or Concepts, got 3",
    "readings of a name": r"holds Activations, and nothing else, got a str",
    "transfer to a number": r"`scored_on` takes names of concepts, or Concepts, got 3",
    "sweep of None": r"series holds at least one Checkpoint.*got a NoneType.*from_hub",
    "sweep of a name": r"series holds at least one Checkpoint.*got a str",
    "sweep for None": r"`concepts` holds at least one Concept.*got a NoneType",
    "sweep for a name": r"`concepts` holds at least one Concept.*got a str",
    "loading in a format in letters": r"`dtype` must be.*got 'float32'\. Give torch.float32\.",
    "loading in whole numbers": r"`dtype` must be.*got torch.int64\. Give torch.float32, torch.bf",
    "sweep with a named store": r"`store` must be an ActivationStore.*got 'x'",
    "loading on no GPU": r"`device` is 'cuda:77', and torch finds",
    "loading on a toaster": r"`device` must be a device that torch knows, got 'toaster'",
    "loading with half a trust": r"`trust_remote_code` says whether.*got 'yes'",
    "loading by another backend": r"There is no backend 'jax'\. Choose",
    "sweep with a word for bos": r"`bos` says whether.*got 'yes'",
    "sweep at half a site": r"A site is a name or a layer number, got 1.5 of type float",
    "sweep at a set of sites": r"`sites` must have an order, and a set has none",
    "sweep by no tokens": r"`batch_tokens` must be a whole number from 1, got 0",
    "sweep by a seed in letters": r"`seed` must be a whole number from 0, got 'a'",
    "sweep into a number": r"run folder is named by its path, got 3",
    "fit of an array": r"`activations` must be a torch tensor, got a ndarray.*from_numpy",
    "fit of labels in an array": r"`labels` must be a torch tensor, got a ndarray",
    "fit of all sites": r"one row per statement, got torch.float32 of shape \(40, 1, 4\)",
    "fit of truth values": r"`labels` must be whole numbers.*got torch.bool.*labels.long",
    "fit of fewer labels": r"got 40 activations, 30 labels\. Choose the same rows",
    "fit of signs": r"`labels` must hold both 0 and 1, and nothing else.*-1: 20",
    "fit of fewer groups": r"got 40 activations, 40 labels, 30 groups",
    "controls in letters": r"`controls` must be a whole number from 1, got 'three'",
}


@pytest.fixture(scope="module")
def raised(tmp_path_factory, checkpoints, concepts, norm_measure):
    """What each misuse raises, in a process of its own."""
    from tlens_trust.tracing import trace_checkpoints

    run = tmp_path_factory.mktemp("misused") / "run"
    trace_checkpoints(
        checkpoints, concepts, measures=norm_measure(), out=run, store=None, progress=False
    )
    script = Path(__file__).with_name("misuse_without_types.py")
    done = subprocess.run(
        [sys.executable, str(script), str(run)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_every_misuse_is_told_of(raised):
    assert raised.keys() == TOLD.keys()


@pytest.mark.parametrize("misuse", TOLD)
def test_a_misuse_is_a_value_error_that_says_what_was_got_and_what_to_do(raised, misuse):
    import re

    kind, message = raised[misuse]
    assert kind == "ValueError", message
    assert re.search(TOLD[misuse], message), message
