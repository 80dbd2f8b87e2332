"""One target, and all the vectors that are tried on it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from tlens_trust.checkpoints import Checkpoint
from tlens_trust.checkpoints.hooked_model import HookedModel
from tlens_trust.concepts import Concept
from tlens_trust.steering.battery import Battery, Manner
from tlens_trust.steering.choices import ForcedChoice
from tlens_trust.steering.controls import RandomDirections, read_random
from tlens_trust.steering.dose import DoseNotReachedError
from tlens_trust.steering.likelihood import DEFAULT_BATCH_TOKENS
from tlens_trust.steering.neutral_reading import NeutralReading
from tlens_trust.steering.quantities import Reading, unknown
from tlens_trust.steering.vector import SteeringVector


@dataclass(frozen=True)
class Trial:
    """What is tried on every target, and how.

    Attributes:
        concept: Statements that no vector has seen.
        manner: How vectors are put to use.
        target_kl: The dose, in nats a token.
        choices: As `evaluate_steering` takes them, and so are the following.
        neutral: Texts for the dose.
        everyday: Whether to ask everyday questions.
        draws: How many random directions, each at the dose.
        opposite: Whether to steer the other way too.
        chat: Whether prompts are turns of a chat.
        seed: Draws directions.
        batch_tokens: Tokens read at once.
    """

    concept: Concept
    manner: Manner
    target_kl: float
    choices: Sequence[ForcedChoice] = ()
    neutral: Sequence[str] | None = None
    everyday: bool = True
    draws: int = 50
    opposite: bool = False
    chat: bool | None = None
    seed: int = 0
    batch_tokens: int = DEFAULT_BATCH_TOKENS


@dataclass(frozen=True, eq=False)
class TargetResult:
    """What some vectors do to one target.

    Attributes:
        unsteered: The target as it is.
        steered: Under each vector.
        opposite: Under each vector the other way; empty where that was not asked for.
        strengths: How strongly each vector was used; NaN where no strength reaches the dose, and
            then everything is NaN under that vector.
        random: Under random directions at the same dose.
    """

    unsteered: Reading
    steered: Sequence[Reading]
    opposite: Sequence[Reading]
    strengths: Float[np.ndarray, " source"]
    random: RandomDirections


def try_on_target(
    target: Checkpoint,
    vectors: Sequence[SteeringVector],
    trial: Trial,
    *,
    advance: Callable[[], object] = lambda: None,
) -> TargetResult:
    """Load one target, and steer it as `try_on_model` does.

    Args:
        target: Whom to steer.
        vectors: By what, all at the same sites.
        trial: What is tried.
        advance: Called after each pass.

    Raises:
        ValueError: As `evaluate_steering`.
    """
    with target.loaded() as model:
        return try_on_model(model, vectors, trial, advance=advance)


def try_on_model(
    model: HookedModel,
    vectors: Sequence[SteeringVector],
    trial: Trial,
    *,
    advance: Callable[[], object] = lambda: None,
) -> TargetResult:
    """Steer one model by several vectors at one dose, and by random directions.

    The pass without steering and the random directions serve all vectors, since at an equal dose
    the length of a direction plays no part.

    Args:
        model: Whom to steer.
        vectors: By what, all at the same sites.
        trial: What is tried.
        advance: Called after each pass.

    Raises:
        ValueError: As `evaluate_steering`.
    """
    battery = Battery(
        model,
        trial.concept,
        neutral=NeutralReading(model, trial.neutral),
        choices=trial.choices,
        everyday=trial.everyday,
        chat=trial.chat,
        batch_tokens=trial.batch_tokens,
    )
    unsteered = battery.unsteered(vectors[0]).reading
    advance()
    steered, opposite, strengths = [], [], []
    for vector in vectors:
        strength, found = _at_dose(battery, vector, trial, unsteered)
        strengths.append(strength)
        steered.append(found)
        if trial.opposite:
            # At the same dose, which is not quite the same strength.
            opposite.append(_at_dose(battery, -vector, trial, unsteered)[1])
        advance()
    random = read_random(
        battery,
        vectors[0],
        trial.manner,
        draws=trial.draws,
        seed=trial.seed,
        kl=trial.target_kl,
        advance=advance,
    )
    return TargetResult(unsteered, steered, opposite, np.array(strengths), random)


def _at_dose(
    battery: Battery, vector: SteeringVector, trial: Trial, unsteered: Reading
) -> tuple[float, Reading]:
    """The strength, and what is read at it; unknown where no strength reaches the dose."""
    try:
        strength = battery.matched_strength(vector, trial.target_kl, trial.manner)
    except DoseNotReachedError:
        # The predictions of a model that has learnt nothing can hardly be moved.
        return float("nan"), unknown(unsteered)
    return strength, battery.read(vector, strength, trial.manner).reading
