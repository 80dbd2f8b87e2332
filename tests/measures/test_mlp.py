"""The network is a ceiling: it reads what no plane does, and no more than that."""

import numpy as np
import pytest
import torch
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from tlens_trust.activations import Activations
from tlens_trust.concepts import Concept
from tlens_trust.measures import logistic_probe, mlp_probe, probe_margin
from tlens_trust.measures.folds import assign_folds
from tlens_trust.measures.mlp import MLPCrossFitter, MLPProbe, MLPTrainer
from tlens_trust.measures.scores import score_dataset

SITE = ("blocks.0.hook_resid_post",)
QUICK = {"resamples": 50, "permutations": 50, "floor": False}


@parametrize_with_checks([MLPProbe(8, max_epochs=60, dropout=0.1)])
def test_scikit_learn_accepts_the_estimator(estimator, check):
    check(estimator)


def crossed(count=400, width=6, *, seed=0, noise=0.0):
    """The label is whether the first two features have one sign, so that no plane tells it."""
    generator = torch.Generator().manual_seed(seed)
    activations = torch.randn(count, width, generator=generator)
    labels = (activations[:, 0] * activations[:, 1] > 0).long()
    activations += noise * torch.randn(count, width, generator=generator)
    return activations, labels, [f"pair {row // 2}" for row in range(count)]


def straight(count=400, width=12, *, strength=0.6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    activations = torch.randn(count, width, generator=generator)
    activations[:, 0] += strength * (2 * labels - 1)
    return activations, labels, [f"pair {row // 2}" for row in range(count)]


def measured(measure, activations, labels, groups, *, seed=0):
    texts = tuple(f"statement {row}" for row in range(len(labels)))
    concept = Concept("x", "reliability", texts, labels.numpy(), tuple(groups))
    return measure(Activations(activations.unsqueeze(1), SITE), concept, seed=seed)


def accuracy(scores, labels):
    return float(((scores > 0) == (labels.numpy() == 1)).mean())


def test_what_no_plane_tells_is_read_as_well_as_by_scikit_learn_s_network():
    activations, labels, groups = crossed()
    found = measured(mlp_probe(**QUICK), activations, labels, groups)
    flat = measured(logistic_probe(**QUICK), activations, labels, groups)
    theirs = make_pipeline(
        StandardScaler(), MLPClassifier(64, alpha=1.0, max_iter=1000, random_state=0)
    )
    predicted = cross_val_predict(
        theirs, activations.numpy(), labels.numpy(), groups=found.fold, cv=LeaveOneGroupOut()
    )
    reference = float((predicted == labels.numpy()).mean())
    # Theirs is fitted on all four other folds, each of ours on three.
    assert found.accuracy.item() > reference - 0.05
    assert found.accuracy.item() > 0.85
    assert flat.accuracy.item() < 0.6


def test_what_a_plane_tells_is_told_as_well_and_no_better():
    shortfalls = []
    for seed in range(4):
        data = straight(seed=seed)
        found, flat = (
            measured(probe(**QUICK), *data, seed=seed) for probe in (mlp_probe, logistic_probe)
        )
        shortfalls.append(flat.accuracy.item() - found.accuracy.item())
        assert found.cross_entropy.item() < 0.69
    assert abs(np.mean(shortfalls)) < 0.03


def test_labels_that_mean_nothing_are_not_read():
    activations, labels, groups = crossed(seed=1)
    drawn = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(2))]
    data = measured(mlp_probe(**QUICK), activations, drawn, groups)
    low, high = data.auroc_ci.values[0]
    assert low < 0.5 < high
    assert data.accuracy_p.item() > 0.05
    # Next to nothing to say, rather than to be wrong with confidence.
    assert data.cross_entropy.item() < 0.75
    real = measured(mlp_probe(**QUICK), activations, labels, groups)
    assert real.accuracy_p.item() < 0.05


def fitted(activations, labels, groups, fold, *, seed=0):
    trainer = MLPTrainer(width=16, max_epochs=40, patience=5, dropout=0.3, seed=seed)
    return MLPCrossFitter(trainer)(activations.unsqueeze(1), labels, groups, fold)


def test_no_label_of_a_fold_reaches_the_networks_that_score_it():
    activations, labels, groups = crossed(200)
    fold = assign_folds(labels.numpy(), groups, folds=4, seed=0)
    before = fitted(activations, labels, groups, fold)
    turned = torch.where(torch.from_numpy(fold == 2), 1 - labels, labels)
    after = fitted(activations, turned, groups, fold)
    np.testing.assert_array_equal(after.scores[fold == 2], before.scores[fold == 2])
    assert np.abs(after.scores[fold != 2] - before.scores[fold != 2]).max() > 0.1


