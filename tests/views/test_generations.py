import numpy as np
import pytest
import xarray as xr

from tlens_trust.views import GenerationsView, draw_generations

HOSTILE = "</td><script>window.ran = 1</script><img src=x onerror='window.ran = 1'>"


def evaluation(texts=(("a cod", "a cow"), ("a pike", "a pike"))):
    return xr.Dataset(
        {
            "generation": (("prompt", "condition"), np.array(texts)),
            "strength": ("condition", [0.0, 1.5]),
        },
        {
            "prompt": [f"prompt {i}" for i in range(len(texts))],
            "condition": ["unsteered", "steered"],
        },
        attrs={"mode": "add", "positions": "generated", "units": "rms"},
    )


def test_what_differs_from_the_first_text_is_marked_and_nothing_else():
    page = draw_generations(evaluation()).fragment()
    assert "a co<mark>w</mark>" in page
    assert page.count("<mark>") == 1
    assert "strength: 1.5 (rms)" in page
    assert "positions: generated" in page


def test_what_a_model_writes_is_shown_and_not_run(tmp_path, browse):
    view = draw_generations(evaluation([[HOSTILE, f"x{HOSTILE}"]]))
    told = browse(
        view.save(tmp_path / "page.html"),
        """await wait(300);
        const cells = [...document.querySelectorAll(".tt-written td")];
        return {ran: window.ran || 0, shown: cells.map(c => c.textContent)};""",
    )
    assert told["answer"]["ran"] == 0
    assert told["answer"]["shown"] == [HOSTILE, f"x{HOSTILE}"]
    assert told["errors"] == []
    assert told["requests"] == []


def test_an_evaluation_without_texts_is_refused():
    with pytest.raises(ValueError, match="prompts"):
        draw_generations(evaluation().drop_vars("generation"))
    with pytest.raises(ValueError, match="got 1 rows"):
        GenerationsView("t", ("a", "b"), ("x",), (("text",),))
