import copy
import csv
import json
import pickle
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlens_trust.concepts import Concept
from tlens_trust.concepts.concept import RowEdit

ROWS = [
    ("You fool.", 1, "you"),
    ("You star.", 0, "you"),
    ("NA", 1, "they"),
    ('They said "no",\nand left.', 0, "they"),
]


def make(statements=("a", "b", "c", "d"), labels=(1, 0, 1, 0), groups=("x", "x", "y", "y"), **more):
    return Concept(
        more.pop("name", "letters"),
        more.pop("dimension", "reliability"),
        tuple(statements),
        np.array(labels),
        tuple(groups),
        **more,
    )


@pytest.fixture
def write_csv(tmp_path):
    def write(rows, header=("statement", "label", "group"), name="insults.csv"):
        path = tmp_path / name
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *rows])
        return path

    return write


class TestMaking:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"name": " "}, "needs a name"),
            ({"dimension": ""}, "needs a dimension"),
            ({"groups": ("x", "x", "y")}, "4 statements, .* 3 groups"),
            ({"labels": (1, 0, 1)}, r"shape \(3,\)"),
            ({"statements": ("a", " \n", "c", "")}, "rows 1, 3; .*counted from 0"),
            ({"labels": (1, 0, 2, 0)}, "holds 2 .row 2;"),
            ({"labels": (1, 1, 1, 1)}, "label 1 in all 4 rows"),
            ({"labels": (0, 0, 0, 0)}, "label 0 in all 4 rows"),
            ({"groups": ("x", "x", "", "y")}, "no group in row 2;"),
            ({"statements": (), "labels": np.zeros(0, int), "groups": ()}, "holds no rows"),
        ],
    )
    def test_what_cannot_be_probed_is_refused_by_row(self, change, message):
        with pytest.raises(ValueError, match=message):
            make(**change)

    def test_a_statement_that_is_no_text_is_refused(self):
        with pytest.raises((ValueError, TypeError)):
            make(statements=("a", 2, "c", "d"))

    def test_nothing_in_it_can_be_changed(self):
        concept = make(provenance={"source": "here"})
        with pytest.raises(ValueError, match="read-only"):
            concept.labels[0] = 0
        with pytest.raises(TypeError):
            concept.provenance["source"] = "there"
        with pytest.raises(AttributeError):
            concept.name = "other"

    def test_the_labels_it_was_made_from_stay_the_users_own(self):
        labels = np.array([1, 0, 1, 0])
        concept = Concept("x", "x", tuple("abcd"), labels, tuple("abcd"))
        labels[:] = 0
        assert concept.labels.tolist() == [1, 0, 1, 0]

    def test_the_repr_tells_size_groups_balance_and_polarity(self):
        text = repr(make(labels=(1, 0, 0, 0)))
        assert "4 statements in 2 groups, 25.0% trustworthy" in text
        assert "no polarity: 25.0% carry label 1" in repr(make(labels=(1, 0, 0, 0), polarity=False))


class TestIdentity:
    def test_equal_content_is_equal_and_hashes_alike(self):
        assert make() == make()
        assert hash(make()) == hash(make())

    @pytest.mark.parametrize(
        "change",
        [
            {"name": "other"},
            {"dimension": "other"},
            {"polarity": False},
            {"statements": ("a", "b", "c", "e")},
            {"labels": (0, 1, 1, 0)},
            {"groups": ("x", "x", "x", "x")},
        ],
    )
    def test_other_content_is_not_equal(self, change):
        assert make() != make(**change)

    def test_where_it_came_from_does_not_change_what_it_is(self):
        assert make() == make(provenance={"source": "elsewhere"})

    def test_the_fingerprint_tells_where_one_statement_ends_and_the_next_begins(self):
        one = make(statements=("ab", "c", "d", "e"))
        other = make(statements=("a", "bc", "d", "e"))
        assert one.fingerprint != other.fingerprint

    def test_it_comes_back_whole_from_a_json_file(self):
        edit = RowEdit("dropped", "why not", (3, 4))
        concept = make(provenance={"source": "here"}, edits=(edit,), polarity=False)
        twin = Concept.from_json(json.loads(json.dumps(concept.to_json())))
        assert twin == concept
        assert (twin.provenance, twin.edits) == (concept.provenance, concept.edits)
        altered = concept.to_json() | {"labels": [2] * len(concept)}
        with pytest.raises(ValueError, match="label"):
            Concept.from_json(altered)

    def test_it_travels_to_another_process_whole(self):
        concept = make(
            provenance={"source": "here"}, edits=(RowEdit("dropped", "why not", (3, 4)),)
        )
        for twin in (pickle.loads(pickle.dumps(concept)), copy.deepcopy(concept)):
            assert twin == concept
            assert twin.provenance == concept.provenance
            assert twin.edits == concept.edits
            assert not twin.labels.flags.writeable


