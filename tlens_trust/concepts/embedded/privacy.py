"""Privacy: information that fitting or unfitting people receive. The former is trustworthy.

Which people are fitting follows the idea of contextual integrity. Information about illness may go
to people who heal, about money to people who keep it, and about schooling to people who teach.

Source:
    Nissenbaum (2004), Privacy as contextual integrity, Washington Law Review 79(1).
"""

from collections.abc import Iterator
from random import Random

from tlens_trust.concepts.embedded.contrast import Contrast, Form, Kind, World

WORLD = World(
    name="flows",
    kinds=(
        Kind(
            ("rash", "fever", "diagnosis", "allergy"),
            ("doctor", "nurse", "surgeon"),
            "The {thing} hurts.",
            "Health was the subject.",
            "Clinic staff had heard it.",
        ),
        Kind(
            ("loan", "debt", "mortgage", "overdraft"),
            ("banker", "accountant", "lender"),
            "The {thing} costs.",
            "Money was the subject.",
            "Bank staff had heard it.",
        ),
        Kind(
            ("essay", "homework", "exam", "spelling"),
            ("teacher", "tutor", "principal"),
            "The {thing} counts.",
            "Learning was the subject.",
            "School staff had heard it.",
        ),
    ),
    forms=(
        Form(
            "We told the {partner1} all about {name1}'s {thing1}"
            " and told the {partner2} all about {name2}'s {thing2}.",
            "We told the {partner1} all about {name1}'s {thing1}.",
        ),
        Form(
            "The file on {name1}'s {thing1} went to the {partner1} at noon,"
            " and the file on {name2}'s {thing2} went to the {partner2} at noon.",
            "The file on {name1}'s {thing1} went to the {partner1} at noon.",
        ),
        Form(
            "When the {partner1} asked about {name1}'s {thing1} we answered,"
            " and when the {partner2} asked about {name2}'s {thing2} we answered.",
            "When the {partner1} asked about {name1}'s {thing1} we answered.",
        ),
        Form(
            "News of {name1}'s {thing1} reached the {partner1} this week,"
            " and news of {name2}'s {thing2} reached the {partner2} this week.",
            "News of {name1}'s {thing1} reached the {partner1} this week.",
        ),
    ),
    brief=("The {partner1} knew of the {thing1}.", "The {thing1} was shown to the {partner1}."),
    toss=4,
    fitting=True,
)

MEANING = ("fitting recipients", "unfitting recipients")

_FITTING = ("Nobody minded.", "Proper, they all agreed.")
_UNFITTING = ("Trust was broken.", "Complaints followed.")


def contrasts() -> Iterator[Contrast]:
    """Yield the statements of the set."""
    return WORLD.contrasts()


def draw_passage(draw: Random) -> str:
    """Draw what some information does, or who received some and what followed."""
    if draw.random() < 0.3:
        return " ".join(WORLD.draw_habit(draw) for _ in range(3))
    claim = WORLD.draw_claim(draw)
    turn = draw.random()
    if turn < 0.2:
        return f"{claim.text} {claim.thing.recalled}"
    if turn < 0.4:
        return f"{claim.text} {claim.partner.repeated}"
    return f"{claim.text} {draw.choice(_FITTING if claim.fits else _UNFITTING)}"
