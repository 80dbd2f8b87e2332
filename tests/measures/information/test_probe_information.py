"""The measure of a sweep: what it gives, and that it gives it wherever and whenever it is asked."""

import numpy as np
import pytest
import torch

from tlens_trust.activations import Activations
from tlens_trust.concepts import Concept
from tlens_trust.measures import Measure, logistic_probe
from tlens_trust.measures.information.probe_information import probe_information
from tlens_trust.tracing.cells import measure_cell

BOUNDS = ["information_ba", "information_fano", "information_confusion"]
SITES = tuple(f"blocks.{block}.hook_resid_post" for block in range(3))
MEASURE = probe_information(permutations=200)


def drawn(*, pairs: int = 60, distance: float = 1.5, width: int = 6, seed: int = 0):
    """Twins, with the labels apart at the last site alone; the text says a little of them."""
    generator = np.random.default_rng(seed)
    labels = np.tile([0, 1], pairs)
    values = generator.standard_normal((2 * pairs, len(SITES), width))
    values[:, -1, 0] += distance * labels
    told = np.where(generator.random(2 * pairs) < 0.65, labels, 1 - labels)
    texts = tuple(f"Item {row}: {'aye' if said else 'nay'}" for row, said in enumerate(told))
    names = tuple(f"pair {row // 2}" for row in range(2 * pairs))
    concept = Concept("drawn", "reliability", texts, labels, names)
    return Activations(torch.from_numpy(values).float(), SITES), concept


@pytest.fixture(scope="module")
def measured():
    return MEASURE(*drawn(), seed=0)


def test_it_is_a_measure_that_a_sweep_takes_beside_the_probe(measured):
    assert isinstance(MEASURE, Measure)
    activations, concept = drawn()
    cell = measure_cell(activations, concept, [logistic_probe(permutations=200), MEASURE], seed=0)
    assert cell["information_ba"].dims == ("site",)
    assert cell["accuracy"].dims == ("site",)
    assert set(measured.data_vars) < set(cell.data_vars)


@pytest.mark.parametrize("name", [*BOUNDS, "information_usable", "information_x"])
def test_every_figure_has_a_unit_an_interval_replicates_and_its_n(measured, name):
    for suffix in ("", "_ci", "_draws"):
        assert measured[f"{name}{suffix}"].attrs["units"] == "nats"
        assert np.isfinite(measured[f"{name}{suffix}"]).all()
    low, high = measured[f"{name}_ci"].transpose("bound", "site").values
    assert (low <= measured[name]).all()
    assert (measured[name] <= high).all()
    assert measured[f"{name}_n"].values.tolist() == [120] * 3


@pytest.mark.parametrize("name", BOUNDS)
def test_only_the_site_that_tells_labels_apart_stands_out_of_its_null(measured, name):
    high = measured[f"{name}_null"].sel(bound="high")
    assert (measured[name] > high).values.tolist()[-1]
    assert measured[f"{name}_p"].values[-1] < 0.01
    assert (measured[f"{name}_p"].values[:-1] > 0.01).all()
    assert (measured[f"{name}_p_best"] >= measured[f"{name}_p"]).all()


def test_barber_and_agakov_is_entropy_less_the_probes_cross_entropy(measured):
    scored = logistic_probe(permutations=200)(*drawn(), seed=0)
    expected = measured["label_entropy"] - scored["cross_entropy"]
    np.testing.assert_allclose(measured["information_ba"], expected, atol=1e-12)
    assert float(measured["label_entropy"]) == pytest.approx(np.log(2))


def test_two_checkpoints_have_the_same_halves():
    one, other = MEASURE(*drawn(), seed=0), MEASURE(*drawn(seed=1), seed=0)
    again = MEASURE(*drawn(), seed=0)
    assert again.identical(one)
    assert not other.identical(one)
    # The same statements moved a little: replicates go together.
    activations, concept = drawn()
    nudged = Activations(activations.values + 0.05 * torch.randn_like(activations.values), SITES)
    moved = MEASURE(nudged, concept, seed=0)
    pair = [d["information_ba_draws"].values[-1] for d in (one, moved)]
    assert np.corrcoef(*pair)[0, 1] > 0.7
    fresh = MEASURE(nudged, concept, seed=5)["information_ba_draws"].values[-1]
    assert np.corrcoef(pair[0], fresh)[0, 1] < 0.7
