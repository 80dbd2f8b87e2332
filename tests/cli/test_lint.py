import pytest


@pytest.fixture
def clean(tmp_path):
    """Sentences that only their order tells apart."""
    animals = ["owl", "hen", "fox", "cow", "dog", "cat", "bee", "ant", "elk", "eel"]
    form = "Now the {} we saw is old, and the {} we saw is new."
    pairs = [(a, b) for i, a in enumerate(animals) for b in animals[:i]]
    lines = [
        f'"{form.format(*pair)}",{(i + j) % 2},pair {i}\n'
        for i, (a, b) in enumerate(pairs)
        for j, pair in enumerate([(a, b), (b, a)])
    ]
    path = tmp_path / "clean.csv"
    path.write_text("text,old,pair\n" + "".join(lines), encoding="utf-8")
    return path


def test_a_clean_file_is_told_to_be_one_with_status_0(run, clean):
    options = ["--statement", "text", "--label", "old", "--group", "pair", "--trustworthy", 1]
    status, out, err = run("lint", clean, *options)
    assert (status, err) == (0, "")
    assert "nothing found" in out
    assert "90 statements in 45 groups" in out


def test_an_error_in_the_file_is_status_1(run, clean):
    with clean.open("a", encoding="utf-8") as file:
        file.write("Both ways.,1,pair 0\nBoth ways.,0,pair 0\n")
    options = ["--statement", "text", "--label", "old", "--group", "pair"]
    status, out, _ = run("lint", clean, *options)
    assert status == 1
    assert "conflicting-labels" in out
    assert "rows 92, 93" in out


def test_a_column_that_holds_no_labels_is_no_share_of_nothing(run, clean):
    status, out, _ = run("lint", clean, "--statement", "text", "--label", "pair")
    assert status == 1
    assert "no statement with a label is left" in out
    assert "neither 0 nor 1 ('pair 0', 'pair 1', 'pair 2', 'pair 3', 'pair 4', …)" in out
    assert "nan" not in out


def test_one_of_a_kind_is_told_in_the_singular(run, tmp_path):
    path = tmp_path / "few.csv"
    path.write_text("statement,label,group\nIt is.,1,a\nIt is not.,0,a\n")
    _, out, _ = run("lint", path, "--group", "group")
    assert "2 statements in 1 group;" in out
    assert "in 1 group alone" in out
    assert "1 group cannot be dealt into 5 folds" in out
    assert "1 groups" not in out


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["no-such-file.csv"], "There is no file 'no-such-file.csv'"),
        (["claen.csv"], "Did you mean 'clean.csv'"),
        (["."], "'.' is a folder, and a file is expected. Name one in it (clean.csv)"),
        (["clean.csv", "--statement", "text", "--label", "text"], "cannot both be column 'text'"),
        (["clean.csv"], "No column 'statement'"),
        (["clean.csv", "--statement", "text", "--label", "old", "--trustworthy", "7"], "got 7"),
        ([], "Missing argument"),
    ],
)
def test_a_bad_argument_is_one_line_and_status_2(monkeypatch, run, clean, arguments, word):
    monkeypatch.chdir(clean.parent)
    status, out, err = run("lint", *arguments)
    assert status == 2
    assert err.count("\n") == 1
    assert word in err
    assert out == ""
