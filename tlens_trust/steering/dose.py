"""The strength that reaches a dose: strengths at which vectors change a model equally much."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp, log
from typing import Any

from scipy.optimize import brentq
from torch import nn

from tlens_trust.checkpoints.hooked_model import HookedModel
from tlens_trust.measures.probe import LinearProbe
from tlens_trust.steering.compatibility import check_other_model
from tlens_trust.steering.intervention import Intervention, ProbeFires
from tlens_trust.steering.neutral_predictions import NeutralPredictions
from tlens_trust.steering.steered_positions import Positions
from tlens_trust.steering.vector import SteeringVector

# Doublings from the first try end at 2²⁶ lengths of the stream, far beyond any useful strength.
_DOUBLINGS = 30
# Length of the vector that is added at the first try, in lengths of the residual stream. Small, so
# that doubling meets the first crossing from below.
_FIRST_LENGTH = 1 / 16
_TOLERANCE = 1e-3  # relative to the target


class DoseNotReachedError(ValueError):
    """No strength reaches the requested dose."""


@dataclass(frozen=True)
class Dose:
    """A strength, and how far it moves predictions on neutral text.

    Attributes:
        strength: The strength for `steer`, with the same `units`, `mode`, `positions` and `when`.
        units: What the strength counts in.
        kl: Mean divergence of next-token distributions at this strength, in nats per token.
        target_kl: The requested dose, in nats per token.
        predictions: The number of next-token distributions behind the mean.
        evaluations: How many strengths were tried on the text.
    """

    strength: float
    units: str
    kl: float
    target_kl: float
    predictions: int
    evaluations: int


def calibrate_strength(
    model: HookedModel | nn.Module,
    vector: SteeringVector,
    *,
    target_kl: float,
    text: Sequence[str] | NeutralPredictions | None = None,
    mode: str = "add",
    positions: Positions = "all",
    when: ProbeFires | LinearProbe | None = None,
    units: str = "vector",
    tokenizer: Any = None,
    bos: bool | None = None,
    batch_tokens: int = 2048,
    other_model: str = "warn",
) -> Dose:
    """Find the strength at which a vector reaches a dose, so that vectors can be compared.

    The dose is the mean of `KL(unsteered ‖ steered)` between next-token distributions on neutral
    text, in nats per token. `NeutralPredictions` says which distributions count.

    The strength is doubled or halved, from a small one, until the target lies between two
    neighbours. The root between them is found on logarithmic scales, where a divergence that grows
    with the square of the strength is a straight line. If the divergence does not grow everywhere,
    the result is a crossing from below, the first that the doubling meets. For the other side of a
    vector, pass `-vector`.

    Args:
        model: A hooked model, or a plain Hugging Face model.
        vector: The steering vector.
        target_kl: The dose, in nats per token. Positive.
        text: Neutral texts. None for the embedded ones. `NeutralPredictions` of the same model
            serve many vectors with one unsteered pass.
        mode: `"add"`, `"rotate"` or `"ablate"`, as for `steer`. `"clamp"` changes activations at
            strength 0 and so has no small dose. For `"ablate"` the strength is at most 1.
        positions: Which tokens are steered.
        when: Steer only where a probe fires.
        units: What the strength counts in.
        tokenizer: A tokenizer, if a plain model is passed.
        bos: Whether a beginning-of-sequence token stands before each text.
        batch_tokens: Tokens in one batch.
        other_model: What to do if the vector comes from another run, as for `steer`.

    Returns:
        The strength, with the divergence that was measured at it.

    Raises:
        DoseNotReachedError: No strength reaches the target. It is a `ValueError`.
        ValueError: An argument has none of the allowed values.

    Examples:
        >>> from tlens_trust.steering import calibrate_strength
        >>> dose = calibrate_strength(model, vector, target_kl=0.1)  # doctest: +SKIP
        >>> with steer(model, vector, strength=dose.strength):  # doctest: +SKIP
        ...     model.generate("The new neighbours are")
    """
    check_other_model(other_model)
    intervention = Intervention(
        target_kl=target_kl, mode=mode, positions=positions, when=when, units=units
    )
    if not isinstance(text, NeutralPredictions):
        text = NeutralPredictions(
            model, text, tokenizer=tokenizer, bos=bos, batch_tokens=batch_tokens
        )
    return strength_at_dose(text, vector, intervention, other_model=other_model)


def strength_at_dose(
    neutral: NeutralPredictions,
    vector: SteeringVector,
    intervention: Intervention,
    *,
    other_model: str = "warn",
) -> Dose:
    """Find the strength at which a vector reaches a dose, as `calibrate_strength` does.

    Args:
        neutral: Predictions of the unsteered model on neutral text.
        vector: The steering vector.
        intervention: How the vector is used, with a dose.
        other_model: What to do if the vector comes from another run, as for `steer`.

    Raises:
        DoseNotReachedError: No strength reaches the dose.
        ValueError: As `calibrate_strength`.
    """
    target = intervention.target_kl
    assert target is not None
    divergences: dict[float, float] = {}
    predictions = 0

    def divergence(strength: float) -> float:
        nonlocal predictions, other_model
        if strength not in divergences:
            # Each strength costs a pass over the text, and the root finder asks for the ends again.
            effect = neutral.effect_of(
                vector, intervention.at_strength(strength), other_model=other_model
            )
            divergences[strength] = effect.mean_kl
            predictions = int(effect.predictions.sum())
            # One warning is enough.
            other_model = "allow" if other_model == "warn" else other_model
        return divergences[strength]

    low, high = _bracket(divergence, target, _first_strength(vector, intervention), intervention)

    def log_ratio(logarithm: float) -> float:
        # A divergence of 0 has no logarithm.
        return log(max(divergence(exp(logarithm)), 1e-300)) - log(target)

    best = min(
        (low, high), key=lambda strength: abs(log(max(divergences[strength], 1e-300) / target))
    )
    if abs(divergences[best] / target - 1) > _TOLERANCE:
        # A divergence that grows with the square has twice the relative error of its strength. Here
        # `xtol` is a relative error, since the root is sought in the logarithm of the strength.
        best = exp(brentq(log_ratio, log(low), log(high), xtol=_TOLERANCE / 4, rtol=1e-12))
        # The root finder stops when its interval is narrow. Another strength that it tried may lie
        # nearer to the dose.
        divergence(best)
        best = min(divergences, key=lambda strength: abs(divergences[strength] - target))
    return Dose(
        best, intervention.units, divergences[best], float(target), predictions, len(divergences)
    )


def _first_strength(vector: SteeringVector, intervention: Intervention) -> float:
    # The strongest ablation comes first: if it falls short of the dose, all others do.
    if intervention.mode == "ablate":
        return 1.0
    if intervention.units == "rms":
        return _FIRST_LENGTH
    rms = vector.rms
    assert rms is not None  # set when the vector was made
    # If the size of the stream is unknown, any start will do.
    ratios = rms.double() / vector.norms.double()
    ratios = ratios[ratios.isfinite() & (ratios > 0)]
    return _FIRST_LENGTH * float(ratios.mean()) if len(ratios) else 1.0


def _bracket(
    divergence: Callable[[float], float],
    target: float,
    strength: float,
    intervention: Intervention,
) -> tuple[float, float]:
    """Two strengths, one twice the other, whose divergences enclose the target."""
    is_ablation = intervention.mode == "ablate"
    kl = divergence(strength)
    largest = (kl, strength)
    for _ in range(_DOUBLINGS):
        if kl >= target:
            half_kl = divergence(strength / 2)
            if half_kl < target:
                return strength / 2, strength
            strength, kl = strength / 2, half_kl
            continue
        if is_ablation or kl == 0:
            # No more than the whole projection can be removed, and twice nothing is nothing.
            break
        strength *= 2
        previous_kl, kl = kl, divergence(strength)
        if kl >= target:
            return strength / 2, strength
        largest = max(largest, (kl, strength))
        # A norm after it leaves only the direction of a very long vector, so longer ones no longer
        # change the predictions.
        if previous_kl > 0 and abs(kl / previous_kl - 1) < 1e-4 and strength > 1e3:
            break
    if kl >= target:
        raise ValueError(
            f"A divergence of {target:g} nats per token is below the {kl:.3g} that is measured at "
            f"strength {strength:.3g}, which is rounding error. Give a larger dose."
        )
    raise DoseNotReachedError(_why_not_reached(target, largest, is_ablation=is_ablation))


def _why_not_reached(target: float, largest: tuple[float, float], *, is_ablation: bool) -> str:
    kl, strength = largest
    problem = f"A divergence of {target:g} nats per token is not reached: "
    if kl == 0:
        return (
            f"{problem}steering changes nothing. Check whether `positions` and `when` select any "
            "token of the text."
        )
    if is_ablation:
        return (
            f"{problem}removing the whole projection moves the model by {kl:.3g}. Give a smaller "
            "dose, or use mode='add'."
        )
    return (
        f"{problem}the largest measured is {kl:.3g}, at strength {strength:.3g}. Give a smaller "
        "dose, or steer at more sites or positions."
    )
