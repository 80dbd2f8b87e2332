"""Directions that act: extracting them, and steering by them at a comparable dose."""

from tlens_trust.steering.choices import ForcedChoice
from tlens_trust.steering.conditions import ProbeFires
from tlens_trust.steering.dose import Dose, calibrate_strength
from tlens_trust.steering.evaluation import evaluate_steering
from tlens_trust.steering.everyday import EVERYDAY_QUESTIONS
from tlens_trust.steering.extraction import extract_steering_vector
from tlens_trust.steering.formats import (
    make_hooks,
    read_gguf,
    read_lm_eval,
    write_gguf,
    write_lm_eval,
)
from tlens_trust.steering.generations import Generation, classifier_judge, generate_texts
from tlens_trust.steering.hooks import Steering, steer
from tlens_trust.steering.matrix import steering_matrix
from tlens_trust.steering.neutral_reading import NeutralEffect, NeutralReading
from tlens_trust.steering.neutral_text import NEUTRAL_TEXT, neutral_text
from tlens_trust.steering.prompts import FOLLOW_UPS, PAPER_CHOICES
from tlens_trust.steering.splits import training_rows
from tlens_trust.steering.vector import SteeringVector

__all__ = [
    "EVERYDAY_QUESTIONS",
    "FOLLOW_UPS",
    "NEUTRAL_TEXT",
    "PAPER_CHOICES",
    "Dose",
    "ForcedChoice",
    "Generation",
    "NeutralEffect",
    "NeutralReading",
    "ProbeFires",
    "Steering",
    "SteeringVector",
    "calibrate_strength",
    "classifier_judge",
    "evaluate_steering",
    "extract_steering_vector",
    "generate_texts",
    "make_hooks",
    "neutral_text",
    "read_gguf",
    "read_lm_eval",
    "steer",
    "steering_matrix",
    "training_rows",
    "write_gguf",
    "write_lm_eval",
]
