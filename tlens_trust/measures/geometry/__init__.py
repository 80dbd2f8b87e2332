"""The shape of a cloud of activations: how many directions it fills, and how evenly."""

from tlens_trust.measures.geometry.measure import SpectrumMeasure, spectrum
from tlens_trust.measures.geometry.shape import (
    PowerLaw,
    isoscore,
    mean_cosine,
    participation_ratio,
    rankme,
    spectrum_exponent,
)

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
