"""Draw the pictures of README.md and of the start page: `python examples/pictures.py RUN`.

RUN is the folder of a run over the toy series (`tlens-trust demo` leaves one). Needs the extra
`export` and a Chrome or Chromium.
"""

import sys
from pathlib import Path

from tlens_trust import Trace

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"


def draw(run: str) -> None:
    """Write both pictures into the documentation's folder."""
    trace = Trace.load(run)
    trace.plot.lines("accuracy", sites=[3]).save(IMAGES / "first-figure.svg", width=1000)
    trace.plot.heatmap("accuracy").save(IMAGES / "heatmap.svg", width=1000)


if __name__ == "__main__":
    draw(sys.argv[1])
