from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.stats import binom

from tlens_trust.analysis import compare_checkpoints, list_flips
from tlens_trust.analysis.comparing.checkpoint_change import flip_signs, shared_by_folds
from tlens_trust.analysis.comparing.run_scores import RunScores
from tlens_trust.concepts import Concept
from tlens_trust.measures.cross_fitters import LogisticCrossFitter
from tlens_trust.measures.folds import assign_folds
from tlens_trust.measures.resampling import GroupBootstrap
from tlens_trust.measures.scores import score_dataset
from tlens_trust.tracing import trace_checkpoints


@dataclass(frozen=True)
class GivenScores:
    """A measure that says what it was told, by the checkpoint's step."""

    scores: dict
    name: str = "given"
    identity: str = "given()"

    def __call__(self, activations, concept, *, seed):
        return score_dataset(
            self.scores[activations.checkpoint.step],
            concept.labels,
            np.arange(len(concept)) // 2 % 4,
            concept.groups,
            sites=activations.sites,
            seed=0,
            resamples=50,
        )


@pytest.fixture
def run_of_scores(checkpoints, tmp_path):
    """A run folder of two layers with given scores: `run_of_scores({0: …, 8: …}, concept)`."""

    def make(scores, concept):
        trace_checkpoints(
            [each for each in checkpoints if each.step in scores],
            concept,
            measures=GivenScores(scores),
            out=tmp_path / "run",
            store=None,
            progress=False,
        )
        return tmp_path / "run"

    return make


def paired_concept(groups, size=2):
    rows = groups * size
    return Concept(
        "truth",
        "reliability",
        tuple(f"statement {row}" for row in range(rows)),
        np.arange(rows) % 2,
        tuple(f"group {row // size}" for row in range(rows)),
    )


def scores_of(right, labels):
    signs = np.where(labels == 1, 1.0, -1.0)[:, None]
    return np.where(right, signs, -signs) * 2.0


def test_what_flipped_is_counted_and_listed_by_how_far_it_moved(run_of_scores):
    concept = paired_concept(40)
    right = np.ones((80, 2), dtype=bool)
    right[:20, 0] = False
    before = scores_of(right, concept.labels)
    after = scores_of(np.ones((80, 2), dtype=bool), concept.labels)
    after[3] *= 4
    after[50, 0] *= -1
    folder = run_of_scores({0: before, 64: after}, concept)
    found = compare_checkpoints(folder, "truth", 0, 64, permutations=500)
    assert found.learned.values.tolist() == [20, 0]
    assert found.forgotten.values.tolist() == [1, 0]
    np.testing.assert_allclose(found.accuracy_difference, [19 / 80, 0])
    assert found.accuracy_difference_p.values[0] < 0.01
    assert found.accuracy_difference_p.values[1] == 1
    flips = list_flips(found, layer=0)
    assert len(flips) == 21
    assert flips.iloc[0]["statement"] == "statement 3"
    forgotten = flips[flips["flip"] == "forgotten"]
    assert forgotten["statement"].tolist() == ["statement 50"]
    # Turned round, what was learned is forgotten.
    back = compare_checkpoints(folder, "truth", 64, 0, permutations=500)
    np.testing.assert_allclose(back.accuracy_difference, -found.accuracy_difference)
    assert back.attrs["before"] == found.attrs["after"]


def test_no_flip_at_all_is_no_proof_that_none_can_be(run_of_scores):
    concept = paired_concept(40)
    same = scores_of(np.ones((80, 2), dtype=bool), concept.labels)
    found = compare_checkpoints(run_of_scores({0: same, 8: same}, concept), "truth", 0, 8)
    low, high = found.accuracy_difference_ci.values[0]
    assert low == -high
    assert 0.05 < high < 0.15


def test_every_number_has_a_unit_and_stands_beside_a_real_sweep(
    checkpoints, concepts, quick_probe, tmp_path
):
    trace_checkpoints(
        checkpoints, concepts, measures=quick_probe, out=tmp_path / "run", store=None,
        progress=False,
    )  # fmt: skip
    found = compare_checkpoints(tmp_path / "run", "truth", "tiny@step0", 64, permutations=100)
    for name, variable in found.data_vars.items():
        assert variable.attrs["units"], name
        assert variable.attrs["long_name"], name
    assert found["layer"].values.tolist() == [0, 1]
    assert found.sizes["example"] == len(concepts[0])
    np.testing.assert_allclose(
        found.accuracy_difference, found.accuracy_after - found.accuracy_before, atol=1e-12
    )
    with pytest.raises(ValueError, match="no step 7"):
        compare_checkpoints(tmp_path / "run", "truth", 7, 64)
    with pytest.raises(ValueError, match="one checkpoint"):
        compare_checkpoints(tmp_path / "run", "truth", 64, "tiny@step64")
    with pytest.raises(ValueError, match="One site is needed"):
        list_flips(found)
    with pytest.raises(ValueError, match="holds no concept"):
        compare_checkpoints(tmp_path / "run", "elsewhere", 0, 64)


