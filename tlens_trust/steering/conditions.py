"""Steering only where a probe fires."""

from dataclasses import dataclass
from math import isfinite

from jaxtyping import Bool, Float
from torch import Tensor

from tlens_trust.measures.probe import LinearProbe


@dataclass(frozen=True, eq=False)
class ProbeFires:
    """A condition for `steer(…, when=…)`: a probe reads more, or less, than a level at a token.

    It is looked at token by token, in the same forward pass, before the edit: where the probe
    fires at a position, that position is steered, and no other. What it reads is what the model
    computes under the steering that acts before its site, that of enclosing `with`s at the same
    site among it.

    A probe is fitted on one position of statements, as a rule the last; what its log-odds mean at
    other tokens is for the user to judge.

    Attributes:
        probe: A linear probe of one site, as `fit_logistic_probe` gives it.
        site: Where it reads: the steered site or an earlier one, by name or as a layer number for
            the residual stream after that block; None for the steered site, if it is one.
        above: Fires where the log-odds of label 1 are larger than this, in nats.
        below: Fires where they are smaller. With both, it fires between the two.

    Raises:
        ValueError: Neither level is given, or one is not finite, or none lies between them.

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
                "below=0.0 fires where the probe sees label 0."
            )
        if self.above is not None and self.below is not None and self.above >= self.below:
            raise ValueError(
                f"Nothing is above {self.above} and below {self.below}. With both levels, the "
                "probe fires between them."
            )

    def fires(self, activations: Float[Tensor, "*example d_model"]) -> Bool[Tensor, "*example"]:
        """Where the probe fires."""
        log_odds = self.probe.log_odds(activations)
        fires = log_odds == log_odds
        if self.above is not None:
            fires = fires & (log_odds > self.above)
        if self.below is not None:
            fires = fires & (log_odds < self.below)
        return fires
