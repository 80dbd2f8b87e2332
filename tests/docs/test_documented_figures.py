"""The numbers of the toy series in README and documentation, held against a fresh run."""

import importlib.util
import re
from pathlib import Path

import plotly.graph_objects as go
import pytest

ROOT = Path(__file__).parents[2]


def load_script():
    place = ROOT / "tools" / "documented_figures.py"
    spec = importlib.util.spec_from_file_location("documented_figures", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCRIPT = load_script()
README = (ROOT / "README.md").read_text(encoding="utf-8")
PASSAGES = [
    pytest.param(name, text, id=f"{page.relative_to(ROOT).as_posix()}-{name}")
    for page in SCRIPT.pages()
    for name, text in SCRIPT.passages_of(page.read_text(encoding="utf-8"))
]
AGAIN = "Run `python tools/documented_figures.py --write`."


@pytest.fixture(scope="module")
def results(demo_folder):
    """One fresh run, of which the sweep is the demo's."""
    return SCRIPT.Results(demo_folder / "tlens_trust_demo")


def test_the_printed_table_of_the_demo_is_the_one_in_the_readme(demo_folder):
    """Word for word, but for the last digit of decimals."""
    (table,) = (text for name, text in SCRIPT.passages_of(README) if name == "summary")
    printed = (demo_folder / "printed.txt").read_text(encoding="utf-8")
    assert SCRIPT.is_same(
        "\n".join(table.splitlines()[1:-1]), printed.split("\n", 1)[1].split("\n\n")[0]
    )


@pytest.mark.parametrize(("name", "text"), PASSAGES)
def test_a_passage_says_what_a_fresh_run_gives(results, name, text):
    anew = SCRIPT.PASSAGES[name](results)
    assert SCRIPT.is_same(text, anew), f"{AGAIN}\n{anew}"


@pytest.mark.parametrize("name", SCRIPT.PICTURES)
def test_a_picture_draws_what_a_fresh_run_gives(results, name):
    drawn = SCRIPT.drawn_numbers(SCRIPT.IMAGES / name)
    assert SCRIPT.is_same_drawing(drawn, SCRIPT.numbers_of(SCRIPT.PICTURES[name](results))), AGAIN


def test_every_passage_is_written_by_a_function_and_every_function_is_asked():
    on_pages = {parameters.values[0] for parameters in PASSAGES}
    assert on_pages == SCRIPT.PASSAGES.keys()
    pictures = {path.name for path in SCRIPT.IMAGES.iterdir()}
    assert pictures == SCRIPT.PICTURES.keys()


def test_every_mark_has_its_end_and_none_begins_a_line_of_prose():
    for page in SCRIPT.pages():
        text = page.read_text(encoding="utf-8")
        marks = re.findall(r"<!-- /?toy", text)
        assert marks == ["<!-- toy", "<!-- /toy"] * (len(marks) // 2), page
        # There it would be taken for a block of HTML that ends the paragraph.
        for line in text.splitlines():
            assert not re.match(r"\s*<!-- /?toy[^>]*-->.", line), f"{page}: {line}"


class Told:
    """Results of which nothing but one accuracy is known."""

    accuracy = "1.000"


def test_a_number_that_is_out_of_date_is_put_right_and_nothing_else_is_changed(monkeypatch):
    monkeypatch.setitem(SCRIPT.PASSAGES, "told", lambda results: results.accuracy)
    stale = (
        "It is .9 of <!-- toy: told -->.9<!-- /toy -->.\n\n"
        "<!-- toy: told -->\n\n.9\n\n<!-- /toy -->\n"
    )
    right = stale.replace("-->.9<!--", "-->1.000<!--").replace("\n.9\n", "\n1.000\n")
    assert SCRIPT.rewrite(stale, Told) == right
    assert SCRIPT.rewrite(right, Told) == right
    assert [*SCRIPT.passages_of(right)] == [("told", "1.000")] * 2


def test_a_passage_that_nothing_writes_is_refused():
    with pytest.raises(ValueError, match="No passage is called 'tolt'"):
        SCRIPT.rewrite("<!-- toy: tolt -->1<!-- /toy -->", Told)


def test_a_sentence_that_the_results_do_not_bear_out_is_not_written():
    with pytest.raises(ValueError, match="says that it rises, which the results do not show"):
        SCRIPT._check(False, "it rises")


@pytest.mark.parametrize(
    ("text", "anew", "same"),
    [
        ("1.31 [.72, 2.42]", "1.31 [.72, 2.42]", True),
        ("1.31 [.72, 2.42]", "1.30 [.73, 2.42]", True),
        ("1.31 [.72, 2.42]", "1.29 [.72, 2.42]", False),
        ("1.00", ".99", True),
        (".9", ".95", False),
        ("−.01", ".01", False),
        ("by step 256", "by step 255", False),
        ("−37", "−36", False),
        ("moves toxicity", "moves fairness", False),
        ("  a 1.0  b", "a  1.0 b", True),
        ("1.0", "1.0, 1.0", False),
    ],
)
def test_the_same_is_the_same_words_and_numbers_but_for_a_last_digit(text, anew, same):
    assert SCRIPT.is_same(text, anew) is same


@pytest.mark.parametrize(
    ("changed", "same"),
    [(0.0, True), (1e-6, True), (0.008, True), (0.012, False), (float("nan"), False)],
)
def test_two_drawings_are_the_same_to_a_line_s_width(tmp_path, changed, same):
    figures = [
        go.Figure([go.Scatter(x=["a", "b"], y=[0.5, 0.9 + by]), go.Heatmap(z=[[1.0, None]])])
        for by in (0.0, changed)
    ]
    one, other = map(SCRIPT.numbers_of, figures)
    assert one[0]["y"] == [0.5, 0.9]
    assert one[1]["z"] == [[1.0, None]]
    assert SCRIPT.is_same_drawing(one, other) is same
    assert not SCRIPT.is_same_drawing(one, one[:1])
    assert not SCRIPT.is_same_drawing(None, one)


def test_a_picture_keeps_the_numbers_that_it_draws(tmp_path, monkeypatch):
    monkeypatch.setattr(SCRIPT, "IMAGES", tmp_path)
    figure = go.Figure(go.Scatter(x=[0, 1], y=[0.5, None]))
    monkeypatch.setattr(SCRIPT, "PICTURES", {"one.svg": lambda _: figure})
    drawn = []

    def save(path, **_):
        drawn.append(path)
        path.write_text("<svg></svg>\n")

    monkeypatch.setitem(figure.__dict__, "save", save)
    SCRIPT.draw(None)
    SCRIPT.draw(None)
    assert drawn == [tmp_path / "one.svg"]
    assert SCRIPT.drawn_numbers(tmp_path / "one.svg") == SCRIPT.numbers_of(figure)
    (tmp_path / "one.svg").write_text("<svg></svg>")
    assert SCRIPT.drawn_numbers(tmp_path / "one.svg") is None


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(0.944, 2, ".94"), (-1.268, 2, "−1.27"), (-0.5, 2, "−.50"), (-0.001, 2, "0"), (1, 2, "1.00"),
     (0.0196, 3, ".020")],
)  # fmt: skip
def test_numbers_are_written_as_the_documentation_writes_them(value, digits, text):
    assert SCRIPT._short(value, digits) == text
