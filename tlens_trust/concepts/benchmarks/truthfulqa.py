"""TruthfulQA: a question with a true or a false answer (Lin et al. 2022, arXiv:2109.07958).

A statement is `Q: …`, a tab, `A: …`, as in the files of Qian et al. (2024). A group is a question,
whose true and false answers never stand on both sides of a split.
"""

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from tlens_trust.concepts.benchmarks.benchmark import Benchmark, PaperFile
from tlens_trust.concepts.draft import Draft
from tlens_trust.concepts.tables import Table, binary_labels, nested, texts

_PAPER_ROW = re.compile(r"Q: (.*)\tA: (.*)", re.DOTALL)


def read_paper(table: Table, clean: bool = True) -> Draft:
    """Questions and answers joined by a tab; label 1 is a true answer."""
    statements = texts(table, "statement")
    matches = [_PAPER_ROW.fullmatch(statement) for statement in statements]
    strange = [i for i, match in enumerate(matches) if match is None]
    if strange:
        raise ValueError(
            f"Every statement of TruthfulQA reads 'Q: …', a tab, 'A: …', but not that of "
            f"{table.source}, {table.rows_at(strange)}. Read another file with `Concept.from_csv`."
        )
    draft = Draft(
        statements=statements,
        labels=binary_labels(table, "label").tolist(),
        groups=[match[1].strip() for match in matches if match],
        rows=list(table.rows),
        label_note="column 'label'; 1 is a true answer, the trustworthy side",
        group_note="the question",
        clean=clean,
    )
    draft.drop_repeats()
    return draft


def read_rows(table: Table, seed: int) -> Draft:
    """Rows of the hub's data set, one question each; `seed` has nothing to decide here."""
    draft = Draft([], [], [], [], group_note="the question")
    questions = texts(table, "question")
    if "mc2_targets" in table.columns:
        targets = nested(table, "mc2_targets")
        answers = [list(zip(t["choices"], t["labels"], strict=True)) for t in targets]
    else:
        correct = nested(table, "correct_answers")
        incorrect = nested(table, "incorrect_answers")
        answers = [
            [(answer, 1) for answer in true_answers] + [(answer, 0) for answer in false_answers]
            for true_answers, false_answers in zip(correct, incorrect, strict=True)
        ]
    for i, question in enumerate(questions):
        for answer, label in answers[i]:
            draft.statements.append(answer)
            draft.labels.append(int(label))
            draft.groups.append(question.strip())
            draft.rows.append(table.rows[i])
    draft.label_note = "1 is a true answer, the trustworthy side, and 0 a false one"
    # Before questions are joined on, or no statement would be empty.
    draft.drop([i for i, a in enumerate(draft.statements) if not a.strip()], "an empty answer")
    draft.statements = [
        f"Q: {question}\tA: {_sentence(answer)}"
        for question, answer in zip(draft.groups, draft.statements, strict=True)
    ]
    draft.drop_repeats()
    return draft


def in_form(statements: Sequence[str], labels: Int[np.ndarray, " example"]) -> float:
    """The share of statements that read as a question and its answer."""
    return sum(_PAPER_ROW.fullmatch(text) is not None for text in statements) / len(statements)


def _sentence(answer: str) -> str:
    # The benchmark's own code ends an answer with a full stop, and so do the paper's files.
    answer = answer.strip()
    return answer if answer.endswith(".") else f"{answer}."


TRUTHFULQA = Benchmark(
    name="truthfulqa",
    dimension="reliability",
    summary="a question with a true (1) or a false (0) answer",
    read_rows=read_rows,
    columns=("mc2_targets", "correct_answers"),
    paper=PaperFile(
        name="truthfulqa_train.csv",
        sha256="a35b128d62def4fe8a14a74f9c9dd38a0fa4f2039e6714892e88d04b47907e92",
        read=read_paper,
        meaning_of_1="a true answer",
        trustworthy=1,
        form="that read 'Q: …', a tab, 'A: …'",
        in_form=in_form,
    ),
    repository="truthfulqa/truthful_qa",
    folders={"generation": "generation", "multiple_choice": "multiple_choice"},
    splits={"generation": "validation", "multiple_choice": "validation"},
)
