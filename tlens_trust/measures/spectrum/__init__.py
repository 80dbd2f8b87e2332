"""The shape of a cloud of activations: how many directions it fills, and how evenly."""

from tlens_trust.measures.spectrum.geometry import (
    PowerLaw,
    isoscore,
    mean_cosine,
    participation_ratio,
    rankme,
    spectrum_exponent,
)
from tlens_trust.measures.spectrum.measure import SpectrumMeasure, spectrum

__all__ = [
    "PowerLaw",
    "SpectrumMeasure",
    "isoscore",
    "mean_cosine",
    "participation_ratio",
    "rankme",
    "spectrum",
    "spectrum_exponent",
]
