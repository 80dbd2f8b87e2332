"""Estimates of mutual information in nats, each with what it takes to believe it."""

from tlens_trust.measures.information.estimate import InformationEstimate
from tlens_trust.measures.information.label_bounds import (
    confusion_information,
    fano_information,
    label_entropy,
)
from tlens_trust.measures.information.noised import NoisedEstimator, noised_information
from tlens_trust.measures.information.probe_information import (
    ProbeInformation,
    probe_information,
)

__all__ = [
    "InformationEstimate",
    "NoisedEstimator",
    "ProbeInformation",
    "confusion_information",
    "fano_information",
    "label_entropy",
    "noised_information",
    "probe_information",
]
