import numpy as np
import pytest
import xarray as xr

from tlens_trust.views import (
    draw_comparison,
    draw_erasure,
    draw_forgetting,
    draw_genealogy,
    draw_overlap,
    draw_transfer,
)

STEPS = [0, 64, 1000]
CHECKPOINTS = [f"m<b>@step{step}" for step in STEPS]
SITES = {
    "site": ["blocks.0.hook_resid_post", "blocks.1.hook_resid_post"],
    "layer": ("site", [0, 1]),
}


def along(axis, ahead):
    return {
        axis: CHECKPOINTS,
        f"{ahead}step": (axis, np.array(STEPS, dtype=float)),
        f"{ahead}tokens": (axis, np.array(STEPS) * 10.0),
    }


def variables(name, dims, shape, *, null=0.1):
    values = np.linspace(-0.5, 0.9, int(np.prod(shape))).reshape(shape)
    told = {"units": "1", "long_name": f"the {name}"}
    band = np.broadcast_to(np.array([-null, null]), (*shape, 2))
    return {
        name: (dims, values, told),
        f"{name}_ci": ((*dims, "bound"), values[..., None] + np.array([-0.05, 0.05]), told),
        f"{name}_null": ((*dims, "bound"), band, told),
        f"{name}_n": (dims, np.full(shape, 80), told),
    }


@pytest.fixture
def matrix():
    dims = ("source", "target", "site")
    return xr.Dataset(
        {
            **variables("auroc", dims, (3, 3, 2)),
            **variables("accuracy_drop", dims, (3, 3, 2)),
            "accuracy_chance": ((), 0.5),
        },
        coords={**along("source", "source_"), **along("target", "target_"), **SITES,
                "bound": ["low", "high"]},
    )  # fmt: skip


@pytest.fixture
def between_concepts():
    names = ["truth", "a<script>"]

    def make(variable, rows, columns, **more):
        dims = ("checkpoint", *more, rows, columns, "site")
        shape = (3, *[len(v) for v in more.values()], 2, 2, 2)
        coords = {**along("checkpoint", ""), **SITES, rows: names, columns: names, **more}
        return xr.Dataset(variables(variable, dims, shape), {**coords, "bound": ["low", "high"]})

    return make


def heatmaps(figure):
    return [trace for trace in figure.data if trace.type == "heatmap"]


def test_a_transfer_matrix_is_drawn_as_it_is_source_upwards_target_across(matrix):
    figure = draw_transfer(matrix)
    panels = heatmaps(figure)
    assert len(panels) == 2
    for panel, site in zip(panels, SITES["site"], strict=True):
        np.testing.assert_array_equal(panel.z, matrix.auroc.sel(site=site).values)
    assert figure.layout.xaxis.title.text.startswith("scored at")
    assert figure.layout.yaxis.title.text.startswith("fitted at")
    assert list(figure.layout.xaxis.ticktext) == ["0", "64", "1k"]
    # Chance stands in the middle of the scale.
    assert (figure.layout.coloraxis.cmin + figure.layout.coloraxis.cmax) / 2 == 0.5
    drop = draw_transfer(matrix, "accuracy_drop", layers=[1])
    assert len(heatmaps(drop)) == 1
    assert drop.layout.coloraxis.cmin == -drop.layout.coloraxis.cmax


def test_what_lies_within_the_null_is_marked_and_nothing_else(matrix):
    figure = draw_transfer(matrix, layers=[0])
    (dots,) = [trace for trace in figure.data if trace.type == "scatter"]
    values = matrix.auroc.isel(site=0).values
    rows, columns = np.nonzero(np.abs(values) <= 0.1)
    assert sorted(zip(dots.y, dots.x, strict=True)) == sorted(zip(rows, columns, strict=True))


def test_hovering_says_value_interval_and_null_and_nothing_is_markup(matrix):
    text = heatmaps(draw_transfer(matrix))[0].customdata[0][2]
    value = float(matrix.auroc[0, 2, 0])
    assert f"{value:.3f} [{value - 0.05:.3f}, {value + 0.05:.3f}]" in text
    assert "null [-0.100, 0.100]" in text
    assert "m<b>" not in text
    assert "m&lt;b&gt;@step0" in text


def test_every_checkpoint_is_reached_by_a_tick_where_there_are_many(matrix):
    many = xr.concat([matrix] * 9, dim="source", data_vars="minimal").assign_coords(
        source=[f"c{i}" for i in range(27)], source_step=("source", np.arange(27.0))
    )
    figure = draw_transfer(many, layers=[0])
    assert figure.layout.yaxis.ticktext[-1] == "26"
    assert len(figure.layout.yaxis.ticktext) <= 12
    unknown = many.assign_coords(source_step=("source", np.full(27, np.nan)))
    assert draw_transfer(unknown, layers=[0]).layout.yaxis.ticktext[-1] == "c26"


def test_a_genealogy_is_drawn_in_one_space_on_one_scale(matrix):
    dims = ("space", "source", "target", "site")
    data = xr.Dataset(
        {
            **variables("cosine", dims, (2, 3, 3, 2)),
            "principal_angle": (
                (*dims, "angle"),
                np.random.default_rng(0).uniform(0, 90, size=(2, 3, 3, 2, 2)),
                {"units": "degrees", "long_name": "angle"},
            ),
        },
        coords={**{name: matrix[name] for name in matrix.coords}, "space": ["raw", "standardised"],
                "angle": [1, 2]},
    )  # fmt: skip
    raw, standardised = (heatmaps(draw_genealogy(data, space=s))[0].z for s in data["space"].values)
    assert (raw != standardised).all()
    figure = draw_genealogy(data, "principal_angle")
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (0, 90)
    np.testing.assert_array_equal(
        heatmaps(figure)[1].z, data.principal_angle.isel(angle=0, site=1, space=1)
    )
    with pytest.raises(ValueError, match="no space 'white'"):
        draw_genealogy(data, space="white")