def test_no_activation_of_a_fold_reaches_the_networks_that_score_another_row_of_it():
    activations, labels, groups = crossed(200)
    fold = assign_folds(labels.numpy(), groups, folds=4, seed=0)
    before = fitted(activations, labels, groups, fold)
    moved = activations.clone()
    row = int(np.flatnonzero(fold == 2)[0])
    moved[row] += 3
    after = fitted(moved, labels, groups, fold)
    others = (fold == 2) & (np.arange(200) != row)
    np.testing.assert_allclose(after.scores[others], before.scores[others], atol=1e-3)
    assert np.abs(after.scores[fold != 2] - before.scores[fold != 2]).max() > 0.1


def test_the_same_seed_gives_the_same_bits_and_the_user_s_random_numbers_go_on():
    activations, labels, groups = crossed(150)
    fold = assign_folds(labels.numpy(), groups, folds=3, seed=0)
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    first, again, other = (
        fitted(activations, labels, groups, fold, seed=seed).scores for seed in (0, 0, 1)
    )
    assert torch.equal(torch.rand(2), expected)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert mlp_probe(seed=0).identity != mlp_probe(seed=1).identity


def test_each_site_is_read_on_its_own():
    one, labels, groups = crossed(150)
    other, _, _ = straight(150, 6, seed=3)
    fold = assign_folds(labels.numpy(), groups, folds=3, seed=0)
    trainer = MLPTrainer(width=8, max_epochs=20, patience=5, dropout=0.0, seed=0)
    both = MLPCrossFitter(trainer)(torch.stack([one, other], dim=1), labels, groups, fold)
    alone = MLPCrossFitter(trainer)(one.unsqueeze(1), labels, groups, fold)
    np.testing.assert_array_equal(both.scores[:, :1], alone.scores)


def test_scores_do_not_change_with_the_place_and_size_of_activations():
    activations, labels, groups = crossed(200)
    fold = assign_folds(labels.numpy(), groups, folds=3, seed=0)
    before = fitted(activations, labels, groups, fold)
    scaled = 50 + activations * torch.linspace(0.1, 100, 6)
    after = fitted(scaled, labels, groups, fold)
    np.testing.assert_allclose(after.scores, before.scores, atol=0.05)


def test_the_estimator_keeps_groups_whole_and_has_no_direction():
    activations, labels, groups = crossed(300)
    probe = MLPProbe(max_epochs=100).fit(activations, labels, groups=groups)
    fresh, wanted, _ = crossed(300, seed=9)
    assert (probe.predict(fresh) == wanted).float().mean() > 0.85
    assert not hasattr(probe, "direction")
    texts = tuple(f"statement {row}" for row in range(300))
    concept = Concept("x", "reliability", texts, labels.numpy(), tuple(groups))
    with pytest.raises(ValueError, match="'mlp' probe is not linear"):
        probe_margin(mlp_probe())(Activations(activations.unsqueeze(1), SITE), concept, seed=0)


def test_what_can_not_be_trained_is_refused():
    for name in ("width", "max_epochs", "patience"):
        with pytest.raises(ValueError, match=f"`{name}` must be a whole number from 1, got 0"):
            mlp_probe(**{name: 0})
    with pytest.raises(ValueError, match=r"`dropout` must be a number from 0 to below 1, got 1\.0"):
        mlp_probe(dropout=1.0)
    with pytest.raises(ValueError, match=r"`folds` must be a whole number from 3, got 2\."):
        mlp_probe(folds=2, **QUICK)
    with pytest.raises(ValueError, match="at least 3 folds, got 2"):
        fitted(*crossed(40), np.arange(40) % 2)


@pytest.mark.slow
def test_the_interval_covers_chance_where_there_is_nothing_to_read():
    """At chance every probe's accuracy on fresh statements is one half, whatever was fitted."""
    runs, labels = 200, np.arange(160) % 2
    groups = [f"pair {row // 2}" for row in range(160)]
    covered = 0
    for seed in range(runs):
        values = torch.randn(160, 1, 12, generator=torch.Generator().manual_seed(seed))
        fold = assign_folds(labels, groups, folds=5, seed=seed)
        trainer = MLPTrainer(width=32, max_epochs=60, patience=8, dropout=0.5, seed=seed)
        held_out = MLPCrossFitter(trainer)(values, torch.from_numpy(labels), groups, fold)
        low, high = score_dataset(
            held_out.scores,
            labels,
            fold,
            groups,
            sites=["x"],
            seed=seed,
            fewer=held_out.fewer,
            resamples=300,
        ).accuracy_ci.values[0]
        covered += low <= 0.5 <= high
    # 95% and binomial chance; without what the folds share it is 87%.
    assert covered >= 182
