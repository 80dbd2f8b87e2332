"""The plotly figure that every drawing function gives, and how it is written to a file."""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from tlens_trust.files import write_file

_PICTURES = (".png", ".svg", ".pdf")
# A figure is laid out for a screen; at its own size, a PNG would be coarse in print.
_PIXELS_PER_UNIT = 2


class Figure(go.Figure):  # type: ignore[misc]  # plotly has no types
    """A plotly figure that can be saved by a file's name.

    `.show()` shows it; in a notebook its name as a line's last expression does.

    Examples:
        >>> figure = Figure({"data": [{"y": [0.5, 0.9]}]})
        >>> figure.save("rise.html")  # doctest: +SKIP
    """

    def save(self, path: str | os.PathLike[str], *, width: int = 1100, height: int = 0) -> Path:
        """Write the figure: a page that opens without a network, or a picture.

        The file is written beside its place and renamed into it.

        Args:
            path: `.html` (plotly's script is written into the page, 5 MB), `.png` (at twice the
                size in pixels, for print), `.svg` or `.pdf`.
            width: Of a picture, in pixels.
            height: Of a picture, in pixels; 0 for the figure's own.

        Returns:
            The file.

        Raises:
            ValueError: The file's name has another ending.
            ImportError: A picture was asked for, and kaleido is not installed.
            RuntimeError: A picture was asked for, and kaleido finds no Chrome.
        """
        file = Path(path).expanduser()
        ending = file.suffix.lower()
        if ending not in (".html", *_PICTURES):
            raise ValueError(
                f"A figure is saved as .html, .png, .svg or .pdf, got {str(path)!r}. Give the file "
                "one of these endings."
            )
        if ending == ".html":
            write_file(file, self.to_html(include_plotlyjs=True))
        else:
            write_file(file, self._picture(ending[1:], width, height))
        return file

    def _picture(self, form: str, width: int, height: int) -> bytes:
        size: dict[str, Any] = {"width": width}
        # Without a height in either, plotly's exporter takes its default.
        if height or self.layout.height:
            size["height"] = height or self.layout.height
        try:
            # plotly's own message does not know the extra of this package that installs kaleido.
            import kaleido  # noqa: F401
        except ImportError as error:
            raise ImportError(
                f"A figure is exported as .{form} by kaleido, which is not installed. Install it "
                "with `pip install 'tlens-trust[export]'`, or save as .html."
            ) from error
        try:
            with _without_torn_messages():
                picture: bytes = self.to_image(format=form, scale=_PIXELS_PER_UNIT, **size)
        except RuntimeError as error:
            # plotly raises a plain RuntimeError; only its text shows that a browser is missing.
            if "requires Google Chrome" not in str(error):
                raise
            raise RuntimeError(
                f"A figure is exported as .{form} by kaleido, which needs Chrome or Chromium and "
                "found neither. Install one, or let kaleido do so with `plotly_get_chrome`; or "
                "save as .html."
            ) from error
        return picture


@contextlib.contextmanager
def _without_torn_messages() -> Iterator[None]:
    """Keep to itself what Chrome's pipe says when it is closed in the middle of a message.

    The picture is there by then, and the traceback that is logged would be taken for a failure.
    """

    def keep(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("JSONError decoding message. Ignoring")

    pipe = logging.getLogger("choreographer.channels.pipe")
    pipe.addFilter(keep)
    try:
        yield
    finally:
        pipe.removeFilter(keep)
