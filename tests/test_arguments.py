"""A number that cannot be used is refused when it is given, before a checkpoint is read."""

import json
import subprocess
import sys

import numpy as np
import pytest

from tlens_trust.arguments import check_counts, checked_count, checked_seed
from tlens_trust.measures import ProbeMeasure, logistic_probe, mass_mean_probe
from tlens_trust.measures.kernels.tracingllm_dependence import TracingLLMDependence
from tlens_trust.measures.mlp import MLPCrossFitter

# Users have no beartype, which under test would refuse most of these first: hence a new process.
SCRIPT = """
import json, sys
from operator import attrgetter
import numpy as np, torch
import tlens_trust.measures

labels = torch.arange(40) % 2
activations = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
scores, numbers = activations[:, 0].double().numpy(), labels.numpy()
groups = [str(row // 2) for row in range(40)]
of_rows = (activations, labels)
inputs = {
    "fit": (of_rows, {"groups": groups}),
    "pair": ((activations, activations), {}),
    "one": ((activations,), {}),
    "pairs": ((activations, torch.arange(40).reshape(20, 2)), {}),
    "scores": ((scores, numbers), {}),
    "threshold": ((scores, numbers), {"false_positive_rate": 0.1}),
    "groups": ((groups,), {"resamples": 4, "seed": 0}),
    "permute": ((numbers, groups, np.zeros(40, dtype=int)), {"permutations": 4, "seed": 0}),
    "given": ((activations, labels, activations), {}),
    "none": ((), {}),
}


def found(name):
    first = name.partition(".")[0]
    modules = [m for k, m in sys.modules.items() if "trust.measures" in k]
    # A module may have the name of what it defines.
    module = next(m for m in modules if callable(getattr(m, first, None)))
    return attrgetter(name)(module)


outcomes = []
for name, kind, argument, value in json.load(sys.stdin):
    positional, named = inputs[kind]
    try:
        found(name)(*positional, **{**named, argument: value})
    except Exception as error:
        outcomes.append([type(error).__name__, str(error)])
    else:
        outcomes.append(["nothing", ""])
json.dump(outcomes, sys.stdout)
"""

NOT_NUMBERS = [True, "3", float("nan"), [2]]
COUNTS = {"folds": 2, "resamples": 1, "permutations": 1}

# By what is called: the fewest of each count that is allowed.
LEAST = {
    "logistic_probe": {**COUNTS, "folds": 3},
    "mass_mean_probe": COUNTS,
    "lda_probe": COUNTS,
    "ridge_probe": COUNTS,
    "sparse_probe": {**COUNTS, "k": 1},
    "pair_difference_probe": COUNTS,
    "ccs_probe": {**COUNTS, "restarts": 1, "steps": 1, "seed": 0},
    "mlp_probe": {
        "folds": 3,
        "resamples": 1,
        "permutations": 1,
        "width": 1,
        "max_epochs": 1,
        "patience": 1,
        "seed": 0,
    },
    "tracingllm_probe": {"resamples": 1, "permutations": 1},
    "probe_selectivity": {"controls": 1},
    "probe_calibration": {"bins": 1},
    "spectrum": {"first": 1, "last": 1, "resamples": 2},
    "kernel_dependence": {"components": 1, "permutations": 1, "resamples": 2, "examples": 16},
    "tracingllm_dependence": {"permutations": 1},
    "probe_information": {"folds": 3, "resamples": 2, "permutations": 1, "examples": 16},
    "mlp_information": {
        "folds": 3,
        "resamples": 2,
        "width": 1,
        "max_epochs": 1,
        "patience": 1,
        "seed": 0,
    },
    "infonce": {"permutations": 0, "batch": 2, "epochs": 1, "components": 1, "seed": 0},
    "nearest_neighbour_information": {
        "permutations": 0,
        "components": 1,
        "neighbours": 1,
        "seed": 0,
    },
    "online_coding": {"permutations": 0, "orders": 1, "seed": 0},
    "BarberAgakov": {"folds": 3, "seed": 0},
    "Fano": {"folds": 3, "seed": 0},
    "AnswerInformation": {"folds": 3, "seed": 0},
    "UsableInformation": {"folds": 3, "seed": 0},
    "InfoNCE": {"batch": 2, "width": 1, "dimensions": 1, "epochs": 1, "patience": 1, "folds": 2},
    "NearestNeighbours": {"components": 1, "neighbours": 1, "seed": 0},
    "NoisedEstimator": {"draws": 1, "seed": 0},
    "OnlineCoding": {"orders": 1, "seed": 0},
    "TracingLLMDependence": {"permutations": 1},
    "HSIC": {"block": 1},
    "CKA": {"block": 1},
}
LEAST_WITH_INPUT = {
    ("fit_sparse_probe", "fit"): {"k": 1},
    ("fit_contrast_consistent_probe", "fit"): {"restarts": 1, "steps": 1, "seed": 0},
    ("fit_contrast_consistent_direction", "pairs"): {"restarts": 1, "steps": 1, "seed": 0},
    ("HalfSamples.draw", "groups"): {"resamples": 2, "seed": 0},
    ("permute_labels", "permute"): {"permutations": 1, "seed": 0},
    ("calibration_error", "scores"): {"bins": 1},
    ("reliability_curve", "scores"): {"bins": 1, "resamples": 1, "seed": 0},
    ("flatten_spectrum", "one"): {"components": 1},
}
POSITIVE = {
    ("kernel_dependence", "none"): ["ridge"],
    ("TracingLLMDependence", "none"): ["sigma", "epsilon"],
    ("NormalisedHSIC", "none"): ["epsilon"],
    ("NoisedEstimator", "none"): ["noise"],
    ("sparse_probe", "none"): ["C"],
    ("fit_sparse_probe", "fit"): ["C"],
    ("fit_logistic_probe", "fit"): ["C"],
    ("fit_ridge_probe", "fit"): ["penalty"],
    ("ridge_probe", "none"): ["penalty"],
    ("tracingllm_information", "pair"): ["sigma", "epsilon"],
}
GRIDS = {
    "logistic_probe": ["C"],
    "probe_information": ["C", "noise"],
    "OnlineCoding": ["C", "fractions"],
    "kernel_dependence": ["multiples"],
}
FRACTIONS = {
    ("lda_probe", "none"): ["shrinkage"],
    ("fit_lda_probe", "fit"): ["shrinkage"],
    ("mlp_probe", "none"): ["dropout"],
    ("mlp_information", "none"): ["dropout"],
}
SHARES = {
    ("probe_calibration", "none"): ["false_positive_rate"],
    ("choose_threshold", "threshold"): ["false_positive_rate"],
    ("calibration_error", "scores"): ["confidence"],
}


