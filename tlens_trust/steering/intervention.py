"""How a steering vector is used: how strongly, in which way, at which tokens, on which condition.

An `Intervention` is made once and checked when it is made. One value then serves every vector,
every random direction and every model of an experiment.
"""

from dataclasses import dataclass, replace
from math import isfinite

from jaxtyping import Bool, Float
from torch import Tensor

from tlens_trust.measures.probe import LinearProbe
from tlens_trust.steering.steered_positions import Positions, checked_positions

MODES = ("add", "ablate", "clamp", "rotate")
UNITS = ("vector", "rms")


@dataclass(frozen=True, eq=False)
class ProbeFires:
    """A condition for `steer(…, when=…)`: steer where a probe's log-odds pass a level.

    The condition is evaluated at each token, in the same forward pass, before the edit. Only the
    positions where the probe fires are steered. The probe sees what the model computes under
    steering that acts before its site, including enclosing `with` blocks at the same site.

    A probe is usually fitted at one position of each statement, often the last. Whether its
    log-odds mean the same at other tokens is for the user to judge.

    Attributes:
        probe: A linear probe of one site, as `fit_logistic_probe` returns it.
        site: The site of the probe: the steered site or an earlier one. A name, or a layer number
            for the residual stream after that block. None means the steered site, if there is one.
        above: Fire where the log-odds of label 1 are larger than this, in nats.
        below: Fire where they are smaller. With both levels, fire between the two.

    Raises:
        ValueError: Neither level is given, one is not finite, or no number lies between them.

    Examples:
        >>> import torch
        >>> probe = LinearProbe(torch.tensor([1.0, 0.0]), bias=-2.0)
        >>> ProbeFires(probe, site=1, below=0.0).fires(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
        tensor([ True, False])
    """

    probe: LinearProbe
    site: str | int | None = None
    above: float | None = None
    below: float | None = None

    def __post_init__(self) -> None:
        levels = [level for level in (self.above, self.below) if level is not None]
        if not levels or not all(map(isfinite, levels)):
            raise ValueError(
                f"A condition needs a level in nats, got above={self.above}, below={self.below}. "
                "below=0.0 fires where the probe predicts label 0."
            )
        if self.above is not None and self.below is not None and self.above >= self.below:
            raise ValueError(
                f"No number is above {self.above} and below {self.below}. With both levels, the "
                "probe fires between them."
            )

    def fires(self, activations: Float[Tensor, "*example d_model"]) -> Bool[Tensor, "*example"]:
        """Where the probe fires."""
        log_odds = self.probe.log_odds(activations)
        # False where the log-odds are NaN, which lie neither above nor below a level.
        fires = log_odds == log_odds
        if self.above is not None:
            fires = fires & (log_odds > self.above)
        if self.below is not None:
            fires = fires & (log_odds < self.below)
        return fires


@dataclass(frozen=True)
class Intervention:
    """How a steering vector is used, as `steer` describes it.

    The size is given either as a strength, or as a dose: how far steering moves predictions on
    neutral text. The strength that reaches a dose differs from vector to vector and from model to
    model, and is found by `calibrate_strength`.

    Attributes:
        strength: How strongly to steer, in `units`. None where a dose is given.
        target_kl: The dose: mean KL divergence from the unsteered model, in nats per token. None
            where a strength is given.
        mode: `"add"`, `"ablate"`, `"clamp"` or `"rotate"`.
        positions: Which tokens to steer.
        when: Steer only where a probe fires. A `LinearProbe` alone means log-odds above 0.
        units: What a strength counts in: `"vector"`, the vector's own length, or `"rms"`, the
            length of the residual stream.

    Raises:
        ValueError: Not exactly one of `strength` and `target_kl` is given, one is out of range,
            `mode`, `positions` or `units` is unknown, or a dose is given with `mode="clamp"`.

    Examples:
        >>> Intervention(target_kl=0.1).at_strength(2.0)
        Intervention(strength=2.0, target_kl=None, mode='add', positions='all', when=None,
        units='vector')
        >>> Intervention(strength=2.0, mode="push")
        Traceback (most recent call last):
        ValueError: `mode` is one of 'add', 'ablate', 'clamp', 'rotate', got 'push'.
    """

    strength: float | int | None = None
    target_kl: float | int | None = None
    mode: str = "add"
    positions: Positions = "all"
    when: ProbeFires | LinearProbe | None = None
    units: str = "vector"

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"`mode` is one of {', '.join(map(repr, MODES))}, got {self.mode!r}.")
        if self.units not in UNITS:
            raise ValueError(f"`units` is 'vector' or 'rms', got {self.units!r}.")
        checked_positions(self.positions, check_texts=False)
        if (self.strength is None) == (self.target_kl is None):
            raise ValueError(
                "The size of an intervention is either a `strength` or a `target_kl`, got "
                f"strength={self.strength!r} and target_kl={self.target_kl!r}. Give one of them: "
                "target_kl=0.1 is a dose with a visible effect."
            )
        if self.strength is not None:
            _check_strength(self.strength)
        if self.target_kl is not None:
            _check_dose(self.target_kl, self.mode)

    @property
    def condition(self) -> ProbeFires | None:
        """The condition of `when`, with its level."""
        if isinstance(self.when, LinearProbe):
            return ProbeFires(self.when, above=0.0)
        return self.when

    def at_strength(self, strength: float | int) -> "Intervention":
        """The same intervention with a strength in place of its size."""
        return replace(self, strength=strength, target_kl=None)

    def at_dose(self, target_kl: float | int) -> "Intervention":
        """The same intervention with a dose in place of its size, in nats per token."""
        return replace(self, strength=None, target_kl=target_kl)


def checked_dose(intervention: Intervention) -> float:
    """The dose at which several vectors are compared, in nats per token.

    Raises:
        ValueError: The size of the intervention is a strength.
    """
    if intervention.target_kl is None:
        raise ValueError(
            "Vectors of several checkpoints are compared at one dose, got an intervention with "
            f"strength={intervention.strength!r}. Give `Intervention(target_kl=0.1)`."
        )
    return float(intervention.target_kl)


def _check_strength(strength: float | int) -> None:
    if isinstance(strength, bool) or not isfinite(strength):
        raise ValueError(f"`strength` is a finite number, got {strength!r}.")


def _check_dose(target_kl: float | int, mode: str) -> None:
    if isinstance(target_kl, bool) or not (isfinite(target_kl) and target_kl > 0):
        raise ValueError(
            "`target_kl` is a mean divergence in nats per token and must be positive, got "
            f"{target_kl!r}. At 0.1 the effect is visible, at 1 the text breaks."
        )
    if mode == "clamp":
        raise ValueError(
            "mode='clamp' changes activations at strength 0 already, so it has no small dose. "
            "Calibrate 'add', 'rotate' or 'ablate'."
        )
