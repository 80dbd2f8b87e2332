import re

import numpy as np
import pytest
import xarray as xr

from tlens_trust.views.tokens import token_view
from tlens_trust.views.tokens.page import write_page
from tlens_trust.views.tokens.token_view import TokenView, draw_tokens

HOSTILE = (
    "<script>window.ran = 1</script>",
    "<img src=x onerror='window.ran = 1'>",
    '<img/src="x"onerror="window.ran=1">',
    "</script>",
    "<!--",
    "\"'`${window.ran = 1}",
    "&lt;",
    "🙂",
    "שלום",
    "\n",
)


def make_view(shown=("The", " cod"), checkpoints=2, sites=2):
    values = np.random.default_rng(0).standard_normal((checkpoints, sites, len(shown)))
    return TokenView(
        "score (nats)",
        tuple(shown),
        values,
        tuple(f"step {i}" for i in range(checkpoints)),
        tuple(f"layer {i}" for i in range(sites)),
    )


def test_a_page_holds_the_script_once_however_many_views_it_shows(tmp_path):
    one = write_page([make_view()], tmp_path / "one.html").stat().st_size
    five = write_page([make_view()] * 5, tmp_path / "five.html").stat().st_size
    assert one > 1_000_000
    assert five - one < 50_000


def test_a_notebook_is_given_the_script_once(monkeypatch):
    monkeypatch.setattr(token_view, "_SHOWN", iter(range(3)))
    shown = make_view()
    first, second = shown._repr_html_(), shown._repr_html_()
    assert len(first) > 1_000_000 > 50_000 > len(second)


def test_a_page_names_no_server(tmp_path):
    page = write_page([make_view(HOSTILE)], tmp_path / "page.html").read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", page)
    assert "sourceMappingURL" not in page


def test_a_text_is_shown_and_not_run(tmp_path, browse):
    page = write_page([make_view(HOSTILE)], tmp_path / "page.html", title="<script>x</script>")
    told = browse(
        page,
        """await wait(500);
        const drawn = document.querySelector(".colored-tokens");
        return {ran: window.ran || 0, text: drawn.textContent,
                alien: document.querySelectorAll(".tt-text script, .tt-text img").length};""",
    )
    assert told["answer"]["ran"] == 0
    assert told["answer"]["alien"] == 0
    shown = told["answer"]["text"].replace("\xa0", " ")
    # circuitsvis writes a space for a line's end, and a line's end after it.
    assert shown == "".join(HOSTILE).replace("\n", " ")
    assert told["errors"] == []
    assert told["requests"] == []


def test_what_is_not_escaped_would_be_run(tmp_path, browse, monkeypatch):
    monkeypatch.setattr(token_view, "as_token_html", lambda token: token)
    page = write_page([make_view(HOSTILE)], tmp_path / "page.html")
    told = browse(page, "await wait(500); return window.ran || 0;")
    assert told["answer"] == 1


def test_the_choice_of_checkpoint_and_site_changes_what_is_drawn(tmp_path, browse):
    shown = make_view()
    page = write_page([shown], tmp_path / "page.html")
    told = browse(
        page,
        """const colours = () => [...document.querySelectorAll(".colored-tokens span span")]
            .map(e => e.style.backgroundColor).join();
        const pick = async (name, value) => {
          const e = document.querySelector(`[data-pick=${name}]`);
          e.value = value; e.dispatchEvent(new Event("input")); await wait(200);
          return [colours(), document.querySelector("output").textContent];
        };
        await wait(300);
        return [[colours(), document.querySelector("output").textContent],
                await pick("checkpoint", 0), await pick("site", 0), await pick("site", 1)];""",
    )
    start, earlier, other, back = told["answer"]
    assert start[1] == "step 1"
    assert earlier[1] == other[1] == "step 0"
    assert len({start[0], earlier[0], other[0]}) == 3
    assert back == earlier
    assert told["errors"] == []


def test_one_scale_of_colours_serves_all_checkpoints():
    values = np.array([[[0.0, 1.0]], [[-4.0, 2.0]]])
    fragment = TokenView("s", ("a", "b"), values, ("0", "1"), ("x",)).fragment()
    assert '"largest": 4.0' in fragment
    assert "+4" in fragment


def test_without_a_script_the_last_checkpoint_and_site_are_shown():
    values = np.zeros((2, 2, 2))
    values[1, 1] = [-1, 1]
    plain = TokenView("s", ("a", "<b>"), values, ("0", "1"), ("x", "y")).fragment()
    body = plain[: plain.index("<style>")]
    assert f"{token_view.NEGATIVE} 100%" in body
    assert f"{token_view.POSITIVE} 100%" in body
    assert "&lt;b&gt;" in body
    assert "<b>" not in body.replace("<b>s</b>", "")


def test_numbers_that_do_not_fit_or_are_not_finite_are_refused():
    with pytest.raises(ValueError, match=r"1 checkpoints, 1 sites and 2 tokens.*\(1, 1, 3\)"):
        TokenView("s", ("a", "b"), np.zeros((1, 1, 3)))
    with pytest.raises(ValueError, match="finite"):
        TokenView("s", ("a",), np.full((1, 1, 1), np.nan))


def test_a_page_is_refused_that_shows_nothing_or_is_called_otherwise(tmp_path):
    with pytest.raises(ValueError, match="nothing to show"):
        write_page([], tmp_path / "page.html")
    with pytest.raises(ValueError, match=r"\.html"):
        write_page([make_view()], tmp_path / "page.png")
    assert not list(tmp_path.iterdir())


def scores(steps):
    return xr.Dataset(
        {
            "score": (
                ("checkpoint", "site", "token"),
                np.arange(len(steps) * 2.0).reshape(len(steps), 1, 2),
                {"units": "nats", "long_name": "log-odds"},
            )
        },
        coords={
            "checkpoint": [f"m@{i}" for i in range(len(steps))],
            "step": ("checkpoint", steps),
            "site": ["blocks.3.hook_resid_post"],
            "layer": ("site", [3]),
            "text": ("token", ["a", "b"]),
        },
        attrs={"position": "last"},
    )


def test_scores_of_tokens_become_a_view_with_their_unit_steps_and_layers():
    drawn = draw_tokens(scores([512.0, np.nan]))
    assert drawn.title == "log-odds (nats)"
    assert drawn.checkpoints == ("step 512", "m@1")
    assert drawn.sites == ("layer 3",)
    assert drawn.values[1, 0].tolist() == [2.0, 3.0]


def test_something_else_is_no_scores_of_tokens():
    with pytest.raises(ValueError, match="trace_tokens"):
        draw_tokens(xr.Dataset({"accuracy": 1}))
