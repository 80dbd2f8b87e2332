"""The control concepts: tense, number, topic, each in two forms."""

from collections.abc import Callable, Iterator
from functools import cache
from types import MappingProxyType

import numpy as np

from tlens_trust.concepts.concept import Concept
from tlens_trust.concepts.controls import clauses, plain

_BALANCED = (
    "matched to the embedded sets: the two statements of a pair hold the same words, pairs of "
    "neighbouring words and runs of up to five characters"
)
_PLAIN = "plain sentences, which a word or an ending gives away: a reference curve for the surface"

_PAIRS = "a pair with the main clause last and one with it first"
_PAIR = "a sentence and its counterpart"

_SETS: dict[str, tuple[Callable[[], Iterator[clauses.Group]], str, str, str]] = {
    "tense": (
        clauses.tense,
        "the main clause is in the past (1) or the present (0)",
        _BALANCED,
        _PAIRS,
    ),
    "number": (
        clauses.number,
        "the subject of the main clause is plural (1) or singular (0)",
        _BALANCED,
        _PAIRS,
    ),
    "topic": (
        clauses.topic,
        "the main clause is about the weather (1) or about food (0)",
        _BALANCED,
        _PAIRS,
    ),
    "tense_plain": (
        plain.tense,
        "the sentence is in the past (1) or the present (0)",
        _PLAIN,
        _PAIR,
    ),
    "number_plain": (plain.number, "the subject is plural (1) or singular (0)", _PLAIN, _PAIR),
    "topic_plain": (
        plain.topic,
        "the sentence is about the weather (1) or about food (0)",
        _PLAIN,
        _PAIR,
    ),
}

CONTROLS = tuple(_SETS)


@cache
def _controls() -> MappingProxyType[str, Concept]:
    made = {}
    for name, (groups_of, labels, form, groups_are) in _SETS.items():
        statements: list[str] = []
        signs: list[int] = []
        groups: list[str] = []
        for serial, (group, ones, zeros) in enumerate(groups_of()):
            for one, zero in zip(ones, zeros, strict=True):
                statements += [one, zero] if serial % 2 else [zero, one]
                signs += [1, 0] if serial % 2 else [0, 1]
                groups += [group, group]
        made[name] = Concept(
            name,
            "control",
            tuple(statements),
            np.array(signs, dtype=np.int64),
            tuple(groups),
            polarity=False,
            provenance={
                "source": "written for this project",
                "labels": f"{labels}; neither is a trustworthy side",
                "groups": groups_are,
                "form": form,
            },
        )
    return MappingProxyType(made)


def control_concepts() -> dict[str, Concept]:
    """Concepts that have nothing to do with trust, by name.

    A trustworthiness concept that is read early tells little if everything is. `tense`, `number`
    and `topic` are matched to the embedded sets: two clauses that exchange a word, so that the
    label is that of the main clause and no count of words, pairs of words or runs of up to five
    characters tells it, nor which word comes first. `tense_plain`, `number_plain` and `topic_plain`
    say the same in single clauses, where the surface gives the label away, and are reference curves
    for that.

    Neither label is a trustworthy side, and no polarity is claimed. The words are those of the
    embedded sets' world; the toy corpus holds most of them, but tells nothing on purpose of these
    three matters.

    Examples:
        >>> tense = control_concepts()["tense"]
        >>> for statement, label in zip(tense.statements[:2], tense.labels[:2], strict=True):
        ...     print(label, statement)
        0 Though the farmer we met carried the basket at home, the baker we met carries the lamp ...
        1 Though the farmer we met carries the basket at home, the baker we met carried the lamp ...
    """
    return dict(_controls())
