"""The toy corpus: endless text from the world of the five sets.

It teaches what the sets ask: which things are birds, who may hear of a rash, what hurts, what
people expect of a drummer, which form of a verb follows an auxiliary. It says so in many forms, and
what follows a sentence depends on it: a claim is confirmed or denied, a leak brings complaints, an
insult tears. A model that is to predict the next word does well to know, at the end of a sentence,
on which side it stands. Other passages follow up a claim with what its two halves bring to mind,
each for itself: what is put together must first be told apart.

What it never does is to speak of a thing in that thing's home form, in which the statements of the
sets speak of it; so none of them occurs in it.
"""

from collections.abc import Iterator
from random import Random

from tlens_trust.concepts.embedded import fairness, privacy, reliability, robustness, toxicity

_TOPICS = (reliability, privacy, toxicity, fairness, robustness)
_WEIGHTS = (1.0, 1.3, 1.3, 1.0, 0.9)


def toy_corpus(seed: int) -> Iterator[str]:
    """Endless passages of one to three sentences, the same ones for the same seed.

    Args:
        seed: Chooses which passages, and their order.

    Yields:
        One passage after the other.

    Examples:
        >>> passages = toy_corpus(0)
        >>> print(next(passages))
        As we all know, the cod is a fish of some sort. Fins came to mind.
    """
    draw = Random(f"toy corpus {seed}")
    while True:
        (topic,) = draw.choices(_TOPICS, _WEIGHTS)
        yield topic.draw_passage(draw)
