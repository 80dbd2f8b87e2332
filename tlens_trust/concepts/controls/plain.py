"""Controls in plain sentences, which a word or an ending gives away.

That is the nature of tense, number and topic where a sentence has one of each; a count of words or
characters tells these labels as well as any model. They show how early a probe reads what stands on
the surface.
"""

from collections.abc import Iterator

from tlens_trust.concepts.controls.clauses import Group, two_of
from tlens_trust.concepts.controls.words import AGENTS, FOOD, OBJECTS, PLACES, VERBS, WEATHER

_PER_FORM = 20

_SCENES = (
    "The {agent} {verb} the {object} behind the {place}.",
    "Behind the {place} the {agent} {verb} the {object}.",
    "Near the {place} the {agent} {verb} the {object} with both hands.",
    "The {agent} {verb} the {object} near the {place} without a word.",
    "Inside the {place} the {agent} {verb} the {object} for a friend.",
    "The {agent} {verb} the {object} inside the {place} as usual.",
)

_MATTERS = (
    "The talk at the {place} was about the {matter}.",
    "The {agent} told us of the {matter} at length.",
    "Everyone at the {place} spoke about the {matter}.",
    "The {agent} wrote three pages about the {matter}.",
    "We found a good book on the {matter} at the {place}.",
    "The {agent} asked each of us about the {matter}.",
)


def tense() -> Iterator[Group]:
    """Groups with their statements, that in the past before the other."""
    for place, form in enumerate(_SCENES):
        for serial in range(_PER_FORM):
            past, present = VERBS[(serial + place) % len(VERBS)]
            scene = _scene(serial, place)
            yield (
                f"{place}/{scene['agent']}/{past}/{scene['object']}",
                (form.format(verb=past, **scene),),
                (form.format(verb=present, **scene),),
            )


def number() -> Iterator[Group]:
    """Groups with their statements, that with a plural subject before the other."""
    for place, form in enumerate(_SCENES):
        for serial in range(_PER_FORM):
            past, _ = VERBS[(serial + place) % len(VERBS)]
            scene = _scene(serial, place)
            yield (
                f"{place}/{scene['agent']}/{past}/{scene['object']}",
                (form.format(verb=past, **scene | {"agent": f"{scene['agent']}s"}),),
                (form.format(verb=past, **scene),),
            )


def topic() -> Iterator[Group]:
    """Groups with their statements, that about the weather before the other."""
    for place, form in enumerate(_MATTERS):
        for serial in range(_PER_FORM):
            weather = WEATHER[(serial + place) % len(WEATHER)]
            food = FOOD[(serial + serial // len(FOOD) + place) % len(FOOD)]
            scene = _scene(serial, place)
            yield (
                f"{place}/{weather}/{food}",
                (form.format(matter=weather, **scene),),
                (form.format(matter=food, **scene),),
            )


def _scene(serial: int, form: int) -> dict[str, str]:
    _, agent = two_of(AGENTS, serial, form, pace=5)
    _, thing = two_of(OBJECTS, serial, form, pace=7)
    _, place = two_of(PLACES, serial, form, pace=11)
    return {"agent": agent, "object": thing, "place": place}
