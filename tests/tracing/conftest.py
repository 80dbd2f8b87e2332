"""Fixtures of tests of sweeps: a tiny run on disk and planted activations."""

from tests.tiny_run import (
    another_concept,
    checkpoints,
    concepts,
    digest,
    loads,
    norm_measure,
    planted,
    quick_probe,
    run_of_checkpoints,
    save_weights,
    saved,
    sweep,
    trace,
)

__all__ = [
    "another_concept",
    "checkpoints",
    "concepts",
    "digest",
    "loads",
    "norm_measure",
    "planted",
    "quick_probe",
    "run_of_checkpoints",
    "save_weights",
    "saved",
    "sweep",
    "trace",
]
