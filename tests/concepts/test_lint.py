"""Every rule finds what was planted for it, and finds nothing where nothing was."""

import pickle
from itertools import combinations

import numpy as np
import pytest

from tlens_trust.concepts import Concept, lint_file
from tlens_trust.concepts.lint.artefacts import artefacts
from tlens_trust.concepts.lint.balance import balance, group_sizes, single_label_groups
from tlens_trust.concepts.lint.cues import _associations, cues
from tlens_trust.concepts.lint.repeats import (
    duplicates,
    label_order,
    near_duplicates_apart,
    openings_apart,
    sequential_split,
    twins_apart,
)
from tlens_trust.concepts.lint.report import LintFinding, LintReport
from tlens_trust.concepts.lint.rows import Rows, association

CHECKS = [
    duplicates,
    twins_apart,
    near_duplicates_apart,
    openings_apart,
    sequential_split,
    label_order,
    cues,
    artefacts,
    balance,
    group_sizes,
    single_label_groups,
]
WORDS = [
    "lamp", "ladder", "barrel", "mirror", "chair", "bucket", "carpet", "kettle", "drum", "basket",
    "farmer", "baker", "driver", "singer", "plumber", "waiter", "pilot", "captain", "guard", "king",
    "took", "found", "lost", "kept", "hid", "moved", "early", "today", "again", "slowly",
]  # fmt: skip


def latin_square():
    """Pairs with the same words in the same neighbourhoods: only the order tells the label."""
    form = "Now the {} we saw is old, and the {} we saw is new."
    said = [form.format(*pair) for a, b in combinations(WORDS[:14], 2) for pair in ((a, b), (b, a))]
    groups = [f"pair {i // 2}" for i in range(len(said))]
    labels = [(i + i // 2) % 2 for i in range(len(said))]
    return said, labels, groups


def rows(statements, labels, groups=None, grouping="the pair"):
    groups = [f"row {i}" for i in range(len(statements))] if groups is None else groups
    numbers = tuple(range(len(statements)))
    return Rows(tuple(statements), np.array(labels), tuple(groups), numbers, grouping)


def prose(n, seed=0, length=(5, 9)):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(*length))) for _ in range(n)]


def coins(n, seed=0):
    return np.random.default_rng([seed, 7]).permutation(np.arange(n) % 2)


def by_rule(findings):
    held = {}
    for finding in findings:
        held.setdefault(finding.rule, []).append(finding)
    return held


def test_a_clean_set_raises_no_finding():
    said, labels, groups = latin_square()
    concept = Concept("clean", "x", tuple(said), np.array(labels), tuple(groups))
    report = concept.lint()
    assert report.findings == ()
    assert "nothing found" in repr(report)
    assert report.floor is not None
    assert report.floor.accuracy() == 0.5


@pytest.mark.parametrize("check", CHECKS)
def test_a_check_finds_nothing_in_random_prose_with_random_labels(check):
    found = [f for seed in range(10) for f in check(rows(prose(120, seed), coins(120, seed)))]
    assert found == []


def test_duplicates_are_told_with_their_rows_and_conflicts_apart_from_them():
    said = [*prose(20), "Twice said.", "Twice said.", "Both ways.", "Both ways.", "Both ways."]
    labels = [*coins(20), 1, 1, 0, 1, 1]
    found = by_rule(duplicates(rows(said, labels)))
    (repeat,), (conflict,) = found["duplicates"], found["conflicting-labels"]
    assert repeat.rows == (21, 23, 24)
    assert repeat.numbers == {"repeats": 3, "different": 22}
    assert conflict.rows == (22, 23, 24)
    assert conflict.severity == "error"
    assert "'Both ways.'" in conflict.message
    assert "Twice" not in conflict.message


def test_twins_are_missed_by_groups_of_identical_statements_and_told():
    said = prose(30)
    twins = [text.capitalize() + " ." for text in said]
    labels = [1] * 30 + [0] * 30
    (finding,) = twins_apart(rows([*said, *twins], labels))
    assert finding.numbers == {"statements": 30, "rows": 60}
    together = [f"pair {i % 30}" for i in range(60)]
    assert list(twins_apart(rows([*said, *twins], labels, together))) == []


def copies(n, agree):
    """Statements with a near copy of one word's difference in another group."""
    said, labels = [], []
    rng = np.random.default_rng(3)
    for text in prose(n, seed=2, length=(8, 9)):
        label = int(rng.integers(2))
        said += [text, " ".join([*text.split()[:-1], "otherwise"])]
        labels += [label, label if agree(rng) else 1 - label]
    return said, labels


