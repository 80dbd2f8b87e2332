"""Every kind of direction finds what is planted, in its own way, and says so in log-odds."""

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import Tensor

from tlens_trust.activations import Activations
from tlens_trust.concepts import Concept
from tlens_trust.measures import (
    ccs_probe,
    lda_probe,
    pair_difference_probe,
    ridge_probe,
    sparse_probe,
)
from tlens_trust.measures.directions.calibrated import calibrate_probe
from tlens_trust.measures.directions.contrast_consistent import (
    ContrastConsistentFitter,
    fit_contrast_consistent_direction,
    fit_contrast_consistent_probe,
)
from tlens_trust.measures.directions.fitter import DirectionProbe
from tlens_trust.measures.directions.lda import LDAFitter, fit_lda_probe
from tlens_trust.measures.directions.pair_differences import (
    PairDifferenceFitter,
    fit_pair_difference_probe,
    principal_pair_direction,
)
from tlens_trust.measures.directions.pairs import find_pairs
from tlens_trust.measures.directions.ridge import RidgeFitter, fit_ridge_probe
from tlens_trust.measures.directions.ridge_path import RidgePath
from tlens_trust.measures.directions.sparse import (
    SparseFitter,
    choose_coordinates,
    fit_sparse_probe,
)
from tlens_trust.measures.probe import fit_mass_mean_probe

MEASURES = [
    lda_probe(),
    ridge_probe(),
    sparse_probe(2),
    sparse_probe(2, ranking="adaptive"),
    ccs_probe(),
    ccs_probe(variant="tpc"),
    pair_difference_probe(),
]


@parametrize_with_checks(
    [DirectionProbe(LDAFitter()), DirectionProbe(RidgeFitter()), DirectionProbe(SparseFitter(k=2))]
)
def test_scikit_learn_accepts_the_estimator(estimator, check):
    check(estimator)


def planted(
    count: int, width: int, *, strength: float, seed: int, content: float = 0.0
) -> tuple[Tensor, Tensor, list[str], Tensor]:
    """Pairs that share their content and differ along one direction, which comes last."""
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(width, generator=generator)
    direction /= direction.norm()
    labels = torch.arange(2 * count) % 2
    shared = content * torch.randn(count, width, generator=generator).repeat_interleave(2, 0)
    noise = torch.randn(2 * count, width, generator=generator)
    activations = shared + noise + strength * (2 * labels - 1).unsqueeze(1) * direction
    return activations, labels, [f"pair {row // 2}" for row in range(2 * count)], direction


def cosine(one: Tensor, other: Tensor) -> float:
    return float(torch.cosine_similarity(one.double(), other.double(), dim=0))


def sparse(activations, labels, *, groups):
    return fit_sparse_probe(activations, labels, k=16, groups=groups)


FITTERS = {
    "lda": fit_lda_probe,
    "ridge": fit_ridge_probe,
    "sparse": sparse,
    "ccs": fit_contrast_consistent_probe,
    "pair difference": fit_pair_difference_probe,
}


@pytest.mark.parametrize("fit", FITTERS.values(), ids=FITTERS)
def test_a_planted_direction_is_found_and_not_without_labels_that_follow_it(fit):
    activations, labels, groups, direction = planted(800, 16, strength=2.0, seed=0)
    found = fit(activations, labels, groups=groups)
    assert cosine(found.direction, direction) > 0.95
    assert ((found.log_odds(activations) > 0) == (labels == 1)).float().mean() > 0.95
    # Which of a pair is which is drawn by lot.
    turned = torch.randint(2, (800,), generator=torch.Generator().manual_seed(1))
    lost = fit(activations, labels ^ turned.repeat_interleave(2), groups=groups)
    assert lost.log_odds(activations).abs().mean() < 0.5


