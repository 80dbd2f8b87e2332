"""Probe measures score only what they have not seen."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from tlens_trust.activations import Activations
from tlens_trust.concepts import Concept
from tlens_trust.measures import Measure, ProbeMeasure, logistic_probe
from tlens_trust.measures import mass_mean_probe as mass_mean
from tlens_trust.measures.cross_fitters import DEFAULT_C, LogisticCrossFitter, MassMeanCrossFitter
from tlens_trust.measures.folds import assign_folds

MEASURES = [logistic_probe(), mass_mean()]
CROSS_FITTERS = [LogisticCrossFitter(), MassMeanCrossFitter()]


def pairs(count: int) -> Concept:
    return Concept(
        name="pairs",
        dimension="reliability",
        statements=tuple(f"statement {row}" for row in range(2 * count)),
        labels=np.tile([0, 1], count),
        groups=tuple(f"pair {row // 2}" for row in range(2 * count)),
    )


def readings(concept: Concept, *, strengths: list[float], width: int = 12, seed: int = 0):
    """Noise, with the label along the first feature of each site at the strength given."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(len(concept), len(strengths), width, generator=generator)
    signs = torch.from_numpy(2 * concept.labels - 1).unsqueeze(1)
    values[:, :, 0] += signs * torch.tensor(strengths)
    sites = tuple(f"blocks.{layer}.hook_resid_post" for layer in range(len(strengths)))
    return Activations(values, sites, concept=concept)


@pytest.mark.parametrize("measure", MEASURES, ids=lambda m: m.name)
def test_what_is_planted_is_read_where_it_is_planted_and_nowhere_else(measure):
    concept = pairs(300)
    data = measure(readings(concept, strengths=[0.0, 1.5]), concept, seed=0)
    blank, planted = (data.isel(site=site) for site in range(2))
    # The Bayes classifier is right with the normal distribution function at 1.5: 93.3%.
    assert float(planted.accuracy) > 0.90
    assert float(planted.accuracy_ci.sel(bound="low")) > 0.85
    assert float(planted.auroc) > 0.96
    assert float(planted.cross_entropy) < 0.25
    assert abs(float(blank.accuracy) - 0.5) < 0.08
    assert abs(float(blank.auroc) - 0.5) < 0.08
    assert abs(float(blank.cross_entropy) - np.log(2)) < 0.06


@pytest.mark.parametrize("measure", MEASURES, ids=lambda m: m.name)
def test_a_probe_measure_is_a_measure_with_labelled_results(measure):
    concept = pairs(30)
    activations = readings(concept, strengths=[0.0, 1.0, 2.0])
    assert isinstance(measure, Measure)
    data = measure(activations, concept, seed=0)
    assert tuple(data.site.values) == activations.sites
    assert data.score.dims == ("example", "site")
    assert data.fold.dims == ("example",)
    assert data.accuracy_ci.dims == ("site", "bound")
    for name, variable in data.data_vars.items():
        assert {"units", "long_name"} <= variable.attrs.keys(), name
        # A probe without one more fold scores that fold alone.
        assert variable.notnull().all() or str(name).endswith("_fewer"), name


@pytest.mark.parametrize("fitter", CROSS_FITTERS, ids=["logistic", "mass mean"])
def test_a_statement_s_own_label_never_moves_its_score(fitter):
    concept = pairs(60)
    values = readings(concept, strengths=[0.8], seed=1).values
    fold = assign_folds(concept.labels, concept.groups, seed=0)
    labels = torch.from_numpy(concept.labels.copy())
    before = fitter(values, labels, concept.groups, fold).scores
    held = fold == 2
    labels[torch.from_numpy(held)] = 1 - labels[torch.from_numpy(held)]
    after = fitter(values, labels, concept.groups, fold).scores
    np.testing.assert_allclose(after[held], before[held], atol=1e-2)
    assert np.abs(after[~held] - before[~held]).max() > 0.1