@pytest.mark.parametrize(("agree", "share"), [(lambda rng: True, 1.0), (lambda rng: False, 0.0)])
def test_near_copies_in_other_groups_are_told_where_they_tell_the_label(agree, share):
    said, labels = copies(40, agree)
    (finding,) = near_duplicates_apart(rows(said, labels))
    assert finding.numbers["same_label"] == pytest.approx(share, abs=0.05)
    assert finding.numbers["pairs"] >= 35
    together = [f"pair {i // 2}" for i in range(80)]
    assert list(near_duplicates_apart(rows(said, labels, together))) == []


def test_near_copies_that_tell_nothing_are_not_told():
    said, labels = copies(40, lambda rng: rng.random() < 0.5)
    assert list(near_duplicates_apart(rows(said, labels))) == []


@pytest.mark.parametrize("between", ["\t", " ", "\n"])
def test_answers_to_one_question_in_different_groups_are_told(between):
    questions = [f"Q: Where is the {a} of the {b}?" for a, b in combinations(WORDS[:8], 2)]
    said = [f"{q}{between}A: {text}" for q in questions for text in prose(2, seed=len(q))]
    said = [f"{text} {i}." for i, text in enumerate(said)]
    (finding,) = openings_apart(rows(said, coins(len(said))))
    assert finding.numbers == {"openings": len(questions), "rows": len(said)}
    grouped = [f"question {i // 2}" for i in range(len(said))]
    assert list(openings_apart(rows(said, coins(len(said)), grouped))) == []


def test_an_instruction_before_every_statement_is_no_question():
    said = [f"Read this sentence with care. {text}" for text in prose(100)]
    assert list(openings_apart(rows(said, coins(100)))) == []


def test_scattered_groups_are_counted_on_both_sides_of_a_sequential_split():
    order = np.random.default_rng(0).permutation(200)
    groups = np.array([f"pair {i // 2}" for i in range(200)])[order]
    (finding,) = sequential_split(rows(prose(200), coins(200), groups))
    astride = set(groups[:160]) & set(groups[160:])
    assert finding.numbers["groups_astride"] == len(astride)
    assert finding.numbers["test_rows"] == 40
    known = [i for i in range(160, 200) if groups[i] in astride]
    assert finding.rows == tuple(known)
    assert finding.numbers["test_rows_known"] == len(known)
    assert list(sequential_split(rows(prose(200), coins(200), sorted(groups)))) == []


def test_a_set_sorted_by_label_is_told():
    (finding,) = label_order(rows(prose(100), [0] * 80 + [1] * 20))
    assert finding.severity == "error"
    assert finding.numbers == {"first": 0.0, "last": 1.0}
    (finding,) = label_order(rows(prose(200), [0, 0, 1, 0] * 40 + [1, 1, 1, 0] * 10))
    assert finding.severity == "warning"


@pytest.mark.parametrize(
    ("change", "rule", "words"),
    [
        (lambda s: s.capitalize(), "case-cue", "contains an upper-case letter → 1, otherwise 0"),
        (lambda s: s + " and so on and so on", "length-cue", "has more than 8 words → 1"),
        (lambda s: s + " 1", "form-cue", "contains a digit → 1"),
        (lambda s: s + " é", "form-cue", "contains a character beyond ASCII → 1"),
        (lambda s: "so. " + s, "form-cue", "holds several sentences → 1"),
        (lambda s: s + ";", "token-cue", "contains ';' → 1"),
        (lambda s: "never " + s, "token-cue", "'never' → 1"),
    ],
)
def test_a_planted_cue_is_told_as_a_rule_with_its_accuracy(change, rule, words):
    labels = coins(200)
    said = [change(s) if y else s for s, y in zip(prose(200), labels, strict=True)]
    found = by_rule(cues(rows(said, labels)))
    assert rule in found
    (finding,) = [f for f in found[rule] if words in f.message][:1]
    assert finding.severity == "error"
    assert finding.numbers["accuracy"] == 1.0
    assert "right 100%" in finding.message
    assert set(np.flatnonzero(labels)) == set(finding.rows)
    turned = by_rule(cues(rows(said, 1 - labels)))[rule]
    assert [f for f in turned if words.replace("→ 1", "→ 0").split(",")[0] in f.message]


