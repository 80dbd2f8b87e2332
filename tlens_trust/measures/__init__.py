"""What an activation says about a concept: probes and how they are scored."""

from tlens_trust.measures.cross_validation import ProbeMeasure, logistic_probe, mass_mean_probe
from tlens_trust.measures.folds import assign_folds
from tlens_trust.measures.measure import Measure
from tlens_trust.measures.probe import (
    LinearProbe,
    LogisticProbe,
    MassMeanProbe,
    fit_logistic_probe,
    fit_mass_mean_probe,
)
from tlens_trust.measures.scores import score_dataset
from tlens_trust.measures.solver import LogisticFits, solve_logistic

__all__ = [
    "LinearProbe",
    "LogisticFits",
    "LogisticProbe",
    "MassMeanProbe",
    "Measure",
    "ProbeMeasure",
    "assign_folds",
    "fit_logistic_probe",
    "fit_mass_mean_probe",
    "logistic_probe",
    "mass_mean_probe",
    "score_dataset",
    "solve_logistic",
]
