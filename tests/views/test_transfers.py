import numpy as np
import pytest
import xarray as xr

from tlens_trust.views import draw_transfer_curves, transfer_table

STEPS = [0, 64, 1000]
SETS = ["again", "more<b>"]


@pytest.fixture
def transfer():
    """Two sets, three checkpoints, two sites; the second site reads the fitted set best."""
    dims = ("scored_on", "checkpoint", "site")
    level = np.linspace(0.4, 0.9, 12).reshape(2, 3, 2)
    told = {"units": "fraction of statements", "long_name": "accuracy"}
    variables = {}
    for score in ("accuracy", "auroc"):
        for suffix, values, along in (
            ("", level, dims),
            ("_target", level + 0.05, dims),
            ("_untrained", level * 0 + 0.5, dims),
            ("_source", level[0] + 0.02, dims[1:]),
        ):
            name = f"{score}{suffix}"
            variables[name] = (along, values, told)
            spread = np.array([-0.03, 0.03])
            variables[f"{name}_ci"] = ((*along, "bound"), values[..., None] + spread, told)
            variables[f"{name}_n"] = (along, np.full(values.shape, 80), told)
        null = np.broadcast_to([0.3, 0.7], (2, 3, 2, 2))
        variables[f"{score}_null"] = ((*dims, "bound"), null, told)
        variables[f"{score}_floor"] = (dims[:1], np.array([0.5, 0.625]), told)
    variables["accuracy_chance"] = (dims[:1], np.array([0.5, 0.5]), told)
    variables["held_out_n"] = (dims[:1], np.array([80, 0]), told)
    variables["accuracy_p"] = (dims, np.full((2, 3, 2), 0.0001), told)
    variables["accuracy_q"] = (dims[:2], np.full((2, 3), 0.0333), told)
    coords = {
        "scored_on": SETS,
        "checkpoint": [f"m@step{step}" for step in STEPS],
        "step": ("checkpoint", np.array(STEPS, dtype=float)),
        "tokens": ("checkpoint", np.full(3, np.nan)),
        "site": ["blocks.0.hook_resid_post", "blocks.1.hook_resid_post"],
        "layer": ("site", [0, 1]),
        "bound": ["low", "high"],
    }
    return xr.Dataset(variables, coords, {"fitted_on": "said"})


def curves(figure):
    return [trace for trace in figure.data if trace.mode == "lines+markers"]


def test_curves_are_those_of_the_site_that_reads_the_fitted_set_best(transfer):
    drawn = curves(draw_transfer_curves(transfer))
    assert len(drawn) == 6
    for i, name in enumerate(SETS):
        panel = transfer.sel(scored_on=name).isel(site=1)
        own, fitted, refitted = drawn[3 * i : 3 * i + 3]
        np.testing.assert_array_equal(own.y, panel.accuracy)
        np.testing.assert_array_equal(fitted.y, panel.accuracy_source)
        np.testing.assert_array_equal(refitted.y, panel.accuracy_target)
        assert own.x[1:].tolist() == [64.0, 1000.0]
        np.testing.assert_array_equal(own.customdata[:, 1], panel.accuracy)
    turned = transfer.assign(accuracy_source=-transfer.accuracy_source)
    assert curves(draw_transfer_curves(turned))[0].y[0] == float(transfer.accuracy[0, 0, 0])


def test_a_site_and_a_score_can_be_named(transfer):
    for site in (0, "blocks.0.hook_resid_post"):
        drawn = curves(draw_transfer_curves(transfer, "auroc", site=site))
        np.testing.assert_array_equal(drawn[0].y, transfer.auroc[0, :, 0])
    with pytest.raises(ValueError, match=r"no layer 7 here\. Choose among \[0, 1\]"):
        draw_transfer_curves(transfer, site=7)
    with pytest.raises(ValueError, match=r"no site 'blocks\.9'"):
        transfer_table(transfer, site="blocks.9")
    with pytest.raises(ValueError, match="'accuracy' or 'auroc'"):
        draw_transfer_curves(transfer, "accuracy_drop")
    with pytest.raises(ValueError, match="number of tokens is unknown"):
        draw_transfer_curves(transfer, x="tokens")


def test_intervals_and_what_a_curve_is_held_against_are_drawn(transfer):
    figure = draw_transfer_curves(transfer)
    bands = [trace for trace in figure.data if trace.fill == "toself"]
    # A null band and three intervals in each panel.
    assert len(bands) == 8
    assert max(bands[0].y) == 0.7
    lines = {trace.name for trace in figure.data if trace.mode == "lines" and trace.fill is None}
    assert lines == {"larger class", "untrained weights", "text alone"}
    assert len([trace for trace in figure.data if trace.showlegend]) == 7


def test_a_name_from_data_is_text_and_not_markup(transfer):
    page = draw_transfer_curves(transfer).to_json()
    assert "more<b>" not in page
    assert "more\\u003cb" not in page
    assert "more&lt;b&gt;" in page or "more\\u0026lt;b\\u0026gt;" in page


def test_one_set_is_a_panel_without_an_axis_of_sets(transfer):
    single = transfer.isel(scored_on=0)
    drawn = curves(draw_transfer_curves(single))
    assert len(drawn) == 3
    np.testing.assert_array_equal(drawn[0].y, transfer.accuracy[0, :, 1])
    assert transfer_table(single).count("transferred [95% interval]") == 1


def test_the_table_holds_every_checkpoint_with_interval_and_floor(transfer):
    table = transfer_table(transfer)
    assert "Probes fitted to 'said', accuracy at blocks.1.hook_resid_post" in table
    assert "to 'again': 80 statements, 80 of them" in table
    assert "text only 0.625" in table
    rows = [line for line in table.splitlines() if line.startswith("m@step")]
    assert len(rows) == 6
    value = float(transfer.accuracy[1, 2, 1])
    assert f"{value:.3f} [{value - 0.03:.3f}, {value + 0.03:.3f}]" in rows[-1]
    assert rows[0].split()[-2:] == ["<0.001", "0.033"]


def test_something_else_is_refused():
    other = xr.Dataset({"accuracy": 0.5})
    for show in (draw_transfer_curves, transfer_table):
        with pytest.raises(ValueError, match="what `trace_transfer` gives"):
            show(other)
