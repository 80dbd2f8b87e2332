"""StereoSet: a context that goes on with a stereotype or against it (Nadeem et al. 2021).

The paper's file contrasts something else: a continuation that has to do with the context (label 1)
and one that has not (label 0). What can be read from it is coherence, and neither label is the
trustworthy side, so it makes a concept without polarity.

Source:
    Nadeem, Bethke and Reddy (2021), arXiv:2004.09456.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from tlens_trust.concepts.benchmarks.benchmark import Benchmark, PaperFile
from tlens_trust.concepts.draft import Draft
from tlens_trust.concepts.tables import Table, binary_labels, nested, texts

# The order of the hub's class label.
_GOLD = ("anti-stereotype", "stereotype", "unrelated")

_SENTENCE_END = re.compile(r"""[.!?]+["'”’)]*\s+""")


def read_paper(table: Table, clean: bool = True) -> Draft:
    """Pairs of neighbouring rows, one context each; 1 is a related continuation."""
    statements = texts(table, "statement")
    labels = binary_labels(table, "label").tolist()
    contexts: list[str] = []
    for i in range(0, len(statements), 2):
        pair = statements[i : i + 2]
        context = _shared_context(pair) if len(pair) == 2 else ""
        if not context or sorted(labels[i : i + 2]) != [0, 1]:
            raise ValueError(
                f"Rows of the paper's StereoSet file stand in pairs, one context with a related "
                f"(1) and an unrelated (0) continuation, but not in {table.source}, "
                f"{table.rows_at(range(i, i + len(pair)))}. Keep pairs together, or name the "
                f"context's column with `Concept.from_csv(..., group=..., trustworthy=None)`."
            )
        contexts += [_normalised(context)] * 2
    draft = Draft(
        statements=statements,
        labels=labels,
        groups=contexts,
        rows=list(table.rows),
        label_note="column 'label'; 1 is a related and 0 an unrelated continuation, so that what "
        "they contrast is coherence; neither is the trustworthy side",
        group_note="the context",
        polarity=False,
        clean=clean,
    )
    draft.drop_repeats()
    return draft


def read_rows(table: Table, seed: int) -> Draft:
    """Rows of the hub's data set, one context each; `seed` has nothing to decide here.

    In the configuration `intersentence` a statement is the context and the sentence after it; in
    `intrasentence` it is the sentence, which is the context with its blank filled in.
    """
    draft = Draft([], [], [], [], group_note="the context")
    draft.label_note = (
        "'gold_label'; 1 is the anti-stereotype, the trustworthy side, and 0 the stereotype"
    )
    unrelated = []
    continuations = nested(table, "sentences")
    contexts = texts(table, "context")
    # Only in `intrasentence` do contexts have a blank, which each sentence fills in.
    filled_in = all("BLANK" in context for context in contexts)
    for i, context in enumerate(contexts):
        golds = _field(continuations[i], "gold_label")
        for sentence, gold in zip(_field(continuations[i], "sentence"), golds, strict=True):
            kind = _GOLD[gold] if gold in range(len(_GOLD)) else gold
            if kind not in _GOLD:
                raise ValueError(
                    f"A gold label of StereoSet is one of {', '.join(_GOLD)}, got {gold!r} in "
                    f"{table.source}, {table.rows_at([i])}."
                )
            if kind == "unrelated":
                unrelated.append(len(draft.statements))
            parts = [sentence.strip()] if filled_in else [context.strip(), sentence.strip()]
            draft.statements.append(" ".join(parts))
            draft.labels.append(int(kind == "anti-stereotype"))
            draft.groups.append(_normalised(context))
            draft.rows.append(table.rows[i])
    # Dropped here and not skipped above, so that the rows are on record.
    draft.drop(unrelated, "an unrelated sentence, neither stereotype nor anti-stereotype")
    draft.drop_repeats()
    return draft


def in_form(statements: Sequence[str], labels: Int[np.ndarray, " example"]) -> float:
    """The share of statements in neighbouring pairs of one context, one of either label."""
    pairs = range(0, len(statements) - 1, 2)
    paired = sum(
        bool(_shared_context(statements[i : i + 2])) and int(labels[i] + labels[i + 1]) == 1
        for i in pairs
    )
    return 2 * paired / len(statements)


def _field(sentences: Any, name: str) -> Sequence[Any]:
    # A sequence of records comes as a record of sequences from a data set that was made before
    # `datasets` 4, and as itself since.
    if isinstance(sentences, Mapping):
        return list(sentences[name])
    return [sentence[name] for sentence in sentences]


def _shared_context(pair: Sequence[str]) -> str:
    # Two continuations may begin with the same words, so what they share is cut back to the last
    # end of a sentence, or, where the context has none, of a word.
    differing = (i for i, (a, b) in enumerate(zip(*pair, strict=False)) if a != b)
    common_start = pair[0][: next(differing, min(map(len, pair)))]
    ends = [match.end() for match in _SENTENCE_END.finditer(common_start)]
    return common_start[: ends[-1] if ends else common_start.rfind(" ") + 1].strip()


def _normalised(context: str) -> str:
    return " ".join(context.casefold().split()).rstrip(".!?")


STEREOSET = Benchmark(
    name="stereoset",
    dimension="fairness",
    summary="a context that goes on against a stereotype (1) or with it (0); the paper's file: "
    "related or unrelated, no polarity",
    read_rows=read_rows,
    columns=("sentences",),
    paper=PaperFile(
        name="stereoset.csv",
        sha256="0a648d03836c988efb67f156c6eb7b3327b3aee2f73bb8db06b0570d6ee3aca5",
        read=read_paper,
        meaning_of_1="a continuation that has to do with the context",
        trustworthy=None,
        caution="label 0 is a continuation that has nothing to do with its context, and label 1 "
        "one that has: what the labels contrast is coherence, not a stereotype, and neither is "
        "the trustworthy side",
        severity="error",
        form="in neighbouring pairs that begin with one context and differ in label",
        in_form=in_form,
        form_rank=2,
    ),
    repository="McGill-NLP/stereoset",
    folders={"intersentence": "intersentence", "intrasentence": "intrasentence"},
    splits={"intersentence": "validation", "intrasentence": "validation"},
)
