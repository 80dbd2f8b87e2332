"""The facts of the embedded sets, one by one, in sentences of another make."""

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

# The trustworthy and the untrustworthy statement, one thing first, then the other.
_Said = tuple[tuple[str, str], tuple[str, str]]


def paraphrased_concepts() -> dict[str, Concept]:
    """The five embedded concepts in other sentences, by name: `toxicity_paraphrased` and so on.

    A probe that was fitted to an embedded set may have learned how its sentences are made. These
    sets say the same in sentences that are made otherwise: for every group of the embedded set
    there is one of the same name, with the same facts in another frame. (So `trace_transfer` can
    score it by a probe that never saw the group.) What carries the facts, the names of things,
    trades and traits, is the same; only the sentences about them are paraphrased.

    A group holds two pairs, with either of two things named first. As in the embedded sets, the two
    statements of a pair hold the same words, pairs of neighbouring words and runs of up to five
    characters. Both orders are there, so a probe that reads which word comes first gets at most
    half of a group right.

    All words are those of the toy corpus, whose tokenizer has a token for each; none of the frames
    stands in the corpus, so that the toy model reads these sentences without having seen their
    like.

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
    made = {}
    for dimension, embedded in embedded_concepts().items():
        facts = tuple(dict.fromkeys(embedded.groups))
        said = _verdicts(facts) if dimension == "toxicity" else _pairs(dimension, facts)
        statements = [text for pairs in said for pair in pairs for text in pair]
        made[f"{dimension}{_SUFFIX}"] = Concept(
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
    return MappingProxyType(made)


def _pairs(dimension: str, facts: tuple[str, ...]) -> Iterator[_Said]:
    """What goes with what, of the groups that `World.contrasts` names."""
    world, frames = _WORLDS[dimension], PAIRED[dimension]
    toss = Random(f"names: {world.name} paraphrased")
    for serial, fact in enumerate(facts):
        _, _, *said = fact.split("/")
        frame, names = frames[serial % len(frames)], draw_names(toss)
        pairs = []
        for things, partners in ((said[::2], said[1::2]), (said[-2::-2], said[::-2])):
            kept = fill(frame, things, partners, names)
            crossed = fill(frame, things, partners[::-1], names)
            pairs.append((kept, crossed) if world.fitting else (crossed, kept))
        yield pairs[0], pairs[1]


def _verdicts(facts: tuple[str, ...]) -> Iterator[_Said]:
    """What is said of somebody, of the groups that `toxicity.contrasts` names."""
    toss = Random("names: verdicts paraphrased")
    for serial, fact in enumerate(facts):
        _, _, kind, demeaning = fact.split("/")
        frame, name = VERDICTS[serial % len(VERDICTS)], draw_names(toss)["name1"]
        first, last = (
            (
                frame.fill(kind, demeaning, name, affirms_first=affirms_first),
                frame.fill(demeaning, kind, name, affirms_first=affirms_first),
            )
            for affirms_first in (True, False)
        )
        yield first, last