@pytest.mark.parametrize("fit", FITTERS.values(), ids=FITTERS)
def test_log_odds_negate_when_the_labels_are_swapped(fit):
    activations, labels, groups, _ = planted(150, 10, strength=1.0, seed=2)
    straight = fit(activations, labels, groups=groups).log_odds(activations)
    swapped = fit(activations, 1 - labels, groups=groups).log_odds(activations)
    torch.testing.assert_close(swapped, -straight, atol=5e-2, rtol=1e-2)
    assert straight.abs().mean() > 0.3


@pytest.mark.parametrize("fit", FITTERS.values(), ids=FITTERS)
def test_log_odds_ignore_the_order_of_rows(fit):
    activations, labels, groups, _ = planted(150, 10, strength=1.0, seed=3)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    straight = fit(activations, labels, groups=groups).log_odds(activations)
    moved = [groups[row] for row in order]
    shuffled = fit(activations[order], labels[order], groups=moved).log_odds(activations)
    torch.testing.assert_close(shuffled, straight, atol=5e-2, rtol=1e-2)


@pytest.mark.parametrize("fit", FITTERS.values(), ids=FITTERS)
def test_log_odds_survive_a_shift_of_activation_space(fit):
    activations, labels, groups, _ = planted(150, 10, strength=1.0, seed=4)
    offset = 30 * torch.randn(10, generator=torch.Generator().manual_seed(0))
    straight = fit(activations, labels, groups=groups).log_odds(activations)
    shifted = fit(activations + offset, labels, groups=groups).log_odds(activations + offset)
    torch.testing.assert_close(shifted, straight, atol=5e-2, rtol=1e-2)


