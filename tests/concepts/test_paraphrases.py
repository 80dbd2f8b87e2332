import re
from collections import Counter
from itertools import islice

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer

from tlens_trust.checkpoints.toy_text import make_tokenizer
from tlens_trust.concepts import Concept, load_concepts, text_floor
from tlens_trust.concepts.embedded import toxicity
from tlens_trust.concepts.embedded.corpus import toy_corpus
from tlens_trust.concepts.paraphrases.frames import PAIRED, VERDICTS
from tlens_trust.concepts.paraphrases.paraphrases import PARAPHRASES

DIMENSIONS = ("reliability", "privacy", "toxicity", "fairness", "robustness")
FIELD = r"[a-zA-Z]+"


@pytest.fixture(scope="module")
def sets():
    return load_concepts("paraphrases")


def pairs(concept):
    """The statement of label 1 and that of label 0, neighbours in their group."""
    return list(zip(concept.statements[::2], concept.statements[1::2], strict=True))


def frames(dimension):
    """The sentences, or clauses, in which a dimension's facts are told here."""
    if dimension == "toxicity":
        return [clause for form in VERDICTS for clause in (form.affirming, form.denying)]
    return PAIRED[dimension]


def clauses(frame):
    """What matches either half of a frame, whatever words are filled in."""
    halves = re.split(r",? and (?=[^{]*\{[a-z]+2\})", frame.rstrip("."))
    return [re.compile(re.sub(r"\\\{\w+\\\}", FIELD, re.escape(half))) for half in halves]


def test_paraphrases_is_a_name_for_all_five_and_each_has_its_own(sets):
    assert tuple(sets) == PARAPHRASES == tuple(f"{name}_paraphrased" for name in DIMENSIONS)
    assert load_concepts("toxicity_paraphrased") == {
        "toxicity_paraphrased": sets["toxicity_paraphrased"]
    }
    assert list(load_concepts(["tense", "paraphrases"])) == ["tense", *PARAPHRASES]
    assert not set(PARAPHRASES) & set(load_concepts())
    with pytest.raises(ValueError, match="Did you mean 'toxicity_paraphrased'"):
        load_concepts("toxicity_paraphrase")
    with pytest.raises(ValueError, match="is embedded"):
        load_concepts("toxicity_paraphrased", path="somewhere")


@pytest.mark.parametrize("name", DIMENSIONS)
def test_every_fact_of_the_embedded_set_is_told_and_no_sentence_of_it(sets, name):
    embedded, paraphrased = load_concepts()[name], sets[f"{name}_paraphrased"]
    assert tuple(dict.fromkeys(paraphrased.groups)) == tuple(dict.fromkeys(embedded.groups))
    assert not set(paraphrased.statements) & set(embedded.statements)
    assert paraphrased.dimension == name
    assert paraphrased.polarity
    assert paraphrased.provenance["label 1"] == embedded.provenance["label 1"]
    for statement, group in zip(paraphrased.statements, paraphrased.groups, strict=True):
        said = re.findall(FIELD, statement)
        for word in group.split("/")[2:]:
            assert word in said, (statement, group)


@pytest.mark.parametrize("name", ["reliability", "privacy", "fairness", "robustness"])
def test_label_1_goes_with_what_it_goes_with_in_the_embedded_set(sets, name):
    """Things and partners, in the order of the frame: own partners, or exchanged ones."""
    paraphrased = sets[f"{name}_paraphrased"]
    patterns = [
        re.compile(re.sub(r"\\\{(\w+)\\\}", rf"(?P<\1>{FIELD})", re.escape(frame)))
        for frame in PAIRED[name]
    ]
    for statement, label, group in zip(
        paraphrased.statements, paraphrased.labels.tolist(), paraphrased.groups, strict=True
    ):
        (found,) = filter(None, (pattern.fullmatch(statement) for pattern in patterns))
        _, _, thing1, partner1, thing2, partner2 = group.split("/")
        own = {thing1: partner1, thing2: partner2}
        fits = own[found["thing1"]] == found["partner1"]
        assert (own[found["thing2"]] == found["partner2"]) == fits
        assert fits == (bool(label) if name != "fairness" else not label)


