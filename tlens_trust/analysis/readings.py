"""Activations of concepts at the checkpoints of a series, for what compares checkpoints.

Each model is loaded once. What is read stays in the store and comes back from there, one checkpoint
at a time, so that a long series need not fit in memory; without a store it does stay in memory.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import nan
from typing import Any, Literal, TypeAlias

import numpy as np

from tlens_trust.activations import Activations, ActivationStore
from tlens_trust.activations.activations import checkpoint_name
from tlens_trust.activations.collect import collect_concepts
from tlens_trust.activations.positions import Position
from tlens_trust.activations.reading_options import ReadingOptions
from tlens_trust.checkpoints import Checkpoint
from tlens_trust.concepts import Concept
from tlens_trust.tracing.assembly import head_coordinate
from tlens_trust.tracing.provenance import listed
from tlens_trust.tracing.sweep_arguments import Concepts, checked_checkpoints, checked_concepts

Store: TypeAlias = ActivationStore | Literal["default"] | None

_Read: TypeAlias = Callable[[Checkpoint], list[Activations]]


@dataclass(frozen=True, eq=False)
class SeriesReadings:
    """What was read of some concepts at some checkpoints, in order.

    Attributes:
        checkpoints: Names, each once.
        concepts: With the names that they have in the result.
        known: What is known of each checkpoint; None for a model without a name.
        sites: Where all was read.
        fetch: The activations of all concepts at the checkpoint of a number.
    """

    checkpoints: tuple[str, ...]
    concepts: tuple[Concept, ...]
    known: tuple[Checkpoint | None, ...]
    sites: tuple[str, ...]
    fetch: Callable[[int], Sequence[Activations]] = field(repr=False)

    def __len__(self) -> int:
        return len(self.checkpoints)

    def at(self, number: int) -> Sequence[Activations]:
        """Activations of all concepts, in their order, at one checkpoint."""
        read = self.fetch(number)
        for activations in read:
            if activations.sites != self.sites:
                raise ValueError(
                    f"{self.checkpoints[number]!r} was read at {len(activations.sites)} sites from "
                    f"{activations.sites[0]!r} on, {self.checkpoints[0]!r} at {len(self.sites)} "
                    f"from {self.sites[0]!r} on. Compare checkpoints of one architecture, read at "
                    "the same sites."
                )
        return read

    def __iter__(self) -> Iterator[Sequence[Activations]]:
        return (self.at(number) for number in range(len(self)))

    def along(self, axis: str) -> dict[str, Any]:
        """Coordinates along an axis of these checkpoints.

        Args:
            axis: `"checkpoint"`, whose coordinates are called `step`, `tokens` and `stage`; or
                another name, which is put in front of theirs.
        """
        ahead = "" if axis == "checkpoint" else f"{axis}_"

        def counts(key: str) -> np.ndarray:
            values = [getattr(each, key, None) for each in self.known]
            return np.array([nan if value is None else value for value in values], dtype=float)

        stages = [getattr(each, "stage", None) or "" for each in self.known]
        return {
            axis: list(self.checkpoints),
            f"{ahead}step": (axis, counts("step"), {"units": "steps", "long_name": "step"}),
            f"{ahead}tokens": (axis, counts("tokens"), {"units": "tokens", "long_name": "tokens"}),
            f"{ahead}stage": (axis, np.array(stages)),
        }

    def along_sites(self, read: Activations) -> dict[str, Any]:
        """Coordinates along `site`, as a `Trace` has them."""
        return {
            "site": list(self.sites),
            "layer": ("site", np.array(read.layers, dtype=np.int64)),
            "depth": ("site", np.array(read.depths, dtype=np.float64)),
            **head_coordinate(self.sites),
        }


def read_series(
    series: Any,
    concepts: Concepts | None,
    *,
    sites: str | int | Sequence[str | int],
    position: Position,
    bos: bool | None,
    store: Store,
    batch_tokens: int,
) -> SeriesReadings:
    """Read concepts at every checkpoint, or take what has been read already.

    Args:
        series: Checkpoints; or the `Activations` of concepts at checkpoints, from which only
            `sites` chooses.
        concepts: What to read; None for the concepts of activations that are given.
        sites: This and what follows: as for `trace_checkpoints`. For activations that are given,
            `"resid_post"` leaves them as they are.
        position: Which token of a statement to read.
        bos: Whether a beginning-of-sequence token stands before each statement.
        store: Where readings are kept.
        batch_tokens: Tokens read at once.

    Raises:
        ValueError: As `trace_checkpoints`; or activations are given that lack a concept, stand
            twice, or do not cover every checkpoint and concept.
    """
    reading = ReadingOptions(
        sites=sites, position=position, bos=bos, batch_tokens=batch_tokens, store=store
    )
    listing = [series] if isinstance(series, Activations) else series
    if isinstance(listing, Iterable) and not isinstance(listing, str | Checkpoint):
        listing = list(listing)
        if listing and all(isinstance(each, Activations) for each in listing):
            return _of_activations(listing, concepts, reading.sites)
    checkpoints = checked_checkpoints(listing)
    if concepts is None:
        raise ValueError(
            "`concept` says what to read at the checkpoints, got None. Pass a Concept, from "
            "`load_concepts()` for one."
        )
    named = checked_concepts(concepts)

    def read(checkpoint: Checkpoint) -> list[Activations]:
        return list(collect_concepts(checkpoint, named, reading))

    is_kept = reading.store is not None
    fetch = _from_store(checkpoints, read) if is_kept else _from_memory(checkpoints, read)
    return SeriesReadings(
        tuple(checkpoint.name for checkpoint in checkpoints),
        named,
        checkpoints,
        fetch(0)[0].sites,
        fetch,
    )


def _from_store(
    checkpoints: Sequence[Checkpoint], read: _Read
) -> Callable[[int], Sequence[Activations]]:
    return lambda number: read(checkpoints[number])


def _from_memory(
    checkpoints: Sequence[Checkpoint], read: _Read
) -> Callable[[int], Sequence[Activations]]:
    held: dict[int, list[Activations]] = {}

    def fetch(number: int) -> Sequence[Activations]:
        if number not in held:
            held[number] = read(checkpoints[number])
        return held[number]

    return fetch


def _of_activations(
    given: Sequence[Activations],
    concepts: Concepts | None,
    sites: str | int | Sequence[str | int],
) -> SeriesReadings:
    """Activations by checkpoint and concept, in the order of their first appearance."""
    held: dict[str, dict[str, Activations]] = {}
    known: dict[str, Checkpoint | None] = {}
    found: dict[str, Concept] = {}
    for read in given:
        if read.concept is None:
            raise ValueError(
                "These activations have no concept, and so no labels. Collect them from a Concept "
                "and not from a list of statements."
            )
        where = "model" if read.checkpoint is None else checkpoint_name(read.checkpoint)
        concept = found.setdefault(read.concept.name, read.concept)
        if concept != read.concept:
            raise ValueError(
                f"Two different concepts are named {concept.name!r}, at {where!r} and elsewhere. "
                "Collect all checkpoints' activations from the same concept."
            )
        if concept.name in held.setdefault(where, {}):
            raise ValueError(
                f"Activations of {concept.name!r} at {where!r} are given twice. Give each "
                "checkpoint once, and each a name of its own."
            )
        held[where][concept.name] = read if sites == "resid_post" else read.select(sites)
        known[where] = read.checkpoint
    wanted = _named(concepts, found)
    for where, there in held.items():
        lacking = [name for name in wanted if name not in there]
        if lacking:
            raise ValueError(
                f"There are no activations of {lacking[0]!r} at {where!r}, only of "
                f"{listed(list(there))}. Give those of every concept at every checkpoint."
            )
    names = list(held)
    return SeriesReadings(
        tuple(names),
        tuple(found[name] for name in wanted),
        tuple(known[name] for name in names),
        held[names[0]][wanted[0]].sites,
        lambda number: [held[names[number]][name] for name in wanted],
    )


def _named(concepts: Concepts | None, found: Mapping[str, Concept]) -> list[str]:
    if concepts is None:
        return list(found)
    named = checked_concepts(concepts)
    for concept in named:
        if concept.name not in found or found[concept.name] != concept:
            raise ValueError(
                f"No activations of this {concept.name!r} are given, only of {listed(list(found))}."
                " Leave the concept out to take what the activations are of."
            )
    return [concept.name for concept in named]


def one_concept(readings: SeriesReadings) -> Concept:
    """The only concept of some readings.

    Raises:
        ValueError: There are several.
    """
    if len(readings.concepts) > 1:
        names = [concept.name for concept in readings.concepts]
        raise ValueError(
            f"This takes one concept at a time, got {listed(names)}. Choose one, and call it once "
            "for each."
        )
    return readings.concepts[0]
