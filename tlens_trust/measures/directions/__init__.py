"""Directions beside the logistic and the mass-mean probe's, one topic a module."""

from tlens_trust.measures.directions.contrast_consistent import (
    ContrastConsistentProbe,
    ccs_probe,
    fit_contrast_consistent_direction,
    fit_contrast_consistent_probe,
)
from tlens_trust.measures.directions.lda import LDAProbe, fit_lda_probe, lda_probe
from tlens_trust.measures.directions.pair_differences import (
    PairDifferenceProbe,
    fit_pair_difference_probe,
    pair_difference_probe,
)
from tlens_trust.measures.directions.pairs import ContrastPairs, find_pairs
from tlens_trust.measures.directions.ridge import RidgeProbe, fit_ridge_probe, ridge_probe
from tlens_trust.measures.directions.sparse import (
    SparseProbe,
    choose_coordinates,
    fit_sparse_probe,
    sparse_probe,
)

__all__ = [
    "ContrastConsistentProbe",
    "ContrastPairs",
    "LDAProbe",
    "PairDifferenceProbe",
    "RidgeProbe",
    "SparseProbe",
    "ccs_probe",
    "choose_coordinates",
    "find_pairs",
    "fit_contrast_consistent_direction",
    "fit_contrast_consistent_probe",
    "fit_lda_probe",
    "fit_pair_difference_probe",
    "fit_ridge_probe",
    "fit_sparse_probe",
    "lda_probe",
    "pair_difference_probe",
    "ridge_probe",
    "sparse_probe",
]
