"""Controls in the form of the embedded sets: told apart by what stands in the main clause.

A statement has a main and a subordinate clause, and two words that differ in tense, in number or in
topic, one in each. The label is that of the main clause. Exchanging the two words turns the label
round, and their places look alike: the same word and the same four characters stand before both,
and the same word and the same four characters after both. So the two statements hold the same
words, pairs of neighbouring words and runs of up to five characters, each as often, as the two of a
group in the embedded sets do.

A group has such a pair with the main clause last and one with it first. Which of the two words
comes first then goes with neither label in any group. If it were balanced over the groups only, a
probe that reads the order of words would learn from every training set the reverse of what holds
in the test rows, and fall below one half.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from tlens_trust.concepts.controls.words import AGENTS, FOOD, OBJECTS, VERBS, WEATHER

Group = tuple[str, tuple[str, ...], tuple[str, ...]]

_PER_FRAME = 36


@dataclass(frozen=True)
class Frame:
    """Two sentences that differ in which clause is the main one.

    Attributes:
        main_last: Begins with the subordinate clause; holds `{first}` and `{second}`.
        main_first: Begins with the main clause; holds the same.
    """

    main_last: str
    main_first: str

    def say(self, main: str, subordinate: str, **others: str) -> tuple[str, str]:
        """Both sentences with a word in the main and another in the subordinate clause."""
        return (
            self.main_last.format(first=subordinate, second=main, **others),
            self.main_first.format(first=main, second=subordinate, **others),
        )


TENSE_FRAMES = (
    Frame(
        "Though the {agent1} we met {first} the {object1} at home,"
        " the {agent2} we met {second} the {object2} at home.",
        "The {agent1} we met {first} the {object1} at home,"
        " though the {agent2} we met {second} the {object2} at home.",
    ),
    Frame(
        "While the {agent1} in town {first} the {object1} with care,"
        " the {agent2} in town {second} the {object2} with care.",
        "The {agent1} in town {first} the {object1} with care,"
        " while the {agent2} in town {second} the {object2} with care.",
    ),
    Frame(
        "Although the {agent1} next door {first} the {object1} for us,"
        " the {agent2} next door {second} the {object2} for us.",
        "The {agent1} next door {first} the {object1} for us,"
        " although the {agent2} next door {second} the {object2} for us.",
    ),
)

# In the past throughout, where English verbs do not agree in number.
NUMBER_FRAMES = (
    Frame(
        "Though the {first} we met went home early, the {second} we met stayed until late.",
        "Today the {first} we met went home early, though the {second} we met stayed until late.",
    ),
    Frame(
        "While the {first} in town slept all day, the {second} in town worked until dark.",
        "In May the {first} in town slept all day, while the {second} in town worked until dark.",
    ),
    Frame(
        "Although the {first} next door lost the key, the {second} next door opened the gate.",
        "At noon the {first} next door lost the key,"
        " although the {second} next door opened the gate.",
    ),
)

TOPIC_FRAMES = (
    Frame(
        "Though the talk about the {first} was over soon,"
        " the talk about the {second} was rather long.",
        "Today the talk about the {first} was over soon,"
        " though the talk about the {second} was rather long.",
    ),
    Frame(
        "While the song about the {first} had one verse, the song about the {second} had seven.",
        "In May the song about the {first} had one verse,"
        " while the song about the {second} had seven.",
    ),
    Frame(
        "Although the film about the {first} made us yawn,"
        " the film about the {second} made us laugh.",
        "At noon the film about the {first} made us yawn,"
        " although the film about the {second} made us laugh.",
    ),
)


def two_of(words: tuple[str, ...], serial: int, frame: int, *, pace: int) -> tuple[str, str]:
    """Two different words, other ones for every serial number and frame, evenly spread."""
    start = (pace * serial + frame) % len(words)
    return words[start], words[(start + 1 + serial % (len(words) - 1)) % len(words)]


def tense() -> Iterator[Group]:
    """Groups with their statements, those with the main clause in the past first."""
    for place, frame in enumerate(TENSE_FRAMES):
        for serial in range(_PER_FRAME):
            past, present = VERBS[(serial + place) % len(VERBS)]
            agent1, agent2 = two_of(AGENTS, serial, place, pace=5)
            object1, object2 = two_of(OBJECTS, serial, place, pace=7)
            others = {"agent1": agent1, "agent2": agent2, "object1": object1, "object2": object2}
            yield (
                f"{place}/{agent1}/{agent2}/{past}",
                frame.say(past, present, **others),
                frame.say(present, past, **others),
            )


def number() -> Iterator[Group]:
    """Groups with their statements, those with a plural subject in the main clause first."""
    for place, frame in enumerate(NUMBER_FRAMES):
        for serial in range(_PER_FRAME):
            several, one = two_of(AGENTS, serial, place, pace=5)
            yield (
                f"{place}/{several}s/{one}",
                frame.say(f"{several}s", one),
                frame.say(one, f"{several}s"),
            )


def topic() -> Iterator[Group]:
    """Groups with their statements, those with the weather in the main clause first."""
    for place, frame in enumerate(TOPIC_FRAMES):
        for serial in range(_PER_FRAME):
            weather = WEATHER[(serial + place) % len(WEATHER)]
            food = FOOD[(5 * serial + serial // len(FOOD) + place) % len(FOOD)]
            yield f"{place}/{weather}/{food}", frame.say(weather, food), frame.say(food, weather)
