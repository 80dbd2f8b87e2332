from dataclasses import replace

import numpy as np
import pytest
import torch

from tlens_trust.analysis import SeriesReadings, collect_series, transfer_matrix
from tlens_trust.analysis.comparing.checkpoint_transfer import fit_probes, transferred_scores
from tlens_trust.measures import logistic_probe, mass_mean_probe
from tlens_trust.tracing import probe_checkpoints

E = 3 * np.eye(6)
PROBE = logistic_probe(C=(0.1, 1.0), folds=3, resamples=60, floor=False)


def matrix_of(activations, probe=PROBE):
    readings = SeriesReadings.from_activations(activations)
    return transfer_matrix(readings, probe=probe, progress=False)


@pytest.fixture(scope="module")
def matrix(planted):
    """Nothing at step 0; one direction at 1 and 2; one at a right angle to it at 3."""
    series = planted({0: None, 1: E[0], 2: E[0], 3: E[1]})
    return matrix_of(series).isel(site=0)


def test_a_probe_reads_every_checkpoint_with_its_direction_and_no_other(matrix):
    auroc, low, high = matrix.auroc.values, *np.moveaxis(matrix.auroc_null.values, -1, 0)
    for source, target in ((1, 1), (1, 2), (2, 1), (2, 2), (3, 3)):
        assert auroc[source, target] > max(0.9, high[source, target])
    # Neither across the rotation nor from or to where nothing was planted, beyond what a probe of
    # labels that mean nothing gets: an accident of its direction, which is far from one half.
    strangers = [(1, 3), (2, 3), (3, 1), (3, 2), (0, 0), (1, 0), (0, 1), (0, 3), (3, 0)]
    within = [low[pair] <= auroc[pair] <= high[pair] for pair in strangers]
    assert sum(within) >= len(strangers) - 1
    assert (high - low)[0, 1] > 0.4 > (high - low)[0, 0]


def test_the_drop_is_that_from_the_targets_own_probe(matrix):
    own = matrix.accuracy.values[range(4), range(4)]
    np.testing.assert_allclose(matrix.accuracy_drop, own[None] - matrix.accuracy, atol=1e-12)
    low = matrix.accuracy_drop_ci.sel(bound="low").values
    assert low[1, 3] > 0.1
    assert low[1, 2] < 0.05
    assert (matrix.accuracy_drop.values[range(4), range(4)] == 0).all()


def test_the_diagonal_is_what_a_sweep_says(checkpoints, concepts, quick_probe):
    trace = probe_checkpoints(checkpoints, concepts[0], store=None, progress=False, seed=3)
    probe = logistic_probe(permutations=50)
    readings = collect_series(checkpoints, concepts, store=None).select(concepts[0].name)
    crossed = transfer_matrix(readings, probe=probe, progress=False, seed=3)
    for number, name in enumerate(trace.checkpoints):
        there = trace.data.sel(concept=concepts[0].name, checkpoint=name)
        here = crossed.isel(source=number, target=number)
        np.testing.assert_array_equal(here.accuracy, there.accuracy)
        np.testing.assert_allclose(here.accuracy_ci, there.accuracy_ci, atol=1e-12)
        np.testing.assert_array_equal(here.auroc, there.auroc)


def test_no_statement_of_a_fold_moves_the_probe_that_scores_it_elsewhere(planted):
    series = planted({1: E[0], 2: E[0]}, groups=20)
    concept, probe, seed = series[0].concept, mass_mean_probe(folds=3), 5
    fold = probe.held_out(series[0], concept, seed=seed)[1]
    held = fold == 0
    altered = series[0].values.clone()
    altered[torch.from_numpy(held)] = altered[torch.from_numpy(held)].flip(0) * -50 + 9
    home = fit_probes(series[1], concept, probe, seed)
    before, after = (
        transferred_scores(
            fit_probes(replace(series[0], values=values), concept, probe, seed),
            home,
            series[1].values.double().numpy(),
        )
        for values in (series[0].values, altered)
    )
    for one, other in zip(before, after, strict=True):
        np.testing.assert_allclose(one[held], other[held], rtol=1e-9)
        # The other folds' probes were fitted on it.
        assert (np.abs(one[~held] - other[~held]) > 1e-3).all()


def test_a_shift_and_a_change_of_scale_break_the_threshold_and_nothing_else(planted):
    series = planted({1: E[0], 2: E[0]}, shift={1: 0.0, 2: 7.0}, scale={1: 1.0, 2: 3.0})
    crossed = matrix_of(series).isel(source=0, target=1, site=0)
    assert float(crossed.accuracy) < 0.6
    assert float(crossed.auroc) > 0.9
    assert float(crossed.accuracy_restandardised) > 0.85


def test_labels_of_the_target_are_never_used(planted):
    """With the target's labels turned round, the transferred probe is as wrong as it was right."""
    series = planted({1: E[0], 2: -E[0]})
    crossed = matrix_of(series).isel(site=0)
    assert float(crossed.auroc[0, 1]) < 0.1
    assert float(crossed.accuracy_restandardised[0, 1]) < 0.2


def test_probes_of_unlabelled_directions_reach_far_where_the_target_has_one_axis(planted):
    """The null band is wider where activations vary along the concept's axis alone."""
    series = planted({0: None, 1: 12 * np.eye(6)[0]})
    crossed = matrix_of(series).isel(site=0, source=0)
    width = np.ptp(crossed.auroc_null.values, axis=-1)
    assert width[1] > 2 * width[0]


def test_every_number_has_a_unit_and_its_axes_are_labelled(matrix):
    for name, variable in matrix.data_vars.items():
        assert variable.attrs["units"], name
        assert variable.attrs["long_name"], name
    assert matrix.source_step.values.tolist() == [0, 1, 2, 3]
    assert matrix.target_step.values.tolist() == [0, 1, 2, 3]
    for name in ("accuracy", "auroc", "accuracy_drop", "auroc_restandardised"):
        assert (matrix[f"{name}_n"] == 120).all()
        low, high = matrix[f"{name}_ci"].sel(bound="low"), matrix[f"{name}_ci"].sel(bound="high")
        assert ((low <= matrix[name] + 1e-9) & (matrix[name] <= high + 1e-9)).all()


def test_what_cannot_be_transferred_is_refused_in_a_sentence(planted):
    series = planted({1: E[0], 2: E[0]}, groups=10)
    narrow = planted({3: np.ones(4)}, groups=10)
    with pytest.raises(ValueError, match="4 wide"):
        matrix_of([*series, *narrow], mass_mean_probe(folds=3))
    with pytest.raises(ValueError, match="given twice"):
        matrix_of([series[0], series[0]])
    with pytest.raises(ValueError, match="one concept at a time"):
        matrix_of([series[0], planted({1: E[0]}, name="other")[0]])