def test_a_rules_accuracy_counts_its_exceptions():
    labels = coins(200)
    rng = np.random.default_rng(4)
    holds = (labels == 1) ^ (rng.random(200) < 0.15)
    said = [s.capitalize() if h else s for s, h in zip(prose(200), holds, strict=True)]
    finding = by_rule(cues(rows(said, labels)))["case-cue"][0]
    assert finding.numbers["accuracy"] == np.mean(holds == (labels == 1))
    assert finding.numbers["precision"] == labels[holds].mean()
    assert finding.numbers["covered"] == holds.sum()
    assert finding.rows == tuple(np.flatnonzero(holds))
    assert finding.severity == "warning"


def test_a_feature_that_both_sides_of_every_pair_share_is_no_cue():
    said, labels, groups = latin_square()
    marked = [s + " Indeed!" if i // 2 % 2 else s for i, s in enumerate(said)]
    assert list(cues(rows(marked, labels, groups))) == []


def test_a_cue_that_a_few_large_groups_carry_is_not_taken_for_many_witnesses():
    labels = np.repeat([0, 1] * 4, 25)
    said = [s + (" indeed" if y else "") for s, y in zip(prose(200), labels, strict=True)]
    groups = [f"group {i // 25}" for i in range(200)]
    assert [f for f in cues(rows(said, labels)) if "indeed" in f.message]
    assert [f for f in cues(rows(said, labels, groups)) if "indeed" in f.message] == []


def test_a_continuation_that_takes_up_its_context_is_a_cue():
    said, labels, groups = [], [], []
    for i, text in enumerate(prose(120, seed=5)):
        rare = f"thing{i}"
        opening = f"Here we speak of {rare} today. "
        said += [f"{opening}{text} {rare}.", f"{opening}{text} again."]
        labels += [1, 0]
        groups += [f"context {i}"] * 2
    found = by_rule(cues(rows(said, labels, groups)))
    assert found["opening-cue"][0].numbers["accuracy"] == 1.0
    swapped = [s.replace(f"thing{i // 2}.", "that.") for i, s in enumerate(said)]
    assert "opening-cue" not in by_rule(cues(rows(swapped, labels, groups)))


def test_the_measure_of_a_cue_is_a_standard_normal_deviate_where_labels_are_drawn():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(60), 3)
    feature = rng.random(180) < 0.4
    drawn = [
        association(feature.astype(float), np.repeat(rng.integers(0, 2, 60), 3), group)
        for _ in range(2000)
    ]
    assert 0.035 < np.mean(np.abs(drawn) > 1.96) < 0.07


def test_the_measure_of_all_columns_is_that_of_each():
    from scipy.sparse import csr_matrix

    rng = np.random.default_rng(1)
    matrix = (rng.random((90, 12)) < 0.3).astype(float)
    labels, group = rng.integers(0, 2, 90), rng.integers(0, 30, 90)
    together = _associations(csr_matrix(matrix), labels, group)
    alone = [association(column, labels, group) for column in matrix.T]
    np.testing.assert_allclose(together, alone, atol=1e-9)
    np.testing.assert_allclose(_associations(csr_matrix(matrix), 1 - labels, group), -together)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("first_x000D_second", "spreadsheet"),
        (r"first\nsecond", "line break"),
        (r"first\\r\\nsecond", "line break"),
        (r"it\'s", "quote with a backslash"),
        (r"it\u2019s", "as its code"),
        ("salt &amp; pepper", "HTML entity"),
        ("don&#39;t", "HTML entity"),
        ("first<br />second", "HTML tag"),
        ("-LRB- aside -RRB-", "treebank"),
        ("b'bytes'", "bytes"),
        ("cafÃ© au lait", "wrong encoding"),
        ("itâ€™s", "wrong encoding"),
        ("lost \ufffd here", "wrong encoding"),
        ("bell\x07", "control character"),
        ("zero\u200bwidth", "invisible character"),
        (" leading", "beginning"),
        ("trailing\n", "at its end"),
    ],
)
def test_each_trace_of_another_program_is_told_with_its_row(text, kind):
    said = [*prose(10), text]
    found = [f for f in artefacts(rows(said, [0, 1] * 5 + [1])) if kind in f.message]
    assert [f.rows for f in found] == [(10,)]
    assert found[0].numbers == {"rows": 1, "share_1": 1.0}


