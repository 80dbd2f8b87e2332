import numpy as np
import pytest
import xarray as xr

from tlens_trust.tracing import load_results, save_result

RESULT = xr.Dataset(
    {"score": ("token", [0.5, -1.0], {"units": "nats"})},
    {"text": ("token", ["<b>", " 'a'"])},
    attrs={"statement": "<b> 'a'"},
)


def test_what_is_kept_with_a_run_comes_back_as_it_was_under_its_name(sweep, tmp_path):
    trace = sweep(out=tmp_path)
    save_result(tmp_path, "tokens", "a/name: of mine", RESULT)
    save_result(tmp_path, "tokens", "another", RESULT)
    save_result(tmp_path, "tokens", "another", 2 * RESULT[["score"]])
    found = load_results(tmp_path, "tokens")
    assert sorted(found) == ["a/name: of mine", "another"]
    xr.testing.assert_identical(found["a/name: of mine"], RESULT)
    np.testing.assert_array_equal(found["another"].score, [1.0, -2.0])
    assert load_results(tmp_path, "steering") == {}
    assert sweep(out=tmp_path) == trace  # nor is the sweep disturbed


def test_what_has_no_place_is_refused(sweep, tmp_path):
    with pytest.raises(ValueError, match="manifest"):
        save_result(tmp_path / "none", "tokens", "a", RESULT)
    assert not (tmp_path / "none").exists()
    sweep(out=tmp_path / "run")
    with pytest.raises(ValueError, match="'tokens', 'steering'"):
        save_result(tmp_path / "run", "thoughts", "a", RESULT)
    path = save_result(tmp_path / "run", "tokens", "a", RESULT)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"cannot be read.*Remove it"):
        load_results(tmp_path / "run", "tokens")
