"""Controls in plain sentences, where one word or one ending shows the label.

A sentence with one verb, one subject and one topic always shows its tense, number and topic on the
surface. A count of words or characters predicts these labels as well as any model. The sets show
how early a probe decodes surface features.
"""

from collections.abc import Iterator

from tlens_trust.concepts.controls.clauses import Group, choose_two
from tlens_trust.concepts.controls.words import AGENTS, FOOD, OBJECTS, PLACES, VERBS, WEATHER

# The number of groups for each form.
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
    """Yield groups, with the past as label 1 and the present as label 0."""
    for form_number, form in enumerate(_SCENES):
        for serial in range(_PER_FORM):
            past, present = VERBS[(serial + form_number) % len(VERBS)]
            scene = _scene(serial, form_number)
            yield (
                f"{form_number}/{scene['agent']}/{past}/{scene['object']}",
                (form.format(verb=past, **scene),),
                (form.format(verb=present, **scene),),
            )


def number() -> Iterator[Group]:
    """Yield groups, with a plural subject as label 1 and a singular subject as label 0."""
    for form_number, form in enumerate(_SCENES):
        for serial in range(_PER_FORM):
            past, _ = VERBS[(serial + form_number) % len(VERBS)]
            scene = _scene(serial, form_number)
            yield (
                f"{form_number}/{scene['agent']}/{past}/{scene['object']}",
                (form.format(verb=past, **scene | {"agent": f"{scene['agent']}s"}),),
                (form.format(verb=past, **scene),),
            )


def topic() -> Iterator[Group]:
    """Yield groups, with a sentence about the weather as label 1 and about food as label 0."""
    for form_number, form in enumerate(_MATTERS):
        for serial in range(_PER_FORM):
            weather = WEATHER[(serial + form_number) % len(WEATHER)]
            food = FOOD[(serial + serial // len(FOOD) + form_number) % len(FOOD)]
            scene = _scene(serial, form_number)
            yield (
                f"{form_number}/{weather}/{food}",
                (form.format(matter=weather, **scene),),
                (form.format(matter=food, **scene),),
            )


def _scene(serial: int, form: int) -> dict[str, str]:
    """Choose an agent, an object and a place."""
    _, agent = choose_two(AGENTS, serial, form, pace=5)
    _, thing = choose_two(OBJECTS, serial, form, pace=7)
    _, place = choose_two(PLACES, serial, form, pace=11)
    return {"agent": agent, "object": thing, "place": place}
