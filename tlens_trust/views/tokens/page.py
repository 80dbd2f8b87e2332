"""A page of views, which opens without a network."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from markupsafe import Markup

from tlens_trust.files import write_file
from tlens_trust.html import render
from tlens_trust.views.tokens.script import circuitsvis_script


@runtime_checkable
class PagePart(Protocol):
    """A view that can stand in a page."""

    def fragment(self) -> str:
        """Its HTML, for a page that holds circuitsvis' script."""


def write_page(
    views: Sequence[PagePart], path: str | os.PathLike[str], *, title: str = "Token scores"
) -> Path:
    """Write several views into one HTML file, with circuitsvis' script once.

    The page loads nothing from the network.

    Args:
        views: What to show, in order.
        path: A file that ends in `.html`; an existing file is replaced.
        title: Of the page.

    Returns:
        The file.

    Raises:
        ValueError: There are no views, or the file has another ending.
    """
    file = Path(path).expanduser()
    if not views:
        raise ValueError("There is nothing to show. Give at least one view.")
    if file.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"A page is saved as .html, got {str(path)!r}.")
    # Views escape what they show; a page must not escape their tags again.
    fragments = [Markup(view.fragment()) for view in views]
    values = {"title": title, "script": circuitsvis_script(), "fragments": fragments}
    write_file(file, render("tokens/page", values))
    return file
