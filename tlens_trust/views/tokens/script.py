"""circuitsvis' script, and the texts that it is given.

circuitsvis writes its whole script, 1.3 MB, with every view, or loads it from a server. Here a page
holds it once, and every view calls it. circuitsvis also inserts the text of a token as HTML, so
each token is escaped first (see `as_token_html`).
"""

from functools import cache
from html import escape
from importlib.resources import files

from markupsafe import Markup


@cache
def circuitsvis_script() -> Markup:
    """Read the script that defines `CircuitsVis` in a page; it loads nothing from the network."""
    source = files("circuitsvis").joinpath("dist/cdn/iife.js").read_text(encoding="utf-8")
    # The last line names a file that a page does not hold, and developer tools would ask for it.
    body, _, _ = source.rpartition("//# sourceMappingURL")
    # In HTML a script ends at the first such tag, even within a text.
    return Markup(body.replace("</script", "<\\/script"))


def as_token_html(token: str) -> str:
    """Escape a token, which circuitsvis inserts into a page as HTML.

    Examples:
        >>> as_token_html("<script>")
        '&lt;script&gt;'
    """
    return escape(token)
