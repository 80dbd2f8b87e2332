"""A benchmark is registered in one place: `BENCHMARKS`."""

import hashlib

import numpy as np
import pytest

from tlens_trust.concepts import available_benchmarks, lint_file, load_concepts
from tlens_trust.concepts.benchmarks import BENCHMARKS
from tlens_trust.concepts.benchmarks.benchmark import Benchmark, PaperFile, ReleaseFiles
from tlens_trust.concepts.draft import Draft
from tlens_trust.concepts.tables import Table, binary_labels, texts

PAPER = "statement,label\n" + "".join(
    f"{'Kind' if label else 'Rude'} words to {i}.,{label}\n" for i in range(30) for label in (0, 1)
)
WORDS, SIDES = "kind\nrude\nfriendly\n", "+-+"


def read_paper(table, clean):
    statements = texts(table, "statement")
    groups = [statement[5:] for statement in statements]
    labels = (1 - binary_labels(table, "label")).tolist()
    return Draft(statements, labels, groups, list(table.rows), clean=clean)


def read_rows(table, seed):
    labels = [int(side == "+") for side in table.column("side")]
    statements = texts(table, "word")
    return Draft(statements, labels, list(statements), list(table.rows))


def read_release(contents, companion, source):
    words = [word for content in contents.values() for word in content.decode().split()]
    columns = {"word": words, "side": list(companion.decode()) * len(contents)}
    return Table(columns, tuple(range(len(words))), source, "counted from 0")


@pytest.fixture
def toy(monkeypatch):
    """A benchmark that nothing but `BENCHMARKS` knows."""
    benchmark = Benchmark(
        name="manners",
        dimension="courtesy",
        summary="kind (1) or rude (0) words",
        read_rows=read_rows,
        columns=("side",),
        paper=PaperFile(
            name="manners.csv",
            sha256=hashlib.sha256(PAPER.encode()).hexdigest(),
            read=read_paper,
            meaning_of_1="rude",
            trustworthy=0,
            caution="label 1 is rude",
            severity="warning",
            form="to somebody",
            in_form=lambda said, labels: float(np.mean([" words to " in one for one in said])),
        ),
        release=ReleaseFiles(("a.words", "b.words"), "sides.txt", "example.org", read_release),
    )
    monkeypatch.setitem(BENCHMARKS, "manners", benchmark)
    return benchmark


@pytest.fixture
def paper_file(tmp_path):
    path = tmp_path / "manners.csv"
    path.write_text(PAPER)
    return path


@pytest.fixture
def release_folder(tmp_path):
    for name, content in {"a.words": WORDS, "b.words": WORDS.upper(), "sides.txt": SIDES}.items():
        (tmp_path / name).write_text(content)
    return tmp_path


@pytest.mark.usefixtures("toy")
def test_a_registered_benchmark_is_listed():
    assert available_benchmarks()["manners"] == "courtesy: kind (1) or rude (0) words"


@pytest.mark.usefixtures("toy")
def test_its_paper_file_is_loaded_by_name_by_path_and_from_a_folder(paper_file):
    concept = load_concepts("manners", path=paper_file)["manners"]
    assert len(concept) == 60
    assert concept.dimension == "courtesy"
    assert concept.labels[concept.statements.index("Kind words to 3.")] == 0
    assert "as released" in concept.provenance["file"]
    assert load_concepts(path=paper_file) == load_concepts(path=paper_file.parent)
    assert load_concepts(path=paper_file) == {"manners": concept}


@pytest.mark.usefixtures("toy")
def test_its_own_files_are_loaded_alone_and_from_a_folder(release_folder):
    alone = load_concepts("manners", path=release_folder / "a.words")["manners"]
    assert alone.statements == ("kind", "rude", "friendly")
    assert alone.labels.tolist() == [1, 0, 1]
    assert load_concepts(path=release_folder / "a.words") == {"manners": alone}
    together = load_concepts(path=release_folder)["manners"]
    assert together.statements == (*alone.statements, "KIND", "RUDE", "FRIENDLY")


@pytest.mark.usefixtures("toy")
def test_another_file_of_its_release_is_refused_by_name(release_folder):
    (release_folder / "c.words").write_text("polite")
    with pytest.raises(ValueError, match=r"'c\.words'.*a\.words and b\.words.*sides\.txt"):
        load_concepts("manners", path=release_folder / "c.words")


@pytest.mark.usefixtures("toy")
def test_a_benchmark_that_is_on_no_hub_says_what_it_is_read_from():
    with pytest.raises(ValueError, match=r"manners\.csv, or a\.words or b\.words of example\.org"):
        load_concepts("manners")


@pytest.mark.usefixtures("toy")
def test_the_lint_recognises_its_paper_file_and_knows_its_labels(paper_file):
    report = lint_file(paper_file)
    (finding,) = report.of("label-meaning")
    assert (finding.severity, finding.message) == ("warning", "label 1 is rude")
    assert report.labels == "rude"
    assert report.n_groups == 30
    (finding,) = lint_file(paper_file, trustworthy=1).of("label-meaning")
    assert finding.severity == "error"
    assert not load_concepts("manners", path=paper_file)["manners"].lint().of("label-meaning")


def test_without_registration_the_lint_and_the_loader_know_nothing_of_it(paper_file):
    assert not lint_file(paper_file).of("label-meaning")
    with pytest.raises(ValueError, match="like none of the paper's"):
        load_concepts(path=paper_file)


@pytest.mark.usefixtures("toy")
def test_its_file_is_not_read_as_another_benchmarks(paper_file, tmp_path):
    with pytest.raises(ValueError, match=r"file of 'manners' \(released"):
        load_concepts("toxigen", path=paper_file)
    altered = tmp_path / "mine.csv"
    altered.write_text(PAPER + "More words to you.,1\n")
    with pytest.raises(ValueError, match="statements to somebody"):
        load_concepts("toxigen", path=altered)


def test_a_benchmark_outside_the_paper_is_read_from_its_own_columns(monkeypatch, tmp_path):
    benchmark = Benchmark("manners", "courtesy", "kind words (1)", read_rows, ("side",))
    monkeypatch.setitem(BENCHMARKS, "manners", benchmark)
    path = tmp_path / "manners.csv"
    path.write_text("word,side\n" + "".join(f"word {i},{'+-'[i % 2]}\n" for i in range(20)))
    concept = load_concepts(path=path)["manners"]
    assert concept.labels.tolist() == [1, 0] * 10
    assert concept.lint().n == 20
    with pytest.raises(ValueError, match="not on the Hugging Face hub"):
        load_concepts("manners")
    with pytest.raises(ValueError, match="holds no file of 'manners'"):
        load_concepts("manners", path=tmp_path)
    with pytest.raises(ValueError, match="read as they are"):
        load_concepts("manners", path=path, clean=False)
