import re

import numpy as np
import pytest
import xarray as xr

from tlens_trust.tracing import Trace, combine_runs
from tlens_trust.views.axes import DIMENSION_COLOURS

STEPS = [0, 1, 8, 64, 512]
SITES = [f"blocks.{i}.hook_resid_post" for i in range(4)]


def synthetic_trace(onsets, *, noise=0.0, tokens=True):
    """A trace whose layer 2 is read at .9 from each concept's onset on, and at .5 before."""
    shape = (len(onsets), len(STEPS), len(SITES))
    accuracy = np.full(shape, 0.5)
    for i, onset in enumerate(onsets.values()):
        accuracy[i, :, 1] = np.where(np.array(STEPS) >= onset, 0.7, 0.5)
        accuracy[i, :, 2] = np.where(np.array(STEPS) >= onset, 0.9, 0.5)
    accuracy += noise * np.random.default_rng(0).standard_normal(shape)
    dims = ("concept", "checkpoint", "site")
    units = {"units": "fraction of statements"}
    variables = {}
    for name in ("accuracy", "balanced_accuracy"):
        variables[name] = (dims, accuracy, {**units, "long_name": f"held-out {name}"})
        variables[f"{name}_ci"] = (
            (*dims, "bound"),
            np.stack([accuracy - 0.05, accuracy + 0.05], axis=-1),
            {**units, "long_name": "95% interval"},
        )
        variables[f"{name}_n"] = (
            dims,
            np.full(shape, 200.0),
            {"units": "statements", "long_name": "n"},
        )
    variables["accuracy_p_best"] = (
        dims,
        np.where(accuracy > 0.6, 0.001, 0.6),
        {"units": "1", "long_name": "p-value"},
    )
    return Trace(
        xr.Dataset(
            variables,
            coords={
                "concept": list(onsets),
                "checkpoint": [f"toy@step{step}" for step in STEPS],
                "site": SITES,
                "bound": ["low", "high"],
                "step": ("checkpoint", STEPS),
                "tokens": ("checkpoint", np.array(STEPS) * (1000.0 if tokens else np.nan)),
                "layer": ("site", np.arange(4)),
                "depth": ("site", (np.arange(4) + 1) / 4),
            },
        )
    )


TRACE = synthetic_trace({"toxicity": 64, "privacy": 512, "never": 10**9})


def test_a_heatmap_shows_every_number_of_the_trace_with_layers_going_up():
    figure = TRACE.plot.heatmap("accuracy")
    assert len(figure.data) == 3
    for panel, concept in zip(figure.data, TRACE.concepts, strict=True):
        np.testing.assert_array_equal(
            panel.z, TRACE.data.accuracy.sel(concept=concept).transpose("site", "checkpoint")
        )
        assert list(panel.y) == ["0", "1", "2", "3"]


def read_hover(drawn, *where):
    """What plotly would write: numbers put into the template."""
    numbers = drawn.customdata[where]

    def number(match):
        value = numbers[int(match[1])]
        return f"{value:,.0f}" if match[2] == ",.0f" else f"{value:.3f}"

    return re.sub(r"%{customdata\[(\d+)\]:([^}]*)}", number, drawn.hovertemplate)


def test_hovering_tells_the_value_its_interval_and_n():
    text = read_hover(TRACE.plot.heatmap("accuracy").data[0], 2, 4)
    assert "0.900 [0.850, 0.950]" in text
    assert "n = 200" in text
    assert "step 512" in text
    lines = [curve for curve in TRACE.plot.lines("accuracy").data if curve.customdata is not None]
    assert read_hover(lines[2], 4) == text.replace("%{y}", "2")


def test_hovering_shows_no_interval_where_there_is_none():
    trace = Trace(TRACE.data.drop_vars(["accuracy_ci", "accuracy_n"]))
    text = read_hover(trace.plot.heatmap("accuracy").data[0], 2, 4)
    assert "0.900" in text
    assert "[" not in text
    assert "n =" not in text