def test_ordinary_text_is_no_artefact():
    ordinary = [
        "AT&T and R&D; salt & pepper.",
        "5 < 6 and 7 > 3",
        "naïve café — “quoted” … 20 €",
        "SÃO PAULO É ÂMBAR",
        "A tab\tand a\nline break",
        "either/or, snake_case, x_1",
        "\\alpha and 50\\%",
        "it's 'fine'",
    ]
    assert list(artefacts(rows(ordinary, [0, 1] * 4))) == []


@pytest.mark.parametrize(("ones", "severity"), [(45, "warning"), (57, "error")])
def test_imbalance_is_told_with_what_always_answering_one_label_gets(ones, severity):
    (finding,) = balance(rows(prose(60), [1] * ones + [0] * (60 - ones)))
    assert finding.severity == severity
    assert finding.numbers["majority"] == ones / 60


def test_few_groups_and_a_large_group_are_told():
    few = by_rule(group_sizes(rows(prose(60), coins(60), [f"g{i % 4}" for i in range(60)])))
    assert few["few-groups"][0].severity == "error"
    groups = ["large"] * 40 + [f"g{i}" for i in range(60)]
    found = by_rule(group_sizes(rows(prose(100), coins(100), groups)))
    assert list(found) == ["large-group"]
    assert found["large-group"][0].rows == tuple(range(40))


