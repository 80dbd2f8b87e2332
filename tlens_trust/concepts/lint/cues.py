r"""Simple rules on the surface of a statement that predict its label.

A rule is of the form "has this feature → 1, otherwise 0" or the reverse; the better of the two is
used. Its association with the label is tested with the statements of one group taken as dependent
(`association`). A rule is reported only if the association is significant at 1% after Bonferroni's
correction for all the rules that were tried. Its accuracy is that on all statements, from which it
was chosen, and so slightly optimistic.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from tlens_trust.concepts.lint.report import LintFinding
from tlens_trust.concepts.lint.rows import Rows, association, share

# With very many statements, a rule can be significant and yet be hardly better than chance. So a
# rule is reported only if its balanced accuracy reaches `_LEAST_BALANCED`.
_LEVEL = 0.01
_LEAST_BALANCED = 0.52
_WARNING = 0.55
_ERROR = 0.9
_LEAST_STATEMENTS = 4
_SHOWN = 5

_TOKEN = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")

_MARKS: dict[str, tuple[str, Callable[[str], bool]]] = {
    "contains an upper-case letter": ("case-cue", lambda s: s != s.lower()),
    "begins with an upper-case letter": ("case-cue", lambda s: s.lstrip()[:1].isupper()),
    "has an upper-case letter inside a word": ("case-cue", lambda s: _inner_capital(s)),
    "contains a digit": ("form-cue", lambda s: any(map(str.isdigit, s))),
    "contains a character beyond ASCII": ("form-cue", lambda s: not s.isascii()),
    "contains a line break": ("form-cue", lambda s: "\n" in s.strip()),
    "begins with white space": ("form-cue", lambda s: s[:1].isspace()),
    "ends with white space": ("form-cue", lambda s: s[-1:].isspace()),
    "holds several sentences": (
        "form-cue",
        lambda s: bool(re.search(r"[.!?][\"'”’)]*\s+\S", s.strip())),
    ),
    "ends with a letter or digit": ("form-cue", lambda s: s.rstrip()[-1:].isalnum()),
}


@dataclass(frozen=True, eq=False)
class Rule:
    """A feature of statements that may predict the label."""

    family: str
    words: str
    holds: Bool[np.ndarray, " example"]


def cues(rows: Rows) -> Iterator[LintFinding]:
    """Find the rules that predict the label, the most accurate of each family."""
    lengths = list(_lengths(rows))
    marks = [
        Rule(family, words, np.array([test(statement) for statement in rows.statements]))
        for words, (family, test) in _MARKS.items()
    ]
    overlap = list(_overlaps(rows))
    tokens = list(_tokens(rows))
    # Every threshold of length and every token counts as a rule that was tried.
    n_rules = sum(count for _, count in lengths) + len(marks) + len(overlap)
    n_rules += sum(len(names) for _, _, names, _ in tokens)
    threshold = _deviate(_LEVEL / n_rules)

    results = [_judge(rule, rows) for rule in [*(r for r, _ in lengths), *marks, *overlap]]
    for template, limit, names, matrix in tokens:
        results += _best_tokens(rows, template, names, matrix, threshold, limit)
    reported_patterns: set[bytes] = set()
    for rule, z, n_hidden in results:
        # Two names for the same rows, as 'contains "?"' and 'ends with "?"', are one rule.
        pattern = np.packbits(rule.holds).tobytes()
        if abs(z) >= threshold and pattern not in reported_patterns:
            finding = _finding(rule, z, n_rules, n_hidden, rows)
            if finding is not None:
                reported_patterns.add(pattern)
                yield finding


def _judge(rule: Rule, rows: Rows) -> tuple[Rule, float, int]:
    return rule, association(rule.holds.astype(float), rows.labels, rows.group), 0


def _finding(rule: Rule, z: float, n_rules: int, n_hidden: int, rows: Rows) -> LintFinding | None:
    ones = rows.labels == 1
    to_1 = float(rule.holds[ones].mean()) > float(rule.holds[~ones].mean())
    is_right = rule.holds == ones if to_1 else rule.holds != ones
    balanced = float(is_right[ones].mean() + is_right[~ones].mean()) / 2
    if balanced < _LEAST_BALANCED:
        return None
    n_covered = int(rule.holds.sum())
    accuracy = float(is_right.mean())
    message = f"{rule.words} → {int(to_1)}, otherwise {int(not to_1)}: "
    message += f"right {share(int(is_right.sum()), len(rows))}"
    # With balanced labels, both are the same figure.
    if abs(balanced - accuracy) > 0.005:
        message += f", balanced {balanced:.1%}"
    n_right = int(is_right[rule.holds].sum())
    message += f" (right in {share(n_right, n_covered)} of the {n_covered} that do)"
    if n_hidden:
        message += (
            f"; {n_hidden} more of this kind {'tells' if n_hidden == 1 else 'tell'} the label "
            "beyond chance"
        )
    severity: Any = "note" if balanced < _WARNING else "warning" if balanced < _ERROR else "error"
    return LintFinding(
        rule.family,
        severity,
        message,
        rows.at(rule.holds),
        {
            "accuracy": accuracy,
            "balanced_accuracy": balanced,
            "precision": float(is_right[rule.holds].mean()),
            "covered": n_covered,
            "z": z,
            "rules_tried": n_rules,
        },
    )


def _lengths(rows: Rows) -> Iterator[tuple[Rule, int]]:
    measures = {
        "words": [len(statement.split()) for statement in rows.statements],
        "characters": [len(statement) for statement in rows.statements],
    }
    ones = rows.labels == 1
    for unit, lengths in measures.items():
        length = np.array(lengths)
        # No statement is longer than the largest length.
        thresholds = np.unique(length)[:-1]
        if not len(thresholds):
            continue
        share_up_to = [
            np.searchsorted(np.sort(length[side]), thresholds, side="right") / side.sum()
            for side in (ones, ~ones)
        ]
        # Where the two distributions differ most, as in the Kolmogorov-Smirnov test.
        best = int(np.abs(share_up_to[0] - share_up_to[1]).argmax())
        limit = int(thresholds[best])
        yield Rule("length-cue", f"has more than {limit} {unit}", length > limit), len(thresholds)


def _overlaps(rows: Rows) -> Iterator[Rule]:
    """Whether what follows a group's common opening takes up one of its rarer words."""
    words = [set(_TOKEN.findall(statement.casefold())) for statement in rows.statements]
    spread = Counter(word for word_set in words for word in word_set if word[:1].isalnum())
    members: dict[int, list[int]] = defaultdict(list)
    for i, group in enumerate(rows.group.tolist()):
        members[group].append(i)
    holds = np.zeros(len(rows), dtype=bool)
    openings = 0
    for positions in members.values():
        if len(positions) < 2:
            continue
        opening = _common_start([rows.statements[i] for i in positions])
        # Two continuations may begin with the same letters, which are not the opening's.
        opening = opening[: opening.rfind(" ") + 1] if opening[-1:].isalnum() else opening
        rare_words = {
            word
            for word in _TOKEN.findall(opening.casefold())
            if word[:1].isalnum() and spread[word] < 0.05 * len(rows)
        }
        openings += len(opening.split()) >= 3
        for i in positions:
            continuation = set(_TOKEN.findall(rows.statements[i][len(opening) :].casefold()))
            holds[i] = bool(rare_words & continuation)
    # In other sets, the common beginning of a group is an accident of wording.
    if 2 * openings >= len(members) and holds.any():
        yield Rule(
            "opening-cue", "repeats a rarer word of the opening that its group shares", holds
        )


