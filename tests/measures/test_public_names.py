"""Each public name of the package has one home, and a place in the documentation or an example."""

import re
from importlib import import_module
from pathlib import Path

import pytest

from tlens_trust import measures

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*.ipynb")]


@pytest.mark.parametrize("name", ["directions", "information", "kernels"])
def test_a_folder_of_measures_exports_nothing_a_second_time(name):
    package = import_module(f"tlens_trust.measures.{name}")
    assert not set(getattr(package, "__all__", ())) & set(measures.__all__)


def test_public_names_are_few_and_documented():
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    words = set(re.findall(r"\w+", text))
    assert sorted(set(measures.__all__) - words) == []
    assert len(measures.__all__) < 50
    assert "solve_logistic" not in measures.__all__  # a building block, found in its module
