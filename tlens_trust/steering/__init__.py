"""Directions that act: extracting them, and steering by them at a comparable dose."""

from tlens_trust.steering.conditions import ProbeFires
from tlens_trust.steering.dose import Dose, calibrate_strength
from tlens_trust.steering.extraction import extract_steering_vector
from tlens_trust.steering.formats import (
    make_hooks,
    read_gguf,
    read_lm_eval,
    write_gguf,
    write_lm_eval,
)
from tlens_trust.steering.hooks import Steering, steer
from tlens_trust.steering.neutral_reading import NeutralEffect, NeutralReading
from tlens_trust.steering.neutral_text import NEUTRAL_TEXT, neutral_text
from tlens_trust.steering.vector import SteeringVector

__all__ = [
    "NEUTRAL_TEXT",
    "Dose",
    "NeutralEffect",
    "NeutralReading",
    "ProbeFires",
    "Steering",
    "SteeringVector",
    "calibrate_strength",
    "extract_steering_vector",
    "make_hooks",
    "neutral_text",
    "read_gguf",
    "read_lm_eval",
    "steer",
    "write_gguf",
    "write_lm_eval",
]