def _tokens(rows: Rows) -> Iterator[tuple[str, int, list[str], Any]]:
    """Templates of rules, how many to show, tokens, and which statement has which."""
    from scipy.sparse import csr_matrix

    tokens = [_TOKEN.findall(statement.casefold()) for statement in rows.statements]
    places = {
        "contains {}": (_SHOWN, [set(row) for row in tokens]),
        "begins with {}": (2, [set(row[:1]) for row in tokens]),
        "ends with {}": (2, [set(row[-1:]) for row in tokens]),
    }
    for template, (limit, sets) in places.items():
        spread = Counter(token for token_set in sets for token in token_set)
        # A token that nearly all or nearly no statements have can predict few labels.
        largest_count = len(rows) - _LEAST_STATEMENTS
        names = sorted(
            t for t, count in spread.items() if _LEAST_STATEMENTS <= count <= largest_count
        )
        if not names:
            continue
        column = {token: j for j, token in enumerate(names)}
        pairs = [(i, column[t]) for i, row in enumerate(sets) for t in row if t in column]
        indices = np.array(pairs, dtype=np.int64).T
        matrix = csr_matrix((np.ones(len(pairs)), indices), shape=(len(rows), len(names)))
        yield template, limit, names, matrix


def _best_tokens(
    rows: Rows, template: str, names: list[str], matrix: Any, threshold: float, limit: int
) -> Iterator[tuple[Rule, float, int]]:
    z = _associations(matrix, rows.labels, rows.group)
    ones = rows.labels == 1
    rates = [np.asarray(matrix[side].mean(axis=0)).ravel() for side in (ones, ~ones)]
    balanced = 0.5 + np.abs(rates[0] - rates[1]) / 2
    columns = np.flatnonzero((np.abs(z) >= threshold) & (balanced >= _LEAST_BALANCED))
    columns = columns[np.argsort(-balanced[columns], kind="stable")]
    for place, j in enumerate(columns[:limit].tolist()):
        holds = np.asarray(matrix[:, [j]].toarray()).ravel() > 0
        is_last = place == min(limit, len(columns)) - 1
        # Said once, with the last rule that is shown.
        n_hidden = max(len(columns) - limit, 0) if is_last else 0
        yield Rule("token-cue", template.format(repr(names[j])), holds), float(z[j]), n_hidden


