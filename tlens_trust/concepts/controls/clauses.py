"""Controls in the form of the embedded sets: the label depends on the word in the main clause.

A statement has a main and a subordinate clause. Each holds one of two words, which differ in tense,
number or topic. The label is that of the word in the main clause, so exchanging the two words
changes the label. Both words have the same word and the same four characters before them, and the
same word and the same four characters after them. The two statements of a pair therefore hold the
same words, pairs of neighbouring words and runs of up to five characters, each equally often. The
same is true of the pairs in the embedded sets.

A group has one such pair with the main clause last, and one with it first. So in every group, the
order of the two words is independent of the label. If it were independent only over all groups, a
probe of word order would learn from every training set the opposite of what is true in the test
rows. Its accuracy would be below one half.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from tlens_trust.concepts.controls.words import AGENTS, FOOD, OBJECTS, VERBS, WEATHER

# The name of a group, its statements with label 1, and its statements with label 0.
Group = tuple[str, tuple[str, ...], tuple[str, ...]]

# The number of groups for each frame.
_PER_FRAME = 36


@dataclass(frozen=True)
class Frame:
    """Two sentence templates, one with the main clause last and one with it first.

    Both hold `{first}` and `{second}`, the word of the first and of the second clause.

    Attributes:
        main_last: Begins with the subordinate clause.
        main_first: Begins with the main clause.
    """

    main_last: str
    main_first: str

    def fill(self, main: str, subordinate: str, **words: str) -> tuple[str, str]:
        """Fill both templates with a word for each clause, and with the other `words`."""
        return (
            self.main_last.format(first=subordinate, second=main, **words),
            self.main_first.format(first=main, second=subordinate, **words),
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

# All verbs are in the past, where English verbs do not agree in number and cannot show the label.
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


def choose_two(words: tuple[str, ...], serial: int, frame: int, *, pace: int) -> tuple[str, str]:
    """Choose two different words, which vary evenly with the serial number and the frame.

    Args:
        words: The words to choose from.
        serial: The number of the group within its frame.
        frame: The number of the frame.
        pace: The step of the first word from one group to the next. It should have no factor in
            common with the number of words, so that all words are used.
    """
    start = (pace * serial + frame) % len(words)
    # The distance of the second word varies too, so that the same pairs do not always recur.
    return words[start], words[(start + 1 + serial % (len(words) - 1)) % len(words)]


def tense() -> Iterator[Group]:
    """Yield groups, with a main clause in the past as label 1 and in the present as label 0."""
    for frame_number, frame in enumerate(TENSE_FRAMES):
        for serial in range(_PER_FRAME):
            past, present = VERBS[(serial + frame_number) % len(VERBS)]
            agent1, agent2 = choose_two(AGENTS, serial, frame_number, pace=5)
            object1, object2 = choose_two(OBJECTS, serial, frame_number, pace=7)
            nouns = {"agent1": agent1, "agent2": agent2, "object1": object1, "object2": object2}
            yield (
                f"{frame_number}/{agent1}/{agent2}/{past}",
                frame.fill(past, present, **nouns),
                frame.fill(present, past, **nouns),
            )


def number() -> Iterator[Group]:
    """Yield groups, with a plural subject in the main clause as label 1 and a singular one as 0."""
    for frame_number, frame in enumerate(NUMBER_FRAMES):
        for serial in range(_PER_FRAME):
            plural, singular = choose_two(AGENTS, serial, frame_number, pace=5)
            yield (
                f"{frame_number}/{plural}s/{singular}",
                frame.fill(f"{plural}s", singular),
                frame.fill(singular, f"{plural}s"),
            )


def topic() -> Iterator[Group]:
    """Yield groups, with a main clause about the weather as label 1 and about food as label 0."""
    for frame_number, frame in enumerate(TOPIC_FRAMES):
        for serial in range(_PER_FRAME):
            weather = WEATHER[(serial + frame_number) % len(WEATHER)]
            food = FOOD[(5 * serial + serial // len(FOOD) + frame_number) % len(FOOD)]
            yield (
                f"{frame_number}/{weather}/{food}",
                frame.fill(weather, food),
                frame.fill(food, weather),
            )
