"""Calls with arguments of the wrong type, as users make them: nothing checks annotations here.

Prints what each of them raises, as JSON. Called by `test_misuse.py` with the folder of a run.
"""

import json
import sys

import numpy as np
import torch
import xarray as xr

from tlens_trust import Concept, Trace
from tlens_trust.activations import Activations
from tlens_trust.analysis import (
    SeriesReadings,
    compare_checkpoints,
    find_forgetting,
    find_onset,
    find_saturation,
    list_flips,
    trace_transfer,
    transfer_matrix,
)
from tlens_trust.checkpoints import Checkpoint, Loading
from tlens_trust.measures import fit_logistic_probe, probe_margin, probe_selectivity
from tlens_trust.measures.directions.lda import fit_lda_probe
from tlens_trust.tracing import load_scores, probe_checkpoints

texts = tuple(f"text {row}" for row in range(40))
concept = Concept("truth", "reliability", texts, np.arange(40) % 2, texts)
values = torch.randn(40, 1, 4, generator=torch.Generator().manual_seed(0))
read = Activations(values, ("blocks.0.hook_resid_post",), Checkpoint("m", "step1", step=1), concept)
labels = torch.from_numpy(concept.labels.copy())
rows = values[:, 0]


readings = SeriesReadings.from_activations(read)


def sweep(series=read.checkpoint, concepts=concept, **arguments):
    probe_checkpoints(series, concepts, progress=False, **({"store": None} | arguments))


MISUSES = {
    "onset of None": lambda: find_onset(None),
    "onset of a trace": lambda: find_onset(Trace.load(run)),
    "onset of a number": lambda: find_saturation(3),
    "onset by a negative seed": lambda: find_onset(run, seed=-1),
    "onset by a seed in letters": lambda: find_onset(run, seed="a"),
    "onset by a margin in letters": lambda: find_onset(run, margin="a"),
    "onset by a confidence in percent": lambda: find_onset(run, confidence=95),
    "onset by resamples in letters": lambda: find_onset(run, resamples="many"),
    "onset at half a step": lambda: find_onset(run, checkpoints=[0.5]),
    "sweep by jobs in letters": lambda: sweep(jobs="two"),
    "sweep by half a job": lambda: sweep(jobs=2.5),
    "sweep by the name of an executor": lambda: sweep(executor="dask"),
    "scores of None": lambda: load_scores(None, "truth"),
    "comparison of a list of concepts": lambda: compare_checkpoints(run, ["truth"], 0, 8),
    "comparison with None": lambda: compare_checkpoints(run, "truth", None, 8),
    "comparison of None": lambda: compare_checkpoints(None, "truth", 0, 8),
    "comparison by no permutations": lambda: compare_checkpoints(
        run, "truth", 0, 8, permutations=0
    ),
    "flips of another data set": lambda: list_flips(xr.Dataset({"accuracy": ("site", [0.5])})),
    "flips of a folder": lambda: list_flips(run),
    "forgetting by checkpoints": lambda: find_forgetting(run, "truth", [read.checkpoint], layer=0),
    "forgetting by a name": lambda: find_forgetting(run, "truth", layer=0, measure="lda"),
    "matrix by a name": lambda: transfer_matrix(readings, probe="lda"),
    "matrix by a margin": lambda: transfer_matrix(readings, probe=probe_margin()),
    "matrix of None": lambda: transfer_matrix(None),
    "matrix of activations": lambda: transfer_matrix([read]),
    "matrix of a number": lambda: transfer_matrix(readings, 3),
    "readings of a name": lambda: SeriesReadings.from_activations("truth"),
    "transfer to a number": lambda: trace_transfer(readings, "truth", 3),
    "sweep of None": lambda: sweep(None),
    "sweep of a name": lambda: sweep("EleutherAI/pythia-160m"),
    "sweep for None": lambda: sweep(concepts=None),
    "sweep for a name": lambda: sweep(concepts="toxicity"),
    "loading in a format in letters": lambda: Loading(dtype="float32"),
    "loading in whole numbers": lambda: Loading(dtype=torch.int64),
    "loading with half a trust": lambda: Loading(trust_remote_code="yes"),
    "loading by another backend": lambda: Loading(backend="jax"),
    "sweep with a named store": lambda: sweep(store="x"),
    "loading on no GPU": lambda: Loading(device="cuda:77"),
    "loading on a toaster": lambda: Loading(device="toaster"),
    "sweep with a word for bos": lambda: sweep(bos="yes"),
    "sweep at half a site": lambda: sweep(sites=1.5),
    "sweep at a set of sites": lambda: sweep(sites={1, 2}),
    "sweep by no tokens": lambda: sweep(batch_tokens=0),
    "sweep by a seed in letters": lambda: sweep(seed="a"),
    "sweep into a number": lambda: sweep(out=3),
    "fit of an array": lambda: fit_lda_probe(rows.numpy(), labels),
    "fit of labels in an array": lambda: fit_lda_probe(rows, concept.labels),
    "fit of all sites": lambda: fit_logistic_probe(values, labels),
    "fit of truth values": lambda: fit_logistic_probe(rows, labels == 1),
    "fit of fewer labels": lambda: fit_logistic_probe(rows, labels[:30]),
    "fit of signs": lambda: fit_logistic_probe(rows, 2 * labels - 1),
    "fit of fewer groups": lambda: fit_lda_probe(rows, labels, groups=texts[:30]),
    "controls in letters": lambda: probe_selectivity(controls="three"),
}

if __name__ == "__main__":
    run = sys.argv[1]
    found = {}
    for name, misuse in MISUSES.items():
        try:
            misuse()
        except Exception as error:
            found[name] = [type(error).__name__, str(error)]
        else:
            found[name] = ["nothing", ""]
    sys.stdout.write(json.dumps(found))