def cases():
    counted = {(name, "none"): least for name, least in LEAST.items()} | LEAST_WITH_INPUT
    for (name, kind), least in counted.items():
        for argument, smallest in least.items():
            for value in [2.5, -1, smallest - 1, *NOT_NUMBERS]:
                yield name, kind, argument, value
    for table, values in (
        (POSITIVE, [0, -1.0, float("inf"), True, "3", float("nan")]),
        (
            {(name, "none"): arguments for name, arguments in GRIDS.items()},
            [2.5, "3", [], [0.0], [-1.0, 1.0], [True], ["3"], [float("nan")]],
        ),
        (FRACTIONS, [-0.1, 1.5, *NOT_NUMBERS]),
        (SHARES, [0, 1, -0.1, 95, *NOT_NUMBERS]),
    ):
        for (name, kind), arguments in table.items():
            for argument in arguments:
                for value in values:
                    # No level of noise at all leaves that part of the measure out.
                    if not (argument == "noise" and value == []):
                        yield name, kind, argument, value


CASES = list(cases())


@pytest.fixture(scope="module")
def outcomes():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], input=json.dumps(CASES), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda number: repr(CASES[number]))
def test_a_number_out_of_range_is_refused_when_it_is_given(number, outcomes):
    _, _, argument, value = CASES[number]
    kind, message = outcomes[number]
    assert kind == "ValueError", message
    assert f"`{argument}` must" in message
    assert f"got {value!r}" in message
    assert message.endswith(".")


def test_a_whole_number_of_numpy_is_stored_as_pythons_own():
    assert type(checked_count("folds", np.int64(3))) is int
    assert type(checked_seed(np.uint8(3))) is int
    measure = TracingLLMDependence(permutations=7)
    object.__setattr__(measure, "permutations", np.int64(9))
    check_counts(measure, {"permutations": 1})
    assert type(measure.permutations) is int
    assert "permutations=9" in measure.identity


def test_a_probe_needs_as_many_folds_as_its_cross_fitter_says():
    assert mass_mean_probe(folds=2).folds == 2
    assert MLPCrossFitter.least_folds == logistic_probe().cross_fitter.least_folds == 3
    with pytest.raises(ValueError, match=r"`folds` must be a whole number from 3, got 2\. That is"):
        ProbeMeasure("any", logistic_probe().cross_fitter, folds=2)
