"""How strongly to steer: strengths at which different vectors do equal damage."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, isfinite, log
from typing import Any

from scipy.optimize import brentq
from torch import nn

from tlens_trust.checkpoints.hooked_model import HookedModel
from tlens_trust.measures.probe import LinearProbe
from tlens_trust.steering.conditions import ProbeFires
from tlens_trust.steering.neutral_reading import NeutralReading
from tlens_trust.steering.positions import Positions
from tlens_trust.steering.vector import SteeringVector

_DOUBLINGS = 30
# What is added at the first try, in units of the residual stream's length.
_FIRST = 1 / 16
_DONE = 1e-3  # how near the target is near enough, relative to it


class DoseNotReachedError(ValueError):
    """No strength moves the model as far as was asked for."""


@dataclass(frozen=True)
class Dose:
    """A strength, and what it does to neutral text.

    Attributes:
        strength: As `steer` takes it, with the same `units`, `mode`, `positions` and `when`.
        units: What it counts in.
        kl: Mean divergence of next-token distributions at this strength, in nats a token.
        target_kl: What was asked for, in nats a token.
        predictions: How many next-token distributions that is the mean of.
        evaluations: How often the text was read.
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
    text: Sequence[str] | NeutralReading | None = None,
    mode: str = "add",
    positions: Positions = "all",
    when: ProbeFires | LinearProbe | None = None,
    units: str = "vector",
    tokenizer: Any = None,
    bos: bool | None = None,
    batch_tokens: int = 2048,
    other_model: str = "warn",
) -> Dose:
    """Find the strength at which steering moves a model by so much, to compare vectors by.

    The dose is the mean over neutral text of `KL(unsteered ‖ steered)` between next-token
    distributions, in nats a token; see `NeutralReading` for which. Strength is doubled, or halved,
    from a small one until the target lies between two neighbours, and the root is found between
    them on logarithmic scales, where a divergence that grows with the square of the strength is a
    straight line. Where it does not grow all the way, this is a crossing from below, the first one
    that the doubling comes upon. For the other side of a vector, pass `-vector`.

    Args:
        model: A hooked model, or a plain Hugging Face model.
        vector: What to steer by.
        target_kl: The dose, in nats a token. Positive.
        text: Texts of the user's own; None for the embedded ones; or what was read of the model
            already, which spares reading it unsteered for every vector.
        mode: `"add"`, `"rotate"` or `"ablate"`, as `steer` has them. (`"clamp"` is no identity at
            strength 0, and so has no small dose.) The strength of `"ablate"` is sought up to 1.
        positions: Which tokens are steered.
        when: Where to steer.
        units: What the strength is to count in.
        tokenizer: A tokenizer, where a plain model is passed.
        bos: Whether a beginning-of-sequence token stands before each text.
        batch_tokens: Tokens read at once.
        other_model: What to do where the vector comes from another run, as `steer` has it.

    Returns:
        The strength, with the divergence that it has been seen to reach.

    Raises:
        DoseNotReachedError: The target is not reached at any strength. It is a `ValueError`.
        ValueError: An argument is none of those allowed.

    Examples:
        >>> from tlens_trust.steering import calibrate_strength
        >>> dose = calibrate_strength(model, vector, target_kl=0.1)  # doctest: +SKIP
        >>> with steer(model, vector, strength=dose.strength):  # doctest: +SKIP
        ...     model.generate("The new neighbours are")
    """
    if not (isfinite(target_kl) and target_kl > 0):
        raise ValueError(
            f"`target_kl` is a mean divergence in nats a token and must be positive, got "
            f"{target_kl!r}. 0.1 is a dose that shows, 1 one that breaks."
        )
    if mode == "clamp":
        raise ValueError(
            "mode='clamp' moves activations at strength 0 already, so that no small dose of it can "
            "be found. Calibrate 'add', 'rotate' or 'ablate'."
        )
    if isinstance(text, NeutralReading):
        reading = text
    else:
        reading = NeutralReading(
            model, text, tokenizer=tokenizer, bos=bos, batch_tokens=batch_tokens
        )
    seen: dict[float, float] = {}
    predictions = 0
    said = other_model

    def divergence(strength: float) -> float:
        nonlocal predictions, said
        if strength not in seen:
            effect = reading.steered(
                vector,
                strength=strength,
                mode=mode,
                positions=positions,
                when=when,
                units=units,
                other_model=said,
            )
            seen[strength] = effect.mean_kl
            predictions = int(effect.predictions.sum())
            said = "allow" if said == "warn" else said  # once is enough
        return seen[strength]

    low, high = _bracket(divergence, target_kl, _first_strength(vector, mode, units), mode)

    def miss(logarithm: float) -> float:
        return log(max(divergence(exp(logarithm)), 1e-300)) - log(target_kl)

    best = min((low, high), key=lambda strength: abs(log(max(seen[strength], 1e-300) / target_kl)))
    if abs(seen[best] / target_kl - 1) > _DONE:
        # A divergence that grows with the square has twice the relative error of its strength.
        best = exp(brentq(miss, log(low), log(high), xtol=_DONE / 4, rtol=1e-12))
        divergence(best)
        best = min(seen, key=lambda strength: abs(seen[strength] - target_kl))
    return Dose(best, units, seen[best], float(target_kl), predictions, len(seen))


def _first_strength(vector: SteeringVector, mode: str, units: str) -> float:
    if mode == "ablate":
        return 1.0
    if units == "rms":
        return _FIRST
    rms = vector.rms
    assert rms is not None  # set when the vector was made
    # Where the stream's size is unknown, any beginning will do.
    sizes = rms.double() / vector.norms.double()
    known = sizes[sizes.isfinite() & (sizes > 0)]
    return _FIRST * float(known.mean()) if len(known) else 1.0


def _bracket(divergence: Any, target: float, strength: float, mode: str) -> tuple[float, float]:
    """Two strengths, one twice the other, between whose divergences the target lies."""
    found = divergence(strength)
    largest = (found, strength)
    for _ in range(_DOUBLINGS):
        if found >= target:
            less = divergence(strength / 2)
            if less < target:
                return strength / 2, strength
            strength, found = strength / 2, less
            continue
        if mode == "ablate" or found == 0:
            # Nothing more than all can be taken away, and what does nothing does nothing twice.
            break
        strength *= 2
        before, found = found, divergence(strength)
        if found >= target:
            return strength / 2, strength
        largest = max(largest, (found, strength))
        if before > 0 and abs(found / before - 1) < 1e-4 and strength > 1e3:
            break
    if found >= target:
        raise ValueError(
            f"A divergence of {target:g} nats a token is less than the {found:.3g} that is seen at "
            f"strength {strength:.3g}, and that is rounding. Ask for more."
        )
    raise DoseNotReachedError(_why_not_reached(target, largest, mode))


def _why_not_reached(target: float, largest: tuple[float, float], mode: str) -> str:
    kl, strength = largest
    asked = f"A divergence of {target:g} nats a token is not reached: "
    if kl == 0:
        return (
            f"{asked}steering changes nothing. Look whether `positions` and `when` choose any "
            "token of the text."
        )
    if mode == "ablate":
        return (
            f"{asked}taking all of the projection away moves the model by {kl:.3g}. Ask for less, "
            "or use mode='add'."
        )
    return (
        f"{asked}the largest seen is {kl:.3g}, at strength {strength:.3g}. Ask for less, or steer "
        "at more sites or positions."
    )
