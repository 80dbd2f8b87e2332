"""Robustness: sentences intact or with two parts exchanged. The former are trustworthy."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from random import Random

from tlens_trust.concepts.embedded.contrast import Contrast

# Each word has a home among the forms, in which the corpus never says it: the first two words of
# each list that in the first form, and so on.
WORDS = {
    "time": (
        "storm", "winter", "concert", "lesson", "meeting", "harvest",
        "sunset", "speech", "holiday", "journey", "wedding", "breakfast",
    ),
    "place": (
        "barn", "bridge", "church", "station", "mill", "castle",
        "kitchen", "garage", "tower", "harbour", "cottage", "temple",
    ),
    "agent": (
        "farmer", "baker", "driver", "singer", "carpenter", "plumber",
        "waiter", "pilot", "captain", "porter", "guard", "king",
    ),
    "verb": (
        "carried", "watched", "dropped", "found", "lifted", "cleaned",
        "moved", "touched", "hid", "kept", "lost", "took",
    ),
    "object": (
        "basket", "lamp", "ladder", "barrel", "mirror", "chair",
        "bucket", "carpet", "kettle", "blanket", "candle", "drum",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Order:
    """A form of sentence, and which two of its parts change places.

    What is exchanged stands between two "the", so that no pair of neighbouring words and no run of
    five characters arises that was not there before. Of every two parts that are exchanged, one
    comes first in one form and the other in another, so that it does not tell which comes first.

    Attributes:
        text: The intact sentence, with its parts in braces. `{act}` is an agent and a verb.
        exchanged: The names of the two parts.
    """

    text: str
    exchanged: tuple[str, str]

    @property
    def fields(self) -> tuple[str, ...]:
        """The kinds of words that it takes."""
        return tuple(f for f in WORDS if f"{{{f}}}" in self.text or f in ("agent", "verb"))

    def fill(self, words: Mapping[str, str], *, intact: bool) -> str:
        """The sentence, intact or not."""
        parts = {**words, "act": f"{words['agent']} {words['verb']}"}
        if not intact:
            one, two = self.exchanged
            parts[one], parts[two] = parts[two], parts[one]
        return self.text.format(**parts)


FORMS = (
    Order(
        "I have been told that during the {time} the {act} the {object} the other day.",
        ("time", "act"),
    ),
    Order(
        "I have been told that once the {act} the {object} during the {time} the other day.",
        ("act", "time"),
    ),
    Order(
        "It was in the papers that behind the {place} the {act} the {object} the other week.",
        ("place", "act"),
    ),
    Order(
        "It was in the papers that once the {act} the {object} behind the {place} the other week.",
        ("act", "place"),
    ),
    Order(
        "My friends remember that after the {time} the {act} the {object} near the {place}"
        " the other month.",
        ("time", "place"),
    ),
    Order(
        "My friends remember that near the {place} the {act} the {object} after the {time}"
        " the other month.",
        ("place", "time"),
    ),
)

MEANING = ("intact", "two parts exchanged")

_CLEAR = ("Understood, they nodded.", "Good, everyone followed.")
_UNCLEAR = ("Pardon, they asked.", "Confused, everyone frowned.")

_PER_FORM = len(WORDS["time"]) // len(FORMS)
_GROUPS_PER_FORM = 18


def contrasts() -> Iterator[Contrast]:
    """The statements of the set."""
    toss = Random("words: order")
    for place, form in enumerate(FORMS):
        home = slice(place * _PER_FORM, (place + 1) * _PER_FORM)
        choices = list(product(*(WORDS[field][home] for field in form.fields)))
        if len(choices) > _GROUPS_PER_FORM:
            choices = sorted(toss.sample(choices, _GROUPS_PER_FORM))
        for words in choices:
            filled = dict(zip(form.fields, words, strict=True))
            yield Contrast(
                f"order/{place}/{'/'.join(words)}",
                form.fill(filled, intact=True),
                form.fill(filled, intact=False),
            )


def draw_passage(draw: Random) -> str:
    """A sentence, intact or not, and whether it was understood."""
    place = draw.randrange(len(FORMS))
    form = FORMS[place]
    words = {
        field: draw.choice(
            WORDS[field][: place * _PER_FORM] + WORDS[field][(place + 1) * _PER_FORM :]
        )
        for field in form.fields
    }
    intact = draw.random() < 0.5
    return f"{form.fill(words, intact=intact)} {draw.choice(_CLEAR if intact else _UNCLEAR)}"
