"""Untrained weights among the readings that a comparison rests on."""

from dataclasses import dataclass
from typing import Any

from tlens_trust.activations import Activations
from tlens_trust.analysis.readings import SeriesReadings
from tlens_trust.checkpoints import Checkpoint, CheckpointSeries
from tlens_trust.tracing.assembly import is_step_0
from tlens_trust.tracing.sweep_arguments import checked_checkpoints, choose_untrained


@dataclass(frozen=True)
class UntrainedReading:
    """What checkpoints are held against.

    Attributes:
        named: Name of random weights, "" for step 0 of the same model, None for nothing.
        added: How many readings at the beginning are of random weights that nobody gave.
    """

    named: str | None
    added: int = 0

    def index(self, readings: SeriesReadings, number: int) -> int | None:
        """Which reading a checkpoint is held against."""
        if self.named is None:
            return None
        if self.named:
            return readings.checkpoints.index(self.named)
        own = readings.known[number]
        return next(
            (
                place
                for place, other in enumerate(readings.known)
                if own and other and is_step_0(other) and other.model == own.model
            ),
            None,
        )


def with_untrained(
    series: Any, untrained: str | None, *, seed: int
) -> tuple[Any, UntrainedReading]:
    """What to read, untrained weights included, and which they are.

    Args:
        series: As `read_series` takes it.
        untrained: `"auto"`, `"step0"`, `"random"` or None.
        seed: Draws random weights.

    Raises:
        ValueError: Another word; or what was asked for is not to be had.
    """
    listing = series if isinstance(series, Checkpoint | CheckpointSeries) else _listed(series)
    if isinstance(listing, list) and listing and isinstance(listing[0], Activations):
        if untrained not in ("auto", "step0", None):
            raise ValueError(
                f"`untrained` must be 'auto', 'step0' or None where activations are given, got "
                f"{untrained!r}. Random weights have to be read: give checkpoints."
            )
        there = [getattr(each, "checkpoint", None) for each in listing]
        if untrained == "step0" and not any(each and is_step_0(each) for each in there):
            raise ValueError(
                "untrained='step0' needs activations of step 0, and none are given. Add them, or "
                "take None."
            )
        return listing, UntrainedReading(None if untrained is None else "")
    checkpoints = checked_checkpoints(listing)
    chosen = choose_untrained(untrained, listing, checkpoints, (), seed=seed)
    if chosen.template is None:
        return listing, UntrainedReading(chosen.name)
    drawn = chosen.template.untrained(seed=seed)
    return [drawn, *checkpoints], UntrainedReading(drawn.name, added=1)


def _listed(series: Any) -> list[Any]:
    return [series] if isinstance(series, Activations) else list(series)
