"""Pairs of statements that hold the same words in another order.

A set of statements shows what a model knows only if the surface does not show the label. Here the
two statements of a group differ by exchanging two words. Both words have the same word and the same
four characters before them, and the same word and the same four characters after them. The two
statements therefore hold the same words, pairs of neighbouring words and runs of up to five
characters, each equally often. No count of these distinguishes them. The order of the two things is
random for each group, so that the order alone does not show the label either. The two statements
differ only in which words go together.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from random import Random


@dataclass(frozen=True)
class Contrast:
    """Two statements of one group that differ only in the order of their words.

    Attributes:
        group: The name of the group within its set.
        trustworthy: The statement on the trustworthy side (label 1).
        untrustworthy: The other statement (label 0).
    """

    group: str
    trustworthy: str
    untrustworthy: str


@dataclass(frozen=True)
class Form:
    """A template of sentences that put a thing and a partner together.

    Attributes:
        both: The template for two things: `{thing1}`, `{partner1}`, `{thing2}`, `{partner2}`.
        single: The template for the first thing alone, in the same words.
    """

    both: str
    single: str


@dataclass(frozen=True)
class Kind:
    """A kind of things, which go together with the same partners.

    Attributes:
        things: Nouns.
        partners: Words that go together with each of the things, and with no other kind.
        habit: A sentence that is true of any `{thing}` of the kind.
        recalled: A sentence that may follow one about one of the things.
        repeated: A sentence that may follow one about one of the partners.
    """

    things: tuple[str, ...]
    partners: tuple[str, ...]
    habit: str
    recalled: str
    repeated: str


@dataclass(frozen=True)
class Claim:
    """A sentence of the corpus that puts things and partners together.

    Attributes:
        text: The sentence.
        thing: The kind of the last thing in the sentence.
        partner: The kind of the partner that the sentence gives to that thing.
    """

    text: str
    thing: Kind
    partner: Kind

    @property
    def fits(self) -> bool:
        """Whether the thing and its partner go together."""
        return self.thing is self.partner


@dataclass(frozen=True)
class World:
    """Things and partners that go together, and the templates of sentences about them.

    Every thing has one of the forms as its home. The statements of the set use the thing in its
    home form only, and the corpus never does. So every statement states something that the corpus
    teaches, in a form in which the corpus never states it.

    Attributes:
        name: The first part of the names of the groups.
        kinds: The kinds of things. Each holds as many things as there are forms, or a multiple.
        forms: The forms that the set and the corpus share. Some name people, as `{name1}` and
            `{name2}`.
        brief: Short templates with `{thing1}` and `{partner1}` that only the corpus uses.
        toss: Seed of the order of the two things. It is chosen so that the order of the two kinds
            does not predict the label of held-out groups better than chance.
        fitting: Whether each thing is with its own partner in the trustworthy statement.
    """

    name: str
    kinds: tuple[Kind, ...]
    forms: tuple[Form, ...]
    brief: tuple[str, ...]
    toss: int
    fitting: bool

    def contrasts(self) -> Iterator[Contrast]:
        """Yield the statements of the set, in a fixed order."""
        toss = Random(f"order of things: {self.name} {self.toss}")
        for form_number, form in enumerate(self.forms):
            home = slice(form_number, None, len(self.forms))
            for kind1, kind2 in combinations(self.kinds, 2):
                for words in product(
                    kind1.things[home], kind1.partners, kind2.things[home], kind2.partners
                ):
                    pairs = [words[:2], words[2:]]
                    if toss.random() < 0.5:
                        pairs.reverse()
                    (thing1, partner1), (thing2, partner2) = pairs
                    names = draw_names(toss)
                    fitting = fill(form.both, (thing1, thing2), (partner1, partner2), names)
                    crossed = fill(form.both, (thing1, thing2), (partner2, partner1), names)
                    yield Contrast(
                        f"{self.name}/{form_number}/{'/'.join(words)}",
                        *((fitting, crossed) if self.fitting else (crossed, fitting)),
                    )

    def draw_claim(self, draw: Random) -> Claim:
        """Draw a sentence for the corpus, which never uses a thing in its home form."""
        turn = draw.random()
        kind1, kind2 = draw.sample(self.kinds, 2)
        if turn < 0.55:
            form_number = None  # No thing has a brief form as its home.
            form = draw.choice(self.brief)
        else:
            form_number = draw.randrange(len(self.forms))
            templates = self.forms[form_number]
            form = templates.single if turn < 0.8 else templates.both
        things = [
            draw.choice(
                [t for i, t in enumerate(kind.things) if i % len(self.forms) != form_number]
            )
            for kind in (kind1, kind2)
        ]
        partners = [draw.choice(kind1.partners), draw.choice(kind2.partners)]
        fits = draw.random() < 0.5
        text = fill(form, things, partners if fits else partners[::-1], draw_names(draw))
        last_kind, other_kind = (kind2, kind1) if "{thing2}" in form else (kind1, kind2)
        return Claim(text, last_kind, last_kind if fits else other_kind)

    def draw_habit(self, draw: Random) -> str:
        """Draw a true sentence about one of the things."""
        kind = draw.choice(self.kinds)
        return kind.habit.format(thing=draw.choice(kind.things))


FIRST_NAMES = (
    "Anna", "Boris", "Clara", "David", "Emma", "Felix", "Greta", "Hugo", "Ines", "Jonas",
    "Karin", "Lukas",
)  # fmt: skip


def draw_names(draw: Random) -> Mapping[str, str]:
    """Draw two different first names, as `name1` and `name2`."""
    name1, name2 = draw.sample(FIRST_NAMES, 2)
    return {"name1": name1, "name2": name2}


def fill(
    form: str, things: Sequence[str], partners: Sequence[str], names: Mapping[str, str]
) -> str:
    """Fill a template with things, partners and names."""
    return form.format(
        thing1=things[0], thing2=things[1], partner1=partners[0], partner2=partners[1], **names
    )
