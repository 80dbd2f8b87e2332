"""Each public name of the package has one home, and a place in the documentation or an example."""

import pkgutil
import re
from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest

import tlens_trust

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*.ipynb")]
PACKAGES = (
    "concepts",
    "checkpoints",
    "activations",
    "measures",
    "steering",
    "tracing",
    "analysis",
    "views",
)


def public_names(package):
    return import_module(f"tlens_trust.{package}").__all__


def test_each_public_name_has_one_home():
    homes = Counter(name for package in PACKAGES for name in public_names(package))
    assert [name for name, count in homes.items() if count > 1] == []
    # The short list of the package itself is a shortcut to these homes.
    assert set(tlens_trust.__all__) <= set(homes)


@pytest.mark.parametrize("package", PACKAGES)
def test_each_public_name_is_in_the_documentation_or_an_example(package):
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    words = set(re.findall(r"\w+", text))
    assert sorted(set(public_names(package)) - words) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_each_public_name_is_there(package):
    module = import_module(f"tlens_trust.{package}")
    assert all(hasattr(module, name) for name in module.__all__)
    assert list(module.__all__) == sorted(set(module.__all__), key=_class_like_first)


def _class_like_first(name):
    kind = 0 if name.isupper() else 1 if name[0].isupper() else 2
    return kind, name


def test_no_folder_inside_a_package_exports_names_a_second_time():
    folders = [
        module.name
        for package in PACKAGES
        for module in pkgutil.walk_packages(
            import_module(f"tlens_trust.{package}").__path__, f"tlens_trust.{package}."
        )
        if module.ispkg
    ]
    assert len(folders) > 5
    assert [name for name in folders if hasattr(import_module(name), "__all__")] == []
