"""The control concepts: tense, number and topic, each in a balanced and a plain form."""

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

# For each set: its groups, the meaning of its labels, its form, and what a group consists of.
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
    concepts = {}
    for name, (groups_of, labels, form, groups_are) in _SETS.items():
        statements: list[str] = []
        signs: list[int] = []
        groups: list[str] = []
        for serial, (group, ones, zeros) in enumerate(groups_of()):
            # The label of the first statement alternates, so that the position shows nothing.
            for one, zero in zip(ones, zeros, strict=True):
                statements += [one, zero] if serial % 2 else [zero, one]
                signs += [1, 0] if serial % 2 else [0, 1]
                groups += [group, group]
        concepts[name] = Concept(
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
    return MappingProxyType(concepts)


def control_concepts() -> dict[str, Concept]:
    """Return the control concepts, which have nothing to do with trustworthiness, by name.

    If all concepts become decodable early, an early onset of a trustworthiness concept means
    little. The controls show whether this is so.

    `tense`, `number` and `topic` are matched to the embedded sets. Their statements have two
    clauses that exchange a word, and the label is that of the main clause. Counts of words, pairs
    of words or runs of up to five characters do not show the label, nor does the order of the two
    words.
    `tense_plain`, `number_plain` and `topic_plain` have the same labels in sentences of one clause.
    There the surface shows the label, so that they are reference curves for surface features.

    Neither label is the trustworthy side, so `polarity` is False. The words belong to the same
    domain as those of the embedded sets. The toy corpus holds most of them, but it is not made to
    teach tense, number or topic.

    Returns:
        Concepts by name.

    Examples:
        >>> tense = control_concepts()["tense"]
        >>> for statement, label in zip(tense.statements[:2], tense.labels[:2], strict=True):
        ...     print(label, statement)
        0 Though the farmer we met carried the basket at home, the baker we met carries the lamp ...
        1 Though the farmer we met carries the basket at home, the baker we met carried the lamp ...
    """
    return dict(_controls())
