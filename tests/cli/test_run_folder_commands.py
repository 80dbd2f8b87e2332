import pytest
import xarray as xr

import tlens_trust.analysis
import tlens_trust.views


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "manifest.json").write_text('{"format": "tlens-trust-run-1"}')
    return tmp_path


def test_onset_asks_for_both_answers_with_a_margin_each(monkeypatch, run, folder):
    asked = {}

    def finder(name):
        def find(run_folder, **arguments):
            asked[name] = arguments
            return xr.Dataset(attrs={"found": name})

        return find

    def onset_table(onset, saturation, *, every_site):
        return f"{onset.attrs['found']} {saturation.attrs['found']} {every_site}"

    monkeypatch.setattr(tlens_trust.analysis, "find_onset", finder("onset"))
    monkeypatch.setattr(tlens_trust.analysis, "find_saturation", finder("saturation"))
    monkeypatch.setattr(tlens_trust.views, "onset_table", onset_table)
    options = ["--concepts", "toxicity, privacy", "--margin", "0.2", "--short", "0.05"]
    status, out, err = run("onset", folder, *options, "--no-floor", "--every-site")
    assert (status, out, err) == (0, "onset saturation True\n", "")
    assert asked["onset"]["margin"] == 0.2
    assert asked["saturation"]["margin"] == 0.05
    for arguments in asked.values():
        assert arguments["concepts"] == ["toxicity", "privacy"]
        assert arguments["floor"] is False
    run("onset", folder)
    assert all(arguments["concepts"] is None for arguments in asked.values())


def test_a_checkpoint_is_told_by_its_step_or_by_its_name(monkeypatch, run, folder):
    asked = []

    def compare_checkpoints(run_folder, concept, before, after, **arguments):
        asked.extend([concept, before, after])
        raise ValueError("far enough")

    monkeypatch.setattr(tlens_trust.analysis, "compare_checkpoints", compare_checkpoints)
    assert run("compare", folder, "privacy", "64", "toy@step512")[0] == 2
    assert asked == ["privacy", 64, "toy@step512"]


def test_a_layer_that_was_not_read_costs_nobody_the_comparison(monkeypatch, run, folder):
    change = xr.Dataset(coords={"site": ["a", "b"], "layer": ("site", [0, 1])})
    monkeypatch.setattr(tlens_trust.analysis, "compare_checkpoints", lambda *_, **__: change)
    monkeypatch.setattr(tlens_trust.views, "comparison_table", lambda _: "the table")
    status, out, err = run("compare", folder, "privacy", "0", "64", "--flips", "8")
    assert (status, out) == (2, "the table\n")
    assert err == "tlens-trust: --flips got 8, and no layer 8 was read. Choose among 0, 1.\n"


def test_onsets_of_a_run_that_stopped_short_say_so(monkeypatch, run, folder):
    from tlens_trust.tracing.run_folder import RunFolder

    for name in ("find_onset", "find_saturation"):
        monkeypatch.setattr(tlens_trust.analysis, name, lambda *_, **__: xr.Dataset())
    monkeypatch.setattr(tlens_trust.views, "onset_table", lambda *_, **__: "the table")
    # The checkpoint in which it stopped is known, and nothing of it is finished.
    monkeypatch.setattr(RunFolder, "checkpoints", lambda _: {"step0": None, "step8": None})
    monkeypatch.setattr(RunFolder, "unfinished", lambda _: ["step8", "step64"])
    status, out, err = run("onset", folder)
    assert (status, out) == (0, "the table\n")
    assert "2 of 3 checkpoints have not been measured (step8, step64)" in err