def test_concepts_stand_from_top_to_bottom_with_their_numbers(between_concepts):
    overlap = between_concepts("cosine", "concept", "other_concept", space=["raw", "standardised"])
    figure = draw_overlap(overlap, space="raw", checkpoint=1, layers=[1])
    (panel,) = heatmaps(figure)
    shown = overlap.cosine.sel(space="raw").isel(checkpoint=1, site=1).values
    np.testing.assert_array_equal(panel.z, shown)
    assert panel.text[0][1] == f"{shown[0, 1]:.2f}"
    assert figure.layout.yaxis.autorange == "reversed"
    assert list(figure.layout.xaxis.ticktext) == ["truth", "a&lt;script&gt;"]
    cost = between_concepts("accuracy_cost", "erased", "concept")
    figure = draw_erasure(cost, checkpoint=CHECKPOINTS[2])
    np.testing.assert_array_equal(
        heatmaps(figure)[0].z, cost.accuracy_cost.isel(checkpoint=2, site=0)
    )
    assert figure.layout.yaxis.title.text == "erased"


def test_what_is_not_there_is_named_with_what_is(matrix, between_concepts):
    with pytest.raises(ValueError, match="Choose one of auroc, accuracy_drop"):
        draw_transfer(matrix, "f1")
    with pytest.raises(ValueError, match="no layer 7"):
        draw_transfer(matrix, layers=[7])
    cost = between_concepts("accuracy_cost", "erased", "concept")
    with pytest.raises(ValueError, match="no checkpoint 9"):
        draw_erasure(cost, checkpoint=9)
    with pytest.raises(ValueError, match="`compare_checkpoints` gives"):
        draw_comparison(matrix)
    with pytest.raises(ValueError, match="`find_forgetting` gives"):
        draw_forgetting(matrix)


def test_a_comparison_is_filled_where_it_stands_up_to_the_choice_of_a_site():
    told = {"units": "fraction of statements", "long_name": "difference"}
    names = ("accuracy_difference_p", "accuracy_difference_p_best", "learned", "forgotten")
    data = xr.Dataset(
        {
            "accuracy_difference": ("site", [0.3, 0.05], told),
            "accuracy_difference_ci": (("site", "bound"), [[0.2, 0.4], [-0.1, 0.2]], told),
            "accuracy_difference_null": (("site", "bound"), [[-0.1, 0.1], [-0.12, 0.12]], told),
            **{name: ("site", [0.01, 0.4], told) for name in names},
        },
        coords={**SITES, "bound": ["low", "high"]},
        attrs={"concept": "truth", "before": "a", "after": "b"},
    )
    figure = draw_comparison(data)
    band, points = figure.data
    np.testing.assert_allclose(band.base, [-0.1, -0.12])
    assert list(points.marker.symbol) == ["circle", "circle-open"]
    np.testing.assert_allclose(points.error_y.array, [0.1, 0.15])
    assert list(figure.layout.xaxis.ticktext) == ["0", "1"]


def test_forgetting_is_drawn_beside_luck_and_beside_noise_where_that_is_known():
    told = {"units": "statements", "long_name": "n"}
    data = xr.Dataset(
        {
            name: ("checkpoint", np.array(values, dtype=float), told)
            for name, values in {
                "known": [0, 10, 12],
                "forgotten": [0, 3, 1],
                "forgotten_mirror": [0, 2, 2],
                "forgotten_noise": [0, 1.5, 1.0],
                "forgotten_excess": [0, 1.0, 0.5],
            }.items()
        }
        | {"forgotten_excess_ci": (("checkpoint", "bound"), np.zeros((3, 2)), told)},
        coords={**along("checkpoint", ""), "bound": ["low", "high"]},
    )
    assert [len(trace.y) for trace in draw_forgetting(data).data] == [3, 3, 3, 3]
    unknown = data.assign(forgotten_noise=data.forgotten_noise * np.nan)
    assert len(draw_forgetting(unknown).data) == 2
    assert list(draw_forgetting(data, x="tokens").layout.xaxis.ticktext) == ["0", "640", "10k"]
    with pytest.raises(ValueError, match="No training axis"):
        draw_forgetting(data, x="time")


def test_names_in_a_comparison_are_text_and_no_html():
    hostile = "<img src=x>"
    site = ("site", [f"{hostile}0", f"{hostile}1"])
    values = {
        name: ("site", np.array([0.1, 0.2]))
        for name in ("accuracy_difference", "accuracy_difference_p", "accuracy_difference_p_best")
    }
    bounds = {
        name: (("site", "bound"), np.array([[0.0, 0.2], [0.1, 0.3]]))
        for name in ("accuracy_difference_ci", "accuracy_difference_null")
    }
    flips = {name: ("site", [1, 2]) for name in ("learned", "forgotten")}
    data = xr.Dataset(
        values | bounds | flips,
        {"site": site, "layer": ("site", [0, 0]), "bound": ["low", "high"]},
        attrs={"concept": hostile, "before": "a", "after": "b"},
    )
    figure = draw_comparison(data)
    assert figure.layout.title.text == "&lt;img src=x&gt;: a → b"
    assert hostile not in "".join(figure.data[1].customdata)