def test_a_slider_shows_the_map_of_one_concept_at_a_time():
    figure = TRACE.plot.heatmap("accuracy", slider=True)
    assert [drawn.visible for drawn in figure.data] == [True, False, False]
    (slider,) = figure.layout.sliders
    assert [step.label for step in slider.steps] == list(TRACE.concepts)
    for i, step in enumerate(slider.steps):
        (change,) = step.args
        assert [j for j, visible in enumerate(change["visible"]) if visible] == [i]
    bounds = figure.layout.coloraxis
    assert (bounds.cmin, bounds.cmax) == (min(0.5, TRACE.data.accuracy.min()), 1)


def levelled(trace):
    """With a null band around one half, and a text floor that only layer 2 of toxicity beats."""
    data = trace.data
    band = xr.zeros_like(data.accuracy_ci) + xr.DataArray([0.4, 0.6], dims="bound")
    floor = xr.DataArray([0.7, 0.95, 0.7], dims="concept").broadcast_like(
        data.accuracy.isel(site=0, drop=True)
    )
    levels = {"accuracy_null": band, "accuracy_floor": floor}
    return data.assign({n: v.assign_attrs(data.accuracy.attrs) for n, v in levels.items()})


def marked(figure, symbol):
    """Checkpoint and layer of what is marked in each panel."""
    return [
        set(zip(drawn.x.tolist(), map(int, drawn.y), strict=True))
        for drawn in figure.data
        if drawn.type == "scatter" and drawn.marker.symbol == symbol
    ]


def test_a_map_marks_what_is_no_better_than_null_or_text():
    data = levelled(TRACE)
    figure = Trace(data).plot.heatmap("accuracy")
    accuracy = data.accuracy.values
    cells = [(c, i, j) for c, i, j in np.ndindex(accuracy.shape)]
    guessed = [
        {(i, j) for k, i, j in cells if k == c and accuracy[k, i, j] <= 0.6} for c in (0, 1, 2)
    ]
    assert marked(figure, "x-thin") == guessed
    assert len(guessed[0]) < len(guessed[2]) == accuracy[2].size
    # Toxicity is read at .7 and .9 from step 64 on, privacy from 512; their texts give .7 and .95.
    assert marked(figure, "line-ew") == [{(3, 1), (4, 1)}, {(4, 1), (4, 2)}, set()]
    title = figure.layout.coloraxis.colorbar.title.text
    assert "×: not beyond the null band" in title
    assert "–: not beyond the text alone" in title
    # What is not there is neither marked nor explained.
    plain = TRACE.plot.heatmap("accuracy")
    assert {drawn.type for drawn in plain.data} == {"heatmap"}
    assert "×" not in plain.layout.coloraxis.colorbar.title.text


def test_of_a_loss_a_map_marks_what_is_no_lower():
    data = levelled(TRACE)
    loss = (1 - data.accuracy).assign_attrs(data.accuracy.attrs)
    data = data.assign(cross_entropy=loss, cross_entropy_null=data.accuracy_null)
    figure = Trace(data).plot.heatmap("cross_entropy")
    assert marked(figure, "x-thin") == marked(Trace(data).plot.heatmap("accuracy"), "x-thin")


def test_a_slider_moves_the_marks_with_their_map():
    figure = Trace(levelled(TRACE)).plot.heatmap("accuracy", slider=True)
    assert [drawn.visible for drawn in figure.data] == [True, False, False] * 3
    last = figure.layout.sliders[0].steps[2].args[0]["visible"]
    assert list(last) == [False, False, True] * 3


@pytest.mark.parametrize("variable", ["accuracy", "auroc"])
def test_a_map_of_guesses_does_not_shine(variable):
    guesses = 0.5 + 0.1 * np.sin(np.arange(TRACE.data.accuracy.size))
    data = TRACE.data.assign({variable: TRACE.data.accuracy * 0 + 0.5})
    data[variable].values[:] = guesses.reshape(data[variable].shape)
    bounds = Trace(data).plot.heatmap(variable).layout.coloraxis
    assert (bounds.cmin, bounds.cmax) == (guesses.min(), 1)
    # What has no such ends is stretched over what there is.
    data = data.assign(cross_entropy=data[variable])
    bounds = Trace(data).plot.heatmap("cross_entropy").layout.coloraxis
    assert (bounds.cmin, bounds.cmax) == (guesses.min(), guesses.max())


