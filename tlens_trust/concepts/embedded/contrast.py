"""Statements in pairs that hold the same words in the same surroundings, in another order.

A set of statements shows what a model knows only if its surface does not give the label away.
Here the two statements of a group differ by exchanging what stands in two places, and the places
look alike: before both stand the same word and the same four characters, and after both too. The
two statements then hold the same words, the same pairs of neighbouring words and the same runs of
up to five characters, each as often, so that nothing that counts these can tell them apart. Which
of two things is named first is tossed for each group, so that the order alone tells nothing
either. What tells the two apart is what goes with what.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from random import Random


@dataclass(frozen=True)
class Contrast:
    """Two statements of one group, told apart by their order alone.

    Attributes:
        group: Names the group within its set.
        trustworthy: The statement on the trustworthy side (label 1).
        untrustworthy: The other one (label 0).
    """

    group: str
    trustworthy: str
    untrustworthy: str


@dataclass(frozen=True)
class Form:
    """A form of sentence that says what goes with what.

    Attributes:
        both: Speaks of two things: `{thing1}`, `{partner1}`, `{thing2}`, `{partner2}`.
        single: Speaks of the first alone, in the same words.
    """

    both: str
    single: str


@dataclass(frozen=True)
class Kind:
    """Things that go with the same partners.

    Attributes:
        things: Nouns.
        partners: Words that go with each of the things, and with no other kind.
        habit: A sentence that holds for any `{thing}` of the kind.
        recalled: A sentence that comes to mind when one of the things was spoken of.
        repeated: A sentence that comes to mind when one of the partners was spoken of.
    """

    things: tuple[str, ...]
    partners: tuple[str, ...]
    habit: str
    recalled: str
    repeated: str


@dataclass(frozen=True)
class Claim:
    """A sentence of the corpus that says what goes with what.

    Attributes:
        text: The sentence.
        thing: The kind of the thing that it speaks of last.
        partner: The kind of the partner that it puts with that thing.
    """

    text: str
    thing: Kind
    partner: Kind

    @property
    def fits(self) -> bool:
        """Whether thing and partner go together."""
        return self.thing is self.partner


@dataclass(frozen=True)
class World:
    """What goes with what, and the forms of sentence in which it is said.

    Every thing has a home among the forms. There the statements of the set speak of it, and there
    the corpus never does. So every statement says something that the corpus teaches, in a form in
    which the corpus never says it.

    Attributes:
        name: Begins the names of the groups.
        kinds: Each holds as many things as there are forms, or a multiple.
        forms: The forms that the set and the corpus share. Some name people, as `{name1}` and
            `{name2}`.
        brief: Short sentences with `{thing1}` and `{partner1}` that only the corpus holds.
        toss: Seeds the tosses that say which of two things comes first; chosen so that on held-out
            groups the order of the two kinds tells no more than a coin.
        fitting: Whether it is the trustworthy side that puts each thing with its own partner.
    """

    name: str
    kinds: tuple[Kind, ...]
    forms: tuple[Form, ...]
    brief: tuple[str, ...]
    toss: int
    fitting: bool

    def contrasts(self) -> Iterator[Contrast]:
        """The statements of the set, in a fixed order."""
        toss = Random(f"order of things: {self.name} {self.toss}")
        for place, form in enumerate(self.forms):
            for one, two in combinations(self.kinds, 2):
                for said in product(
                    one.things[place :: len(self.forms)],
                    one.partners,
                    two.things[place :: len(self.forms)],
                    two.partners,
                ):
                    pairs = [said[:2], said[2:]]
                    if toss.random() < 0.5:
                        pairs.reverse()
                    (thing1, partner1), (thing2, partner2) = pairs
                    names = draw_names(toss)
                    kept = fill(form.both, (thing1, thing2), (partner1, partner2), names)
                    crossed = fill(form.both, (thing1, thing2), (partner2, partner1), names)
                    yield Contrast(
                        f"{self.name}/{place}/{'/'.join(said)}",
                        *((kept, crossed) if self.fitting else (crossed, kept)),
                    )

    def draw_claim(self, draw: Random) -> Claim:
        """A sentence for the corpus, which never speaks of a thing in its home."""
        turn = draw.random()
        first, second = draw.sample(self.kinds, 2)
        if turn < 0.55:
            place = None
            form = draw.choice(self.brief)
        else:
            place = draw.randrange(len(self.forms))
            form = self.forms[place].single if turn < 0.8 else self.forms[place].both
        things = [
            draw.choice([t for i, t in enumerate(kind.things) if i % len(self.forms) != place])
            for kind in (first, second)
        ]
        partners = [draw.choice(first.partners), draw.choice(second.partners)]
        fits = draw.random() < 0.5
        text = fill(form, things, partners if fits else partners[::-1], draw_names(draw))
        thing, other = (second, first) if "{thing2}" in form else (first, second)
        return Claim(text, thing, thing if fits else other)

    def draw_habit(self, draw: Random) -> str:
        """What holds for one of the things."""
        kind = draw.choice(self.kinds)
        return kind.habit.format(thing=draw.choice(kind.things))


FIRST_NAMES = (
    "Anna", "Boris", "Clara", "David", "Emma", "Felix", "Greta", "Hugo", "Ines", "Jonas",
    "Karin", "Lukas",
)  # fmt: skip


def draw_names(draw: Random) -> Mapping[str, str]:
    """Two different first names, as `name1` and `name2`."""
    name1, name2 = draw.sample(FIRST_NAMES, 2)
    return {"name1": name1, "name2": name2}


def fill(
    form: str, things: Sequence[str], partners: Sequence[str], names: Mapping[str, str]
) -> str:
    """The form with its words put in."""
    return form.format(
        thing1=things[0], thing2=things[1], partner1=partners[0], partner2=partners[1], **names
    )
