"""The documentation's snippets, page by page and in order, on the toy series."""

import re
import shlex
import shutil
from pathlib import Path

import plotly.graph_objects as go
import pytest
import typer

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^( *)```(\w+)(.*?)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
# What a reader sees above a block that cannot run on the embedded default.
NEEDS = re.compile(r' title="needs [^"]+"')


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[tuple[str, str]]:
    """What stands behind the language of each block, and the block."""
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    return [(said, block) for _, named, said, block in found if named == language]


def commands(page: Path) -> list[list[str]]:
    lines = "\n".join(block for _, block in blocks(page, "sh")).replace("\\\n", " ")
    parts = [part for line in lines.splitlines() for part in line.split("&&")]
    words = [shlex.split(part, comments=True) for part in parts]
    return [each for each in words if each[:1] == ["tlens-trust"]]


def test_pages_hold_snippets_and_these_compile():
    found = {name_of(page): blocks(page, "python") for page in PAGES}
    assert sum(map(len, found.values())) >= 15
    for name, snippets in found.items():
        for _, snippet in snippets:
            compile(snippet, name, "exec")


def test_every_snippet_runs_here_or_says_what_it_needs():
    for page in PAGES:
        for said, snippet in blocks(page, "python"):
            assert not said or NEEDS.fullmatch(said), f"{name_of(page)}: {said}\n{snippet}"


# What runs in a shell as it stands, on nothing but what comes along.
ANYWHERE = ("python -m pip ", "tlens-trust demo", "tlens-trust concepts")


def test_every_shell_block_runs_anywhere_or_says_what_it_needs():
    for page in PAGES:
        for said, block in blocks(page, "sh"):
            lines = [line for line in block.splitlines() if line.strip()]
            anywhere = all(line.startswith(ANYWHERE) or "$(python -c" in line for line in lines)
            assert anywhere or NEEDS.fullmatch(said), f"{name_of(page)}:\n{block}"
        # Commands do not hide as text.
        for _, block in blocks(page, "text"):
            assert not re.match(r"(tlens-trust|llama|lm_eval|python) ", block), name_of(page)


def test_every_command_is_one_that_the_program_takes():
    from tlens_trust.cli.application import app

    program = typer.main.get_command(app)
    found = {name_of(page): commands(page) for page in PAGES}
    assert sum(map(len, found.values())) >= 15
    for name, lines in found.items():
        for _, command, *arguments in lines:
            assert command in program.commands, f"{name}: tlens-trust {command}"
            try:
                program.commands[command].make_context(command, list(arguments))
            except typer.TyperException as error:
                pytest.fail(f"{name}: tlens-trust {command} {arguments}: {error}")


# Folders that pages sweep the toy series into, with the probe and the seed of the demo. They begin
# with the demo's finished cells, so that these are measured once for all pages.
LIKE_THE_DEMO = ("run", "run-compared")


# The longest first, so that several processes end at about the same time.
LONGEST_FIRST = sorted(PAGES, key=lambda page: -len("".join(b for _, b in blocks(page, "python"))))


@pytest.mark.documents
@pytest.mark.parametrize("page", [p for p in LONGEST_FIRST if blocks(p, "python")], ids=name_of)
def test_every_snippet_of_a_page_runs_in_order(monkeypatch, tmp_path, request, page):
    from tlens_trust import load_toy_series

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(go.Figure, "show", lambda *_: None)
    # What the README takes to be the reader's own.
    rows = [f"{i} and {i} are {2 * i + wrong}.,{wrong},{i}" for i in range(3) for wrong in (0, 1)]
    Path("claims.csv").write_text("\n".join(["text,is_false,topic", *rows]))
    Path("my-training-run").symlink_to(load_toy_series().model)
    for folder in LIKE_THE_DEMO:
        if f'"{folder}"' in page.read_text(encoding="utf-8"):
            demo_folder = request.getfixturevalue("demo_folder")
            shutil.copytree(demo_folder / "tlens_trust_demo", folder)
    names: dict[str, object] = {}
    for said, snippet in blocks(page, "python"):
        if not said:
            exec(compile(snippet, name_of(page), "exec"), names)