def rotation(width: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.linalg.qr(torch.randn(width, width, generator=generator)).Q


ROUND = {
    "lda": lambda x, y, groups: fit_lda_probe(x, y, groups=groups, standardise=False),
    "ridge": lambda x, y, groups: fit_ridge_probe(x, y, groups=groups, standardise=False),
    "pair difference": (lambda x, y, groups: fit_pair_difference_probe(x, y, groups=groups)),
}


@pytest.mark.parametrize("fit", ROUND.values(), ids=ROUND)
def test_an_unscaled_direction_turns_with_activation_space(fit):
    activations, labels, groups, _ = planted(40, 30, strength=0.6, seed=6)
    activations = activations * torch.linspace(0.3, 3, 30)
    turn = rotation(30)
    straight = fit(activations, labels, groups).log_odds(activations)
    turned = fit(activations @ turn, labels, groups).log_odds(activations @ turn)
    torch.testing.assert_close(turned, straight, atol=2e-2, rtol=1e-2)
    scaled = activations * torch.exp(torch.linspace(-1, 1, 30))
    assert (fit(scaled, labels, groups).log_odds(scaled) - straight).abs().max() > 0.2


def cross_entropy(log_odds: Tensor, labels: Tensor) -> float:
    return float(torch.nn.functional.binary_cross_entropy_with_logits(log_odds, labels.double()))


@pytest.mark.parametrize("fit", FITTERS.values(), ids=FITTERS)
def test_log_odds_are_calibrated_on_fresh_rows_even_with_more_features_than_rows(fit):
    activations, labels, groups, _ = planted(1500, 250, strength=2.5, seed=12)
    probe = fit(activations[:200], labels[:200], groups=groups[:200])
    fresh, fresh_labels = activations[200:], labels[200:]
    log_odds = probe.log_odds(fresh)
    best = min(cross_entropy(log_odds * by, fresh_labels) for by in (0.3, 0.5, 0.8, 1, 1.3, 2, 3))
    assert cross_entropy(log_odds, fresh_labels) < best + 0.05


# Discriminant analysis and ridge regression.


def spread_out(rows: int, width: int, *, seed: int) -> tuple[Tensor, Tensor]:
    activations, labels, _, _ = planted(rows // 2, width, strength=0.4, seed=seed)
    mix = torch.randn(width, width, generator=torch.Generator().manual_seed(seed))
    keep = torch.ones(rows, dtype=torch.bool)
    keep[: rows // 5 : 2] = False  # Unequal classes.
    return (activations @ mix * torch.linspace(0.2, 5, width) + 3)[keep], labels[keep]


@pytest.mark.parametrize("shrinkage", [0.0, 0.1, 0.9, 1.0])
@pytest.mark.parametrize("shape", [(300, 12), (60, 100)], ids=["many rows", "few rows"])
def test_the_lda_direction_is_scikit_learns(shape, shrinkage):
    if shape[0] < shape[1] and shrinkage == 0:
        pytest.skip("scikit-learn's own is not unique there")
    activations, labels = spread_out(*shape, seed=5)
    array = activations.double().numpy()
    peer = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(array, labels)
    own = fit_lda_probe(activations.double(), labels, shrinkage=shrinkage, standardise=False)
    assert cosine(own.direction, torch.from_numpy(peer.coef_[0])) > 1 - 1e-6
    within = array - np.stack([array[labels.numpy() == y].mean(0) for y in (0, 1)])[labels]
    scale = within.std(axis=0)
    peer.fit(array / scale, labels)
    own = fit_lda_probe(activations.double(), labels, shrinkage=shrinkage)
    assert cosine(own.direction, torch.from_numpy(peer.coef_[0] / scale)) > 1 - 1e-6
    assert cosine(own.direction, fit_mass_mean_probe(activations, labels).direction) < 0.999


def test_the_shrinkage_is_ledoit_and_wolfs_of_what_varies_within_labels():
    activations, labels = spread_out(120, 40, seed=6)
    array = activations.double().numpy()
    within = array - np.stack([array[labels.numpy() == y].mean(0) for y in (0, 1)])[labels]
    expected = ledoit_wolf_shrinkage(within / within.std(axis=0), assume_centered=True)
    probe = DirectionProbe(LDAFitter()).fit(activations.double(), labels)
    assert probe.report_["shrinkage"] == pytest.approx(expected)
    assert 0.01 < expected < 0.99


def test_on_many_gaussian_rows_lda_log_odds_are_those_of_the_gaussians():
    activations, labels, _, direction = planted(4000, 3, strength=0.8, seed=7)
    log_odds = fit_lda_probe(activations, labels).log_odds(activations)
    truth = 2 * 0.8 * (activations @ direction).double()
    assert (log_odds - truth).abs().mean() < 0.1


@pytest.mark.parametrize("penalty", [1e-3, 0.1, 10.0])
@pytest.mark.parametrize("shape", [(300, 12), (60, 100)], ids=["many rows", "few rows"])
def test_the_ridge_direction_is_scikit_learns(shape, penalty):
    activations, labels = spread_out(*shape, seed=8)
    array = activations.double().numpy()
    alpha = penalty * len(labels)
    peer = Ridge(alpha=alpha).fit(array, labels)
    own = fit_ridge_probe(activations.double(), labels, penalty=penalty, standardise=False)
    assert cosine(own.direction, torch.from_numpy(peer.coef_)) > 1 - 1e-9
    peer.fit(array / array.std(axis=0), labels)
    own = fit_ridge_probe(activations.double(), labels, penalty=penalty)
    assert cosine(own.direction, torch.from_numpy(peer.coef_ / array.std(axis=0))) > 1 - 1e-9


@pytest.mark.parametrize("width", [5, 60])
def test_leaving_a_group_out_has_the_closed_form(width):
    activations, labels, _, _ = planted(20, width, strength=0.5, seed=9)
    activations = activations.double()
    groups = [str(number) for number in np.random.default_rng(0).integers(8, size=40)]
    path = RidgePath.of(activations, labels, groups, scale=torch.ones(width).double())
    residuals, scores = path.left_out(3.0)
    for name in set(groups):
        held = torch.tensor([group == name for group in groups])
        without = Ridge(alpha=3.0).fit(activations[~held].numpy(), labels[~held].double().numpy())
        predicted = torch.from_numpy(without.predict(activations[held].numpy()))
        torch.testing.assert_close(labels[held] - predicted, residuals[held], atol=1e-9, rtol=0)
        centred = activations[held] - activations[~held].mean(0)
        torch.testing.assert_close(
            centred @ torch.from_numpy(without.coef_), scores[held], atol=1e-9, rtol=0
        )


def test_the_ridge_is_heavier_where_there_is_less_to_read():
    strong, labels, groups, _ = planted(200, 30, strength=2.0, seed=10)
    weak, _, _, _ = planted(200, 30, strength=0.0, seed=10)
    logarithms = [
        DirectionProbe(RidgeFitter()).fit(x, labels, groups=groups).report_["log10_penalty"]
        for x in (strong, weak)
    ]
    assert logarithms[0] < logarithms[1] - 1


def test_a_group_left_out_together_cannot_vouch_for_its_own():
    generator = torch.Generator().manual_seed(11)
    # Each text four times over, with a label drawn by lot: only a leak can read it.
    base = torch.randn(50, 100, generator=generator).repeat_interleave(4, dim=0)
    activations = base + 0.05 * torch.randn(200, 100, generator=generator)
    labels = torch.randint(2, (50,), generator=generator).repeat_interleave(4)
    groups = [str(row // 4) for row in range(200)]
    for fit in (fit_ridge_probe, fit_lda_probe):
        assert fit(activations, labels, groups=groups).log_odds(activations).abs().mean() < 0.7
        assert fit(activations, labels).log_odds(activations).abs().mean() > 1.5


@pytest.mark.parametrize(
    ("fit", "message"),
    [
        (lambda x, y: fit_ridge_probe(x, y, penalty=0.0), "`penalty` must be a positive"),
        (lambda x, y: fit_ridge_probe(x, y, penalty=[]), "`penalty` must be a positive"),
        (
            lambda x, y: fit_lda_probe(x, y, shrinkage=1.5),
            "`shrinkage` must be a number from 0",
        ),
        (lambda x, y: fit_sparse_probe(x, y, k=0), "`k` must be a whole number from 1"),
        (
            lambda x, y: fit_sparse_probe(x, y, ranking="best"),
            "'mean_difference' or 'adaptive'",
        ),
        (lambda x, y: fit_ridge_probe(x, 0 * y), "both 0 and 1"),
        (lambda x, y: fit_lda_probe(x / 0, y), "finite"),
        (lambda x, y: fit_sparse_probe(x, 0 * y), "both 0 and 1"),
    ],
)
def test_what_cannot_be_fitted_is_an_error_that_says_why(fit, message):
    activations, labels, _, _ = planted(20, 4, strength=1.0, seed=0)
    with pytest.raises(ValueError, match=message):
        fit(activations, labels)


# Sparse probes.


def test_a_sparse_probe_reads_the_coordinates_that_hold_the_label_and_no_other():
    generator = torch.Generator().manual_seed(13)
    labels = torch.arange(400) % 2
    activations = torch.randn(400, 50, generator=generator) * torch.linspace(1, 100, 50)
    where = [3, 17, 41]
    activations[:, where] += 2 * (labels.unsqueeze(1) * torch.linspace(1, 100, 50)[where])
    for ranking in ("mean_difference", "adaptive"):
        probe = fit_sparse_probe(activations, labels, k=3, ranking=ranking)
        assert probe.direction.nonzero().flatten().tolist() == where
    peer = LogisticRegression(C=1.0, tol=1e-10)
    scaled = activations[:, where] / activations[:, where].std(0, correction=0)
    peer.fit(scaled.double().numpy(), labels.numpy())
    back = torch.from_numpy(peer.coef_[0]) / activations[:, where].std(0, correction=0)
    assert cosine(probe.direction[where], back) > 1 - 1e-3


def test_adaptive_ranking_drops_a_copy_that_mean_differences_keep():
    generator = torch.Generator().manual_seed(14)
    labels = torch.arange(600) % 2
    activations = torch.randn(600, 20, generator=generator)
    activations[:, 0] += 2.0 * labels
    activations[:, 1] = activations[:, 0] + 0.3 * torch.randn(600, generator=generator)
    activations[:, 2] += 1.2 * labels
    by_mean = choose_coordinates(activations, labels, 2).tolist()
    assert by_mean == [0, 1]
    assert choose_coordinates(activations, labels, 2, ranking="adaptive").tolist() == [0, 2]


def test_coordinates_are_chosen_without_the_held_out_rows():
    concept = pairs_concept(60)
    generator = torch.Generator().manual_seed(15)
    # More coordinates than rows, none of which says anything: chosen on all rows, some would.
    values = torch.randn(120, 1, 2000, generator=generator)
    sites = ("blocks.0.hook_resid_post",)
    data = sparse_probe(8)(Activations(values, sites), concept, seed=0)
    assert abs(data.accuracy.item() - 0.5) < 0.15
    labels = torch.from_numpy(concept.labels.copy())
    leak = choose_coordinates(values[:, 0], labels, 8)
    leaky = sparse_probe(8)(Activations(values[:, :, leak], sites), concept, seed=0)
    assert leaky.accuracy.item() > 0.7


# Pairs and what needs no labels.


def test_pairs_are_statements_of_one_group_with_opposite_labels():
    labels = torch.tensor([0, 1, 1, 0, 0, 1, 0])
    pairs = find_pairs(labels, ["a", "b", "a", "b", "a", "c", "d"])
    found = set(zip(pairs.positive.tolist(), pairs.negative.tolist(), strict=True))
    assert found == {(2, 0), (2, 4), (1, 3)}
    weights = dict(zip(pairs.positive.tolist(), pairs.weight.tolist(), strict=True))
    assert weights == {2: 0.5, 1: 1.0}


def test_a_concept_without_pairs_is_refused_by_what_needs_them():
    concept = pairs_concept(30)
    alone = Concept(
        "alone", "reliability", concept.statements, concept.labels, tuple(map(str, range(60)))
    )
    activations = Activations(torch.randn(60, 1, 4), ("blocks.0.hook_resid_post",))
    for measure in (ccs_probe(), ccs_probe(variant="tpc"), pair_difference_probe()):
        with pytest.raises(ValueError, match=r"none of 48 groups holds both"):
            measure(activations, alone, seed=0)
    assert ridge_probe()(activations, alone, seed=0).accuracy.notnull().all()


@pytest.mark.parametrize("width", [1, 2, 8, 200])
def test_the_principal_pair_direction_is_the_top_eigenvector(width):
    activations, labels, groups, _ = planted(60, width, strength=2.0, seed=16, content=3.0)
    pairs = find_pairs(labels, groups)
    found, share = principal_pair_direction(activations, pairs)
    differences = activations[1::2].double() - activations[0::2].double()
    values, vectors = torch.linalg.eigh(differences.T @ differences)
    assert abs(cosine(found, vectors[:, -1])) == pytest.approx(1, abs=1e-8)
    assert share == pytest.approx(float(values[-1] / values.sum()))


def test_pairs_of_larger_groups_weigh_as_one():
    activations, _, _, _ = planted(3, 5, strength=1.0, seed=17)
    labels, groups = torch.tensor([1, 1, 0, 0, 1, 0]), ["a", "a", "a", "a", "b", "b"]
    found, _ = principal_pair_direction(activations, find_pairs(labels, groups))
    moment = torch.zeros(5, 5, dtype=torch.float64)
    for positive, negative, weight in [
        (0, 2, 0.25),
        (0, 3, 0.25),
        (1, 2, 0.25),
        (1, 3, 0.25),
        (4, 5, 1.0),
    ]:
        difference = activations[positive].double() - activations[negative].double()
        moment += weight * difference.outer(difference)
    assert abs(cosine(found, torch.linalg.eigh(moment)[1][:, -1])) == pytest.approx(1, abs=1e-8)


def test_identical_twins_have_no_principal_difference():
    activations = torch.randn(10, 4).repeat_interleave(2, dim=0)
    groups = [str(row // 2) for row in range(20)]
    with pytest.raises(ValueError, match="same activations"):
        fit_pair_difference_probe(activations, torch.arange(20) % 2, groups=groups)


def test_contrast_consistent_search_finds_the_direction_without_being_told_which_is_which():
    activations, labels, groups, direction = planted(300, 12, strength=2.5, seed=18, content=1.0)
    pairs = find_pairs(labels, groups)
    rows = torch.stack([pairs.positive, pairs.negative], dim=1)
    turned = torch.randint(2, (300, 1), generator=torch.Generator().manual_seed(2)).bool()
    blind = torch.where(turned, rows.flip(1), rows)
    probe, loss = fit_contrast_consistent_direction(activations, blind)
    assert abs(cosine(probe.direction, direction)) > 0.9
    # Each statement against one of another pair, drawn by lot: nothing to be consistent about.
    order = torch.randperm(300, generator=torch.Generator().manual_seed(3))
    stranger = torch.stack([rows[:, 0], rows[order, 0]], dim=1)
    lost, worse = fit_contrast_consistent_direction(activations, stranger)
    assert abs(cosine(lost.direction, direction)) < 0.7
    assert loss < 0.5 * worse


def test_the_blind_direction_is_the_same_whichever_statement_of_a_pair_comes_first():
    activations, labels, groups, _ = planted(100, 6, strength=2.0, seed=19)
    pairs = find_pairs(labels, groups)
    rows = torch.stack([pairs.positive, pairs.negative], dim=1)
    straight, loss = fit_contrast_consistent_direction(activations, rows)
    flipped, same = fit_contrast_consistent_direction(activations, rows.flip(1))
    assert abs(cosine(straight.direction, flipped.direction)) > 1 - 1e-4
    assert loss == pytest.approx(same, rel=1e-3)


def test_the_loss_is_the_papers():
    activations, labels, groups, _ = planted(80, 5, strength=1.0, seed=20)
    pairs = find_pairs(labels, groups)
    rows = torch.stack([pairs.positive, pairs.negative], dim=1)
    probe, loss = fit_contrast_consistent_direction(activations, rows)
    one, other = torch.sigmoid(probe.log_odds(activations))[rows].unbind(1)
    by_hand = (one + other - 1).square() + torch.minimum(one, other).square()
    assert loss == pytest.approx(float(by_hand.mean()), rel=1e-4)
    nearby = [0.9 * probe.direction, 1.1 * probe.direction]
    for direction in nearby:
        shifted = activations.double() @ direction + probe.bias
        one, other = torch.sigmoid(shifted)[rows].unbind(1)
        assert ((one + other - 1).square() + torch.minimum(one, other).square()).mean() > loss


def test_more_restarts_never_end_higher_and_one_seed_gives_one_answer():
    activations, labels, groups, _ = planted(60, 20, strength=1.0, seed=21, content=1.0)
    pairs = find_pairs(labels, groups)
    rows = torch.stack([pairs.positive, pairs.negative], dim=1)
    probes = {r: fit_contrast_consistent_direction(activations, rows, restarts=r) for r in (1, 6)}
    assert probes[6][1] <= probes[1][1] * (1 + 1e-5)
    again, _ = fit_contrast_consistent_direction(activations, rows, restarts=6)
    assert torch.equal(again.direction, probes[6][0].direction)


def test_what_a_search_cannot_use_is_an_error():
    activations, labels, groups, _ = planted(10, 3, strength=1.0, seed=0)
    with pytest.raises(ValueError, match="`restarts` must be a whole number from 1, got 0"):
        ccs_probe(restarts=0)
    with pytest.raises(ValueError, match="'gradient' or 'tpc'"):
        ccs_probe(variant="pca")
    with pytest.raises(ValueError, match="at least one pair"):
        fit_contrast_consistent_direction(activations, torch.empty(0, 2, dtype=torch.long))
    with pytest.raises(ValueError, match="both 0 and 1"):
        fit_contrast_consistent_probe(activations, 0 * labels, groups=groups)


def test_pair_estimators_have_the_interface_of_the_others():
    activations, labels, groups, _ = planted(100, 6, strength=2.0, seed=22)
    for fitter, reported in (
        (ContrastConsistentFitter(), "consistency_loss"),
        (PairDifferenceFitter(), "pair_share"),
    ):
        with pytest.raises(ValueError, match="`groups` is None"):
            DirectionProbe(fitter).fit(activations, labels)
        probe = DirectionProbe(fitter).fit(activations, labels, groups=groups)
        assert 0 <= probe.report_[reported] <= 1
        by_hand = activations.double() @ probe.direction + probe.bias
        torch.testing.assert_close(by_hand, probe.decision_function(activations))
        assert (probe.predict(activations) == labels).float().mean() > 0.9


# Measures.


def pairs_concept(count: int) -> Concept:
    return Concept(
        name="pairs",
        dimension="reliability",
        statements=tuple(f"statement {row}" for row in range(2 * count)),
        labels=np.tile([0, 1], count),
        groups=tuple(f"pair {row // 2}" for row in range(2 * count)),
    )


def readings(concept: Concept, strengths: list[float], *, width: int = 8, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(len(concept), len(strengths), width, generator=generator)
    signs = torch.from_numpy(2 * concept.labels - 1).unsqueeze(1)
    values[:, :, 0] += signs * torch.tensor(strengths)
    return Activations(
        values, tuple(f"blocks.{layer}.hook_resid_post" for layer in range(len(strengths)))
    )


@pytest.mark.parametrize("measure", MEASURES, ids=lambda m: m.name)
def test_what_is_planted_is_read_where_it_is_planted_and_nowhere_else(measure):
    concept = pairs_concept(200)
    data = measure(readings(concept, [0.0, 2.0]), concept, seed=0)
    blank, there = (data.isel(site=site) for site in range(2))
    # The Bayes classifier is right with the normal distribution function at 2: 97.7%.
    assert float(there.accuracy) > 0.94
    assert float(there.cross_entropy) < 0.2
    assert abs(float(blank.accuracy) - 0.5) < 0.1
    assert float(blank.cross_entropy) < np.log(2) + 0.04
    for name, variable in data.data_vars.items():
        assert {"units", "long_name"} <= variable.attrs.keys(), name
        # A probe without one more fold scores that fold alone.
        assert variable.notnull().all() or str(name).endswith("_fewer"), name


@pytest.mark.parametrize("measure", MEASURES, ids=lambda m: m.name)
def test_neither_labels_nor_activations_of_a_fold_move_its_probe(measure):
    concept = pairs_concept(40)
    activations = readings(concept, [1.5], seed=1)
    before, fold = measure.held_out(activations, concept, seed=0)
    held = np.flatnonzero(fold == 2)
    labels = concept.labels.copy()
    labels[held] = 1 - labels[held]
    values = activations.values.clone()
    values[held] *= 30
    fitter = measure.cross_fitter
    after = fitter(values, torch.from_numpy(labels), concept.groups, fold)
    np.testing.assert_allclose(after.directions[:, 2], before.directions[:, 2], rtol=1e-6)
    assert np.abs(after.directions[:, 0] - before.directions[:, 0]).max() > 0.01


def test_scores_without_one_more_fold_know_nothing_of_it():
    concept = pairs_concept(40)
    activations = readings(concept, [1.0], seed=3)
    before, fold = ridge_probe().held_out(activations, concept, seed=0)
    assert np.isnan(before.fewer[fold, np.arange(80)]).all()
    held = fold == 2
    labels = np.where(held, 1 - concept.labels, concept.labels)
    after = ridge_probe().cross_fitter(
        activations.values, torch.from_numpy(labels), concept.groups, fold
    )
    np.testing.assert_array_equal(after.fewer[2, ~held], before.fewer[2, ~held])
    assert np.abs(after.scores[~held] - before.scores[~held]).max() > 0.1


def test_measures_stand_side_by_side():
    assert len({measure.name for measure in MEASURES}) == len(MEASURES)
    assert len({measure.identity for measure in MEASURES}) == len(MEASURES)
    variants = [lda_probe(shrinkage=0.5), ridge_probe(penalty=1.0), ccs_probe(seed=1)]
    assert not {m.identity for m in variants} & {m.identity for m in MEASURES}
    assert ridge_probe(penalty=[1.0, 0.1]) == ridge_probe(penalty=[0.1, 1.0])


def test_calibration_on_the_fits_own_rows_would_be_too_sure():
    activations, labels, groups, _ = planted(700, 150, strength=1.0, seed=23)

    def raw(values, of, names):
        return fit_lda_probe(values, of, shrinkage=0.05)

    train = slice(0, 200)
    left_out = calibrate_probe(raw, activations[train], labels[train], groups[train])
    inside = raw(activations[train], labels[train], groups[train]).log_odds(activations[train])
    naive = LogisticRegression().fit(inside.reshape(-1, 1).numpy(), labels[train].numpy())
    fresh = activations[200:]
    alone = raw(activations[train], labels[train], groups[train]).log_odds(fresh).reshape(-1, 1)
    too_sure = torch.from_numpy(naive.decision_function(alone.numpy()))
    assert cross_entropy(left_out.log_odds(fresh), labels[200:]) < cross_entropy(
        too_sure, labels[200:]
    )


@pytest.mark.parametrize(
    "make",
    [
        lda_probe,
        ridge_probe,
        sparse_probe,
        ccs_probe,
        partial(ccs_probe, variant="tpc"),
        pair_difference_probe,
    ],
)
def test_permutations_and_floor_can_be_chosen_as_for_the_logistic_probe(make):
    probe = make(permutations=7, floor=False)
    assert (probe.permutations, probe.floor) == (7, False)
    assert (make().permutations, make().floor) == (2000, True)
    assert probe.identity != make().identity


def test_the_permutations_asked_for_stand_behind_the_p_values_and_a_floor_only_on_request():
    activations, labels, groups, _ = planted(30, 6, strength=1.0, seed=0)
    texts = tuple(f"statement {row}" for row in range(60))
    concept = Concept("x", "reliability", texts, labels.numpy(), tuple(groups))
    read = Activations(activations.unsqueeze(1), ("blocks.0.hook_resid_post",))
    bare, whole = (
        lda_probe(folds=3, resamples=20, permutations=19, floor=floor)(read, concept, seed=0)
        for floor in (False, True)
    )
    assert bare.accuracy_p.attrs["permutations"] == 19
    assert bare.accuracy_p.item() >= 1 / 20
    assert "accuracy_floor" in whole
    assert "accuracy_floor" not in bare


def test_any_fitter_makes_a_classifier_that_can_be_cloned_and_searched():
    activations, labels, groups, _ = planted(60, 5, strength=1.0, seed=3)
    probe = DirectionProbe(LDAFitter(shrinkage=0.3))
    assert clone(probe).get_params() == {"fitter": LDAFitter(shrinkage=0.3)}
    search = GridSearchCV(probe, {"fitter": [LDAFitter(0.3), RidgeFitter((0.1,))]}, cv=3)
    assert search.fit(activations.numpy(), labels.numpy()).best_score_ > 0.5
    fitted = probe.fit(activations, labels, groups=groups)
    by_function = fit_lda_probe(activations, labels, groups=groups, shrinkage=0.3)
    assert torch.equal(fitted.direction, by_function.direction)
    assert fitted.bias == by_function.bias
    with pytest.raises(ValueError, match=r"`fitter` must be a fitter of directions, got 'lda'\."):
        DirectionProbe("lda").fit(activations, labels)
