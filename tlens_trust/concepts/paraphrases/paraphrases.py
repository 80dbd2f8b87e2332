"""The paraphrased concepts: the facts of the embedded sets in other sentences."""

from collections.abc import Iterator
from functools import cache
from random import Random
from types import MappingProxyType

import numpy as np

from tlens_trust.concepts.concept import Concept
from tlens_trust.concepts.embedded import fairness, privacy, reliability, robustness
from tlens_trust.concepts.embedded.contrast import draw_names, fill
from tlens_trust.concepts.embedded.sets import embedded_concepts
from tlens_trust.concepts.paraphrases.frames import PAIRED, VERDICTS

_WORLDS = {
    "reliability": reliability.WORLD,
    "privacy": privacy.WORLD,
    "fairness": fairness.WORLD,
    "robustness": robustness.WORLD,
}
_SUFFIX = "_paraphrased"
_DIMENSIONS = ("reliability", "privacy", "toxicity", "fairness", "robustness")

PARAPHRASES = tuple(f"{dimension}{_SUFFIX}" for dimension in _DIMENSIONS)

# The two pairs of a group, one for each order of the two things. A pair is a trustworthy and an
# untrustworthy statement.
_Pairs = tuple[tuple[str, str], tuple[str, str]]


def paraphrased_concepts() -> dict[str, Concept]:
    """Return the five embedded concepts in other sentences, by name: `toxicity_paraphrased`, etc.

    A probe that is fitted on an embedded set may have learned the form of its sentences. These sets
    state the same facts in sentences of another form. Every group of the embedded set has a group
    of the same name here, so that `trace_transfer` can score it by a probe that was fitted without
    the group. The names of things, trades and traits are the same. Only the sentences about them
    are paraphrased.

    A group holds two pairs, one for each order of its two things. As in the embedded sets, the two
    statements of a pair hold the same words, pairs of neighbouring words and runs of up to five
    characters. As both orders occur, a probe of word order classifies at most half of a group
    correctly.

    All words occur in the toy corpus, whose tokenizer has a token for each. None of the templates
    occurs in the corpus, so that the sentences are of a form that is new to the toy model.

    Returns:
        Concepts by name.

    Examples:
        >>> reliability = paraphrased_concepts()["reliability_paraphrased"]
        >>> for statement, label in zip(reliability.statements[:2], reliability.labels[:2]):
        ...     print(label, statement)
        1 The sparrow is one sort of bird, they say, and the salmon is one sort of fish, they say.
        0 The sparrow is one sort of fish, they say, and the salmon is one sort of bird, they say.
    """
    return dict(_paraphrased())


@cache
def _paraphrased() -> MappingProxyType[str, Concept]:
    concepts = {}
    for dimension, embedded in embedded_concepts().items():
        facts = tuple(dict.fromkeys(embedded.groups))
        group_pairs = _verdicts(facts) if dimension == "toxicity" else _pairs(dimension, facts)
        statements = [text for pairs in group_pairs for pair in pairs for text in pair]
        concepts[f"{dimension}{_SUFFIX}"] = Concept(
            name=f"{dimension}{_SUFFIX}",
            dimension=dimension,
            statements=tuple(statements),
            labels=np.tile([1, 0], len(statements) // 2),
            groups=tuple(fact for fact in facts for _ in range(4)),
            provenance={
                "source": f"written for tlens_trust: {__name__}",
                "license": "Apache-2.0",
                "label 1": embedded.provenance["label 1"],
                "label 0": embedded.provenance["label 0"],
                "paraphrases": f"every group of {dimension!r}, under the same group name",
            },
        )
    return MappingProxyType(concepts)


def _pairs(dimension: str, facts: tuple[str, ...]) -> Iterator[_Pairs]:
    """Yield the pairs of each group of a set that `World.contrasts` makes.

    The name of a group holds its words: thing, partner, other thing and other partner.
    """
    world, frames = _WORLDS[dimension], PAIRED[dimension]
    toss = Random(f"names: {world.name} paraphrased")
    for serial, fact in enumerate(facts):
        _, _, *words = fact.split("/")
        frame, names = frames[serial % len(frames)], draw_names(toss)
        pairs = []
        for things, partners in ((words[::2], words[1::2]), (words[-2::-2], words[::-2])):
            fitting = fill(frame, things, partners, names)
            crossed = fill(frame, things, partners[::-1], names)
            pairs.append((fitting, crossed) if world.fitting else (crossed, fitting))
        yield pairs[0], pairs[1]


def _verdicts(facts: tuple[str, ...]) -> Iterator[_Pairs]:
    """Yield the pairs of each group of the set that `toxicity.contrasts` makes."""
    toss = Random("names: verdicts paraphrased")
    for serial, fact in enumerate(facts):
        _, _, kind, demeaning = fact.split("/")
        frame, name = VERDICTS[serial % len(VERDICTS)], draw_names(toss)["name1"]
        kind_first, demeaning_first = (
            (
                frame.fill(kind, demeaning, name, affirms_first=affirms_first),
                frame.fill(demeaning, kind, name, affirms_first=affirms_first),
            )
            for affirms_first in (True, False)
        )
        yield kind_first, demeaning_first
