import numpy as np
import pytest
import xarray as xr

from tlens_trust.views.steering.matrix_table import (
    matrix_table,
    steering_effects,
    steering_verdict,
)

SOURCES = ["m@step8", "m@step64", "m@step512"]


def make_matrix(beyond=(0.0, 2.0, 3.0), p=(0.7, 0.02, 0.02), *, half=1.0, target="m@step512"):
    """Three sources on a target, by how far each moves it beyond random directions."""
    beyond = np.array(beyond, dtype=float)[:, None]
    cell = ("source", "target")
    bounds = beyond[..., None] + np.array([-half, half])
    variables = {"strength": (cell, np.ones((3, 1)))}
    for name, told in (
        ("log_odds", "log-odds"),
        ("answer_log_odds", "answer: log-odds of trustworthy answers"),
    ):
        share = 1.0 if name == "answer_log_odds" else 0.0
        units = {"units": "nats", "long_name": f"{told}, change by steering"}
        variables |= {
            f"{name}_change": (cell, share * beyond + 0.25, units),
            f"{name}_change_ci": ((*cell, "bound"), share * bounds + 0.25),
            f"{name}_over_random": (cell, share * beyond),
            f"{name}_over_random_ci": (
                (*cell, "bound"),
                share * beyond[..., None] + np.array([-half, half]),
            ),
            f"{name}_p": (cell, np.array(p)[:, None] if share else np.full((3, 1), 0.6)),
            f"{name}_wrong_way": (cell, np.full((3, 1), 0.25)),
            f"{name}_random": (("target", "draw"), np.linspace(-1, 1, 41)[None]),
        }
    return xr.Dataset(
        {
            **variables,
            "answer_accuracy_unsteered": ("target", [0.9]),
            "answer_accuracy_change": (cell, np.full((3, 1), -0.3)),
            "neutral_loss_change": (cell, np.full((3, 1), 0.125)),
            "neutral_loss_change_ci": (
                (*cell, "bound"),
                np.full((3, 1, 2), 0.125) + np.array([-0.105, 0.105]),
            ),
        },
        coords={
            "source": SOURCES,
            "source_step": ("source", [8.0, 64.0, 512.0]),
            "target": [target],
            "bound": ["low", "high"],
            "site": "blocks.2.hook_resid_post",
            "layer": 2,
        },
        attrs={
            "concept": "kindness",
            "target_kl": 0.1,
            "statements": 40,
            "random": "60 random directions",
        },
    )


@pytest.fixture
def make():
    return make_matrix


def test_what_is_asked_is_told_before_what_statements_tell_by_themselves(make):
    assert steering_effects(make()) == ("answer_log_odds", "log_odds")


def test_a_target_that_is_moved_is_told_so_with_effect_interval_and_cost(make):
    told = steering_verdict(make())
    assert told.startswith("kindness: m@step512 is moved to the trustworthy side (answer: log-odds")
    assert "its own vector adds +3.00 [+2.00, +4.00] nats" in told
    assert "p = 0.030, corrected for 3 sources; 60 random directions" in told
    assert "25% of statements move the wrong way" in told
    assert "+0.12 [+0.02, +0.23] nats per token" in told
    assert "right answers change from 90% to 60%" in told
    assert told.endswith("A vector of step 64 moves it too, one of step 8 is not shown to.")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        # An interval that holds zero, or too many random directions that do as much.
        ({"half": 3.5}, "is not shown to be moved"),
        ({"p": (0.7, 0.02, 0.2)}, "is not shown to be moved"),
        # p = .04 by itself, among three of which no other has one.
        ({"p": (0.7, 0.7, 0.04)}, "is not shown to be moved"),
        ({"beyond": (0, -3, -3)}, "is moved to the other side"),
        ({"target": "tuned"}, "the vector of m@step512 adds"),
        ({"beyond": (0, 0, 3), "p": (0.7, 0.7, 0.01)}, "step 8 and step 64 are not shown to move"),
        ({"beyond": (3, 3, 3), "p": (0.02, 0.02, 0.02)}, "step 8 and step 64 move it too."),
        ({"beyond": (np.nan, np.nan, np.nan)}, "no strength reaches the requested dose"),
    ],
)
def test_a_verdict_says_no_more_than_was_shown(make, change, said):
    options = {"p": (0.7, 0.02, 0.02), **change}
    assert said in steering_verdict(make(**options))


def test_another_effect_is_told_where_it_is_asked_for(make):
    told = steering_verdict(make(), "log_odds")
    assert "m@step512 is not shown to be moved (log-odds)" in told
    assert "right answers" not in told


def test_the_table_has_a_row_for_every_cell_and_a_verdict_for_every_target(make):
    matrix = make()
    lines = matrix_table(matrix).splitlines()
    rows = [line for line in lines if line.startswith("m@step512  ")]
    assert [row.split()[1] for row in rows] == SOURCES
    assert "3.250 [2.250, 4.250]" in rows[-1]
    assert "[-0.950, 0.950]" in rows[-1]
    assert lines[-1] == steering_verdict(matrix)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda m: matrix_table(m, "mc1"), "Choose one of answer_log_odds, log_odds"),
        (lambda m: steering_verdict(m, target="other"), "no target 'other'"),
        (lambda m: steering_verdict(m, target=3), "no target 3"),
        (lambda m: matrix_table(m.drop_vars("strength")), "what `steering_matrix` gives"),
    ],
)
def test_what_is_not_there_is_not_told(make, ask, said):
    with pytest.raises(ValueError, match=said):
        ask(make())