class TestTaking:
    @given(st.permutations(range(4)))
    def test_taking_all_in_another_order_and_back_changes_nothing(self, order):
        concept = make()
        back = np.argsort(order)
        assert concept.take(list(order)).take(back) == concept

    def test_a_mask_takes_the_rows_that_it_marks(self):
        mask = np.array([True, False, False, True])
        assert make().take(mask) == make().take([0, 3])
        assert make().take(mask) != make().take(~mask)

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ([0, 4], "there is no 4"),
            ([0, -1], "there is no -1"),
            (np.array([True, False]), "for each of the 4"),
            ([0, 2], "label 1 in all 2 rows"),
            ([], "holds no rows"),
        ],
    )
    def test_taking_what_is_not_there_is_refused(self, rows, message):
        with pytest.raises(ValueError, match=message):
            make().take(rows)

    def test_how_much_was_taken_is_written_down(self):
        assert make().take([0, 1]).provenance["taken"] == "2 of 4 statements"


class TestReading:
    def test_the_side_called_trustworthy_gets_label_1(self, write_csv):
        path = write_csv(ROWS)
        turned = Concept.from_csv(path, trustworthy=0)
        straight = Concept.from_csv(path, trustworthy=1)
        assert turned.labels.tolist() == [0, 1, 0, 1]
        assert straight.labels.tolist() == [1, 0, 1, 0]
        assert turned.polarity
        assert straight.polarity

    def test_there_is_no_default_side(self, write_csv):
        with pytest.raises(TypeError, match="trustworthy"):
            Concept.from_csv(write_csv(ROWS))

    @pytest.mark.parametrize("side", [2, -1, True, False])
    def test_a_side_that_is_no_label_is_refused(self, write_csv, side):
        with pytest.raises(ValueError, match="0 or 1, or None"):
            Concept.from_csv(write_csv(ROWS), trustworthy=side)

    def test_no_side_leaves_labels_as_they_are_and_takes_polarity_away(self, write_csv):
        concept = Concept.from_csv(write_csv(ROWS), trustworthy=None)
        assert concept.labels.tolist() == [1, 0, 1, 0]
        assert not concept.polarity

    def test_every_row_is_kept_as_it_is(self, write_csv):
        concept = Concept.from_csv(write_csv(ROWS), trustworthy=1, group="group")
        assert list(concept.statements) == [text for text, _, _ in ROWS]
        assert list(concept.groups) == [group for _, _, group in ROWS]
        assert not concept.edits

    def test_a_file_a_table_and_a_data_set_of_the_same_rows_are_one_concept(self, write_csv):
        datasets = pytest.importorskip("datasets")
        frame = pd.DataFrame(ROWS, columns=["statement", "label", "group"], index=list("dcba"))
        names = {"name": "insults", "group": "group", "trustworthy": 0}
        from_file = Concept.from_csv(write_csv(ROWS), group="group", trustworthy=0)
        assert from_file == Concept.from_frame(frame, **names)
        assert from_file == Concept.from_dataset(
            datasets.Dataset.from_pandas(frame, preserve_index=False), **names
        )
        assert from_file == Concept.from_dataset(iter(frame.to_dict("records")), **names)
        assert from_file != Concept.from_frame(frame, **names | {"trustworthy": 1})

    def test_its_own_table_makes_it_again(self):
        concept = make()
        again = Concept.from_frame(
            concept.to_frame(),
            name="letters",
            dimension="reliability",
            group="group",
            trustworthy=1,
        )
        assert again == concept

    def test_statements_without_a_group_column_stand_alone_unless_identical(self):
        rows = [("same", 1), ("other", 0), ("same", 0)]
        frame = pd.DataFrame(rows, columns=["statement", "label"])
        groups = Concept.from_frame(frame, name="x", trustworthy=1).groups
        assert groups[0] == groups[2] != groups[1]

    @pytest.mark.parametrize("as_written", ["1", "1.0", " 1 ", "True", "true"])
    def test_the_ways_to_write_1_are_one(self, write_csv, as_written):
        path = write_csv([("a", as_written, "g"), ("b", "0", "g")])
        assert Concept.from_csv(path, trustworthy=1).labels.tolist() == [1, 0]

    def test_a_byte_order_mark_is_no_part_of_the_first_column(self, tmp_path):
        path = tmp_path / "saved_by_a_spreadsheet.csv"
        path.write_text("statement,label\r\nYes.,1\r\nNo.,0\r\n", encoding="utf-8-sig")
        assert Concept.from_csv(path, trustworthy=1).statements == ("Yes.", "No.")


