"""The documentation's snippets, page by page and in order, on the toy series."""

import re
from pathlib import Path

import plotly.graph_objects as go
import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SNIPPET = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def test_pages_hold_snippets_and_these_compile():
    found = {page.name: SNIPPET.findall(page.read_text(encoding="utf-8")) for page in PAGES}
    assert sum(map(len, found.values())) >= 15
    for name, snippets in found.items():
        for snippet in snippets:
            compile(snippet, name, "exec")


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_snippet_of_a_page_runs_in_order(monkeypatch, tmp_path, page):
    from tlens_trust import pretrain_toy_series

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(go.Figure, "show", lambda *_: None)
    # What the README takes to be the reader's own.
    rows = [f"{i} and {i} are {2 * i + wrong}.,{wrong},{i}" for i in range(3) for wrong in (0, 1)]
    Path("claims.csv").write_text("\n".join(["text,is_false,topic", *rows]))
    Path("my-training-run").symlink_to(pretrain_toy_series(progress=False).model)
    names: dict[str, object] = {}
    for snippet in SNIPPET.findall(page.read_text(encoding="utf-8")):
        exec(compile(snippet, page.name, "exec"), names)
