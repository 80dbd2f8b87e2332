from dataclasses import dataclass

import numpy as np
import pytest

from tlens_trust.analysis import SeriesReadings, find_forgetting
from tlens_trust.analysis.comparing.forgetting import known_before
from tlens_trust.measures import logistic_probe
from tlens_trust.measures.scores import score_dataset
from tlens_trust.tracing import trace_checkpoints

STEPS = (0, 8, 64)
PROBE = logistic_probe(C=(0.1, 1.0), folds=3, resamples=20, permutations=20, floor=False)


@dataclass(frozen=True)
class GivenScores:
    """A measure that is right where it was told to be, by the checkpoint's step."""

    right: dict
    name: str = "given"
    identity: str = "given()"

    def __call__(self, activations, concept, *, seed):
        signs = np.where(concept.labels == 1, 1.0, -1.0)
        right = np.asarray(self.right[activations.checkpoint.step])
        scores = np.repeat(np.where(right, signs, -signs)[:, None], len(activations.sites), axis=1)
        fold = np.arange(len(concept)) // 2 % 4
        return score_dataset(
            scores, concept.labels, fold, concept.groups, sites=activations.sites, seed=0,
            resamples=20,
        )  # fmt: skip


@pytest.fixture
def run_of_answers(checkpoints, concepts, tmp_path):
    def make(right):
        measure = GivenScores(dict(zip(STEPS, right, strict=True)))
        trace_checkpoints(
            checkpoints, concepts[0], measures=measure, out=tmp_path / "run", store=None,
            progress=False,
        )  # fmt: skip
        return tmp_path / "run"

    return make


def test_a_statement_is_known_after_so_many_right_answers_in_a_row_and_not_before():
    right = np.array([[1, 1, 0], [1, 0, 1], [1, 1, 1], [0, 1, 1]], dtype=bool)
    assert known_before(right, 2).tolist() == [
        [False, False, False],
        [False, False, False],
        [True, False, False],
        [True, False, True],
    ]
    assert known_before(right, 1)[1].tolist() == [True, True, False]
    assert not known_before(right, 4).any()


def test_forgotten_are_the_known_that_are_wrong_and_the_mirror_the_reverse(run_of_answers):
    right = np.zeros((3, 24), dtype=bool)
    right[:2, :10] = True  # known, and then forgotten
    right[:, 10:14] = True  # known and kept
    right[2, 14:17] = True  # wrong twice, and then right
    found = find_forgetting(run_of_answers(right), "truth", layer=0)
    assert found.known.values.tolist() == [0, 0, 14]
    assert found.forgotten.values.tolist() == [0, 0, 10]
    assert found.lost_for_good.values.tolist() == [0, 0, 10]
    assert found.forgotten_mirror.values.tolist() == [0, 0, 3]
    assert found["step"].values.tolist() == list(STEPS)
    np.testing.assert_array_equal(found.right, right)
    # What takes activations is unknown without them, and not 0.
    assert found.forgotten_noise.values[2] != 0
    assert np.isnan(found.forgotten_noise.values[2])
    for name, variable in found.data_vars.items():
        assert variable.attrs["units"], name
        assert variable.attrs["long_name"], name


def test_what_is_forgotten_may_be_known_again(run_of_answers):
    right = np.ones((3, 24), dtype=bool)
    right[1, :5] = False
    found = find_forgetting(run_of_answers(right), "truth", layer=0, patience=1)
    assert found.forgotten.values.tolist() == [0, 5, 0]
    assert found.lost_for_good.values.tolist() == [0, 0, 0]
    assert found.known.values.tolist() == [0, 24, 19]


def test_a_concept_that_is_torn_out_is_forgotten_beyond_noise_and_one_that_stays_is_not(
    run_of_answers, checkpoints, concepts, planted_at
):
    """Planted at the first two checkpoints; at the third gone, or still there."""
    right = np.ones((3, 24), dtype=bool)
    right[2, ::2] = False
    run = run_of_answers(right)
    options = {"layer": 0, "measure": PROBE, "refits": 4, "progress": False}
    torn = find_forgetting(run, "truth", readings=planted_at(True, True, False), **options)
    assert torn.forgotten_excess.values[2] > 6
    assert torn.forgotten_excess_ci.sel(bound="low").values[2] > 0
    stays = find_forgetting(run, "truth", readings=planted_at(True, True, True), **options)
    assert abs(stays.forgotten_excess.values[2]) < 2
    assert stays.forgotten_noise.values[2] < 3
    # The count itself is of the kept scores, and cannot tell the two apart.
    assert stays.forgotten.values[2] == torn.forgotten.values[2] == 12
    # Where nothing was there before either, another fit forgets as much.
    never = find_forgetting(run, "truth", readings=planted_at(False, False, False), **options)
    assert never.forgotten_noise.values[2] > 6


@pytest.fixture
def planted_at(checkpoints, concepts):
    """Activations of the run's concept at the run's checkpoints, planted or not."""
    import torch

    from tlens_trust.activations import Activations

    def make(*there):
        found = []
        for number, (checkpoint, planted) in enumerate(zip(checkpoints, there, strict=False)):
            values = torch.randn(24, 2, 6, generator=torch.Generator().manual_seed(number))
            if planted:
                values[:, :, 0] += torch.tensor(concepts[0].labels.tolist())[:, None] * 8.0
            sites = tuple(f"blocks.{i}.hook_resid_post" for i in range(2))
            found.append(Activations(values, sites, checkpoint, concepts[0], n_layers=2))
        return SeriesReadings.from_activations(found)

    return make


def test_a_site_or_a_checkpoint_that_is_missing_is_named(run_of_answers, planted_at):
    run = run_of_answers(np.ones((3, 24), dtype=bool))
    with pytest.raises(ValueError, match="One site is needed"):
        find_forgetting(run, "truth")
    with pytest.raises(ValueError, match="lack 'tiny@step64'"):
        find_forgetting(run, "truth", planted_at(True, True), layer=0, measure=PROBE)
    with pytest.raises(ValueError, match="`patience` must be a whole number from 1"):
        find_forgetting(run, "truth", layer=0, patience=0)
