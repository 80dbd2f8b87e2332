import numpy as np
import pytest
import xarray as xr

from tlens_trust.views import (
    draw_steering,
    draw_steering_curve,
    generations_table,
    steering_table,
)

STEPS = [0.0, 8.0, 64.0, 512.0]


@pytest.fixture
def matrix():
    change = np.array([[0.0, 0.1], [0.2, 0.1], [1.0, 2.0], [1.5, 2.5]])
    told = {"units": "nats", "long_name": "log-odds, change by steering"}
    cell = ("source", "target")
    random = np.linspace(-0.5, 0.5, 50)
    return xr.Dataset(
        {
            "log_odds_change": (cell, change, told),
            "log_odds_change_ci": (
                (*cell, "bound"),
                change[..., None] + np.array([-0.1, 0.1]),
                told,
            ),
            "log_odds_p": (cell, np.where(change > 0.5, 0.02, 0.6)),
            "log_odds_wrong_way": (cell, np.zeros((4, 2))),
            "log_odds_random": (("target", "draw"), np.stack([random, 10 * random])),
            "neutral_loss_change": (cell, change / 10, told),
            "neutral_loss_change_ci": (
                (*cell, "bound"),
                change[..., None] / 10 + np.array([-0.1, 0.1]),
                told,
            ),
        },
        coords={
            "source": [f"m<b>@step{step:.0f}" for step in STEPS],
            "source_step": ("source", STEPS),
            "source_tokens": ("source", np.full(4, np.nan)),
            "target": ["m<b>@step512", "tuned"],
            "target_step": ("target", [512.0, np.nan]),
            "target_tokens": ("target", [np.nan, np.nan]),
            "bound": ["low", "high"],
            "site": "blocks.2.hook_resid_post",
            "layer": 2,
        },
        attrs={"concept": "truth <i>", "target_kl": 0.1},
    )


def heat(figure):
    return next(trace for trace in figure.data if trace.type == "heatmap")


def dots(figure):
    return [trace for trace in figure.data if trace.type == "scatter"]


def test_the_heatmap_shows_every_source_on_every_target(matrix):
    figure = draw_steering(matrix)
    assert np.asarray(heat(figure).z) == pytest.approx(matrix.log_odds_change.values)
    axis = figure.layout.coloraxis
    assert (axis.cmin, axis.cmax) == (-2.5, 2.5)


