"""Controls in the form of the embedded sets: told apart by what stands in the main clause.

A statement has a main and a subordinate clause, and two words that differ in tense, in number or in
topic, one in each. The label is that of the main clause. The two statements of a group exchange the
two words, whose places look alike: the same word and the same four characters stand before both,
and the same word and the same four characters after both. So the two hold the same words, pairs of
neighbouring words and runs of up to five characters, each as often, as the two of a group in the
embedded sets do; and the main clause comes first in half of the forms.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from tlens_trust.concepts.controls.words import AGENTS, FOOD, OBJECTS, VERBS, WEATHER

PER_FORM = 20


@dataclass(frozen=True)
class Form:
    """A sentence with a main and a subordinate clause, and in each a place for a word.

    Attributes:
        text: Holds `{first}` and `{second}`.
        main_first: Whether the main clause comes first.
    """

    text: str
    main_first: bool

    def say(self, main: str, subordinate: str, **others: str) -> str:
        """The sentence with a word in each of its clauses."""
        words = (main, subordinate) if self.main_first else (subordinate, main)
        return self.text.format(first=words[0], second=words[1], **others)


TENSE_FORMS = (
    Form(
        "Though the {agent1} we met {first} the {object1} at home,"
        " the {agent2} we met {second} the {object2} at home.",
        main_first=False,
    ),
    Form(
        "The {agent1} we know {first} the {object1} each day,"
        " although the {agent2} we know {second} the {object2} each day.",
        main_first=True,
    ),
    Form(
        "While the {agent1} in town {first} the {object1} with care,"
        " the {agent2} in town {second} the {object2} with care.",
        main_first=False,
    ),
    Form(
        "The {agent1} you saw {first} the {object1} alone,"
        " while the {agent2} you saw {second} the {object2} alone.",
        main_first=True,
    ),
    Form(
        "Although the {agent1} next door {first} the {object1} for us,"
        " the {agent2} next door {second} the {object2} for us.",
        main_first=False,
    ),
    Form(
        "The {agent1} from work {first} the {object1} at night,"
        " though the {agent2} from work {second} the {object2} at night.",
        main_first=True,
    ),
)

# In the past throughout, where English verbs do not agree in number.
NUMBER_FORMS = (
    Form(
        "Though the {first} we met went home early, the {second} we met stayed until late.",
        main_first=False,
    ),
    Form(
        "Today the {first} we know sang a song, although the {second} we know told a story.",
        main_first=True,
    ),
    Form(
        "While the {first} in town slept all day, the {second} in town worked until dark.",
        main_first=False,
    ),
    Form(
        "At noon the {first} you saw had some bread, while the {second} you saw had some tea.",
        main_first=True,
    ),
    Form(
        "Although the {first} next door lost the key, the {second} next door opened the gate.",
        main_first=False,
    ),
    Form(
        "In May the {first} from work planted roses, though the {second} from work planted beans.",
        main_first=True,
    ),
)

TOPIC_FORMS = (
    Form(
        "Though the talk about the {first} was over soon,"
        " the talk about the {second} was rather long.",
        main_first=False,
    ),
    Form(
        "Today the book about the {first} came by post,"
        " although the book about the {second} came by train.",
        main_first=True,
    ),
    Form(
        "While the song about the {first} had one verse, the song about the {second} had seven.",
        main_first=False,
    ),
    Form(
        "At noon the note about the {first} was read, while the note about the {second} was lost.",
        main_first=True,
    ),
    Form(
        "Although the film about the {first} made us yawn,"
        " the film about the {second} made us laugh.",
        main_first=False,
    ),
    Form(
        "In May the tale of the {first} went to print, though the tale of the {second} went round.",
        main_first=True,
    ),
)


def two_of(words: tuple[str, ...], serial: int, form: int, *, pace: int) -> tuple[str, str]:
    """Two different words, other ones for every serial number and form, evenly spread."""
    start = (pace * serial + form) % len(words)
    return words[start], words[(start + 1 + serial % (len(words) - 1)) % len(words)]


def tense() -> Iterator[tuple[str, str, str]]:
    """Groups with their statements, that with the main clause in the past first."""
    for place, form in enumerate(TENSE_FORMS):
        for serial in range(PER_FORM):
            past, present = VERBS[(serial + place) % len(VERBS)]
            agent1, agent2 = two_of(AGENTS, serial, place, pace=5)
            object1, object2 = two_of(OBJECTS, serial, place, pace=7)
            others = {"agent1": agent1, "agent2": agent2, "object1": object1, "object2": object2}
            yield (
                f"{place}/{agent1}/{agent2}/{past}",
                form.say(past, present, **others),
                form.say(present, past, **others),
            )


def number() -> Iterator[tuple[str, str, str]]:
    """Groups with their statements, that with a plural subject in the main clause first."""
    for place, form in enumerate(NUMBER_FORMS):
        for serial in range(PER_FORM):
            several, one = two_of(AGENTS, serial, place, pace=5)
            yield (
                f"{place}/{several}s/{one}",
                form.say(f"{several}s", one),
                form.say(one, f"{several}s"),
            )


def topic() -> Iterator[tuple[str, str, str]]:
    """Groups with their statements, that with the weather in the main clause first."""
    for place, form in enumerate(TOPIC_FORMS):
        for serial in range(PER_FORM):
            weather = WEATHER[(serial + place) % len(WEATHER)]
            food = FOOD[(5 * serial + serial // len(FOOD) + place) % len(FOOD)]
            yield f"{place}/{weather}/{food}", form.say(weather, food), form.say(food, weather)
