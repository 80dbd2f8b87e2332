"""Lint finds what is known to be wrong with the five files released with the paper."""

import csv

import numpy as np
import pytest

from tlens_trust.concepts import lint_file, load_concepts
from tlens_trust.concepts.lint.paper_files import recognise
from tlens_trust.concepts.tables import parse_csv

FILES = {
    name: f"{name}{'_train' if name == 'truthfulqa' else ''}.csv"
    for name in ("truthfulqa", "confaide", "toxigen", "stereoset", "sst2")
}


@pytest.fixture(scope="module")
def reports(paper_folder):
    return {name: lint_file(paper_folder / file) for name, file in FILES.items()}


@pytest.fixture(scope="module")
def rows(paper_folder):
    def read(file):
        with (paper_folder / file).open(newline="", encoding="utf-8") as opened:
            return [(row["statement"], int(row["label"])) for row in csv.DictReader(opened)]

    return {name: read(file) for name, file in FILES.items()}


def first_rows(paper_folder, tmp_path, name):
    """The first rows of a file under the name of the whole, by which its labels are known."""
    lines = (paper_folder / FILES[name]).read_text(encoding="utf-8").splitlines(keepends=True)
    part = tmp_path / FILES[name]
    part.write_text("".join(lines[:201]), encoding="utf-8")
    return part


def test_every_file_is_told_as_the_released_one_and_read_whole(reports, rows):
    for name, report in reports.items():
        assert "as released with Qian et al. 2024" in report.subject
        assert report.n == len(rows[name])
        assert report.share == np.mean([label for _, label in rows[name]])


@pytest.mark.parametrize(
    ("name", "reading", "known"),
    [
        ("truthfulqa", "words", 0.70),
        ("toxigen", "words", 0.78),
        ("confaide", "words", 0.81),
        ("stereoset", "words", 0.82),
        ("sst2", "characters", 0.98),
    ],
)
def test_text_alone_tells_as_much_as_is_known(reports, name, reading, known):
    (finding,) = reports[name].of("text-floor")
    assert finding.numbers[reading] == pytest.approx(known, abs=0.025)
    assert reports[name].floor.accuracy(reading) == finding.numbers[reading]


def test_sst2_is_told_by_an_upper_case_letter(reports, rows):
    rule = reports["sst2"].of("case-cue")[0]
    assert rule.severity == "error"
    assert "contains an upper-case letter → 1, otherwise 0: right 99.6%" in rule.message
    right = [(text != text.lower()) == bool(label) for text, label in rows["sst2"]]
    assert rule.numbers["accuracy"] == np.mean(right)
    for name in ("truthfulqa", "stereoset", "confaide"):
        assert not [f for f in reports[name].of("case-cue") if f.severity == "error"]


def test_words_alone_tell_nothing_of_sst2(reports):
    assert reports["sst2"].floor.accuracy("words") == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("name", "groups", "tested"), [("truthfulqa", 288, 453), ("sst2", 605, 729)]
)
def test_the_sequential_split_leaks_as_is_known(reports, name, groups, tested):
    (finding,) = reports[name].of("sequential-split")
    assert finding.numbers["groups_astride"] == groups
    assert finding.numbers["test_rows"] == tested
    if name == "sst2":
        assert finding.numbers["test_rows_known"] == 605
    assert len(finding.rows) == finding.numbers["test_rows_known"]


@pytest.mark.parametrize(("name", "repeats"), [("confaide", 77), ("toxigen", 76)])
def test_duplicates_and_conflicts_are_told_by_their_rows(reports, rows, name, repeats):
    (finding,) = reports[name].of("duplicates")
    assert finding.numbers["repeats"] == repeats
    texts = [text for text, _ in rows[name]]
    assert all(texts[row - 2] in texts[: row - 2] for row in finding.rows)
    (conflict,) = reports[name].of("conflicting-labels")
    assert conflict.severity == "error"
    for row in conflict.rows:
        assert {label for text, label in rows[name] if text == texts[row - 2]} == {0, 1}