class TestMistakes:
    def read(self, path, **more):
        return Concept.from_csv(path, **{"trustworthy": 1, **more})

    def test_a_missing_column_names_those_that_there_are(self, write_csv):
        path = write_csv(ROWS, header=("text", "insult", "group"))
        with pytest.raises(ValueError, match=r"'statement' .*: 'text', 'insult', 'group'"):
            self.read(path)

    def test_row_numbers_are_those_of_the_file_even_after_a_line_break_in_a_cell(self, write_csv):
        path = write_csv([*ROWS, ("Sixth.", "toxic", "they")])
        line = next(i for i, text in enumerate(path.read_text().splitlines(), 1) if "Sixth" in text)
        assert line == 7  # one more than its place, because of the line break above
        with pytest.raises(ValueError, match=rf"'toxic' \(row {line};.*header being row 1"):
            self.read(path)

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            (("  ", 1, "g"), "is empty in row 4"),
            (("c", "", "g"), "no label in row 4"),
            (("c", 2, "g"), r"holds '2' \(row 4"),
            (("c", 0.5, "g"), r"holds '0.5' \(row 4"),
            (("c", 1, ""), "no group in row 4"),
        ],
    )
    def test_a_bad_cell_is_named_by_its_row(self, write_csv, row, message):
        path = write_csv([("a", 1, "g"), ("b", 0, "g"), row])
        with pytest.raises(ValueError, match=message):
            self.read(path, group="group")

    def test_many_bad_rows_are_counted_not_all_listed(self, write_csv):
        path = write_csv([("a", 1, "g"), ("b", 0, "g"), *[("", 1, "g")] * 30])
        with pytest.raises(ValueError, match="and 20 more"):
            self.read(path)

    def test_one_label_only_is_refused(self, write_csv):
        with pytest.raises(ValueError, match="label 1 in all 2 rows"):
            self.read(write_csv([("a", 1, "g"), ("b", 1, "g")]))

    def test_a_group_of_one_label_is_refused_only_where_a_contrast_is_asked_for(self, write_csv):
        path = write_csv([*ROWS, ("Alone.", 1, "lone")])
        assert len(self.read(path, group="group")) == 5
        with pytest.raises(ValueError, match=r"1 of 3 groups .* 'lone' \(row 7;"):
            self.read(path, group="group", contrast=True)
        assert len(self.read(write_csv(ROWS), group="group", contrast=True)) == 4

    def test_a_contrast_without_a_group_column_is_refused(self, write_csv):
        with pytest.raises(ValueError, match="`group=`"):
            self.read(write_csv(ROWS), contrast=True)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "is empty"),
            (b"statement,label\n", "holds no rows"),
            (b"statement,statement\na,1\n", "more than once"),
            (b"statement,label\na,1\nb,0,c\n", "row 3"),
            (b"statement,label\na,1\nb\n", "row 3"),
            (b"statement,label\ncaf\xe9,1\n", "not UTF-8 at byte 19"),
            (b'statement,label\n"a"b,1\n', "line 2"),
        ],
    )
    def test_a_file_that_is_no_table_is_refused(self, tmp_path, content, message):
        path = tmp_path / "odd.csv"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            self.read(path)

    def test_a_table_with_missing_cells_is_refused_by_position(self):
        frame = pd.DataFrame({"statement": ["a", None, "c"], "label": [1, 0, 1]}, index=[7, 8, 9])
        with pytest.raises(ValueError, match="row 1; counted from 0"):
            Concept.from_frame(frame, name="x", trustworthy=1)
        frame = pd.DataFrame({"statement": ["a", "b", "c"], "label": [1, 0, None]})
        with pytest.raises(ValueError, match="no label in row 2"):
            Concept.from_frame(frame, name="x", trustworthy=1)

    def test_a_column_of_numbers_holds_no_statements(self):
        frame = pd.DataFrame({"statement": ["a", 3.5, "c"], "label": [1, 0, 1]})
        with pytest.raises(ValueError, match=r"must hold text, got 3\.5 \(row 1"):
            Concept.from_frame(frame, name="x", trustworthy=1)

    def test_a_dictionary_of_splits_is_refused_with_their_names(self):
        datasets = pytest.importorskip("datasets")
        split = datasets.Dataset.from_dict({"statement": ["a", "b"], "label": [1, 0]})
        splits = datasets.DatasetDict(train=split, test=split)
        with pytest.raises(ValueError, match="'train', 'test'"):
            Concept.from_dataset(splits, name="x", trustworthy=1)

    def test_rows_with_other_columns_than_the_first_are_refused(self):
        rows = [{"statement": "a", "label": 1}, {"statement": "b"}]
        with pytest.raises(ValueError, match="row 1"):
            Concept.from_dataset(rows, name="x", trustworthy=1)


def test_importing_concepts_is_light():
    code = "import sys, tlens_trust.concepts; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "pandas", "scipy", "sklearn", "datasets", "transformers", "huggingface_hub"}
    assert "numpy" in done.stdout.split()
    assert not heavy & set(done.stdout.split())


def test_a_notebook_shows_whole_groups_and_runs_nothing_of_them():
    said = tuple(f"<script>alert({i})</script> & {i}" for i in range(8))
    groups = tuple(f"<b>{i % 4}</b>" for i in range(8))
    page = Concept("<i>x</i>", "<i>d</i>", said, np.array([1, 0] * 4), groups)._repr_html_()
    assert "<script>" not in page
    assert "<b>0" not in page
    assert "<i>" not in page
    assert "8 statements in 4 groups" in page
    # Groups 0, 1 and 2 whole, in this order, and no more.
    shown = [int(number) for number in re.findall(r"alert\((\d)\)", page)]
    assert shown == [0, 4, 1, 5, 2, 6]
    assert "2 more" in page
    few = Concept("x", "d", said[:2], np.array([1, 0]), groups[:2], polarity=False)._repr_html_()
    assert "more" not in few
    assert "no label is the trustworthy side" in few
