"""Estimates of mutual information in nats, each with what it takes to believe it."""

from tlens_trust.measures.information.code_length import online_coding
from tlens_trust.measures.information.estimate import InformationEstimate
from tlens_trust.measures.information.infonce import InfoNCE
from tlens_trust.measures.information.label_bounds import (
    confusion_information,
    fano_information,
    label_entropy,
)
from tlens_trust.measures.information.neighbours import (
    NearestNeighbours,
)
from tlens_trust.measures.information.noised import NoisedEstimator
from tlens_trust.measures.information.online_coding import (
    DescriptionLength,
    OnlineCoding,
)
from tlens_trust.measures.information.probe_bounds import (
    AnswerInformation,
    BarberAgakov,
    Fano,
    UsableInformation,
)
from tlens_trust.measures.information.probe_information import (
    ProbeInformation,
    probe_information,
)
from tlens_trust.measures.information.requested import (
    infonce,
    mlp_information,
    nearest_neighbour_information,
)

__all__ = [
    "AnswerInformation",
    "BarberAgakov",
    "DescriptionLength",
    "Fano",
    "InfoNCE",
    "InformationEstimate",
    "NearestNeighbours",
    "NoisedEstimator",
    "OnlineCoding",
    "ProbeInformation",
    "UsableInformation",
    "confusion_information",
    "fano_information",
    "infonce",
    "label_entropy",
    "mlp_information",
    "nearest_neighbour_information",
    "online_coding",
    "probe_information",
]
