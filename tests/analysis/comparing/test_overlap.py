from dataclasses import replace

import numpy as np
import pytest
import torch

from tlens_trust.analysis import SeriesReadings, direction_overlap

E = 3 * np.eye(8)
QUICK = {"splits": 4, "blocks": 5, "permutations": 20, "progress": False}


def concepts(planted, **directions):
    return [
        planted({1: direction}, name=name, seed=number, groups=100)[0]
        for number, (name, direction) in enumerate(directions.items())
    ]


@pytest.fixture(scope="module")
def overlap(planted):
    half_way = (E[0] + E[1]) / np.sqrt(2)
    read = concepts(planted, one=E[0], same=E[0], other=E[1], between=half_way, none=None)
    found = direction_overlap(SeriesReadings.from_activations(read), direction="mass_mean", **QUICK)
    return found.sel(space="raw").isel(checkpoint=0, site=0)


def test_the_planted_angles_between_concepts_are_found(overlap):
    found = overlap.cosine_corrected.values[:4, :4]
    half = np.sqrt(0.5)
    planted = np.array([[1, 1, 0, half], [1, 1, 0, half], [0, 0, 1, half], [half, half, half, 1]])
    np.testing.assert_allclose(found, planted, atol=0.15)
    np.testing.assert_allclose(overlap.cosine, overlap.cosine.T, atol=1e-12)


def test_only_what_was_planted_lies_above_the_null(overlap):
    low, high = overlap.cosine_null.values[..., 0], overlap.cosine_null.values[..., 1]
    cosine = overlap.cosine.values
    assert cosine[0, 1] > high[0, 1]
    assert low[0, 2] < cosine[0, 2] < high[0, 2]
    # A concept that is not read has no direction to overlap with.
    assert (cosine[4, :4] < high[4, :4]).all()
    assert np.isnan(overlap.cosine_corrected.values[4]).all()


def test_concepts_that_share_statements_share_no_accident(planted):
    """Two labellings of the same statements that agree, where nothing is to be read."""
    one = planted({1: None}, groups=80, seed=5)[0]
    twin = replace(one.concept, name="twin")
    pair = [one, replace(one, concept=twin)]
    found = direction_overlap(
        SeriesReadings.from_activations(pair), direction="mass_mean", **QUICK
    ).sel(space="raw")
    low, high = found.cosine_null.isel(checkpoint=0, site=0).values[0, 1]
    # The very same rows and labels: fitted to all of them the directions would agree perfectly.
    assert low <= float(found.cosine[0, 0, 1, 0]) <= high
    assert int(found.cosine_n[0, 0, 1, 0]) == 80


def test_several_checkpoints_stand_side_by_side(planted):
    one = planted({1: E[0], 8: E[0]}, name="one", groups=60)
    other = planted({1: E[1], 8: E[0]}, name="other", groups=60, seed=1)
    found = direction_overlap(SeriesReadings.from_activations([*one, *other]), **QUICK)
    assert found["step"].values.tolist() == [1, 8]
    assert found["concept"].values.tolist() == ["one", "other"]
    cosine = found.cosine.sel(space="raw").isel(site=0).values[:, 0, 1]
    assert cosine[1] > 0.7 > 0.4 > abs(cosine[0])
    for name, variable in found.data_vars.items():
        assert variable.attrs["units"], name
        assert variable.attrs["long_name"], name


def test_one_concept_or_one_that_was_not_read_everywhere_is_refused(planted):
    one = planted({1: E[0], 8: E[0]}, name="one", groups=60)
    other = planted({1: E[1]}, name="other", groups=60)
    with pytest.raises(ValueError, match="at least two"):
        direction_overlap(SeriesReadings.from_activations(one), progress=False)
    with pytest.raises(ValueError, match="no activations of 'other' at 'planted@step8'"):
        direction_overlap(SeriesReadings.from_activations([*one, *other]), progress=False)
    bare = replace(one[0], concept=None)
    with pytest.raises(ValueError, match="have no concept"):
        direction_overlap(SeriesReadings.from_activations([bare]), progress=False)
    assert torch.isfinite(one[0].values).all()
