"""What comes from data is text in a page, whatever it says."""

import json
import re
from pathlib import Path

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

import tlens_trust
from tlens_trust.html import render, script_data, script_json

HOSTILE = "</b></script><script>alert('1')</script> \" & \u2028"
PACKAGE = Path(tlens_trust.__file__).parent


def test_a_template_escapes_names_and_texts():
    page = render("notebook/facts", {"title": HOSTILE, "facts": {HOSTILE: HOSTILE}})
    assert "<script>" not in page
    assert page.count("&lt;script&gt;") == 3
    assert "&#34;" in page


def test_a_part_that_was_rendered_is_not_escaped_again():
    page = render("notebook/facts", {"title": Markup("<i>x</i>"), "facts": {}})
    assert "<b><i>x</i></b>" in page


def test_a_name_that_is_missing_is_an_error_and_no_gap():
    with pytest.raises(UndefinedError, match="facts"):
        render("notebook/facts", {"title": "x"})


def test_json_in_a_script_neither_ends_it_nor_a_line_and_says_the_same():
    for text in (script_data({"a": HOSTILE}), script_json(json.dumps({"a": HOSTILE}))):
        assert not {"<", ">", "&", "\u2028"} & {*text}
        assert json.loads(text) == {"a": HOSTILE}
    raw = script_json(json.dumps({"a": HOSTILE}, ensure_ascii=False))
    assert "\u2028" not in raw
    assert json.loads(raw) == {"a": HOSTILE}


def test_every_template_is_used_by_a_module_or_a_template():
    templates = PACKAGE / "templates"
    sources = [*PACKAGE.rglob("*.py"), *templates.rglob("*.jinja")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    for template in templates.rglob("*.jinja"):
        name = template.relative_to(templates).as_posix()
        stem = name.removesuffix(".html.jinja")
        assert re.search(rf'"{re.escape(stem)}(\.html\.jinja)?"', text), name