def test_cells_that_random_directions_reach_are_dotted(matrix):
    (marked,) = dots(draw_steering(matrix))
    found = {(int(x), int(y)) for x, y in zip(marked.x, marked.y, strict=True)}
    # Of the second target random directions do ten times as much: nothing stands out there.
    assert found == {(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (1, 3)}


def test_damage_has_no_band_of_random_directions_where_none_was_read(matrix):
    assert dots(draw_steering(matrix, "neutral_loss")) == []


def test_a_target_without_a_step_is_named(matrix):
    figure = draw_steering(matrix)
    assert "tuned" in figure.layout.xaxis.ticktext
    assert "m&lt;b&gt;@step512" in figure.layout.xaxis.ticktext
    assert "truth &lt;i&gt;" in figure.layout.title.text


def test_the_curve_is_one_column_of_the_matrix(matrix):
    figure = draw_steering_curve(matrix, target="m<b>@step512")
    curve = figure.data[-1]
    assert np.asarray(curve.y) == pytest.approx(matrix.log_odds_change.values[:, 0])
    assert list(curve.marker.symbol) == ["circle-open", "circle-open", "circle", "circle"]
    assert np.asarray(curve.error_y.array) == pytest.approx(np.full(4, 0.1))
    # The line of the target's own vector, and that of no change.
    lines = [shape for shape in figure.layout.shapes if shape.type == "line"]
    assert sorted(shape.y0 for shape in lines) == [0, 1.5]


@pytest.mark.parametrize(
    ("draw", "said"),
    [
        (lambda m: draw_steering(m, "nothing"), "Choose one of log_odds, neutral_loss"),
        (lambda m: draw_steering(m.drop_vars(list(m))), "no result of `steering_matrix`"),
        (lambda m: draw_steering_curve(m, "neutral_loss"), "measures damage"),
        (lambda m: draw_steering_curve(m, target="x"), "no target 'x'"),
        (lambda m: draw_steering_curve(m, target=2), "no target 2"),
        (lambda m: draw_steering_curve(m, x="loss"), "No training axis"),
        (lambda m: draw_steering_curve(m, x="tokens"), "unknown"),
    ],
)
def test_what_is_not_there_is_not_drawn(matrix, draw, said):
    with pytest.raises(ValueError, match=said):
        draw(matrix)


@pytest.fixture
def evaluation():
    conditions, controls = ["unsteered", "steered", "opposite"], ["equal_norm", "equal_kl"]
    bounds = ["low", "high"]

    def quantity(name, values, *, effect):
        change = np.array(values) - values[0]
        found = {
            name: ("condition", values),
            f"{name}_change": ("condition", change),
            f"{name}_change_ci": (
                ("condition", "bound"),
                change[:, None] + np.array([-0.25, 0.25]),
            ),
        }
        if effect:
            found |= {
                f"{name}_wrong_way": ("condition", [0.0, 0.12, 0.9]),
                f"{name}_p": ("control", [0.02, 0.04]),
                f"{name}_over_random": ("control", [change[1], change[1]]),
                f"{name}_over_random_ci": (
                    ("control", "bound"),
                    np.array([[0.1, 5.0], [-0.2, 5.0] if name == "log_odds" else [0.3, 5.0]]),
                ),
                f"{name}_random": (
                    ("control", "draw"),
                    np.array([np.linspace(-1, 1, 41), np.linspace(-2, 2, 41)]),
                ),
            }
        return found

    variables = {
        **quantity("kl", [0.0, 0.1, 0.12], effect=False),
        **quantity("follow_up_log_odds", [0.5, 3.5, -1.0], effect=True),
        **quantity("log_odds", [0.0, 0.75, -0.5], effect=True),
        "strength": ("condition", [0.0, 2.0, -2.0]),
        "generation": (("condition", "prompt"), [["a"], ["b"], ["c"]]),
    }
    return xr.Dataset(
        variables,
        coords={
            "condition": conditions,
            "control": controls,
            "bound": bounds,
            "prompt": ["Once"],
        },
        attrs={"concept": "truth", "random": "50 random directions", "source": "m@step8"},
    )


def test_the_table_tells_effect_cost_and_controls(evaluation):
    table = steering_table(evaluation).splitlines()
    row = next(line for line in table if line.startswith("log_odds "))
    for told in ("0.750 [0.500, 1.000]", "12%", "[-0.950, 0.950]", "0.020", "[-1.900, 1.900]"):
        assert told in row
    assert table.index(row) < next(
        i for i, line in enumerate(table) if line.startswith("follow_up_log_odds")
    )
    damage = next(i for i, line in enumerate(table) if line.startswith("damage"))
    assert next(i for i, line in enumerate(table) if line.startswith("kl ")) > damage
    assert "m@step8" in table[0]


def test_moved_takes_an_interval_off_zero_and_a_small_p(evaluation):
    def verdict(data, name):
        (line,) = [line for line in steering_table(data).splitlines() if line.startswith(name)
                   and "beyond" in line]  # fmt: skip
        return line

    moved = verdict(evaluation, "follow_up_log_odds ")
    assert "is moved to the trustworthy side" in moved
    assert "+3.000 [+0.300, +5.000], p = 0.040" in moved
    assert "not shown" in verdict(evaluation, "log_odds ")  # as often as not, at the same dose
    likely = evaluation.assign(follow_up_log_odds_p=("control", [0.02, 0.06]))
    assert "not shown" in verdict(likely, "follow_up_log_odds ")
    back = evaluation.assign(
        follow_up_log_odds_over_random_ci=evaluation.follow_up_log_odds_over_random_ci - 9
    )
    assert "is moved to the other side" in verdict(back, "follow_up_log_odds ")
    assert "can show nothing" not in moved
    few = evaluation.isel(draw=slice(5))
    assert "cannot be below 0.167" in verdict(few, "follow_up_log_odds ")


def test_what_was_written_is_told_before_and_after(evaluation):
    assert generations_table(evaluation).splitlines() == [
        "'Once'",
        "  unsteered  'a'",
        "  steered    'b'",
        "  opposite   'c'",
    ]


def test_tables_of_something_else_are_refused(evaluation):
    with pytest.raises(ValueError, match="evaluate_steering"):
        steering_table(xr.Dataset({"accuracy": 0.5}))
    with pytest.raises(ValueError, match="no generated texts"):
        generations_table(evaluation.drop_vars("generation"))
