"""Docstrings as the reference shows them."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "tlens_trust"


def unshown(source: str) -> list[str]:
    """Names whose docstring holds a doctest that the reference would not show as code.

    It knows of a section "Examples:" only; "Example:" becomes a quotation in quotations.
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            continue
        text = ast.get_docstring(node) or ""
        if ">>> " in text and "\nExamples:\n" not in text:
            found.append(getattr(node, "name", "the module"))
    return found


def test_every_example_is_shown_as_code():
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 100
    found = {file.name: names for file in files if (names := unshown(file.read_text("utf-8")))}
    assert found == {}


def test_another_heading_would_be_found():
    shown = 'def f():\n    """One.\n\n    Examples:\n        >>> 1\n        1\n    """\n'
    assert unshown(shown) == []
    assert unshown(shown.replace("Examples", "Example")) == ["f"]
