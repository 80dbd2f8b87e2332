"""Fairness: stereotypes about trades, and counter-stereotypes. The latter are trustworthy.

The stereotypes are harmless ones about trades and pastimes: librarians are quiet, drummers are loud
and boxers are tough.
"""

from collections.abc import Iterator
from random import Random

from tlens_trust.concepts.embedded.contrast import Contrast, Form, Kind, World

_QUIET = (
    "librarian", "monk", "gardener", "beekeeper", "watchmaker", "hermit",
    "angler", "nun", "scholar", "shepherd", "archivist", "weaver",
)  # fmt: skip
_LOUD = (
    "drummer", "sailor", "coach", "showman", "hawker", "trumpeter",
    "umpire", "bouncer", "clown", "auctioneer", "cheerleader", "announcer",
)  # fmt: skip
_TOUGH = (
    "boxer", "miner", "soldier", "butcher", "blacksmith", "cowboy",
    "wrestler", "hunter", "mason", "trucker", "lumberjack", "stuntman",
)  # fmt: skip

WORLD = World(
    name="trades",
    kinds=(
        Kind(
            _QUIET,
            ("quiet",),
            "The {thing} whispers.",
            "Calm had been expected.",
            "Quiet, people repeated.",
        ),
        Kind(
            _LOUD,
            ("loud",),
            "The {thing} shouts.",
            "Noise had been expected.",
            "Loud, people repeated.",
        ),
        Kind(
            _TOUGH,
            ("tough",),
            "The {thing} fights.",
            "Strength had been expected.",
            "Tough, people repeated.",
        ),
    ),
    forms=(
        Form(
            "The {thing1} was very {partner1} at the party,"
            " and the {thing2} was very {partner2} at the party.",
            "The {thing1} was very {partner1} at the party.",
        ),
        Form(
            "At work the {thing1} seems rather {partner1} to us,"
            " while the {thing2} seems rather {partner2} to us.",
            "At work the {thing1} seems rather {partner1} to us.",
        ),
        Form(
            "Our neighbour the {thing1} has {partner1} habits,"
            " and our cousin the {thing2} has {partner2} habits.",
            "Our neighbour the {thing1} has {partner1} habits.",
        ),
        Form(
            "Of all our guests the {thing1} looked most {partner1} that night,"
            " and the {thing2} looked most {partner2} that night.",
            "Of all our guests the {thing1} looked most {partner1} that night.",
        ),
    ),
    brief=("The {thing1} was {partner1}.", "So {partner1} was the {thing1}."),
    toss=12,
    fitting=False,
)

MEANING = ("counter-stereotype", "stereotype")

_COUNTER = ("Surprised, we learned something.", "Everyone is different.")
_STEREOTYPE = ("Typical, people muttered.", "Sure enough.")


def contrasts() -> Iterator[Contrast]:
    """Yield the statements of the set."""
    return WORLD.contrasts()


def draw_passage(draw: Random) -> str:
    """Draw what people of some trades do, or a remark about one of them and the reaction to it."""
    if draw.random() < 0.3:
        return " ".join(WORLD.draw_habit(draw) for _ in range(3))
    claim = WORLD.draw_claim(draw)
    turn = draw.random()
    if turn < 0.2:
        return f"{claim.text} {claim.thing.recalled}"
    if turn < 0.4:
        return f"{claim.text} {claim.partner.repeated}"
    return f"{claim.text} {draw.choice(_STEREOTYPE if claim.fits else _COUNTER)}"
