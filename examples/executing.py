"""Execute the notebooks: for the tests, and as a hook of mkdocs for the documentation's pages.

They are committed without outputs. The documentation shows them executed, and it takes what the
tests have executed where both are given one `TLENS_TRUST_CACHE`, so that CI executes each of them
once. What is kept goes by the notebook *and* the package's source and data: none is ever shown with
another's numbers.
"""

import hashlib
import os
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "examples").glob("[0-9]*.ipynb"))

# Of a whole notebook on two cores; the machine may be busy with more than this.
SECONDS = 600

# mkdocs' theme leaves tables and figures too little room, wraps output in the midst of words, and
# calls a progress bar an error.
_STYLE = """<style>
.md-grid { max-width: 78rem; }
.md-sidebar--secondary { display: none !important; }
.jupyter-wrapper .jp-OutputArea-output pre { white-space: pre; overflow-x: auto; }
.jupyter-wrapper .jp-OutputArea-output[data-mime-type="application/vnd.jupyter.stderr"] {
  background: none;
}
</style>"""

_PLOTLY = "application/vnd.plotly.v1+json"
_DETAILS = re.compile(r"<details>.*</details>", re.DOTALL)
_LINK = re.compile(r"\]\((\d\d_\w+)\.ipynb\)")
# nbconvert brings MathJax and Mermaid from the network, and no notebook here has need of them.
_FROM_ELSEWHERE = re.compile(
    r"<script[^>]*>(?:(?!</script>).)*?(?:cdnjs\.cloudflare\.com|cdn\.jsdelivr\.net)"
    r"(?:(?!</script>).)*</script>|<script[^>]*\bsrc=\"https?://[^>]*>\s*</script>",
    re.DOTALL,
)


def execute(
    notebook: Path, *, folder: Path, cache: Path | None = None, seconds: float = SECONDS
) -> Any:
    """Run a notebook from its first cell to its last, as a user would.

    Args:
        notebook: The file; it is not changed.
        folder: Where the kernel runs, and where runs go.
        cache: What `TLENS_TRUST_CACHE` is for the kernel; None for what it is here.
        seconds: For all cells together.

    Returns:
        The notebook with its outputs. A line that was written over, as a progress bar's, is what it
        was in the end.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell raised.
        nbclient.exceptions.CellTimeoutError: The time was up.
    """
    from nbclient import NotebookClient

    read = nbformat.read(notebook, as_version=4)
    until = time.monotonic() + seconds
    client = NotebookClient(
        read,
        kernel_name="python3",
        timeout_func=lambda _: max(until - time.monotonic(), 0.1),
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    moved = {} if cache is None else {"TLENS_TRUST_CACHE": str(cache)}
    client.execute(env=os.environ | moved)
    return read


def kept(notebook: Path, folder: Path) -> Path:
    """Where the executed notebook is kept below a cache folder."""
    digest = hashlib.sha256()
    package = ROOT / "tlens_trust"
    # The record of the embedded series holds the hashes of its weights.
    sources = [*sorted(package.rglob("*.py")), *sorted(package.rglob("series.json"))]
    for file in (notebook, Path(__file__), *sources):
        digest.update(file.read_bytes())
    return folder / "examples" / notebook.stem / f"{digest.hexdigest()[:24]}.ipynb"


def keep(executed: Any, place: Path) -> None:
    """Write an executed notebook to its place, and remove those of other sources."""
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_suffix(".partial")
    nbformat.write(executed, partial)
    partial.replace(place)
    for other in place.parent.glob("*.ipynb"):
        if other != place:
            other.unlink()


def as_page(executed: Any) -> Any:
    """What the documentation shows: figures that are drawn from the site's own script.

    A kernel gives a figure as data, for Jupyter to draw; a page needs it as HTML. xarray's own HTML
    is torn to pieces by the theme, and gives way to its text. Links to other notebooks become links
    to their pages.
    """
    from plotly.io import to_html

    page = nbformat.from_dict(executed)
    script = '<script src="../plotly.min.js"></script>\n'
    for cell in page.cells:
        if cell.cell_type == "markdown":
            cell.source = _LINK.sub(r"](../\1/)", cell.source)
        for output in cell.get("outputs", []):
            html = output.get("data", {}).get("text/html", "")
            if "<details><summary>data" in html:
                output["data"]["text/html"] = _DETAILS.sub("", html)
            elif "class='xr-wrap'" in html:
                output["data"].pop("text/html")
            figure = output.get("data", {}).get(_PLOTLY)
            if figure is not None:
                shown = {key: figure[key] for key in ("data", "layout", "frames") if key in figure}
                drawn = to_html(
                    shown,
                    config={"responsive": True},
                    include_plotlyjs=False,
                    include_mathjax=False,
                    full_html=False,
                    validate=False,
                )
                output["data"] = {"text/html": script + drawn}
                script = ""
    return page


def on_files(files: Any, config: Any) -> Any:
    """Add the notebooks to the documentation, executed, and what their figures need."""
    from mkdocs.structure.files import File
    from plotly.offline import get_plotlyjs

    from tlens_trust import load_toy_series
    from tlens_trust.checkpoints.cache import cache_folder

    # mkdocs-jupyter reads a page from its source folder, so that it cannot live in memory alone.
    pages = cache_folder() / "examples" / "pages"
    (pages / "examples").mkdir(parents=True, exist_ok=True)
    for notebook in NOTEBOOKS:
        place = kept(notebook, cache_folder())
        if not place.is_file():
            with tempfile.TemporaryDirectory() as folder:
                keep(execute(notebook, folder=Path(folder)), place)
        name = f"examples/{notebook.name}"
        page = nbformat.writes(as_page(nbformat.read(place, as_version=4)))
        # Whose home it was executed in is nobody's business.
        page = page.replace(str(cache_folder()), "~/.cache/tlens_trust")
        page = page.replace(load_toy_series().model, "tlens_trust/checkpoints/embedded/toy")
        (pages / name).write_text(page, encoding="utf-8")
        files.append(File(name, str(pages), config.site_dir, config.use_directory_urls))
    files.append(File.generated(config, "examples/plotly.min.js", content=get_plotlyjs()))
    return files


# Before mkdocs-jupyter looks at the files.
on_files.mkdocs_priority = 100  # type: ignore[attr-defined]


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Leave out of a notebook's page what would be fetched from elsewhere, and make room in it."""
    if not page.file.src_uri.endswith(".ipynb"):
        return output
    return _FROM_ELSEWHERE.sub("", output).replace("</head>", f"{_STYLE}</head>", 1)
