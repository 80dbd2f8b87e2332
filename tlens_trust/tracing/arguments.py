"""What a user names for a sweep: checkpoints, concepts and measures, checked and in order."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from tlens_trust.checkpoints import Checkpoint
from tlens_trust.concepts import Concept
from tlens_trust.measures import Measure, logistic_probe
from tlens_trust.tracing.netcdf import check_text

Concepts: TypeAlias = Concept | Iterable[Concept] | Mapping[str, Concept]


def checked_checkpoints(series: Any) -> tuple[Checkpoint, ...]:
    """The checkpoints of a sweep, in order.

    Raises:
        ValueError: None, something else, or two of one name.
    """
    found = (series,) if isinstance(series, Checkpoint) else tuple(series)
    strange = [each for each in found if not isinstance(each, Checkpoint)]
    if strange or not found:
        got = f"a {type(strange[0]).__name__}" if strange else "none"
        raise ValueError(
            f"A series holds at least one Checkpoint, and nothing else, got {got}. Make one with "
            "`CheckpointSeries.from_hub`, `.from_directory` or, of models in memory, "
            "`.from_models`."
        )
    _check_distinct("checkpoint", [each.name for each in found], "Take each checkpoint once.")
    return found


def checked_concepts(concepts: Any) -> tuple[Concept, ...]:
    """The concepts of a sweep, in order, each under the name that it has in the trace.

    Raises:
        ValueError: None, something else, two of one name, or a name that no file can hold.
    """
    if isinstance(concepts, Mapping):
        pairs = list(concepts.items())
    else:
        single = [concepts] if isinstance(concepts, Concept) else list(concepts)
        pairs = [(getattr(each, "name", ""), each) for each in single]
    strange = [each for _, each in pairs if not isinstance(each, Concept)]
    if strange or not pairs:
        got = f"a {type(strange[0]).__name__}" if strange else "none"
        raise ValueError(
            f"`concepts` holds at least one Concept, and nothing else, got {got}. Get the "
            "embedded ones with `load_concepts()`, or make one with `Concept.from_csv`."
        )
    _check_distinct(
        "concept", [name for name, _ in pairs], "Pass a mapping from a name to each concept."
    )
    for name, _ in pairs:
        check_text(name, "The name of a concept")
    return tuple(
        concept if concept.name == name else replace(concept, name=name) for name, concept in pairs
    )


def checked_measures(measures: Any) -> tuple[Measure, ...]:
    """The measures of a sweep, in order; the logistic probe for None.

    Raises:
        ValueError: None, something else, or two of one name.
    """
    if measures is None:
        return (logistic_probe(),)
    taken = (measures,) if isinstance(measures, Measure) else tuple(measures)
    strange = [each for each in taken if not isinstance(each, Measure)]
    if strange or not taken:
        got = f"a {type(strange[0]).__name__}" if strange else "none"
        raise ValueError(
            "`measures` holds at least one Measure (a name, an identity, and a call), and nothing "
            f"else, got {got}. `logistic_probe()` and `mass_mean_probe()` make one."
        )
    _check_distinct("measure", [m.name for m in taken], "Give each a name of its own.")
    return taken


def _check_distinct(what: str, names: Sequence[str], way_out: str) -> None:
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"There are two {what}s named {twice[0]!r}. {way_out}")
