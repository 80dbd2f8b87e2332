"""What an activation says about a concept: probes and how they are scored."""

from tlens_trust.measures.calibration import (
    CalibrationError,
    calibration_error,
    choose_threshold,
    reliability_curve,
)
from tlens_trust.measures.calibration_measure import probe_calibration
from tlens_trust.measures.cross_validation import ProbeMeasure, logistic_probe, mass_mean_probe
from tlens_trust.measures.directions import (
    ContrastConsistentProbe,
    ContrastPairs,
    LDAProbe,
    PairDifferenceProbe,
    RidgeProbe,
    SparseProbe,
    ccs_probe,
    choose_coordinates,
    find_pairs,
    fit_contrast_consistent_direction,
    fit_contrast_consistent_probe,
    fit_lda_probe,
    fit_pair_difference_probe,
    fit_ridge_probe,
    fit_sparse_probe,
    lda_probe,
    pair_difference_probe,
    ridge_probe,
    sparse_probe,
)
from tlens_trust.measures.folds import assign_folds
from tlens_trust.measures.generalisation import transfer_score
from tlens_trust.measures.geometry import (
    PowerLaw,
    SpectrumMeasure,
    isoscore,
    mean_cosine,
    participation_ratio,
    rankme,
    spectrum,
    spectrum_exponent,
)
from tlens_trust.measures.kernels import (
    CKA,
    HSIC,
    KernelDependence,
    NormalisedHSIC,
    TracingLLMDependence,
    flatten_spectrum,
    kernel_dependence,
    tracingllm_dependence,
    tracingllm_information,
)
from tlens_trust.measures.margin import accuracy_under_noise, collapse_noise, probe_margin
from tlens_trust.measures.measure import Measure
from tlens_trust.measures.mlp import MLPProbe, mlp_probe
from tlens_trust.measures.multiplicity import benjamini_hochberg
from tlens_trust.measures.named import available_measures, named_measures
from tlens_trust.measures.nulls import Null, held_out_null, refit_null
from tlens_trust.measures.permutations import PermutedLabels, permute_labels
from tlens_trust.measures.probe import (
    LinearProbe,
    LogisticProbe,
    MassMeanProbe,
    fit_logistic_probe,
    fit_mass_mean_probe,
)
from tlens_trust.measures.scores import score_dataset
from tlens_trust.measures.selectivity import (
    control_labels,
    first_content_word,
    last_content_word,
    probe_selectivity,
)
from tlens_trust.measures.solver import LogisticFits, solve_logistic
from tlens_trust.measures.tracingllm import (
    SplitLeaks,
    TracingLLMMeasure,
    find_split_leaks,
    tracingllm_probe,
)

__all__ = [
    "CKA",
    "HSIC",
    "CalibrationError",
    "ContrastConsistentProbe",
    "ContrastPairs",
    "KernelDependence",
    "LDAProbe",
    "LinearProbe",
    "LogisticFits",
    "LogisticProbe",
    "MLPProbe",
    "MassMeanProbe",
    "Measure",
    "NormalisedHSIC",
    "Null",
    "PairDifferenceProbe",
    "PermutedLabels",
    "PowerLaw",
    "ProbeMeasure",
    "RidgeProbe",
    "SparseProbe",
    "SpectrumMeasure",
    "SplitLeaks",
    "TracingLLMDependence",
    "TracingLLMMeasure",
    "accuracy_under_noise",
    "assign_folds",
    "available_measures",
    "benjamini_hochberg",
    "calibration_error",
    "ccs_probe",
    "choose_coordinates",
    "choose_threshold",
    "collapse_noise",
    "control_labels",
    "find_pairs",
    "find_split_leaks",
    "first_content_word",
    "fit_contrast_consistent_direction",
    "fit_contrast_consistent_probe",
    "fit_lda_probe",
    "fit_logistic_probe",
    "fit_mass_mean_probe",
    "fit_pair_difference_probe",
    "fit_ridge_probe",
    "fit_sparse_probe",
    "flatten_spectrum",
    "held_out_null",
    "isoscore",
    "kernel_dependence",
    "last_content_word",
    "lda_probe",
    "logistic_probe",
    "mass_mean_probe",
    "mean_cosine",
    "mlp_probe",
    "named_measures",
    "pair_difference_probe",
    "participation_ratio",
    "permute_labels",
    "probe_calibration",
    "probe_margin",
    "probe_selectivity",
    "rankme",
    "refit_null",
    "reliability_curve",
    "ridge_probe",
    "score_dataset",
    "solve_logistic",
    "sparse_probe",
    "spectrum",
    "spectrum_exponent",
    "tracingllm_dependence",
    "tracingllm_information",
    "tracingllm_probe",
    "transfer_score",
]