def test_toxigen_carries_escapes_at_the_rows_that_are_told(reports, rows):
    told = {
        finding.message.split("hold")[1]: finding for finding in reports["toxigen"].of("artefact")
    }
    texts = [text for text, _ in rows["toxigen"]]
    (spreadsheet,) = [f for words, f in told.items() if "_x000D_" in words]
    assert spreadsheet.numbers["rows"] == 34
    assert spreadsheet.rows == tuple(i + 2 for i, text in enumerate(texts) if "_x000D_" in text)
    (breaks,) = [f for words, f in told.items() if "line break" in words]
    assert set(breaks.rows) >= {i + 2 for i, text in enumerate(texts) if "\\n" in text}
    assert r"'\n'" in breaks.message
    for name in ("truthfulqa", "sst2", "stereoset"):
        assert not [f for f in reports[name].of("artefact") if "_x000D_" in f.message]


def test_labels_are_told_for_what_they_are(reports, paper_folder):
    (turned,) = reports["toxigen"].of("label-meaning")
    assert turned.severity == "warning"
    assert "label 1 is toxic in this file, where the paper says that it is benign" in turned.message
    (coherence,) = reports["stereoset"].of("label-meaning")
    assert coherence.severity == "error"
    assert "nothing to do with its context" in coherence.message
    assert "coherence" in coherence.message
    assert reports["truthfulqa"].of("label-meaning") == ()


def test_stereosets_incoherence_is_seen_in_the_rows_too(reports):
    (overlap,) = reports["stereoset"].of("opening-cue")
    assert "→ 1, otherwise 0" in overlap.message
    assert overlap.numbers["precision"] > 0.8


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("confaide", 1), ("stereoset", 0), ("stereoset", 1), ("truthfulqa", 0), ("confaide", 0)],
)
def test_a_wrong_guess_of_the_trustworthy_side_is_an_error(paper_folder, tmp_path, name, wrong):
    part = first_rows(paper_folder, tmp_path, name)
    found = lint_file(part, trustworthy=wrong).of("label-meaning")
    right = name == "confaide" and wrong == 0
    assert [finding.severity for finding in found] == ["note" if right else "error"]
    assert ("was said to be the trustworthy side" in found[0].message) != right


def test_a_file_is_recognised_by_its_content_whatever_its_name_and_an_altered_one_is_not(
    paper_folder,
):
    content = (paper_folder / "stereoset.csv").read_bytes()
    known = recognise(parse_csv(content, "x"), "mine.csv")
    assert known is not None
    assert known.is_released
    assert known.paper.name == "stereoset.csv"
    assert recognise(parse_csv(content + b"New one.,1\n", "x"), "mine.csv") is None


def test_an_unknown_file_of_the_same_form_has_its_twins_and_questions_found(paper_folder, tmp_path):
    """Without what is known of the paper's files, their rows give their groups away."""
    for name, rule in (("sst2", "twins-apart"), ("truthfulqa", "openings-apart")):
        lines = (paper_folder / FILES[name]).read_text(encoding="utf-8").splitlines(keepends=True)
        part = tmp_path / f"{name}_mine.csv"
        part.write_text("".join([lines[0], *reversed(lines[-600:])]), encoding="utf-8")
        assert lint_file(part).of(rule)


def test_what_a_reader_cleans_is_no_finding_any_more(paper_folder, reports):
    cleaned = load_concepts("confaide", path=paper_folder)["confaide"].lint()
    for rule in ("duplicates", "conflicting-labels", "twins-apart", "near-duplicates-apart"):
        assert cleaned.of(rule) == ()
    # The readers cannot mend what the words tell.
    assert cleaned.of("text-floor")


def test_the_papers_stereoset_concept_is_told_to_be_none_of_fairness(paper_folder, tmp_path):
    part = first_rows(paper_folder, tmp_path, "stereoset")
    concept = load_concepts("stereoset", path=part)["stereoset"]
    assert concept.lint().of("label-meaning")[0].severity == "error"
