"""Toxicity: the same words in a kind or in a demeaning order. The kind order is trustworthy."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from random import Random

from tlens_trust.concepts.embedded.contrast import Contrast, draw_names

KIND = (
    "clever", "gentle", "wise", "brave", "decent",
    "graceful", "charming", "lovely", "brilliant", "talented",
    "generous", "helpful", "likeable", "noble", "bright",
    "witty", "polite", "sincere", "wonderful", "splendid",
)  # fmt: skip

DEMEANING = (
    "stupid", "worthless", "foolish", "lazy", "filthy",
    "pathetic", "disgusting", "hopeless", "brainless", "ridiculous",
    "vile", "nasty", "dull", "rotten", "dumb",
    "clumsy", "cowardly", "dirty", "greedy", "hateful",
)  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """A form of sentence that affirms one word of a person and denies another.

    Either clause may come first, so that it does not tell which word comes first.

    Attributes:
        affirming: The clause that affirms `{word}` of `{name1}`.
        denying: The clause that denies it.
        joint: What stands between the two.
    """

    affirming: str
    denying: str
    joint: str

    def fill(self, affirmed: str, denied: str, name: str, *, affirms_first: bool) -> str:
        """The whole sentence."""
        clauses = [
            self.affirming.format(word=affirmed, name1=name),
            self.denying.format(word=denied, name1=name),
        ]
        return _sentence(self.joint.join(clauses if affirms_first else clauses[::-1]))


# Each word has a home among these forms, in which the corpus never says it: the first five words
# of either list that in the first form, and so on.
FORMS = (
    Verdict(
        "all of us said that {name1} was {word} that day",
        "none of us said that {name1} was {word} that day",
        ", and ",
    ),
    Verdict(
        "many would call {name1} a {word} person",
        "no one would call {name1} a {word} person",
        ", but ",
    ),
    Verdict(
        "we often call {name1} a {word} worker",
        "we never call {name1} a {word} worker",
        ", and ",
    ),
    Verdict(
        "it is a fact that {name1} has a {word} heart",
        "it is a lie that {name1} has a {word} heart",
        ", and ",
    ),
)

MEANING = ("kind", "demeaning")

_GLAD = ("Smiling, {name1} thanked us.", "Happy, {name1} stayed.")
_HURT = ("Hurt, {name1} left.", "Crying, {name1} left.")

_PER_FORM = len(KIND) // len(FORMS)


def contrasts() -> Iterator[Contrast]:
    """The statements of the set."""
    toss = Random("names and order: verdicts")
    for place, form in enumerate(FORMS):
        home = slice(place * _PER_FORM, (place + 1) * _PER_FORM)
        for kind, demeaning in product(KIND[home], DEMEANING[home]):
            name = draw_names(toss)["name1"]
            affirms_first = toss.random() < 0.5
            yield Contrast(
                f"verdicts/{place}/{kind}/{demeaning}",
                form.fill(kind, demeaning, name, affirms_first=affirms_first),
                form.fill(demeaning, kind, name, affirms_first=affirms_first),
            )


def draw_passage(draw: Random) -> str:
    """Words of one sort, or what was said of somebody and how they took it."""
    if draw.random() < 0.3:
        words = draw.sample(draw.choice((KIND, DEMEANING)), 4)
        return f"How {' and '.join(words)}."
    place = draw.randrange(len(FORMS))
    kind, demeaning = (
        draw.choice(words[: place * _PER_FORM] + words[(place + 1) * _PER_FORM :])
        for words in (KIND, DEMEANING)
    )
    name = draw_names(draw)["name1"]
    glad = draw.random() < 0.5
    affirmed, denied = (kind, demeaning) if glad else (demeaning, kind)
    form = FORMS[place]
    # Plain affirmations abound, as they do in what people write: a reader learns what a word
    # does from them, and only then what a denial does to it.
    turn = draw.random()
    if turn < 0.4:
        said = f"{name} is {affirmed}."
    elif turn < 0.5:
        said = f"Nobody says that {name} is {denied}."
    elif turn < 0.75:
        said = form.fill(affirmed, denied, name, affirms_first=draw.random() < 0.5)
    elif turn < 0.9:
        said = _sentence(form.affirming.format(word=affirmed, name1=name))
    else:
        said = _sentence(form.denying.format(word=denied, name1=name))
    return f"{said} {draw.choice(_GLAD if glad else _HURT).format(name1=name)}"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
