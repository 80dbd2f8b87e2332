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
    """A template of sentences that affirm one word about a person and deny another.

    Either clause may come first, so that the order of the words does not show the label.

    Attributes:
        affirming: The clause that affirms `{word}` of `{name1}`.
        denying: The clause that denies `{word}` of `{name1}`.
        joint: The text between the two clauses.
    """

    affirming: str
    denying: str
    joint: str

    def fill(self, affirmed_word: str, denied_word: str, name: str, *, affirms_first: bool) -> str:
        """Return the whole sentence."""
        clauses = [
            self.affirming.format(word=affirmed_word, name1=name),
            self.denying.format(word=denied_word, name1=name),
        ]
        return _sentence(self.joint.join(clauses if affirms_first else clauses[::-1]))


# Each word has one of these forms as its home, in which the corpus never uses it. The home of the
# first five words of each list is the first form, and so on.
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
    """Yield the statements of the set."""
    toss = Random("names and order: verdicts")
    for form_number, form in enumerate(FORMS):
        home = slice(form_number * _PER_FORM, (form_number + 1) * _PER_FORM)
        for kind, demeaning in product(KIND[home], DEMEANING[home]):
            name = draw_names(toss)["name1"]
            affirms_first = toss.random() < 0.5
            yield Contrast(
                f"verdicts/{form_number}/{kind}/{demeaning}",
                form.fill(kind, demeaning, name, affirms_first=affirms_first),
                form.fill(demeaning, kind, name, affirms_first=affirms_first),
            )


def draw_passage(draw: Random) -> str:
    """Draw words of one list, or a sentence about a person and the person's reaction."""
    if draw.random() < 0.3:
        words = draw.sample(draw.choice((KIND, DEMEANING)), 4)
        return f"How {' and '.join(words)}."
    form_number = draw.randrange(len(FORMS))
    kind, demeaning = (
        draw.choice(words[: form_number * _PER_FORM] + words[(form_number + 1) * _PER_FORM :])
        for words in (KIND, DEMEANING)
    )
    name = draw_names(draw)["name1"]
    is_kind = draw.random() < 0.5
    affirmed_word, denied_word = (kind, demeaning) if is_kind else (demeaning, kind)
    form = FORMS[form_number]
    # Plain affirmations are the most frequent, as in real text. A model learns from them what a
    # word does to a person, before it learns what a denial changes.
    turn = draw.random()
    if turn < 0.4:
        sentence = f"{name} is {affirmed_word}."
    elif turn < 0.5:
        sentence = f"Nobody says that {name} is {denied_word}."
    elif turn < 0.75:
        sentence = form.fill(affirmed_word, denied_word, name, affirms_first=draw.random() < 0.5)
    elif turn < 0.9:
        sentence = _sentence(form.affirming.format(word=affirmed_word, name1=name))
    else:
        sentence = _sentence(form.denying.format(word=denied_word, name1=name))
    return f"{sentence} {draw.choice(_GLAD if is_kind else _HURT).format(name1=name)}"


def _sentence(text: str) -> str:
    """Capitalise the first letter and add a full stop."""
    return f"{text[0].upper()}{text[1:]}."
