"""What an activation says about a concept: probes and how they are scored."""

from tlens_trust.measures.calibration import calibration_error
from tlens_trust.measures.calibration_measure import probe_calibration
from tlens_trust.measures.catalogue import available_measures, named_measures
from tlens_trust.measures.cross_validation import ProbeMeasure, logistic_probe, mass_mean_probe
from tlens_trust.measures.directions.contrast_consistent import ccs_probe
from tlens_trust.measures.directions.lda import lda_probe
from tlens_trust.measures.directions.pair_differences import pair_difference_probe
from tlens_trust.measures.directions.ridge import ridge_probe
from tlens_trust.measures.directions.sparse import sparse_probe
from tlens_trust.measures.geometry import (
    isoscore,
    mean_cosine,
    participation_ratio,
    rankme,
    spectrum_exponent,
)
from tlens_trust.measures.information.code_length import online_coding
from tlens_trust.measures.information.estimate import InformationEstimate
from tlens_trust.measures.information.infonce import InfoNCE
from tlens_trust.measures.information.neighbours import NearestNeighbours
from tlens_trust.measures.information.noised import NoisedEstimator
from tlens_trust.measures.information.online_coding import OnlineCoding
from tlens_trust.measures.information.pair_information import (
    infonce,
    mlp_information,
    nearest_neighbour_information,
)
from tlens_trust.measures.information.probe_bounds import (
    AnswerInformation,
    BarberAgakov,
    Fano,
    UsableInformation,
)
from tlens_trust.measures.information.probe_information import probe_information
from tlens_trust.measures.kernels.components import linear_normalised_hsic
from tlens_trust.measures.kernels.dependence import kernel_dependence, median_widths
from tlens_trust.measures.kernels.hsic import CKA, HSIC
from tlens_trust.measures.kernels.normalised import NormalisedHSIC
from tlens_trust.measures.kernels.spectrum_matching import flatten_spectrum
from tlens_trust.measures.kernels.tracingllm_dependence import (
    tracingllm_dependence,
    tracingllm_information,
)
from tlens_trust.measures.margin import probe_margin
from tlens_trust.measures.measure import Measure
from tlens_trust.measures.mlp import mlp_probe
from tlens_trust.measures.probe import LinearProbe, fit_logistic_probe
from tlens_trust.measures.selectivity import probe_selectivity
from tlens_trust.measures.spectrum import spectrum
from tlens_trust.measures.tracingllm_protocol import tracingllm_probe

__all__ = [
    "CKA",
    "HSIC",
    "AnswerInformation",
    "BarberAgakov",
    "Fano",
    "InfoNCE",
    "InformationEstimate",
    "LinearProbe",
    "Measure",
    "NearestNeighbours",
    "NoisedEstimator",
    "NormalisedHSIC",
    "OnlineCoding",
    "ProbeMeasure",
    "UsableInformation",
    "available_measures",
    "calibration_error",
    "ccs_probe",
    "fit_logistic_probe",
    "flatten_spectrum",
    "infonce",
    "isoscore",
    "kernel_dependence",
    "lda_probe",
    "linear_normalised_hsic",
    "logistic_probe",
    "mass_mean_probe",
    "mean_cosine",
    "median_widths",
    "mlp_information",
    "mlp_probe",
    "named_measures",
    "nearest_neighbour_information",
    "online_coding",
    "pair_difference_probe",
    "participation_ratio",
    "probe_calibration",
    "probe_information",
    "probe_margin",
    "probe_selectivity",
    "rankme",
    "ridge_probe",
    "sparse_probe",
    "spectrum",
    "spectrum_exponent",
    "tracingllm_dependence",
    "tracingllm_information",
    "tracingllm_probe",
]
