from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from tlens_trust.analysis import SeriesReadings, erasure_cost
from tlens_trust.analysis.comparing.erasure import _unseen
from tlens_trust.analysis.comparing.leace import fit_eraser
from tlens_trust.measures import logistic_probe

pytestmark = pytest.mark.skipif(find_spec("concept_erasure") is None, reason="extra `erasure`")

E = 4 * np.eye(16)
PROBE = logistic_probe(C=(0.1, 1.0), folds=3, resamples=60, floor=False)


@pytest.fixture(scope="module")
def cost(planted):
    read = [
        planted({1: direction}, name=name, groups=80, seed=seed)[0]
        for seed, (name, direction) in enumerate(
            {"one": E[0], "same": E[0], "other": E[1], "none": 0 * E[0]}.items()
        )
    ]
    found = erasure_cost(
        SeriesReadings.from_activations(read), probe=PROBE, controls=6, progress=False
    )
    return found.isel(checkpoint=0, site=0)


def test_erasing_a_concept_takes_it_and_what_lies_along_it_and_nothing_else(cost):
    lost = cost.accuracy_cost.sel(concept=["one", "same", "other"])
    same = lost.sel(erased=["one", "same"], concept=["one", "same"]).values
    assert (same > 0.35).all()
    # At a right angle: no more than erasing labels that mean nothing.
    low, high = cost.accuracy_cost_null.sel(erased="one", concept="other").values
    assert low - 0.02 <= float(lost.sel(erased="one", concept="other")) <= high + 0.02
    assert abs(lost.sel(erased="other", concept=["one", "same"]).values).max() < 0.05
    assert abs(lost.sel(erased="none").values).max() < 0.05


def test_an_erased_concept_falls_to_chance(cost):
    for name in ("one", "same", "other"):
        assert 0.35 <= float(cost.accuracy.sel(erased=name, concept=name)) <= 0.6
        assert float(cost.accuracy_before.sel(concept=name)) > 0.9
        assert float(cost.cross_entropy.sel(erased=name, concept=name)) == pytest.approx(
            np.log(2), abs=0.03
        )
    assert (cost.accuracy_chance == 0.5).all()


def test_the_control_that_erases_permuted_labels_costs_nothing_of_note(cost):
    """Negative control: a rank-one erasure as such does not explain the fall."""
    middle = cost.accuracy_cost_null.sel(concept=["one", "same", "other"]).mean("bound")
    assert abs(middle).max() < 0.12
    inside = cost.accuracy_cost.sel(erased="one", concept="same")
    assert float(inside) > float(cost.accuracy_cost_null.sel(erased="one", concept="same")[1])


def test_a_cost_is_what_went_before_less_what_is_left(cost):
    before = cost.accuracy_before.values[None]
    np.testing.assert_allclose(cost.accuracy_cost, before - cost.accuracy, atol=1e-12)
    more = cost.cross_entropy.values - cost.cross_entropy_before.values[None]
    np.testing.assert_allclose(cost.cross_entropy_cost, more, atol=1e-12)
    for name in ("accuracy_cost", "cross_entropy_cost"):
        low, high = cost[f"{name}_ci"].values[..., 0], cost[f"{name}_ci"].values[..., 1]
        assert ((low <= cost[name] + 1e-9) & (cost[name] <= high + 1e-9)).all()
        assert (cost[f"{name}_n"] == 160).all()


def test_nothing_that_is_scored_had_a_part_in_erasing(planted):
    """With twice the same statements under two names, the eraser leaves the held-out ones out."""
    one = planted({1: E[0]}, groups=20)[0]
    twin = replace(one, concept=replace(one.concept, name="twin"))
    fold = PROBE.held_out(one, one.concept, seed=1)[1]
    kept = _unseen(twin.concept, one.concept, fold)
    np.testing.assert_array_equal(kept, fold != np.arange(3)[:, None])
    strange = planted({1: E[0]}, groups=20, prefix="elsewhere")[0].concept
    assert _unseen(strange, one.concept, fold).all()


def test_no_linear_readout_tells_the_labels_after_leace():
    """Belrose et al.: guarded exactly where class means agree; and a noisy direction does not."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 2
    values = 1e-3 * torch.randn(60, 100, generator=generator, dtype=torch.float64) + 5
    values[:, 7] += 1e-2 * labels
    values[:, 9] = 3.0
    direction, readout, centre = fit_eraser(values, labels)
    erased = values - torch.outer((values - centre) @ readout, direction)

    def gap(rows):
        return float((rows[labels == 1].mean(0) - rows[labels == 0].mean(0)).norm())

    assert gap(erased) < 1e-9 * gap(values)
    other = values - torch.outer((values - centre) @ readout, torch.roll(direction, 1))
    assert gap(other) > 0.1 * gap(values)
    # The mean stays, and a constant feature is left alone.
    torch.testing.assert_close(erased.mean(0), values.mean(0))
    assert (erased[:, 9] == 3.0).all()


def test_too_few_controls_or_concepts_are_refused(planted):
    read = planted({1: E[0]}, groups=20)
    with pytest.raises(ValueError, match="`controls` must be a whole number from 2"):
        erasure_cost(SeriesReadings.from_activations(read), controls=1, progress=False)
    with pytest.raises(ValueError, match="at least two"):
        erasure_cost(SeriesReadings.from_activations(read), progress=False)


def test_a_missing_package_is_named_with_the_way_to_get_it(planted, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "concept_erasure", None)
    with pytest.raises(ImportError, match=r"tlens-trust\[erasure\]"):
        erasure_cost(SeriesReadings.from_activations(planted({1: E[0]}, groups=20)), progress=False)
