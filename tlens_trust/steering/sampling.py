"""How many random directions and bootstrap resamples an evaluation of steering draws."""

from dataclasses import dataclass

from tlens_trust.arguments import checked_count, checked_share

# With this many draws, a change that no random direction reaches has p < .02.
DRAWS_FOR_A_CLAIM = 50


@dataclass(frozen=True)
class SamplingOptions:
    """How many random directions and bootstrap resamples an evaluation of steering draws.

    Attributes:
        draws: Random directions of each kind: 50 for a claim, a few for a first look.
        resamples: Bootstrap resamples of groups. Random directions are resampled with them.
        confidence: Confidence of the intervals.

    Raises:
        ValueError: A number is out of range.
    """

    draws: int = DRAWS_FOR_A_CLAIM
    resamples: int = 2000
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if isinstance(self.draws, bool) or self.draws < 1:
            raise ValueError(
                "`draws` is the number of random directions that steering is compared with, and "
                f"must be at least 1, got {self.draws}. {DRAWS_FOR_A_CLAIM} support a claim, a few "
                "give a first look."
            )
        checked_count("resamples", self.resamples)
        checked_share("confidence", self.confidence, hint="0.95 gives 95% intervals.")