def test_flipping_signs_of_groups_keeps_its_level_and_ignoring_groups_does_not():
    """Statements of a group flip together. 400 runs without a difference, by a binomial bound."""
    generator = np.random.default_rng(0)
    runs, groups, size = 400, 30, 8
    group = np.repeat(np.arange(groups), size)
    alone, best, naive = [], [], []
    for number in range(runs):
        # Three sites that mostly agree; most of a group gains or loses together.
        whole = generator.integers(-1, 2, size=(groups, 1))
        own = np.where(
            generator.random((groups, 3)) < 0.7, whole, generator.integers(-1, 2, size=(groups, 3))
        )
        gain = np.where(generator.random((len(group), 3)) < 0.9, own[group], 0).astype(float)
        p, p_best, _ = flip_signs(gain, group, np.zeros(3), 199, number)
        alone.append(p[0] <= 0.05)
        best.append(p_best.min() <= 0.05)
        naive.append(
            flip_signs(gain, np.arange(len(group)), np.zeros(3), 199, number)[0][0] <= 0.05
        )
    most = binom.ppf(0.999, runs, 0.05)
    assert sum(alone) <= most
    assert sum(best) <= most
    assert sum(naive) > 2 * most


def test_the_best_of_many_sites_is_paid_for():
    """Negative control: the least of the sites' own p-values is below 5% far too often."""
    generator = np.random.default_rng(1)
    runs, sites = 200, 12
    best, least = [], []
    for number in range(runs):
        gain = generator.integers(-1, 2, size=(60, sites)).astype(float)
        p, p_best, _ = flip_signs(gain, np.arange(60), np.zeros(sites), 199, number)
        best.append(p_best.min() <= 0.05)
        least.append(p.min() <= 0.05)
    most = binom.ppf(0.999, runs, 0.05)
    assert sum(best) <= most < sum(least)


def test_a_difference_that_is_there_is_found():
    generator = np.random.default_rng(2)
    gain = (generator.random((200, 1)) < 0.25).astype(float) - (generator.random((200, 1)) < 0.05)
    p, p_best, band = flip_signs(gain, np.arange(200) // 2, np.zeros(1), 999, 0)
    assert p[0] == p_best[0] == 1 / 1000
    assert band[0, 1] < gain.mean()
    wide, _, wider = flip_signs(gain, np.arange(200) // 2, np.full(1, 1.0), 999, 0)
    assert wide[0] > 0.5
    assert np.ptp(wider) > 5 * np.ptp(band)


@pytest.mark.slow
def test_refitted_probes_that_read_nothing_do_not_differ_and_a_test_blind_to_folds_says_so():
    """300 pairs of checkpoints of pure noise, probes cross-validated at each.

    Folds share training rows, so that accuracies near chance vary more than their statements tell.
    """
    generator = np.random.default_rng(7)
    runs, rows = 300, 120
    labels = np.arange(rows) % 2
    groups = tuple(f"g{row // 2}" for row in range(rows))
    group = np.unique(groups, return_inverse=True)[1]
    fitter = LogisticCrossFitter((0.01, 0.1, 1.0))
    knowing, blind = 0, 0
    for number in range(runs):
        fold = assign_folds(labels, groups, folds=5, seed=number)
        held = [
            fitter(
                torch.from_numpy(generator.normal(size=(rows, 1, 8))),
                torch.from_numpy(labels),
                groups,
                fold,
            )
            for _ in range(2)
        ]
        right = [((each.scores > 0) == (labels == 1)[:, None]).astype(float) for each in held]
        kept = RunScores(
            scores=np.stack([each.scores for each in held]),
            fewer=np.stack([each.fewer for each in held]),
            intervals=None,
            checkpoints=("a", "b"),
            steps=np.array([0.0, 1.0]),
            labels=labels,
            groups=groups,
            fold=fold,
            site_coordinates={},
            example_coordinates={},
            checkpoint_coordinates={},
        )
        bootstrap = GroupBootstrap.draw(groups, seed=0, resamples=2)
        shared = shared_by_folds(kept, [0, 1], right, bootstrap)
        gain = right[1] - right[0]
        knowing += flip_signs(gain, group, shared, 199, number)[0][0] <= 0.05
        blind += flip_signs(gain, group, np.zeros(1), 199, number)[0][0] <= 0.05
    most = binom.ppf(0.999, runs, 0.05)
    assert knowing <= most < blind