@pytest.mark.parametrize("fitter", CROSS_FITTERS, ids=["logistic", "mass mean"])
def test_the_activations_of_a_fold_never_move_its_probe(fitter):
    concept = pairs(60)
    values = readings(concept, strengths=[0.8], seed=2).values
    fold = assign_folds(concept.labels, concept.groups, seed=0)
    labels = torch.from_numpy(concept.labels.copy())
    before = fitter(values, labels, concept.groups, fold).scores
    held = np.flatnonzero(fold == 2)
    values[held[1:]] *= 50
    after = fitter(values, labels, concept.groups, fold).scores
    # The first statement of the fold is as it was, so that its score tells of the probe alone.
    assert after[held[0]] == pytest.approx(before[held[0]], abs=2e-2)
    assert np.abs(after[fold != 2] - before[fold != 2]).max() > 0.1


def test_grouping_stops_a_leak_that_ungrouped_folds_let_through():
    generator = torch.Generator().manual_seed(3)
    # Each text four times over, with a label drawn by lot: only a leak can read it.
    base = torch.randn(60, 1, 200, generator=generator).repeat_interleave(4, dim=0)
    values = base + 0.05 * torch.randn(240, 1, 200, generator=generator)
    labels = torch.randint(2, (60,), generator=generator).repeat_interleave(4).numpy()
    sites = ("blocks.0.hook_resid_post",)

    def accuracy(groups: list[str]) -> float:
        concept = Concept("copies", "reliability", ("text",) * 240, labels, tuple(groups))
        return logistic_probe()(Activations(values, sites), concept, seed=0).accuracy.item()

    assert accuracy([str(row // 4) for row in range(240)]) < 0.7
    assert accuracy([str(row) for row in range(240)]) > 0.9


def test_shuffled_labels_are_read_at_chance():
    concept = pairs(200)
    activations = readings(concept, strengths=[1.5], seed=4)
    labels = np.random.default_rng(0).permutation(concept.labels)
    shuffled = Concept("shuffled", "reliability", concept.statements, labels, concept.groups)
    for measure in MEASURES:
        data = measure(activations, shuffled, seed=0)
        assert abs(float(data.accuracy[0]) - 0.5) < 0.1


@pytest.mark.parametrize("measure", MEASURES, ids=lambda m: m.name)
def test_scores_ignore_the_order_of_statements(measure):
    concept = pairs(80)
    activations = readings(concept, strengths=[0.5, 1.0], seed=5)
    order = np.random.default_rng(0).permutation(len(concept))
    moved = Concept(
        "pairs",
        "reliability",
        tuple(concept.statements[row] for row in order),
        concept.labels[order],
        tuple(concept.groups[row] for row in order),
    )
    straight = measure(activations, concept, seed=0)
    shuffled = measure(
        Activations(activations.values[torch.from_numpy(order)], activations.sites), moved, seed=0
    )
    np.testing.assert_array_equal(shuffled.fold, straight.fold[order])
    np.testing.assert_allclose(shuffled.score, straight.score[order], atol=1e-2)


@pytest.mark.parametrize("measure", MEASURES, ids=lambda m: m.name)
def test_the_same_seed_gives_the_same_bits_and_another_seed_other_folds(measure):
    concept = pairs(40)
    activations = readings(concept, strengths=[0.5], seed=6)
    first = measure(activations, concept, seed=0)
    assert measure(activations, concept, seed=0).identical(first)
    assert not (measure(activations, concept, seed=1).fold == first.fold).all()


def nested_cross_validation(values: Tensor, labels: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Scikit-learn's way: C by cross-entropy over the other folds, then a fit on all of them."""
    x = values.double().numpy()
    scores = np.empty(len(labels))
    for k in range(5):
        kept = fold != k
        search = GridSearchCV(
            make_pipeline(StandardScaler(), LogisticRegression(tol=1e-10, max_iter=10_000)),
            {"logisticregression__C": list(DEFAULT_C)},
            scoring="neg_log_loss",
            cv=PredefinedSplit(fold[kept]),
        ).fit(x[kept], labels[kept])
        scores[~kept] = search.decision_function(x[~kept])
    return scores


def test_scores_are_those_of_nested_cross_validation_in_scikit_learn():
    concept = pairs(75)
    values = readings(concept, strengths=[0.7], width=25, seed=7).values
    fold = assign_folds(concept.labels, concept.groups, seed=0)
    expected = nested_cross_validation(values[:, 0], concept.labels, fold)
    found = LogisticCrossFitter()(
        values, torch.from_numpy(concept.labels.copy()), concept.groups, fold
    )
    np.testing.assert_allclose(found.scores[:, 0], expected, atol=3e-2)
    assert found.variables["unconverged"][0].item() == 0


def test_the_penalty_is_heavier_where_there_is_less_to_read():
    concept = pairs(200)
    data = logistic_probe()(readings(concept, strengths=[0.0, 2.0], seed=8), concept, seed=0)
    assert float(data.C[0]) < float(data.C[1])


def test_the_identity_tells_measures_apart():
    measures = [
        logistic_probe(),
        logistic_probe(C=[1.0]),
        logistic_probe(folds=4),
        logistic_probe(resamples=10),
        mass_mean(),
    ]
    assert len({measure.identity for measure in measures}) == len(measures)
    assert logistic_probe(C=[1.0, 10.0]) == logistic_probe(C=[10.0, 1.0])


def test_what_does_not_fit_together_is_an_error():
    concept = pairs(30)
    with pytest.raises(ValueError, match=r"60 statements, but concept 'pairs' has 40"):
        mass_mean()(readings(concept, strengths=[0.0]), pairs(20), seed=0)
    with pytest.raises(ValueError, match=r"`folds` must be a whole number from 3, got 2\."):
        logistic_probe(folds=2)
    with pytest.raises(ValueError, match="at least 3 folds, got 2"):
        LogisticCrossFitter()(
            readings(concept, strengths=[0.0]).values,
            torch.from_numpy(concept.labels.copy()),
            concept.groups,
            np.arange(60) % 2,
        )
    with pytest.raises(ValueError, match="positive numbers"):
        logistic_probe(C=[])
    with pytest.raises(ValueError, match=r"3 groups .* 5 folds"):
        mass_mean()(readings(pairs(3), strengths=[0.0]), pairs(3), seed=0)


def test_any_cross_fitter_makes_a_measure():
    class Constant:
        identity = "constant"
        least_folds = 2

        def __call__(self, activations, labels, groups, fold):
            from tlens_trust.measures.cross_fitters import HeldOut

            return HeldOut(np.zeros(tuple(activations.shape[:2])))

    concept = pairs(30)
    data = ProbeMeasure("constant", Constant())(readings(concept, strengths=[0.0]), concept, seed=0)
    assert data.accuracy.item() == 0.5
    assert data.cross_entropy.item() == pytest.approx(np.log(2))


@pytest.mark.parametrize("fitter", CROSS_FITTERS, ids=["logistic", "mass mean"])
def test_held_out_scores_are_those_of_the_directions_that_come_with_them(fitter):
    concept = pairs(40)
    values = readings(concept, strengths=[0.5, 1.0], seed=9).values
    fold = assign_folds(concept.labels, concept.groups, seed=0)
    held_out = fitter(values, torch.from_numpy(concept.labels.copy()), concept.groups, fold)
    assert held_out.directions.shape == (2, 5, 12)
    for k in range(5):
        rows = fold == k
        by_hand = np.einsum("nsd,sd->ns", values[rows].double(), held_out.directions[:, k])
        np.testing.assert_allclose(by_hand + held_out.biases[:, k], held_out.scores[rows])


@pytest.mark.parametrize("C", [[], [1.0, -1.0], [0.0], [float("inf")]])
def test_a_grid_that_holds_no_penalties_is_refused(C):
    with pytest.raises(ValueError, match=r"`C` must be a list of positive numbers"):
        logistic_probe(C=C)


@pytest.mark.parametrize("name", ["folds", "resamples", "permutations"])
def test_a_number_that_no_statistic_can_rest_on_is_refused_before_a_sweep(name):
    with pytest.raises(ValueError, match=f"`{name}` must be a whole number from [13], got 0"):
        logistic_probe(**{name: 0})
