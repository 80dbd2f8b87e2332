"""Activations of concepts at the checkpoints of a series, for comparisons between checkpoints."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import nan
from typing import Any, TypeAlias

import numpy as np

from tlens_trust.activations import Activations
from tlens_trust.activations.activations import checkpoint_name
from tlens_trust.checkpoints import Checkpoint
from tlens_trust.concepts import Concept
from tlens_trust.tracing.assembly import head_coordinate, is_step_0
from tlens_trust.tracing.provenance import listed

Concepts: TypeAlias = str | Concept | Iterable[str | Concept]


@dataclass(frozen=True, eq=False)
class SeriesReadings:
    """Activations of some concepts at some checkpoints, in order.

    `collect_series` makes them, or `from_activations` of activations at hand. Every comparison
    between checkpoints takes them, so that each model is loaded once for all comparisons.

    Attributes:
        checkpoints: Names of the checkpoints, each once.
        concepts: The concepts, with the names that they have in a result.
        sources: Each checkpoint; None for a model without a name.
        original_names: The names that the concepts had before a mapping gave them others.
        fetch: Gives the activations of all concepts at the checkpoint of a number.
        untrained: The untrained baseline of the checkpoints: "" for step 0 of the same model, the
            name of random weights, or None for no baseline.
        fetch_untrained: Gives the activations at random weights that are not among `checkpoints`;
            None where there are none.
    """

    checkpoints: tuple[str, ...]
    concepts: tuple[Concept, ...]
    sources: tuple[Checkpoint | None, ...]
    original_names: tuple[str, ...] = field(repr=False)
    fetch: Callable[[int], Sequence[Activations]] = field(repr=False)
    untrained: str | None = None
    fetch_untrained: Callable[[], Sequence[Activations]] | None = field(default=None, repr=False)

    @classmethod
    def from_activations(
        cls,
        activations: Activations | Iterable[Activations],
        *,
        untrained: str | None = "auto",
    ) -> "SeriesReadings":
        """Order activations by checkpoint and concept, as they first appear.

        Args:
            activations: One for each concept at each checkpoint, all read at the same sites.
            untrained: The untrained baseline: `"step0"`, which must be among them, `"auto"` for
                step 0 where it is there, or None.

        Raises:
            ValueError: Activations lack a concept, appear twice, or do not cover every checkpoint
                and concept; or `untrained` asks for weights that are not there.
        """
        listing = [activations] if isinstance(activations, Activations) else list(activations)
        for entry in listing:
            if not isinstance(entry, Activations):
                raise ValueError(
                    f"`activations` holds Activations, and nothing else, got a "
                    f"{type(entry).__name__}. `collect_series` reads checkpoints."
                )
        if not listing:
            raise ValueError(
                "`activations` is empty. Give those of a concept at one checkpoint at least."
            )
        by_checkpoint, sources, concepts = _grouped(listing)
        _check_untrained(untrained, sources)
        names = list(by_checkpoint)
        return cls(
            checkpoints=tuple(names),
            concepts=tuple(concepts.values()),
            sources=tuple(sources[name] for name in names),
            fetch=lambda number: [by_checkpoint[names[number]][name] for name in concepts],
            untrained=None if untrained is None else "",
            original_names=tuple(concepts),
        )

    @cached_property
    def sites(self) -> tuple[str, ...]:
        """The sites of the first checkpoint, which every other one must share."""
        return self.fetch(0)[0].sites

    def __len__(self) -> int:
        return len(self.checkpoints)

    def __iter__(self) -> Iterator[Sequence[Activations]]:
        return (self.at(number) for number in range(len(self)))

    def at(self, number: int) -> Sequence[Activations]:
        """Activations of all concepts, in their order, at one checkpoint.

        Raises:
            ValueError: They were read at other sites than those of the first checkpoint.
        """
        return self._checked(self.fetch(number), self.checkpoints[number])

    def at_untrained(self) -> Sequence[Activations] | None:
        """Activations at random weights beside the series; None where there are none."""
        if self.fetch_untrained is None:
            return None
        return self._checked(self.fetch_untrained(), str(self.untrained))

    def untrained_number(self, number: int) -> int | None:
        """The number of the checkpoint that is the untrained baseline of another one.

        Args:
            number: The checkpoint that is compared.

        Returns:
            None where nothing is compared, where the baseline is not among the checkpoints, or
            where the model has no step 0 here.
        """
        if self.untrained is None:
            return None
        if self.untrained:
            is_checkpoint = self.untrained in self.checkpoints
            return self.checkpoints.index(self.untrained) if is_checkpoint else None
        trained = self.sources[number]
        return next(
            (
                place
                for place, source in enumerate(self.sources)
                if trained and source and is_step_0(source) and source.model == trained.model
            ),
            None,
        )

    def select(self, concepts: Concepts) -> "SeriesReadings":
        """Choose some of the concepts.

        Args:
            concepts: One concept or several, by name or as a `Concept`, in the order of the result.

        Raises:
            ValueError: A concept was not read, or is chosen twice; or none is chosen.
        """
        numbers = self.concept_numbers(concepts)

        def chosen(activations: Sequence[Activations]) -> list[Activations]:
            return [activations[number] for number in numbers]

        fetch_untrained = self.fetch_untrained
        return replace(
            self,
            concepts=tuple(self.concepts[number] for number in numbers),
            original_names=tuple(self.original_names[number] for number in numbers),
            fetch=lambda number: chosen(self.fetch(number)),
            fetch_untrained=None if fetch_untrained is None else lambda: chosen(fetch_untrained()),
        )

    def concept_numbers(self, concepts: Concepts, *, argument: str = "concepts") -> list[int]:
        """The places of some concepts among `concepts`.

        Args:
            concepts: As `select` takes them.
            argument: What an error calls them.

        Raises:
            ValueError: As `select`.
        """
        if isinstance(concepts, str | Concept) or not isinstance(concepts, Iterable):
            concepts = [concepts]
        numbers = [self._concept_number(concept, argument) for concept in concepts]
        if not numbers or len(set(numbers)) < len(numbers):
            raise ValueError(
                f"`{argument}` must name at least one concept, and each once, got "
                f"{[self.concepts[number].name for number in numbers]!r}. These readings hold "
                f"{self._listed_names}."
            )
        return numbers

    def _concept_number(self, concept: Any, argument: str) -> int:
        names = [candidate.name for candidate in self.concepts]
        if isinstance(concept, Concept):
            for number, candidate in enumerate(self.concepts):
                # A mapping may have given it another name.
                if replace(concept, name=candidate.name) == candidate:
                    return number
        elif isinstance(concept, str):
            if concept in names:
                return names.index(concept)
        else:
            raise ValueError(
                f"`{argument}` takes names of concepts, or Concepts, got {concept!r}. These "
                f"readings hold {self._listed_names}."
            )
        name = concept.name if isinstance(concept, Concept) else concept
        obstacle = (
            "Other statements were read as" if name in names else "No activations were read of"
        )
        raise ValueError(
            f"{obstacle} {name!r}. These readings hold {self._listed_names}. Add the concept to "
            "those that `collect_series` collects."
        )

    @property
    def _listed_names(self) -> str:
        return listed([concept.name for concept in self.concepts])

    def along(self, axis: str) -> dict[str, Any]:
        """Coordinates along an axis of these checkpoints.

        Args:
            axis: `"checkpoint"`, whose coordinates are called `step`, `tokens` and `stage`; or
                another name, which is put in front of theirs.
        """
        prefix = "" if axis == "checkpoint" else f"{axis}_"

        def counts(key: str) -> np.ndarray:
            values = [getattr(source, key, None) for source in self.sources]
            return np.array([nan if value is None else value for value in values], dtype=float)

        stages = [getattr(source, "stage", None) or "" for source in self.sources]
        return {
            axis: list(self.checkpoints),
            f"{prefix}step": (axis, counts("step"), {"units": "steps", "long_name": "step"}),
            f"{prefix}tokens": (axis, counts("tokens"), {"units": "tokens", "long_name": "tokens"}),
            f"{prefix}stage": (axis, np.array(stages)),
        }

    def along_sites(self, activations: Activations) -> dict[str, Any]:
        """Coordinates along `site`, as a `Trace` has them.

        Args:
            activations: Those of any concept at any of the checkpoints.
        """
        return {
            "site": list(self.sites),
            "layer": ("site", np.array(activations.layers, dtype=np.int64)),
            "depth": ("site", np.array(activations.depths, dtype=np.float64)),
            **head_coordinate(self.sites),
        }

    def _checked(
        self, activations: Sequence[Activations], checkpoint: str
    ) -> Sequence[Activations]:
        for entry in activations:
            if entry.sites != self.sites:
                raise ValueError(
                    f"{checkpoint!r} was read at {len(entry.sites)} sites from {entry.sites[0]!r} "
                    f"on, {self.checkpoints[0]!r} at {len(self.sites)} from {self.sites[0]!r} on. "
                    "Compare checkpoints of one architecture, read at the same sites."
                )
        return activations


def of_one_concept(readings: SeriesReadings, concept: str | Concept | None) -> SeriesReadings:
    """Choose the one concept that a comparison is about.

    Args:
        readings: Of one concept, or of several.
        concept: Which of them; None where there is only one.

    Raises:
        ValueError: There are several and none is chosen, or the chosen one was not read.
    """
    check_readings(readings)
    if concept is not None:
        return readings.select(concept if isinstance(concept, str | Concept) else [concept])
    if len(readings.concepts) > 1:
        names = [concept.name for concept in readings.concepts]
        raise ValueError(
            f"This compares one concept at a time, and these readings hold {listed(names)}. Choose "
            f"one, such as `concept={names[0]!r}`."
        )
    return readings


def check_readings(
    readings: Any, *, collected_with: str = "collect_series(series, concepts)"
) -> None:
    """Refuse what are no readings of a series.

    Args:
        readings: What was given as readings.
        collected_with: The call that would collect them.

    Raises:
        ValueError: They are no `SeriesReadings`.
    """
    if not isinstance(readings, SeriesReadings):
        raise ValueError(
            f"`readings` must be SeriesReadings, got a {type(readings).__name__}. Collect them "
            f"with `{collected_with}`, or of activations at hand with "
            "`SeriesReadings.from_activations(activations)`."
        )


def _grouped(
    listing: Sequence[Activations],
) -> tuple[dict[str, dict[str, Activations]], dict[str, Checkpoint | None], dict[str, Concept]]:
    """Activations by checkpoint and concept; the checkpoints; the concepts."""
    by_checkpoint: dict[str, dict[str, Activations]] = {}
    sources: dict[str, Checkpoint | None] = {}
    concepts: dict[str, Concept] = {}
    for activations in listing:
        if activations.concept is None:
            raise ValueError(
                "These activations have no concept, and so no labels. Collect them from a Concept "
                "and not from a list of statements."
            )
        source = activations.checkpoint
        checkpoint = "model" if source is None else checkpoint_name(source)
        concept = concepts.setdefault(activations.concept.name, activations.concept)
        if concept != activations.concept:
            raise ValueError(
                f"Two different concepts are named {concept.name!r}, at {checkpoint!r} and "
                "elsewhere. Collect all checkpoints' activations from the same concept."
            )
        if concept.name in by_checkpoint.setdefault(checkpoint, {}):
            raise ValueError(
                f"Activations of {concept.name!r} at {checkpoint!r} are given twice. Give each "
                "checkpoint once, and each a name of its own."
            )
        by_checkpoint[checkpoint][concept.name] = activations
        sources[checkpoint] = source
    for checkpoint, of_concepts in by_checkpoint.items():
        missing = [name for name in concepts if name not in of_concepts]
        if missing:
            raise ValueError(
                f"There are no activations of {missing[0]!r} at {checkpoint!r}, only of "
                f"{listed(list(of_concepts))}. Give those of every concept at every checkpoint."
            )
    return by_checkpoint, sources, concepts


def _check_untrained(untrained: Any, sources: Mapping[str, Checkpoint | None]) -> None:
    if untrained not in ("auto", "step0", None):
        raise ValueError(
            f"`untrained` must be 'auto', 'step0' or None where activations are given, got "
            f"{untrained!r}. Random weights have to be read: collect checkpoints with "
            "`collect_series`."
        )
    if untrained == "step0" and not any(
        source is not None and is_step_0(source) for source in sources.values()
    ):
        raise ValueError(
            "untrained='step0' needs activations of step 0, and none are given. Add them, or take "
            "None."
        )
