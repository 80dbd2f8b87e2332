"""Directions that act: extracting them, steering by them, at a comparable dose."""

from tlens_trust.steering.conditions import ProbeFires
from tlens_trust.steering.hooks import Steering, steer
from tlens_trust.steering.vector import SteeringVector

__all__ = [
    "ProbeFires",
    "Steering",
    "SteeringVector",
    "steer",
]
