"""SST-2: a sentence of a film review, intact or with its letters' case flipped.

The paper perturbs the 1,821 sentences of SST-2's test split (Socher et al. 2013); its file shows
how: the first character is capitalised, and then the case of `max(⌊n / 20⌋ - 1, 0)` of the `n`
characters, drawn without replacement, is flipped. On a text in lower case, "holds a capital
letter" tells the two apart, so a probe need not know more than that.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from tlens_trust.concepts.benchmarks.benchmark import Benchmark, PaperFile
from tlens_trust.concepts.draft import Draft
from tlens_trust.concepts.tables import Table, binary_labels, texts

# Some are lost where a part of the shuffled file is taken; another file has next to none.
_LEAST_TWINS = 0.5
_NO_CHANGE = "the perturbed twin is the same text"


def read_paper(table: Table, clean: bool = True) -> Draft:
    """Sentences and their perturbed twins; label 1 is perturbed, and is turned round."""
    statements, labels = texts(table, "statement"), binary_labels(table, "label")
    share = in_form(statements, labels)
    if share < _LEAST_TWINS:
        raise ValueError(
            f"{table.source} is no file of SST-2 as Qian et al. (2024) have it: "
            f"{share:.0%} of its {len(statements)} rows have a twin that differs in case "
            f"alone and carries the other label, where all should, and {_LEAST_TWINS:.0%} must. "
            "Give another file, or make your own concept with `Concept.from_csv(…, trustworthy=…)`."
        )
    draft = Draft(
        statements=statements,
        # Label 1 is the trustworthy side of every concept, and this file has perturbed as 1.
        labels=(1 - labels).tolist(),
        groups=[statement.casefold() for statement in statements],
        rows=list(table.rows),
        label_note="column 'label', turned round (1 is perturbed there); 1 is intact, the "
        "trustworthy side",
        group_note="the sentence with its perturbed twin",
        clean=clean,
    )
    draft.drop_repeats(contradiction=_NO_CHANGE)
    return draft


def read_rows(table: Table, seed: int) -> Draft:
    """Sentences of the hub's data set, each beside a twin that is perturbed here."""
    sentences = texts(table, "sentence")
    draft = Draft(
        statements=sentences,
        labels=[1] * len(sentences),
        groups=[""] * len(sentences),
        rows=list(table.rows),
        label_note=f"1 is intact, the trustworthy side, and 0 perturbed: case flips with seed "
        f"{seed}",
        group_note="the sentence with its perturbed twin",
    )
    draft.rewrite(str.strip, "white space around the text taken off")
    draft.drop_repeats()
    caseless = [i for i, s in enumerate(draft.statements) if not any(map(_has_case, s))]
    draft.drop(caseless, "no letter whose case could be flipped")
    intact = draft.statements
    # Each sentence and its twin stand side by side, in one group.
    draft.groups = [sentence.casefold() for sentence in intact for _ in range(2)]
    draft.rows = [row for row in draft.rows for _ in range(2)]
    draft.labels = [1, 0] * len(intact)
    draft.statements = [twin for s in intact for twin in (s, flip_case(s, seed=seed))]
    return draft


def in_form(statements: Sequence[str], labels: Int[np.ndarray, " example"]) -> float:
    """The share of statements that have a twin: the same but for case, with the other label."""
    folded = list(zip([text.casefold() for text in statements], labels.tolist(), strict=True))
    statements_with_labels = set(folded)
    return sum((text, 1 - label) in statements_with_labels for text, label in folded) / len(folded)


def flip_case(sentence: str, *, seed: int) -> str:
    """Flip the case of a few characters, as the paper's file does, and of one at least.

    What is flipped depends on `seed` and on the sentence alone, not on what stands around it.

    Raises:
        ValueError: No character of the sentence has a case.

    Examples:
        >>> flip_case("it has fun being grown up .", seed=0)
        'It has fun being grown up .'
    """
    cased = [i for i, character in enumerate(sentence) if _has_case(character)]
    if not cased:
        raise ValueError(f"No letter of {sentence!r} has a case to flip.")
    # Drawn from the sentence too, so that its flips do not depend on the other rows.
    digest = hashlib.sha256(sentence.encode()).digest()
    rng = np.random.default_rng([seed, int.from_bytes(digest[:8], "big")])
    characters = list(sentence)
    if _has_case(characters[0]):
        characters[0] = characters[0].upper()
    for i in rng.choice(len(sentence), size=max(len(sentence) // 20 - 1, 0), replace=False):
        if _has_case(characters[i]):
            characters[i] = characters[i].swapcase()
    # In a short sentence nothing may have changed, and a twin must differ from its sentence.
    if "".join(characters) == sentence:
        i = int(rng.choice(cased))
        characters[i] = characters[i].swapcase()
    return "".join(characters)


def _has_case(character: str) -> bool:
    # A letter such as ß, which becomes two, has no case that could be flipped and flipped back.
    return len(character.swapcase()) == 1 and character.swapcase().swapcase() == character != (
        character.swapcase()
    )


SST2 = Benchmark(
    name="sst2",
    dimension="robustness",
    summary="a sentence, intact (1) or with some letters' case flipped (0)",
    read_rows=read_rows,
    columns=("sentence",),
    paper=PaperFile(
        name="sst2.csv",
        sha256="0606418a6a1bc6b80ec29acf3ead4e30211af98a7c1a803d3c8a2b4f5954fa6f",
        read=read_paper,
        meaning_of_1="perturbed letters",
        trustworthy=0,
        caution="label 1 is the perturbed sentence, the untrustworthy side",
        form="with a twin that differs in case alone and has the other label",
        in_form=in_form,
        form_rank=1,
    ),
    repository="stanfordnlp/sst2",
    folders={"default": "data"},
    splits={"default": "test"},
)