def test_groups_without_a_contrast_are_told_among_groups_that_have_one():
    groups = [f"pair {i // 2}" for i in range(60)]
    labels = [0, 1] * 28 + [1, 1, 0, 0]
    (finding,) = single_label_groups(rows(prose(60), labels, groups))
    assert finding.severity == "note"
    assert finding.rows == (56, 57, 58, 59)
    (finding,) = single_label_groups(rows(prose(60), [i // 2 % 2 for i in range(60)], groups))
    assert finding.severity == "warning"
    assert finding.numbers["groups"] == 30


def test_a_text_floor_above_the_band_is_told_and_one_turned_round_too():
    labels = coins(160)
    said = [
        f"{s} {'alas' if y and i % 4 else 'hence'} {i}."
        for i, (s, y) in enumerate(zip(prose(160), labels, strict=True))
    ]
    (finding,) = lint(said, labels).of("text-floor")
    assert finding.numbers["words"] > 0.75
    assert "only above that" in finding.message

    # Every word goes with either label equally often, so it tells the label that it has less of in
    # the training rows.
    turned = [f"thing{i} thing{i} {place}" for place in range(4) for i in range(40)]
    labels = np.r_[coins(40), coins(40, 1), 1 - coins(40), 1 - coins(40, 1)]
    order = np.random.default_rng(0).permutation(160)
    (finding,) = lint([turned[i] for i in order], labels[order]).of("text-floor")
    assert finding.numbers["balanced_chosen"] < 0.4
    assert "turned round" in finding.message


def lint(statements, labels, groups=None):
    groups = [f"row {i}" for i in range(len(statements))] if groups is None else groups
    return Concept("x", "x", tuple(statements), np.array(labels), tuple(groups)).lint()


def test_too_few_groups_for_a_floor_is_a_note_and_not_an_error():
    report = lint(prose(12), [0, 1] * 6, [f"g{i // 6}" for i in range(12)])
    assert report.floor is None
    assert report.of("text-floor")[0].severity == "note"
    assert "2 groups cannot be dealt into 5 folds" in report.of("text-floor")[0].message


@pytest.fixture
def file(tmp_path):
    def write(text, name="mine.csv"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def table(said, labels):
    return "statement,label\n" + "".join(f'"{s}",{y}\n' for s, y in zip(said, labels, strict=True))


def test_a_file_is_looked_at_as_it_is_and_rows_are_numbered_as_in_it(file):
    said = [*prose(30), "two\nlines &amp; more", " blank before"]
    report = lint_file(file(table(said, [0, 1] * 16)))
    assert "the header being row 1" in report.counting
    entity, blank = report.of("artefact")
    assert entity.rows == (32,)
    assert blank.rows == (34,)  # the row before takes two lines


def test_rows_that_a_concept_would_refuse_are_findings(file):
    text = table(prose(30), [0, 1] * 15) + '"",1\n"no label",\n"third label",2\n'
    report = lint_file(file(text))
    assert report.of("empty-statements")[0].rows == (32,)
    assert report.of("unknown-labels")[0].rows == (33, 34)
    assert report.n == 30
    assert {f.rule for f in report.errors} >= {"empty-statements", "unknown-labels"}
    with pytest.raises(ValueError, match="row"):
        Concept.from_csv(file(text), trustworthy=1)


def test_a_file_with_one_label_is_told_so(file):
    report = lint_file(file(table(["One.", "One.", "&lt;"], [1, 1, 1])))
    assert report.rules == ("one-label", "duplicates", "artefact")
    assert report.floor is None
    assert report.share == 1.0


def test_a_file_with_no_usable_row_is_told_so(file):
    report = lint_file(file('statement,label\n"",1\n"x",7\n'))
    assert report.rules == ("empty-statements", "unknown-labels")
    assert report.n == 0


def test_columns_and_groups_can_be_named(file):
    lines = "".join(f"{s},{i % 2},pair {i // 2}\n" for i, s in enumerate(prose(40)))
    path = file("text,toxic,pair\n" + lines.replace("pair 3\n", "\n"))
    report = lint_file(path, statement="text", label="toxic", group="pair")
    assert report.n_groups == 21
    assert report.of("missing-groups")[0].rows == (8, 9)


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("a,b\nx,1\n", {}, "No column 'statement'.*'a', 'b'"),
        ("statement,label\n", {}, "holds no rows"),
        ("statement,label\nx,1\n", {"trustworthy": 2}, "0 or 1, got 2"),
        ("statement,label\nx,1\n", {"group": "pair"}, "No column 'pair'"),
        ("", {}, "is empty"),
    ],
)
def test_a_file_that_cannot_be_linted_is_refused(file, text, arguments, message):
    with pytest.raises(ValueError, match=message):
        lint_file(file(text), **arguments)


def test_a_file_that_bears_a_papers_name_alone_is_read_as_its_rows_allow(file):
    pairs = [(f"Here is {w}. ", a, b) for w in WORDS[:25] for a, b in [("It is.", "Cold tea.")]]
    said = [opening + end for opening, *ends in pairs for end in ends]
    named = lint_file(file(table(said, [1, 0] * 25), "stereoset.csv"))
    assert named.of("label-meaning")[0].severity == "error"
    assert "by its name" in named.subject
    other = lint_file(file(table(prose(40), [0, 1] * 20), "stereoset.csv"))
    assert other.of("label-meaning") == ()
    assert "name" not in other.subject


def report_of(*findings):
    return LintReport("'x'", 10, 5, 0.5, "counted from 0", "", findings)


def test_a_report_has_the_gravest_first_and_can_be_asked_by_rule():
    note, warning, error = (LintFinding(s[0], s, s) for s in ("note", "warning", "error"))
    report = report_of(note, warning, error)
    assert report.findings == (error, warning, note)
    assert report.rules == ("e", "w", "n")
    assert report.errors == (error,)
    assert report.of("w") == (warning,)
    assert list(report) == [error, warning, note]
    assert len(report) == 3
    assert report_of()


def test_what_comes_from_data_is_escaped_in_html():
    page = report_of(LintFinding("r", "error", "holds '<script>alert(1)</script>'", (1, 2)))
    assert "<script>" not in page._repr_html_()
    assert "&lt;script&gt;" in page._repr_html_()
    assert "rows 1, 2" in page._repr_html_()
    said, labels, groups = latin_square()
    said[3] = "<script>alert(1)</script>"
    said[5] = said[3]
    assert "<script>" not in lint(said, labels, groups)._repr_html_()


def test_a_report_becomes_a_table_with_a_row_per_finding():
    finding = LintFinding("duplicates", "warning", "two", (3, 9), {"repeats": 2})
    frame = report_of(finding).to_frame()
    assert list(frame.columns) == ["severity", "rule", "message", "n_rows", "rows", "numbers"]
    assert frame.loc[0, "rows"] == (3, 9)
    assert frame.loc[0, "numbers"] == {"repeats": 2}
    assert report_of().to_frame().empty
    assert list(report_of().to_frame().columns) == list(frame.columns)


def test_a_finding_cannot_be_changed_and_travels_to_other_processes():
    finding = LintFinding("duplicates", "warning", "two", (3, 9), {"repeats": 2})
    with pytest.raises(AttributeError):
        finding.rule = "other"
    with pytest.raises(TypeError):
        finding.numbers["repeats"] = 3
    assert pickle.loads(pickle.dumps(finding)) == finding
    assert hash(pickle.loads(pickle.dumps(finding))) == hash(finding)