def test_a_concept_of_ones_own_is_drawn_in_a_colour_of_its_own():
    # In grey, its interval could not be told from the band of permuted labels.
    data = TRACE.data.assign_coords(dimension=("concept", ["mine"] * TRACE.data.sizes["concept"]))
    figure = Trace(data).sel(layer=2).plot.lines("accuracy")
    colours = {drawn.line.color for drawn in figure.data if drawn.mode == "lines+markers"}
    assert len(colours) == 1
    (colour,) = colours
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    assert max(red, green, blue) - min(red, green, blue) > 60
    assert colour not in DIMENSION_COLOURS.values()


def test_what_a_curve_must_be_held_against_is_drawn_where_the_trace_holds_it():
    data = TRACE.data.assign(
        accuracy_floor=TRACE.data.accuracy.isel(site=0, drop=True) + 0.1,
        accuracy_untrained=TRACE.data.accuracy * 0 + 0.55,
        accuracy_chance=TRACE.data.accuracy.isel(site=0, drop=True) * 0 + 0.5,
        accuracy_null=TRACE.data.accuracy_ci * 0 + 0.5,
    )
    named = {curve.name: curve for curve in Trace(data).plot.lines("accuracy").data if curve.name}
    assert named["text alone"].y == pytest.approx([0.6] * 5)
    assert named["untrained weights"].y == pytest.approx([0.55] * 5)
    assert named["larger class"].y == pytest.approx([0.5] * 5)
    assert named["labels permuted"].fill == "toself"
    bare = {curve.name for curve in TRACE.plot.lines("accuracy").data}
    assert not bare & {"text alone", "untrained weights", "larger class", "labels permuted"}


def test_checkpoints_whose_tokens_print_alike_keep_columns_of_their_own():
    data = TRACE.data.assign_coords(tokens=("checkpoint", [0.0, 2.097e9, 2.1e9, 2.101e9, 2.102e9]))
    figure = Trace(data).plot.heatmap("accuracy", x="tokens")
    assert np.shape(figure.data[0].z) == (4, 5)
    assert figure.data[0].x is None
    assert len(figure.layout.xaxis.tickvals) == 5


def test_lines_are_drawn_on_a_logarithmic_axis_where_step_0_has_its_own_tick():
    figure = TRACE.plot.lines("accuracy")
    assert figure.layout.xaxis.type == "log"
    assert figure.layout.xaxis.ticktext[0] == "0"
    curves = [curve for curve in figure.data if curve.mode == "lines+markers"]
    assert len(curves) == 3 * 4
    assert min(curve.x.min() for curve in curves) > 0


def test_a_band_is_drawn_for_few_sites_and_not_for_many():
    def bands(figure):
        return sum(curve.fill == "toself" for curve in figure.data)

    assert bands(TRACE.plot.lines("accuracy", sites=[2])) == 3
    assert bands(TRACE.plot.lines("accuracy")) == 0


def test_a_hostile_concept_name_is_escaped_in_titles_and_hover_texts():
    trace = synthetic_trace({"<img src=x onerror=alert(1)>%{customdata[0]}": 8})
    plot = trace.plot
    for figure in (plot.heatmap(), plot.heatmap(slider=True), plot.lines()):
        page = str(figure.to_dict())
        assert "<img" not in page
        assert "alert(1)&gt;%{customdata" not in "".join(d.hovertemplate or "" for d in figure.data)
        assert "&lt;img" in page


