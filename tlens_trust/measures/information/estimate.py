"""The result of an information estimator."""

from dataclasses import dataclass
from math import log
from typing import Literal

Kind = Literal["lower bound", "estimate"]


@dataclass(frozen=True)
class InformationEstimate:
    """An amount of information in nats, with its interval and the estimator's warnings.

    Attributes:
        value: In nats. It may be negative: an estimate of zero information scatters around zero,
            and an uninformative bound lies below zero.
        interval: The 95% interval in nats; NaN where it is not known.
        n: The number of examples.
        kind: `"lower bound"` if the true information is at least the value, apart from sampling
            error; `"estimate"` otherwise.
        warnings: What a reader should know before trusting the value.

    Examples:
        >>> found = InformationEstimate(0.3466, (0.3, 0.4), 100, "lower bound")
        >>> round(found.bits, 3), found.unit
        (0.5, 'nats')
    """

    value: float
    interval: tuple[float, float]
    n: int
    kind: Kind
    warnings: tuple[str, ...] = ()

    @property
    def unit(self) -> str:
        """The unit of `value` and `interval`."""
        return "nats"

    @property
    def bits(self) -> float:
        """The value in bits."""
        return self.value / log(2)

    @property
    def interval_bits(self) -> tuple[float, float]:
        """The interval in bits."""
        low, high = self.interval
        return low / log(2), high / log(2)
