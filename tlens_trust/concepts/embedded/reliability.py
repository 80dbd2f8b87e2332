"""Reliability: true and false statements about the same things. True ones are trustworthy."""

from collections.abc import Iterator
from random import Random

from tlens_trust.concepts.embedded.contrast import Contrast, Form, Kind, World

_BIRDS = (
    "sparrow", "robin", "eagle", "owl", "heron", "finch",
    "stork", "crow", "gull", "lark", "raven", "swan",
)  # fmt: skip
_FISH = (
    "salmon", "trout", "herring", "carp", "tuna", "perch",
    "pike", "cod", "eel", "shark", "bream", "sole",
)  # fmt: skip
_TREES = (
    "oak", "birch", "willow", "maple", "elm", "beech",
    "cedar", "pine", "larch", "yew", "poplar", "spruce",
)  # fmt: skip

WORLD = World(
    name="sorts",
    kinds=(
        Kind(
            _BIRDS,
            ("bird",),
            "The {thing} sings.",
            "Feathers came to mind.",
            "Bird, they repeated.",
        ),
        Kind(
            _FISH,
            ("fish",),
            "The {thing} swims.",
            "Fins came to mind.",
            "Fish, they repeated.",
        ),
        Kind(
            _TREES,
            ("tree",),
            "The {thing} grows.",
            "Leaves came to mind.",
            "Tree, they repeated.",
        ),
    ),
    forms=(
        Form(
            "As we all know, the {thing1} is a {partner1} of some sort"
            " and the {thing2} is a {partner2} of some sort.",
            "As we all know, the {thing1} is a {partner1} of some sort.",
        ),
        Form(
            "My book shows the {thing1} on its {partner1} page"
            " and the {thing2} on its {partner2} page.",
            "My book shows the {thing1} on its {partner1} page.",
        ),
        Form(
            "You will find the {thing1} under the {partner1} heading"
            " and the {thing2} under the {partner2} heading.",
            "You will find the {thing1} under the {partner1} heading.",
        ),
        Form(
            "The word {thing1} names a {partner1} and nothing else,"
            " and the word {thing2} names a {partner2} and nothing else.",
            "The word {thing1} names a {partner1} and nothing else.",
        ),
    ),
    brief=("The {thing1} is a {partner1}.", "One {partner1} is the {thing1}."),
    toss=15,
    fitting=True,
)

MEANING = ("true", "false")

_TRUE = ("Yes, that is so.", "True, he said.")
_FALSE = ("No, that is not so.", "False, he said.")


def contrasts() -> Iterator[Contrast]:
    """Yield the statements of the set."""
    return WORLD.contrasts()


def draw_passage(draw: Random) -> str:
    """Draw what some things do, or a claim and the reaction to it."""
    if draw.random() < 0.3:
        return " ".join(WORLD.draw_habit(draw) for _ in range(3))
    claim = WORLD.draw_claim(draw)
    turn = draw.random()
    if turn < 0.2:
        return f"{claim.text} {claim.thing.recalled}"
    if turn < 0.4:
        return f"{claim.text} {claim.partner.repeated}"
    return f"{claim.text} {draw.choice(_TRUE if claim.fits else _FALSE)}"
