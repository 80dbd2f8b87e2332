"""The notebooks run as they are committed: from the first cell to the last, without a network."""

import ast
import importlib.util
import os
import re
from pathlib import Path

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_notebook, new_output

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
BY_NAME = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
HUB = "EleutherAI/pythia-160m"
# Two minutes on two cores; CI's machine may be a slow one, and shared.
LIMIT = 300


@pytest.fixture(scope="module")
def executing():
    spec = importlib.util.spec_from_file_location("executing", ROOT / "examples" / "executing.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache folder of the session's, so that the user's is left alone."""
    kept = os.environ.get("TLENS_TRUST_CACHE")
    return Path(kept) if kept else tmp_path_factory.mktemp("cache")


def code_of(notebook):
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def left_in(notebook):
    """Cells with something left from an execution."""
    return [
        cell.id
        for cell in notebook.cells
        if cell.get("outputs") or cell.get("execution_count") is not None
    ]


@BY_NAME
def test_a_notebook_is_numbered_named_and_without_outputs(notebook):
    read = nbformat.read(notebook, as_version=4)
    nbformat.validate(read)
    assert re.fullmatch(r"\d\d_[a-z_]+", notebook.stem)
    assert read.cells[0].source.startswith("# ")
    assert left_in(read) == [], (
        f"Clear them: jupyter nbconvert --clear-output --inplace examples/{notebook.name}"
    )
    assert len({cell.id for cell in read.cells}) == len(read.cells)
    assert notebook.stat().st_size < 20_000


def test_an_output_that_was_left_is_found():
    run = new_code_cell("1 + 1", execution_count=3)
    shown = new_code_cell("1 + 1", outputs=[new_output("stream", text="2\n")])
    assert len(left_in(new_notebook(cells=[run, shown, new_code_cell("1 + 1")]))) == 2


@BY_NAME
def test_the_first_code_cell_is_the_one_switch(notebook):
    first, *others = code_of(nbformat.read(notebook, as_version=4))
    (switch,) = ast.parse(first).body
    assert ast.unparse(switch) == "SERIES = None"
    assert HUB in first
    names = [node.id for cell in others for node in ast.walk(ast.parse(cell))
             if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]  # fmt: skip
    assert "SERIES" not in names
    assert any("SERIES" in cell for cell in others)
    assert not any("EleutherAI" in cell for cell in others)


def switched(notebook):
    """What imports there are, and what the switch alone decides: whose checkpoints are read."""
    tree = ast.parse("\n".join(code_of(notebook)))
    for node in tree.body:
        written = ast.unparse(node)
        imports = isinstance(node, ast.ImportFrom) and node.module == "tlens_trust"
        switching = ("if SERIES is None", "start =", "series = load_toy_series()")
        if imports or (written.startswith(switching) and "series" in written.lower()):
            yield node


@BY_NAME
def test_the_switch_leads_to_the_hub(notebook):
    nodes = list(switched(nbformat.read(notebook, as_version=4)))
    names = {"SERIES": HUB}
    exec(compile(ast.Module(nodes, type_ignores=[]), notebook.name, "exec"), names)
    if "start" in names:
        assert names["start"] == HUB
    else:
        # Nothing is fetched yet.
        assert names["series"].model == HUB
        assert names["series"].steps[-1] == 143000


@BY_NAME
def test_links_to_other_notebooks_lead_somewhere(notebook):
    text = "\n".join(cell.source for cell in nbformat.read(notebook, as_version=4).cells)
    for link in re.findall(r"\]\(([^)]+\.ipynb)\)", text):
        assert (notebook.parent / link).is_file()


def test_the_documentation_lists_every_notebook():
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)
    nav = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)["nav"]
    (tutorials,) = [section["Tutorials"] for section in nav if "Tutorials" in section]
    listed = [path for entry in tutorials for path in entry.values()]
    assert listed == [f"examples/{notebook.name}" for notebook in NOTEBOOKS]


@pytest.mark.documents
@BY_NAME
def test_a_notebook_runs_to_its_end(notebook, executing, cache, tmp_path):
    run = executing.execute(notebook, folder=tmp_path, cache=cache, seconds=LIMIT)
    if os.environ.get("TLENS_TRUST_CACHE"):
        executing.keep(run, executing.kept(notebook, cache))
    outputs = [output for cell in run.cells for output in cell.get("outputs", [])]
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    assert "application/vnd.plotly.v1+json" in kinds
    errors = "".join(output.text for output in outputs if output.get("name") == "stderr")
    assert "arning" not in errors
    # Nothing but bars that came to their end, each on one line.
    bars = [line for line in errors.splitlines() if line.strip()]
    assert bars
    assert all("100%|" in bar for bar in bars), bars

    page = nbformat.writes(executing.as_page(run))
    assert "plotly-graph-div" in page
    assert page.count("plotly.min.js") == 1
    assert not re.search(r"<script[^>]+src=\\?[\"']https?:", page)


def test_a_notebook_that_fails_is_noticed(executing, tmp_path):
    from nbclient.exceptions import CellExecutionError

    broken = tmp_path / "99_broken.ipynb"
    cells = [new_code_cell("print('before')"), new_code_cell("raise ValueError('it broke')")]
    nbformat.write(new_notebook(cells=cells), broken)
    with pytest.raises(CellExecutionError, match="it broke"):
        executing.execute(broken, folder=tmp_path, seconds=60)


def test_a_notebook_that_takes_too_long_is_stopped(executing, tmp_path):
    from nbclient.exceptions import CellTimeoutError

    slow = tmp_path / "99_slow.ipynb"
    cells = [new_code_cell("import time; time.sleep(2)") for _ in range(20)]
    nbformat.write(new_notebook(cells=cells), slow)
    # The limit is for all cells together; none of them alone takes as long.
    with pytest.raises(CellTimeoutError):
        executing.execute(slow, folder=tmp_path, seconds=5)


def test_what_is_kept_goes_by_notebook_and_source(executing, tmp_path):
    one, two = tmp_path / "98_one.ipynb", tmp_path / "98_two.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("1")]), one)
    place = executing.kept(one, tmp_path)
    assert place == executing.kept(one, tmp_path)
    executing.keep(nbformat.read(one, as_version=4), place)
    nbformat.write(new_notebook(cells=[new_code_cell("2")]), one)
    other = executing.kept(one, tmp_path)
    assert other != place
    executing.keep(nbformat.read(one, as_version=4), other)
    assert other.is_file()
    assert not place.exists()
    nbformat.write(new_notebook(cells=[new_code_cell("2")]), two)
    assert executing.kept(two, tmp_path) != other


def test_a_page_asks_nothing_of_another_site(executing):
    class Page:
        class file:  # noqa: N801
            src_uri = "examples/01.ipynb"

    own = '<script src="../plotly.min.js"></script><script>let a = 1;</script>'
    asked = (
        '<script src="https://cdnjs.cloudflare.com/mathjax.js"> </script>'
        '<script type="module">import m from "https://cdn.jsdelivr.net/x.js"; m()</script>'
    )
    assert executing.on_post_page(f"{asked}{own}{asked}", Page, None) == own