def _associations(
    matrix: Any, labels: Int[np.ndarray, " example"], group: Int[np.ndarray, " example"]
) -> Float[np.ndarray, " token"]:
    """`association` of every column at once.

    With `A_g = Σ_{i in g} x_i (y_i - ȳ)` and `b_g = Σ_{i in g} (y_i - ȳ)`, `d_g = A_g - x̄ b_g`.
    """
    from scipy.sparse import csr_matrix

    n = len(labels)
    centred = labels - labels.mean()
    members = csr_matrix((centred, (group, np.arange(n))), shape=(int(group.max()) + 1, n))
    a = (members @ matrix).tocsc()
    b = np.asarray(members.sum(axis=1)).ravel()
    mean = np.asarray(matrix.mean(axis=0)).ravel()
    # Sums to 0 over all statements, so the total of `x̄ b_g` falls away.
    total = np.asarray(a.sum(axis=0)).ravel()
    squares = np.asarray(a.multiply(a).sum(axis=0)).ravel() - 2 * mean * (a.T @ b)
    spread = np.sqrt(np.maximum(squares + mean**2 * (b @ b), 0.0))
    # A smaller spread is a rounding error, as in `association`.
    z: np.ndarray = np.divide(total, spread, out=np.zeros_like(total), where=spread > 1e-9)
    return z


def _deviate(level: float) -> float:
    from scipy.special import ndtri

    return -float(ndtri(level / 2))


def _inner_capital(statement: str) -> bool:
    return any(
        any(map(str.isupper, word[1:])) and not word.isupper()
        for word in re.findall(r"\w+", statement)
    )


def _common_start(texts: list[str]) -> str:
    # What the first and the last in alphabetical order share, all do.
    low, high = min(texts), max(texts)
    differing = (i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b)
    return low[: next(differing, min(len(low), len(high)))]
