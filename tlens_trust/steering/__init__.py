"""Directions that act: extract them, and steer by them at a comparable dose."""

from tlens_trust.steering.choices import FOLLOW_UPS, PAPER_CHOICES, ForcedChoice
from tlens_trust.steering.dose import Dose, DoseNotReachedError, calibrate_strength
from tlens_trust.steering.estimation_options import EstimationOptions
from tlens_trust.steering.evaluation import evaluate_steering
from tlens_trust.steering.extraction import extract_steering_vector
from tlens_trust.steering.formats.gguf import read_gguf, write_gguf
from tlens_trust.steering.formats.hook_list import make_hooks
from tlens_trust.steering.formats.lm_eval import read_lm_eval, write_lm_eval
from tlens_trust.steering.generations import classifier_judge, generate_texts
from tlens_trust.steering.hooks import Steering, steer
from tlens_trust.steering.intervention import Intervention, ProbeFires
from tlens_trust.steering.matrix import steering_matrix
from tlens_trust.steering.neutral_predictions import NeutralPredictions
from tlens_trust.steering.sampling import SamplingOptions
from tlens_trust.steering.tasks import SteeringTasks
from tlens_trust.steering.training_rows import training_rows
from tlens_trust.steering.vector import SteeringVector

__all__ = [
    "FOLLOW_UPS",
    "PAPER_CHOICES",
    "Dose",
    "DoseNotReachedError",
    "EstimationOptions",
    "ForcedChoice",
    "Intervention",
    "NeutralPredictions",
    "ProbeFires",
    "SamplingOptions",
    "Steering",
    "SteeringTasks",
    "SteeringVector",
    "calibrate_strength",
    "classifier_judge",
    "evaluate_steering",
    "extract_steering_vector",
    "generate_texts",
    "make_hooks",
    "read_gguf",
    "read_lm_eval",
    "steer",
    "steering_matrix",
    "training_rows",
    "write_gguf",
    "write_lm_eval",
]
