import pytest
import xarray as xr

import tlens_trust.analysis
from tlens_trust.cli import transfer_command


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "Missing option"),
        (["--from", "toxicity"], "Name sets by --to, or give your own by --csv"),
        (["--from", "toxicity", "--csv", "mine.csv"], "--csv needs --trustworthy"),
        (["--from", "toxicity,privacy", "--to", "paraphrases"], "names 2 sets"),
        (["--from", "toxicty", "--to", "toxicity"], "Did you mean 'toxicity'"),
        (["--from", "toxicity", "--to", ","], "names nothing"),
        (["--from", "toxicity", "--to", "toxicity", "--out", "notes.txt"], "which is a file"),
        (["--from", "toxicity", "--to", "privacy_paraphrased"], "holds no checkpoint"),
    ],
)
def test_a_bad_argument_is_one_line_and_status_2(run, monkeypatch, tmp_path, arguments, word):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("dear diary")
    status, out, err = run("transfer", ".", *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("tlens-trust: ")
    assert err.count("\n") == 1
    assert word in err


def test_the_command_says_what_the_function_finds(run, monkeypatch, tmp_path):
    asked = {}

    def collected(series, concepts, **options):
        asked.update(options, series=series, concepts=list(concepts))
        return "readings"

    def traced(readings, fitted_on, scored_on, **options):
        assert readings == "readings"
        assert options.pop("seed") == asked["seed"]
        asked.update(options, fitted_on=fitted_on, scored_on=scored_on)
        return xr.Dataset({"accuracy": 0.75}, attrs={"fitted_on": fitted_on})

    class Drawn:
        def save(self, path):
            path.write_text("curves")
            return path

    monkeypatch.setattr(transfer_command, "open_series", lambda *options: options)
    monkeypatch.setattr(tlens_trust.analysis, "collect_series", collected)
    monkeypatch.setattr(tlens_trust.analysis, "trace_transfer", traced)
    monkeypatch.setattr("tlens_trust.views.transfer_table", lambda found: "the table")
    monkeypatch.setattr("tlens_trust.views.draw_transfer_curves", lambda found: Drawn())
    status, out, err = run(
        "transfer", "m", "--from", "toxicity", "--to", "toxicity_paraphrased", "--sites", "1,2",
        "--seed", "4", "--untrained", "none", "--out", tmp_path / "new" / "out", "--quiet",
    )  # fmt: skip
    assert (status, err) == (0, "")
    assert out.startswith("the table")
    assert asked["concepts"] == ["toxicity", "toxicity_paraphrased"]
    assert asked["fitted_on"] == "toxicity"
    assert asked["scored_on"] == ["toxicity_paraphrased"]
    assert asked["sites"] == [1, 2]
    assert asked["untrained"] is None
    assert asked["progress"] is False
    assert asked["seed"] == 4
    kept = xr.load_dataset(tmp_path / "new" / "out" / "transfer.nc", engine="netcdf4")
    assert float(kept.accuracy) == 0.75
    assert (tmp_path / "new" / "out" / "transfer.html").read_text() == "curves"
