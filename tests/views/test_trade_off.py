import numpy as np
import pytest
import xarray as xr

from tlens_trust.views import draw_trade_off

TOLD = {"units": "nats", "long_name": "change"}


def evaluation(strength=1.0):
    variables = {"strength": ("condition", [0.0, strength, -strength])}
    for name, change in (("log_odds", [0.0, 2.0, -1.5]), ("neutral_loss", [0.0, 0.1, 0.2])):
        values = strength * np.array(change)
        variables[f"{name}_change"] = ("condition", values, TOLD)
        variables[f"{name}_change_ci"] = (
            ("condition", "bound"), values[:, None] + [-0.05, 0.05], TOLD,
        )  # fmt: skip
        variables[f"{name}_random"] = (
            ("control", "draw"), np.stack([np.full(5, 9.0), np.linspace(-0.1, 0.1, 5)]), TOLD,
        )  # fmt: skip
    coords = {
        "condition": ["unsteered", "steered", "opposite"],
        "control": ["equal_norm", "equal_kl"],
        "bound": ["low", "high"],
    }
    return xr.Dataset(variables, coords, attrs={"concept": "<i>", "model": "m"})


def matrix():
    change = np.array([[0.1, 0.2], [1.0, 2.0]])
    cell = ("source", "target")
    variables = {}
    for name, scale in (("log_odds", 1.0), ("neutral_loss", 0.1)):
        variables[f"{name}_change"] = (cell, scale * change, TOLD)
        variables[f"{name}_change_ci"] = (
            (*cell, "bound"), scale * change[..., None] + [-0.01, 0.01], TOLD,
        )  # fmt: skip
        variables[f"{name}_random"] = (("target", "draw"), np.zeros((2, 7)), TOLD)
    coords = {
        "source": ["m@step8", "m@main"],
        "source_step": ("source", [8.0, np.nan]),
        "target": ["a", "b"],
        "bound": ["low", "high"],
    }
    return xr.Dataset(variables, coords)


def test_an_evaluation_is_drawn_with_its_opposite_and_directions_of_equal_dose():
    cloud, steered, opposite = draw_trade_off(evaluation()).data
    assert np.ptp(cloud.x) == pytest.approx(0.2)
    assert (steered.x[0], steered.y[0]) == pytest.approx((0.1, 2.0))
    assert (opposite.x[0], opposite.y[0]) == pytest.approx((0.2, -1.5))
    assert steered.error_y.array[0] == pytest.approx(0.05)
    assert "lines" not in steered.mode


def test_evaluations_at_several_strengths_are_joined_in_order():
    figure = draw_trade_off([evaluation(0.5), evaluation(1.0), evaluation(2.0)])
    steered = figure.data[1]
    assert list(steered.y) == pytest.approx([1.0, 2.0, 4.0])
    assert "lines" in steered.mode
    assert len(figure.data[0].x) == 15
    assert "&lt;i&gt;" in figure.layout.title.text


def test_of_a_matrix_every_source_is_a_point_of_the_target():
    cloud, points = draw_trade_off(matrix(), target="b").data
    assert list(points.y) == pytest.approx([0.2, 2.0])
    assert list(points.text) == ["step 8", "m@main"]
    assert len(cloud.x) == 7
    assert list(draw_trade_off(matrix(), target=0).data[1].y) == pytest.approx([0.1, 1.0])


@pytest.mark.parametrize(
    ("results", "options", "told"),
    [
        (evaluation(), {"effect": "mc9"}, "no 'mc9'.*log_odds, neutral_loss"),
        (evaluation(), {"damage": "mc9"}, "no 'mc9'"),
        (matrix(), {"target": "c"}, "no target 'c'.*a, b"),
        ([], {}, "nothing to draw"),
        ([matrix(), matrix()], {}, "several matrices"),
        (xr.Dataset({"x": 1}), {}, "no results of steering"),
    ],
)
def test_what_cannot_be_drawn_is_refused(results, options, told):
    with pytest.raises(ValueError, match=told):
        draw_trade_off(results, **options)