def test_a_variable_that_is_not_there_is_answered_with_those_that_are():
    with pytest.raises(ValueError, match=r"no variable 'acuracy'.*accuracy, accuracy_n"):
        TRACE.plot.heatmap("acuracy")
    with pytest.raises(ValueError, match=r"no layer 9.*\[0, 1, 2, 3\]"):
        TRACE.plot.lines("accuracy", sites=[9])


def test_unknown_tokens_are_an_error_and_not_an_empty_figure():
    with pytest.raises(ValueError, match="Draw over x='step'"):
        synthetic_trace({"a": 1}, tokens=False).plot.lines("accuracy", x="tokens")


def three_runs():
    data = TRACE.data.assign_coords(loss=("checkpoint", [6.0, 5.0, 4.0, 2.0, 1.0]))
    shifted = {
        f"seed {i}": Trace(data.assign(accuracy=(data.accuracy + i / 100).assign_attrs(UNITS)))
        for i in range(3)
    }
    return combine_runs(shifted)


UNITS = {"units": "fraction of statements", "long_name": "accuracy"}


def test_several_runs_are_drawn_by_their_mean_and_their_range():
    figure = three_runs().plot.lines("accuracy", sites=[2])
    line, band = (
        next(d for d in figure.data if d.mode == "lines+markers"),
        next(d for d in figure.data if d.fill == "toself"),
    )
    np.testing.assert_allclose(line.y, TRACE.data.accuracy[0, :, 2] + 0.01)
    assert band.y[0] - band.y[-1] == pytest.approx(0.02)
    heat = three_runs().plot.heatmap("accuracy").data[0]
    np.testing.assert_allclose(heat.z[2], TRACE.data.accuracy[0, :, 2] + 0.01)


def test_training_loss_is_an_axis_that_runs_from_large_to_small():
    figure = three_runs().plot.lines("accuracy", x="loss")
    assert figure.layout.xaxis.autorange == "reversed"
    assert figure.layout.xaxis.type != "log"
    assert figure.data[0].x.tolist() == [6.0, 5.0, 4.0, 2.0, 1.0]
    with pytest.raises(ValueError, match="training loss is unknown"):
        TRACE.plot.lines("accuracy", x="loss")


def test_sizes_are_laid_over_each_other_by_depth():
    small = TRACE.data.isel(site=[0, 1]).assign_coords(depth=("site", [0.5, 1.0]))
    both = combine_runs({"large": TRACE, "small": Trace(small)})
    figure = both.plot.profile("accuracy")
    of_first = [line for line in figure.data if line.xaxis == "x"]
    assert {line.name: line.x.tolist() for line in of_first} == {
        "large": [0.25, 0.5, 0.75, 1.0],
        "small": [0.5, 1.0],
    }
    with pytest.raises(ValueError, match="no checkpoint 'step7'"):
        both.plot.profile(checkpoint="step7")


def test_a_profile_shows_what_its_line_must_be_held_against():
    figure = Trace(levelled(TRACE)).plot.profile("accuracy")
    first = [drawn for drawn in figure.data if drawn.xaxis == "x"]
    (line,) = (drawn for drawn in first if drawn.mode == "lines+markers")
    assert "0.900 [0.850, 0.950]" in read_hover(line, 2)
    assert "n = 200" in read_hover(line, 2)
    bands = {drawn.name: drawn for drawn in first if drawn.fill == "toself"}
    assert sorted(bands["labels permuted"].y) == [0.4] * 4 + [0.6] * 4
    assert bands[None].y[2] == pytest.approx(0.95)
    (text,) = (drawn for drawn in first if drawn.name == "text alone")
    assert text.y.tolist() == [0.7] * 4


def test_one_number_of_chance_is_no_band():
    data = TRACE.data.assign(ece=TRACE.data.accuracy, ece_null=TRACE.data.accuracy)
    for figure in (Trace(data).plot.lines("ece"), Trace(data).plot.heatmap("ece")):
        assert not any(drawn.name == "labels permuted" for drawn in figure.data)
    assert {drawn.type for drawn in figure.data} == {"heatmap"}
