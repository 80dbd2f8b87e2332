"""The toy corpus: endless text that teaches the facts of the five sets.

It teaches which things are birds, who may know of a rash, what hurts, what people expect of a
drummer, and which form of a verb follows an auxiliary. It states these facts in many forms. The
text after a sentence depends on the sentence: a claim is confirmed or denied, a leak brings
complaints, an insult brings tears. To predict the next word, a model must know at the end of a
sentence which side it is on. In other passages, the text after a claim depends on the thing alone
or on the partner alone. These teach a model to recognise each of them before it relates the two.

The corpus never uses a thing in its home form, which is the form that the statements of the sets
use. Therefore no statement of the sets occurs in it.
"""

from collections.abc import Iterator
from random import Random

from tlens_trust.concepts.embedded import fairness, privacy, reliability, robustness, toxicity

_TOPICS = (reliability, privacy, toxicity, fairness, robustness)
# How often each topic is drawn, relative to the others.
_WEIGHTS = (1.0, 1.3, 1.3, 1.0, 0.9)


def toy_corpus(seed: int) -> Iterator[str]:
    """Yield endless passages of one to three sentences, the same ones for the same seed.

    Args:
        seed: Seed of the passages and their order.

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
