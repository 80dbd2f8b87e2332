"""What the package imports is what pyproject.toml declares, no more and no less."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

# Declared, but imported by another package on our behalf or only under some settings.
NOT_IMPORTED_BY_NAME = {
    "netcdf4": "xarray imports it, for `engine='netcdf4'`",
}
# Called with a package's name, these need it as an import does.
BY_NAME = ("files", "import_module", "version", "find_spec")


def imported(source):
    """Top-level modules that a source imports at run time, or looks up by a literal name."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = getattr(node.func, "attr", getattr(node.func, "id", None))
            if name in BY_NAME and isinstance(node.args[0].value, str):
                found.add(node.args[0].value.replace("-", "_"))
    tops = {name.partition(".")[0] for name in found}
    return tops - set(sys.stdlib_module_names) - {"tlens_trust"}


def names(requirements):
    return {canonicalize_name(Requirement(line).name) for line in requirements}


@pytest.fixture(scope="module")
def sources():
    """The source of each module that imports a package, by that package's distributions."""
    distributions = packages_distributions()
    found = {}
    for path in sorted((ROOT / "tlens_trust").rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        for module in imported(source):
            owners = {canonicalize_name(name) for name in distributions.get(module, [module])}
            found.setdefault(frozenset(owners), {})[path.relative_to(ROOT)] = source
    return found


def test_every_dependency_is_imported_or_has_a_reason(sources):
    used = set().union(*sources)
    unused = names(PROJECT["dependencies"]) - used - {*NOT_IMPORTED_BY_NAME}
    assert not unused, f"Declared in pyproject.toml, and nothing imports it: {sorted(unused)}."


def test_every_import_is_declared_or_its_error_names_an_extra(sources):
    declared = names(PROJECT["dependencies"])
    extras = {name: names(lines) for name, lines in PROJECT["optional-dependencies"].items()}
    for owners, modules in sources.items():
        if owners & declared:
            continue
        for path, source in modules.items():
            named = set(re.findall(r"pip install 'tlens-trust\[(\w+)\]'", source))
            assert any(owners & extras[extra] for extra in named), (
                f"{path} imports {sorted(owners)}, which is no dependency, and no error message "
                f"there says which extra brings it (it names {sorted(named)})."
            )


def test_a_reason_is_given_for_what_is_declared_only():
    assert names(NOT_IMPORTED_BY_NAME) <= names(PROJECT["dependencies"])


def test_every_declared_package_has_a_version_in_the_constraints():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = names(line for line in lines if line and not line.startswith("#"))
    extras = PROJECT["optional-dependencies"].values()
    declared = names(PROJECT["dependencies"]).union(*map(names, extras))
    assert not declared - pinned


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import numpy.linalg as la, os", {"numpy"}),
        ("def f():\n    from scipy.stats import t", {"scipy"}),
        ("from importlib.resources import files\nfiles('circuitsvis')", {"circuitsvis"}),
        ("importlib.metadata.version('transformer-lens')", {"transformer_lens"}),
        ("from . import near\nfrom tlens_trust import Concept\nx = 'import torch'", set()),
    ],
)
def test_imports_are_found_where_they_are_and_nowhere_else(source, expected):
    assert imported(source) == expected
