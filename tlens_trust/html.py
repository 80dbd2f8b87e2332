"""HTML from jinja2 templates, which escape every value that they are given.

The templates lie in `tlens_trust/templates`. Statements, names and paths come from data, so no
other module writes a tag or escapes a text for a page by hand.
"""

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, values: Mapping[str, object]) -> Markup:
    r"""Fill a template with values.

    Args:
        template: A file below `tlens_trust/templates`, without its ending `.html.jinja`.
        values: What the template's names stand for. A text is escaped; a `Markup`, as this function
            returns it, is inserted as it is.

    Returns:
        A part of a page.

    Raises:
        jinja2.UndefinedError: The template uses a name that `values` lacks.

    Examples:
        >>> print(render("notebook/facts", {"title": "<i>", "facts": {"n": "3"}}))
        <div><b>&lt;i&gt;</b><table><tr>...
    """
    return Markup(_environment().get_template(f"{template}.html.jinja").render(values))


def script_data(value: object) -> Markup:
    r"""Write a value as JSON for a `<script>`, in which no text can end the script.

    Args:
        value: Anything that `json.dumps` accepts; no NaN.

    Examples:
        >>> print(script_data({"a": "</script><b>"}))
        {"a": "\u003c/script\u003e\u003cb\u003e"}
    """
    # JSON has no NaN, and a browser's `JSON.parse` refuses it.
    return script_json(json.dumps(value, allow_nan=False))


def script_json(text: str) -> Markup:
    r"""Make JSON safe within a `<script>`: no text in it can end the script or a line.

    Args:
        text: JSON, in which these characters occur within strings alone.
    """
    # U+2028 and U+2029 end a line in the JavaScript of older browsers.
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


@cache
def page_file(name: str) -> Markup:
    """Read a style sheet or a script of ours, which stands in a page as it is.

    Args:
        name: A file below `tlens_trust/templates`, as `report/report.css`.
    """
    return Markup(files("tlens_trust").joinpath("templates", name).read_text(encoding="utf-8"))


@cache
def _environment() -> "Environment":
    # Importing `tlens_trust` stays fast: jinja2 is loaded by the first page or notebook view.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("tlens_trust"),
        autoescape=True,
        # A misspelt name in a template raises an error, where jinja2 would leave a gap.
        undefined=StrictUndefined,
        # These two keep lines that hold nothing but a template's tag out of the page.
        trim_blocks=True,
        lstrip_blocks=True,
    )
