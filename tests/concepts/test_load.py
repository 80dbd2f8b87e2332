import subprocess
import sys

import numpy as np
import pytest

from tlens_trust.concepts import Concept, available_benchmarks, load_concepts
from tlens_trust.concepts.benchmarks import BENCHMARKS

FIVE = ["reliability", "privacy", "toxicity", "fairness", "robustness"]


def test_without_arguments_the_five_embedded_sets_are_loaded_in_their_order():
    concepts = load_concepts()
    assert list(concepts) == FIVE
    assert [concept.dimension for concept in concepts.values()] == FIVE
    assert all(concept.polarity for concept in concepts.values())


def test_an_embedded_set_can_be_asked_for_by_name():
    assert load_concepts("toxicity") == {"toxicity": load_concepts()["toxicity"]}
    assert list(load_concepts(["toxicity", "privacy"])) == ["toxicity", "privacy"]


def test_every_benchmark_belongs_to_one_of_the_five_dimensions():
    lines = available_benchmarks()
    assert {"confaide", "sst2", "stereoset", "toxigen", "truthfulqa"} <= lines.keys()
    assert {line.partition(":")[0] for line in lines.values()} == set(FIVE)


@pytest.mark.parametrize(
    ("wrong", "near"),
    [("toxicty", "toxicity"), ("truthful_qa", "truthfulqa"), ("SST-2", "sst2"), ("qqq", None)],
)
def test_an_unknown_name_gets_the_nearest_one_and_all_there_are(wrong, near):
    with pytest.raises(ValueError, match="Choose among reliability") as caught:
        load_concepts(wrong)
    assert ("Did you mean" in str(caught.value)) == (near is not None)
    assert near is None or f"{near!r}" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        (None, {"revision": "main"}, "`revision='main'` has no meaning for embedded"),
        ("toxicity", {"split": "test"}, "`split='test'` has no meaning for embedded"),
        ("toxicity", {"path": "somewhere"}, "'toxicity' is embedded"),
        ("toxigen", {"path": "x.csv", "revision": "v1"}, "`revision='v1'` has no meaning"),
        ("toxigen", {"path": "x.csv", "split": "test"}, "`split='test'` has no meaning"),
        ("toxigen", {"config": "annotatd"}, "no configuration 'annotatd', but 'annotated'"),
        ("confaide", {}, "not on the Hugging Face hub. Give `path=`"),
        ("confaide", {"path": "tier_1.txt"}, "'tier_1.txt' holds no statements"),
    ],
)
def test_an_argument_that_cannot_act_is_refused_rather_than_ignored(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        load_concepts(name, **arguments)


@pytest.mark.parametrize("name", ["toxigen", None])
def test_a_file_that_is_not_there_is_said_to_be_missing_with_the_nearest_beside_it(tmp_path, name):
    (tmp_path / "toxigen.csv").touch()
    with pytest.raises(FileNotFoundError, match=r"no file '.*toxgen\.csv'\. Did you mean 'toxigen"):
        load_concepts(name, path=tmp_path / "toxgen.csv")
    # A picture by nearly the same name is never what was meant.
    with pytest.raises(FileNotFoundError, match=r"Looked for in"):
        load_concepts(name, path=tmp_path / "toxgen.svg")
    with pytest.raises(FileNotFoundError, match=r"Looked for in"):
        load_concepts(name, path=tmp_path / "quite-another-name")
    with pytest.raises(FileNotFoundError, match=r"folder, '.*gone', is not there either"):
        load_concepts(name, path=tmp_path / "gone" / "toxigen.csv")


def test_a_file_of_a_name_that_tells_nothing_is_not_guessed_at(tmp_path):
    (tmp_path / "mine.csv").write_text("statement,label\na,1\nb,0\n")
    with pytest.raises(ValueError, match=r"'mine\.csv', is like none of the paper's"):
        load_concepts(path=tmp_path / "mine.csv")


def test_what_is_no_name_is_told_so_where_nothing_checks_types():
    # Under test beartype is first; users have no beartype.
    code = (
        "from tlens_trust.concepts import load_concepts\n"
        "for name in (3, [3], b'x'):\n"
        "    try: load_concepts(name)\n"
        "    except ValueError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert [line.partition("got ")[2].partition(".")[0] for line in lines] == ["3", "3", "120"]
    assert all("'reliability'" in line for line in lines)


QA = [f"Q: Is it {i}?\tA: It is {i}." for i in range(12)]
TWINS = [text for i in range(6) for text in (f"Film {i} is fun .", f"film {i} is fun .")]
# In order of the questions these are pairs with a common beginning too.
PAIRS = [f"He is {i} feet tall. {end}" for i in range(6) for end in ("He towers.", "Fish swim.")]
PLAIN = [f"{word} goes there" for word in "abcdefghijkl"]
FORMS = {"truthfulqa": QA, "sst2": TWINS, "stereoset": PAIRS}


def written(path, statements):
    lines = [f'"{text}",{i % 2}' for i, text in enumerate(statements)]
    path.write_text("\n".join(["statement,label", *lines]) + "\n")
    return path


@pytest.mark.parametrize("form", sorted(FORMS))
def test_a_file_in_the_form_of_another_benchmark_is_refused_whatever_it_is_called(tmp_path, form):
    path = written(tmp_path / "mine.csv", FORMS[form])
    for name in (name for name, benchmark in BENCHMARKS.items() if benchmark.paper is not None):
        if name == form:
            assert list(load_concepts(name, path=path)) == [name]
        else:
            with pytest.raises(ValueError, match=f"looks like a file of '{form}'.*100% of its"):
                load_concepts(name, path=path)


def test_sst2_without_twins_is_no_sst2_but_a_part_of_a_shuffled_file_of_twins_is(tmp_path):
    with pytest.raises(ValueError, match=r"no file of SST-2.*0% of its 12 rows.*from_csv"):
        load_concepts("sst2", path=written(tmp_path / "mine.csv", PLAIN))
    part = written(tmp_path / "part.csv", TWINS + PLAIN[:6])
    assert len(load_concepts("sst2", path=part)["sst2"]) == 18
    # Twins of one label are repeats, and no twins.
    same = [text for i in range(6) for text in (f"Film {i}", f"other {i}", f"film {i}", f"now {i}")]
    with pytest.raises(ValueError, match="0% of its 24 rows"):
        load_concepts("sst2", path=written(tmp_path / "same.csv", same))


def test_a_file_that_has_the_name_of_another_benchmark_s_is_refused(tmp_path):
    path = written(tmp_path / "confaide.csv", PLAIN)
    with pytest.raises(ValueError, match=r"file of 'confaide' \(by its name\).*'toxigen'"):
        load_concepts("toxigen", path=path)
    # Without a form of its own, a name that tells nothing is taken at its word.
    assert load_concepts("toxigen", path=written(tmp_path / "mine.csv", PLAIN))


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "x.csv").touch()
    with pytest.raises(ValueError, match=r"is a folder.*\(x\.csv\)"):
        Concept.from_csv(tmp_path, statement="statement", label="label", trustworthy=1)


def test_a_folder_without_a_known_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds none of the paper's files"):
        load_concepts(path=tmp_path)
    for name in available_benchmarks():
        with pytest.raises(ValueError, match=f"holds no file of '{name}'"):
            load_concepts(name, path=tmp_path)


def test_a_csv_file_of_other_columns_is_refused_with_those_expected(tmp_path):
    path = tmp_path / "toxigen.csv"
    path.write_text("text,toxic\na,1\nb,0\n")
    with pytest.raises(ValueError, match="'text', 'toxic', where 'statement' and 'label'"):
        load_concepts(path=path)


def test_the_names_of_the_papers_files_are_known_whatever_the_folder(tmp_path):
    (tmp_path / "sst2.csv").write_text("statement,label\nGood .,1\ngood .,0\n")
    (tmp_path / "stereoset.csv").write_text(
        "statement,label\nHe is tall. He can reach it.,1\nHe is tall. Fish swim.,0\n"
    )
    concepts = load_concepts(path=tmp_path)
    assert set(concepts) == {"sst2", "stereoset"}
    assert concepts["sst2"].labels.tolist() == [0, 1]
    assert concepts["stereoset"].labels.tolist() == [1, 0]
    assert set(concepts["stereoset"].groups) == {"he is tall"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("He is tall. Fish swim.,1\nShe is small. Fish swim.,0\n", "rows 2, 3"),
        ("He is tall. Fish swim.,1\nHe is tall. Fish fly.,1\nA b. C.,0\nA b. D.,1\n", "rows 2, 3"),
        ("He is tall. Fish swim.,1\nHe is tall. Fish fly.,0\nHe is tall. He runs.,1\n", "row 4"),
    ],
)
def test_stereoset_rows_that_are_no_pair_are_named(tmp_path, rows, message):
    (tmp_path / "stereoset.csv").write_text("statement,label\n" + rows)
    with pytest.raises(ValueError, match=message):
        load_concepts("stereoset", path=tmp_path)


def test_a_file_with_nothing_left_says_what_was_dropped(tmp_path):
    path = tmp_path / "sst2.csv"
    path.write_text("statement,label\n1 2 .,1\n1 2 .,0\n")
    with pytest.raises(ValueError, match=r"of 2 rows, 0 statements are left.*same text"):
        load_concepts("sst2", path=path)


def test_a_reader_gives_the_same_concept_twice(tmp_path):
    rng = np.random.default_rng(0)
    words = ["alder", "beech", "cedar", "elm", "fir", "oak", "pine", "yew"]
    lines = [f"{' '.join(rng.choice(words, 4))},{i % 2}" for i in range(60)]
    (tmp_path / "toxigen.csv").write_text("statement,label\n" + "\n".join(lines) + "\n")
    one, other = (load_concepts("toxigen", path=tmp_path)["toxigen"] for _ in range(2))
    assert one == other
    assert one.provenance == other.provenance


def test_an_empty_list_of_names_is_no_wish_for_all():
    with pytest.raises(ValueError, match="An empty list names no concept"):
        load_concepts([])
