"""Measures on request: at chosen sites, and with a null where one is asked for."""

import numpy as np
import pytest
import torch

from tlens_trust.activations import Activations
from tlens_trust.concepts import Concept
from tlens_trust.measures import (
    Measure,
    infonce,
    mlp_information,
    nearest_neighbour_information,
    online_coding,
)
from tlens_trust.tracing.cells import measure_cell

SITES = tuple(f"blocks.{block}.hook_resid_post" for block in range(2))


def drawn(*, pairs: int = 30, seed: int = 0):
    """Twins, their labels apart at the last site; the text's length goes with the first axis."""
    generator = np.random.default_rng(seed)
    labels = np.tile([0, 1], pairs)
    values = generator.standard_normal((2 * pairs, len(SITES), 3))
    values[:, -1, 0] += 5 * labels
    words = ("sea", "sky", "sun", "dew", "ice", "fog")
    texts = tuple(f"{words[row % 6]} {words[row * 5 % 6]} number {row}" for row in range(2 * pairs))
    names = tuple(f"pair {row // 2}" for row in range(2 * pairs))
    concept = Concept("drawn", "reliability", texts, labels, names)
    return Activations(torch.from_numpy(values).float(), SITES), concept


MEASURES = [
    mlp_information(sites=[1], folds=3, max_epochs=20, permutations=3),
    infonce(sites=[1], epochs=5, components=5, permutations=3),
    nearest_neighbour_information(sites=[1], permutations=9),
    online_coding(sites=[1], orders=1, permutations=19),
]
MAIN = {
    "mlp_information": "information_ba",
    "infonce": "information_infonce",
    "nearest_neighbours": "information_neighbours",
    "online_coding": "description_length",
}


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.name)
def test_a_measure_at_one_site_is_nan_at_the_others_and_complete_at_its_own(measure):
    assert isinstance(measure, Measure)
    cell = measure_cell(*drawn(), [measure], seed=0)
    main = MAIN[measure.name]
    for suffix in ("", "_ci", "_n", "_null", "_p"):
        values = cell[f"{main}{suffix}"]
        assert np.isnan(values.sel(site=SITES[0])).all()
        assert np.isfinite(values.sel(site=SITES[1])).all()
    assert cell[main].attrs["units"] == "nats"


def test_labels_that_are_told_stand_out_of_their_null():
    activations, concept = drawn()
    near = nearest_neighbour_information(permutations=39)(activations, concept, seed=0)
    p = near["information_neighbours_p"].sel(against="label").values
    assert p[1] == pytest.approx(1 / 40)
    assert p[0] > 0.05
    code = online_coding(orders=1, permutations=19)(activations, concept, seed=0)
    assert code["description_length_p"].values[1] == pytest.approx(1 / 20)
    assert code["description_length_p"].values[0] > 0.05
    assert code["compression"].values[1] > code["compression_null"].values[1].max()
    low, high = code["compression_ci"].values[1]
    assert low < code["compression"].values[1] < high


def test_without_permutations_there_is_no_null():
    activations, concept = drawn()
    data = nearest_neighbour_information()(activations, concept, seed=0)
    assert "information_neighbours_null" not in data
    assert "too low" not in data["information_neighbours"].attrs["warning_label"]
    assert data["information_neighbours"].dims == ("site", "against")


def test_settings_are_part_of_the_identity():
    names = {
        measure.identity
        for measure in (
            nearest_neighbour_information(),
            nearest_neighbour_information(neighbours=5),
            nearest_neighbour_information(sites=[1]),
            infonce(),
            infonce(seed=1),
            online_coding(),
            online_coding(orders=2),
            mlp_information(),
            mlp_information(permutations=5),
        )
    }
    assert len(names) == 9


def test_activations_of_other_statements_are_refused():
    activations, _ = drawn()
    _, concept = drawn(pairs=20)
    for measure in (nearest_neighbour_information(), online_coding()):
        with pytest.raises(ValueError, match="hold 60 statements"):
            measure(activations, concept, seed=0)
    with pytest.raises(ValueError, match="`permutations` must be a whole number from 0, got -1"):
        online_coding(permutations=-1)
