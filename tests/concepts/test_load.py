import numpy as np
import pytest

from tlens_trust.concepts import available_benchmarks, load_concepts

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
    assert sorted(lines) == ["confaide", "sst2", "stereoset", "toxigen", "truthfulqa"]
    assert sorted(line.partition(":")[0] for line in lines.values()) == sorted(FIVE)


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
        ("confaide", {"path": "tier_1.txt"}, "got 'tier_1.txt'"),
        (None, {"path": "mine.csv"}, "'mine.csv', is like none of the paper's"),
    ],
)
def test_an_argument_that_cannot_act_is_refused_rather_than_ignored(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        load_concepts(name, **arguments)


def test_a_file_that_is_not_there_is_an_os_error():
    with pytest.raises(FileNotFoundError, match=r"nowhere\.csv"):
        load_concepts("toxigen", path="nowhere.csv")


def test_a_folder_without_a_known_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds none of the paper's files"):
        load_concepts(path=tmp_path)
    for name in available_benchmarks():
        with pytest.raises(ValueError, match=f"holds nothing of '{name}'"):
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
