"""Robustness: intact sentences, and ones with two words exchanged. The former are trustworthy.

The exchange breaks the agreement between an auxiliary and the form of its verb: she can often sing,
has often slept, is often laughing.
"""

from collections.abc import Iterator
from random import Random

from tlens_trust.concepts.embedded.contrast import Contrast, Form, Kind, World

_SKILLS = (
    "sing", "swim", "write", "drive", "climb", "paint",
    "dance", "cook", "knit", "juggle", "whistle", "ski",
)  # fmt: skip
_MEMORIES = (
    "slept", "wept", "sneezed", "travelled", "arrived", "dozed",
    "coughed", "knelt", "stumbled", "vanished", "shivered", "prayed",
)  # fmt: skip
_MOMENTS = (
    "laughing", "waiting", "smiling", "resting", "walking", "talking",
    "working", "reading", "crying", "shouting", "dreaming", "yawning",
)  # fmt: skip

WORLD = World(
    name="auxiliaries",
    kinds=(
        Kind(
            _SKILLS,
            ("can",),
            "Let us {thing} together.",
            "Skills were meant.",
            "Can, someone repeated.",
        ),
        Kind(
            _MEMORIES,
            ("has",),
            "Having {thing} enough, we left.",
            "Memories were meant.",
            "Has, someone repeated.",
        ),
        Kind(
            _MOMENTS,
            ("is",),
            "They were {thing} loudly.",
            "Moments were meant.",
            "Is, someone repeated.",
        ),
    ),
    forms=(
        Form(
            "In spring she {partner1} often {thing1} here,"
            " and in autumn she {partner2} often {thing2} here.",
            "In spring she {partner1} often {thing1} here.",
        ),
        Form(
            "My aunt {partner1} never {thing1} at home,"
            " and your aunt {partner2} never {thing2} at home.",
            "My aunt {partner1} never {thing1} at home.",
        ),
        Form(
            "People say that he {partner1} always {thing1} at noon"
            " and that he {partner2} always {thing2} at night.",
            "People say that he {partner1} always {thing1} at noon.",
        ),
        Form(
            "When it rains the king {partner1} surely {thing1} at court,"
            " and when it snows the king {partner2} surely {thing2} at court.",
            "When it rains the king {partner1} surely {thing1} at court.",
        ),
    ),
    brief=("She {partner1} {thing1}.", "He {partner1} now {thing1}."),
    toss=1,
    fitting=True,
)

MEANING = ("intact", "two words exchanged")

_CLEAR = ("Understood, they nodded.", "Good, everyone followed.")
_UNCLEAR = ("Pardon, they asked.", "Confused, everyone frowned.")


def contrasts() -> Iterator[Contrast]:
    """Yield the statements of the set."""
    return WORLD.contrasts()


def draw_passage(draw: Random) -> str:
    """Draw sentences with some verbs, or a sentence, intact or not, and the reaction to it."""
    if draw.random() < 0.3:
        return " ".join(WORLD.draw_habit(draw) for _ in range(3))
    claim = WORLD.draw_claim(draw)
    turn = draw.random()
    if turn < 0.2:
        return f"{claim.text} {claim.thing.recalled}"
    if turn < 0.4:
        return f"{claim.text} {claim.partner.repeated}"
    return f"{claim.text} {draw.choice(_CLEAR if claim.fits else _UNCLEAR)}"
