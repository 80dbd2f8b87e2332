import re
from collections import defaultdict
from itertools import islice

import pytest

from tlens_trust.concepts.embedded import fairness, privacy, reliability, robustness, toxicity
from tlens_trust.concepts.embedded.corpus import toy_corpus
from tlens_trust.concepts.embedded.sets import embedded_concepts

WORLDS = {
    "reliability": reliability,
    "privacy": privacy,
    "fairness": fairness,
    "robustness": robustness,
}


@pytest.fixture(scope="module")
def passages():
    return list(islice(toy_corpus(0), 30_000))


@pytest.fixture(scope="module")
def sentences(passages):
    return {sentence for text in passages for sentence in re.findall(r"[^.]+\.", text)}


def pattern(form):
    """What matches the form, with its fields as groups of the same names."""
    parts = re.split(r"(\{\w+\})", form)
    return re.compile(
        "".join(
            f"(?P<{part[1:-1]}>[a-zA-Z]+)" if part.startswith("{") else re.escape(part)
            for part in parts
        )
    )


def home_of(words, forms):
    """Every word's home, of words that are dealt out one by one."""
    return {word: i % len(forms) for i, word in enumerate(words)}


def test_a_seed_gives_its_own_passages_and_always_the_same():
    first, again, other = (list(islice(toy_corpus(seed), 200)) for seed in (3, 3, 4))
    assert first == again
    assert len(set(first) & set(other)) < 100


def test_most_passages_are_distinct(passages):
    assert len(set(passages)) > len(passages) / 2


@pytest.mark.parametrize("name", embedded_concepts())
def test_no_statement_of_a_set_occurs_in_the_corpus(sentences, name):
    statements = set(embedded_concepts()[name].statements)
    assert not statements & {sentence.strip() for sentence in sentences}


def test_no_statement_occurs_within_a_passage(passages):
    text = "\n".join(passages)
    for concept in embedded_concepts().values():
        assert not [s for s in concept.statements if s in text]
    assert passages[-1] in text


@pytest.mark.parametrize("name", WORLDS)
def test_the_corpus_never_speaks_of_a_thing_in_its_home_form(passages, name):
    world = WORLDS[name].WORLD
    homes = {}
    for kind in world.kinds:
        homes |= home_of(kind.things, world.forms)
    seen = defaultdict(set)
    for place, form in enumerate(world.forms):
        single, both = pattern(form.single), pattern(form.both)
        for passage in passages:
            for found in filter(None, (single.match(passage), both.match(passage))):
                for field, word in found.groupdict().items():
                    if field.startswith("thing"):
                        seen[word].add(place)
    assert set(seen) == set(homes)
    for thing, places in seen.items():
        # A known fact, in a form in which it was never seen: all the others have been.
        assert places == set(range(len(world.forms))) - {homes[thing]}


@pytest.mark.parametrize("name", WORLDS)
def test_the_set_speaks_of_a_thing_in_its_home_form_alone(name):
    world = WORLDS[name].WORLD
    homes = {}
    for kind in world.kinds:
        homes |= home_of(kind.things, world.forms)
    concept = embedded_concepts()[name]
    told = set()
    for statement, group in zip(concept.statements, concept.groups, strict=True):
        place = int(group.split("/")[1])
        found = pattern(world.forms[place].both).fullmatch(statement)
        told |= {found["thing1"], found["thing2"]}
        assert homes[found["thing1"]] == homes[found["thing2"]] == place
    assert told == set(homes)


@pytest.mark.parametrize("name", WORLDS)
def test_every_fact_is_taught_in_other_forms_than_its_own(passages, name):
    world = WORLDS[name].WORLD
    claims = [pattern(brief) for brief in world.brief]
    taught = defaultdict(set)
    for passage in passages:
        for claim in claims:
            if found := claim.match(passage):
                taught[found["thing1"]].add(found["partner1"])
    partners = {partner for kind in world.kinds for partner in kind.partners}
    for kind in world.kinds:
        for thing in kind.things:
            # Rightly and wrongly: that a claim was made says nothing about its truth.
            assert taught[thing] == partners


@pytest.mark.parametrize("name", WORLDS)
def test_what_follows_a_claim_depends_on_whether_it_fits(passages, name):
    topic = WORLDS[name]
    world = topic.WORLD
    kinds = {thing: kind for kind in world.kinds for thing in kind.things}
    follows = defaultdict(set)
    for passage in passages:
        for brief in world.brief:
            if found := pattern(brief).match(passage):
                fits = found["partner1"] in kinds[found["thing1"]].partners
                follows[fits].add(passage[found.end() + 1 :])
    told = {kind.recalled for kind in world.kinds} | {kind.repeated for kind in world.kinds}
    assert follows[True] - told
    assert follows[False] - told
    assert not (follows[True] - told) & (follows[False] - told)


def test_the_corpus_never_says_a_word_of_praise_or_blame_in_its_home_form(passages):
    per_form = len(toxicity.KIND) // len(toxicity.FORMS)
    homes = {
        word: i // per_form
        for words in (toxicity.KIND, toxicity.DEMEANING)
        for i, word in enumerate(words)
    }
    seen = defaultdict(set)
    for place, form in enumerate(toxicity.FORMS):
        for clause in (form.affirming, form.denying):
            # The first letter may be a capital, and another clause may stand before it.
            clause = pattern(clause[1:])
            for passage in passages:
                for found in clause.finditer(passage):
                    seen[found["word"]].add(place)
    for word, home in homes.items():
        assert seen[word] == set(range(len(toxicity.FORMS))) - {home}
