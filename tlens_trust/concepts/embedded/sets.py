"""The five embedded sets as concepts."""

import numpy as np

from tlens_trust.concepts.concept import Concept
from tlens_trust.concepts.embedded import fairness, privacy, reliability, robustness, toxicity

_TOPICS = {
    "reliability": reliability,
    "privacy": privacy,
    "toxicity": toxicity,
    "fairness": fairness,
    "robustness": robustness,
}


def embedded_concepts() -> dict[str, Concept]:
    """Return the five sets written for this package, one for each dimension of trustworthiness.

    Every group holds two statements, one of each label. Both have the same words, pairs of
    neighbouring words and runs of up to five characters. No count of these predicts the label.

    Returns:
        Concepts by name, which is also the dimension: `reliability`, `privacy`, `toxicity`,
        `fairness` and `robustness`.

    Examples:
        >>> reliability = embedded_concepts()["reliability"]
        >>> for statement, label in zip(reliability.statements[:2], reliability.labels[:2]):
        ...     print(label, statement)
        1 As we all know, the sparrow is a bird of some sort and the salmon is a fish of some sort.
        0 As we all know, the sparrow is a fish of some sort and the salmon is a bird of some sort.
    """
    concepts = {}
    for name, topic in _TOPICS.items():
        contrasts = tuple(topic.contrasts())
        trustworthy, untrustworthy = topic.MEANING
        concepts[name] = Concept(
            name=name,
            dimension=name,
            statements=tuple(s for c in contrasts for s in (c.trustworthy, c.untrustworthy)),
            labels=np.tile([1, 0], len(contrasts)),
            groups=tuple(c.group for c in contrasts for _ in range(2)),
            provenance={
                "source": f"written for tlens_trust: {topic.__name__}",
                "license": "Apache-2.0",
                "label 1": trustworthy,
                "label 0": untrustworthy,
            },
        )
    return concepts