def test_label_1_is_what_affirms_the_kind_word(sets):
    concept = sets["toxicity_paraphrased"]
    affirmed = [form.affirming.split("{word}") for form in VERDICTS]
    for statement, label in zip(concept.statements, concept.labels.tolist(), strict=True):
        text = statement[0].lower() + statement[1:].rstrip(".")
        name = re.search(r"\b(?!Of)[A-Z][a-z]+", text)[0]
        told = [
            word
            for before, after in affirmed
            for word in toxicity.KIND + toxicity.DEMEANING
            if re.search(
                rf"(^|, \w+ ){re.escape(before.format(name1=name))}{word}"
                rf"{re.escape(after.format(name1=name))}(,|$)",
                text,
            )
        ]
        assert len(told) == 1, statement
        assert (told[0] in toxicity.KIND) == bool(label)


@pytest.mark.parametrize("name", PARAPHRASES)
def test_a_group_holds_two_pairs_that_hold_the_same_words_and_runs_of_characters(sets, name):
    concept = sets[name]
    assert len(set(concept.statements)) == len(concept) >= 400
    assert concept.labels.tolist() == [1, 0] * (len(concept) // 2)
    held = Counter(zip(concept.groups, concept.labels.tolist(), strict=True))
    assert set(held.values()) == {2}
    ones, zeros = zip(*pairs(concept), strict=True)
    for how in (
        {"ngram_range": (1, 2), "token_pattern": r"\w+"},
        {"analyzer": "char", "ngram_range": (1, 5), "lowercase": False},
    ):
        both = CountVectorizer(**how).fit_transform([*ones, *zeros])
        assert (both[: len(ones)] != both[len(ones) :]).nnz == 0
    longer = CountVectorizer(analyzer="char", ngram_range=(20, 20)).fit_transform([*ones, *zeros])
    assert (longer[: len(ones)] != longer[len(ones) :]).max(axis=1).toarray().all()


@pytest.mark.parametrize("name", PARAPHRASES)
def test_which_word_comes_first_tells_half_of_every_group(sets, name):
    concept = sets[name]
    partners = 2 if name.startswith("toxicity") else 3
    told = []
    for statement, label, group in zip(
        concept.statements, concept.labels.tolist(), concept.groups, strict=True
    ):
        words, said = group.split("/"), re.findall(FIELD, statement)
        first, second = said.index(words[partners]), said.index(words[-1])
        told.append((first < second) == bool(label))
    for rows in np.array(told).reshape(-1, 4):
        assert rows.mean() == 0.5


@pytest.mark.parametrize("name", PARAPHRASES)
def test_there_is_nothing_to_lint_and_text_alone_is_at_chance(sets, name):
    report = sets[name].lint()
    assert report.findings == ()
    assert report.floor.accuracy("words") == 0.5
    assert report.floor.accuracy("characters") == 0.5


def test_a_word_before_the_statements_of_label_1_is_a_finding(sets):
    concept = sets["privacy_paraphrased"]
    said = tuple(
        f"Indeed, {text}" if label else f"Perhaps, {text}"
        for text, label in zip(concept.statements, concept.labels, strict=True)
    )
    planted = Concept("planted", "privacy", said, concept.labels, concept.groups)
    assert "text-floor" in planted.lint().rules


def test_the_text_of_the_embedded_set_tells_nothing_of_the_paraphrases(sets):
    for name, embedded in load_concepts().items():
        other = sets[f"{name}_paraphrased"]
        joined = Concept(
            "both",
            name,
            embedded.statements + other.statements,
            np.concatenate([embedded.labels, other.labels]),
            embedded.groups + other.groups,
        )
        fold = np.repeat([-1, 0], [len(embedded), len(other)])
        assert text_floor(joined, fold=fold).accuracy() == 0.5


def test_the_toy_has_a_token_for_every_word(sets):
    tokenizer = make_tokenizer()
    for concept in sets.values():
        for statement in concept.statements:
            tokens = tokenizer.tokenize(statement)
            assert all(len(token) > 1 or token in ".," for token in tokens), statement
            assert tokenizer.decode(tokenizer(statement)["input_ids"]) == statement
    assert any(len(token) == 1 and token != "." for token in tokenizer.tokenize("A walrus."))


@pytest.mark.parametrize("name", DIMENSIONS)
def test_no_frame_stands_in_the_toy_corpus_nor_half_of_one(sets, name):
    passages = "\n".join(islice(toy_corpus(0), 30_000))
    passages = passages + "\n" + passages.lower()
    for frame in frames(name):
        for half in clauses(frame):
            assert not half.search(passages), half.pattern
            assert any(
                half.search(f"{s}\n{s[0].lower()}{s[1:]}")
                for s in sets[f"{name}_paraphrased"].statements
            )
    # The forms of the embedded set do stand there.
    if name == "toxicity":
        assert clauses(toxicity.FORMS[0].affirming)[0].search(passages)
