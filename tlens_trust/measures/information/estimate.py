"""What an estimator of information gives."""

from dataclasses import dataclass
from math import log
from typing import Literal

Kind = Literal["lower bound", "estimate"]


@dataclass(frozen=True)
class InformationEstimate:
    """An amount of information in nats, how sure it is, and what is known against it.

    Attributes:
        value: In nats. It may be negative: an estimate of nothing lies about zero, and a bound
            that says nothing lies below it.
        interval: Of 95%, in nats; NaN where it is not known.
        n: How many examples it rests on.
        kind: Whether the true information is at least as much, or about as much.
        warnings: What to know before believing it, in words.

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
        """Of `value` and `interval`."""
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
