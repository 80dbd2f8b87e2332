"""circuitsvis' script, and what is put into a page beside it.

circuitsvis writes its whole script, 1.3 MB, with every view, or asks a server for it. Here it is
written once into a page, and every view calls it. It also takes the text of a token for HTML; so
what it is given is escaped before (see `as_script_data`).
"""

import json
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any


@cache
def circuitsvis_script() -> str:
    """A `<script>` that gives the page `CircuitsVis`, and asks no network for it."""
    source = files("circuitsvis").joinpath("dist/cdn/iife.js").read_text(encoding="utf-8")
    body, _, _ = source.rpartition("//# sourceMappingURL")
    # As HTML has it, a script ends at the first such mark, wherever it stands.
    body = body.replace("</script", "<\\/script")
    return f"<script>{body}</script>"


def as_script_data(value: Any) -> str:
    r"""A value as JavaScript within a page, in which no text can end the script.

    Examples:
        >>> as_script_data({"a": "</script><b>"})
        '{"a": "\\u003c/script\\u003e\\u003cb\\u003e"}'
    """
    return within_script(json.dumps(value, allow_nan=False))


def within_script(text: str) -> str:
    """JSON that stands within a page, in which no text can end the script."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def as_token_html(token: str) -> str:
    """A token as circuitsvis may put it into a page: text, whatever it says.

    Examples:
        >>> as_token_html("<script>")
        '&lt;script&gt;'
    """
    return escape(token)
