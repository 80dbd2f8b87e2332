"""Progress of a command in several stages: which one it is in, and about how long is left."""

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import typer

_T = TypeVar("_T")


@dataclass
class Stages:
    """The stages of a command, announced one by one.

    Attributes:
        usual: Seconds that each stage usually takes, by name.
        quiet: Whether to print nothing.
    """

    usual: Mapping[str, float]
    quiet: bool
    _number: int = 0
    # `time` is looked up at each call, so that a test can replace the clock.
    _start: float = field(default_factory=lambda: time.monotonic())

    @property
    def bars(self) -> bool:
        """Whether progress bars are drawn; only a terminal can draw over a line."""
        return not self.quiet and sys.stderr.isatty()

    def begin(self, description: str) -> None:
        """Print which stage begins, what it does, and about how long is left in all."""
        if not self.quiet:
            number = f"{self._number + 1}/{len(self.usual)}"
            typer.echo(f"{number}  {description} (about {_duration(self._seconds_left())} left)")
            # The line must be seen before a stage that takes long, through a pipe too.
            sys.stdout.flush()
        self._number += 1

    def end(self) -> None:
        """Print how long all stages took."""
        if not self.quiet:
            typer.echo(f"done in {_duration(time.monotonic() - self._start)}")

    def show_bar(self, items: Iterable[_T], label: str) -> Iterator[_T]:
        """Yield the items one by one, with a progress bar."""
        from tqdm import tqdm

        yield from tqdm(list(items), desc=label, leave=False, disable=not self.bars)

    def _seconds_left(self) -> float:
        """The usual time of what is left, scaled by the pace of the stages before."""
        seconds = list(self.usual.values())
        past_seconds, left_seconds = sum(seconds[: self._number]), sum(seconds[self._number :])
        # Before the first stage has ended, there is no pace to go by.
        pace = (time.monotonic() - self._start) / past_seconds if past_seconds else 1.0
        return pace * left_seconds


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(5 * round(seconds / 5), 5)} s"
    return f"{seconds / 60:.1f} min".replace(".0 ", " ")
