"""A probe's scores stand beside those of the text, statement by statement."""

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.stats import binom

from tlens_trust.activations import Activations
from tlens_trust.concepts import Concept, text_floor
from tlens_trust.measures import logistic_probe, reference_levels
from tlens_trust.measures.folds import assign_folds
from tlens_trust.measures.reference_levels import accuracy_gain
from tlens_trust.measures.resampling import GroupBootstrap

THINGS = ("lamp", "ladder", "barrel", "mirror", "chair", "bucket", "carpet", "kettle")


def hinted(count: int, *, share: float, seed: int = 0) -> Concept:
    """Statements of which a share end in a word that tells the label; the others tell nothing."""
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.arange(count) % 2)
    told = generator.random(count) < share
    texts = [
        f"The {generator.choice(THINGS)} and the {generator.choice(THINGS)} are "
        f"{('bad', 'good')[label] if tell else 'old'}"
        for label, tell in zip(labels, told, strict=True)
    ]
    names = tuple(f"{seed}/{row}" for row in range(count))
    return Concept("hinted", "reliability", tuple(texts), labels, names)


def vectors(concept: Concept, *, distances: list[float], seed: int = 0) -> Activations:
    """What the text tells, and at each site the label itself as far as the distance says."""
    generator = np.random.default_rng([seed, 7])
    values = generator.standard_normal((len(concept), len(distances), 8))
    hint = [text.endswith("good") - float(text.endswith("bad")) for text in concept.statements]
    values[:, :, 0] += 3 * np.array(hint)[:, None]
    values[:, :, 1] += np.outer(2 * concept.labels - 1, distances)
    names = tuple(f"blocks.{site}.hook_resid_post" for site in range(len(distances)))
    return Activations(torch.from_numpy(values).float(), names)


MEASURE = logistic_probe(C=[0.01, 0.1, 1.0], permutations=50)


@pytest.fixture(scope="module")
def half_told():
    concept = hinted(400, share=0.5)
    return concept, MEASURE(vectors(concept, distances=[0.0, 2.0]), concept, seed=0)


def test_the_floor_is_that_of_the_text_on_the_probe_s_own_folds(half_told):
    concept, data = half_told
    fold = assign_folds(concept.labels, concept.groups, seed=0)
    np.testing.assert_array_equal(data.fold, fold)
    floor = text_floor(concept, fold=fold, seed=0)
    assert data.accuracy_floor.item() == pytest.approx(floor.accuracy())
    assert data.balanced_accuracy_floor.item() == pytest.approx(floor.accuracy(balanced=True))
    low, high = data.accuracy_floor_ci.values
    assert low < data.accuracy_floor.item() < high
    for name in ("accuracy", "balanced_accuracy", "auroc", "cross_entropy"):
        assert data[f"{name}_floor"].dims == ()
        assert data[f"{name}_floor"].attrs["units"] == data[name].attrs["units"]


def test_what_the_text_tells_is_no_more_than_the_text_and_what_it_does_not_is(half_told):
    _, data = half_told
    # Three statements in four: half are told, and half of the others guessed.
    assert data.accuracy_floor.item() == pytest.approx(0.75, abs=0.07)
    assert float(data.accuracy[0]) > 0.65
    low = data.accuracy_above_floor_ci.sel(bound="low").values
    assert low[0] < 0.02
    assert low[1] > 0.1
    np.testing.assert_allclose(
        data.accuracy_above_floor, data.accuracy - data.accuracy_floor, atol=1e-12
    )


def test_the_difference_is_known_better_than_either_for_what_is_easy_is_easy_to_both(half_told):
    _, data = half_told
    width, floor, above = (
        data[name].diff("bound").values
        for name in ("accuracy_ci", "accuracy_floor_ci", "accuracy_above_floor_ci")
    )
    assert above[0] < 0.9 * np.sqrt(width[0] ** 2 + floor**2)


def test_where_every_group_gains_the_same_the_interval_is_that_of_groups_unseen():
    groups = tuple(f"{row // 2}" for row in range(80))
    labels = np.arange(80) % 2
    always = np.where(labels == 1, 1.0, -1.0)[:, None]
    twins_alike = np.ones((80, 1))
    fold = np.arange(80) // 2 % 4
    bootstrap = GroupBootstrap.draw(groups, seed=0, resamples=200)
    value, interval = accuracy_gain(always, twins_alike, labels, fold, bootstrap)
    unseen = 1 - 0.025 ** (1 / 40)
    assert value.item() == 0.5
    assert interval[0] == pytest.approx([0.5 - 1.5 * unseen, 0.5 + 0.5 * unseen])
    # One group of another kind, and the bootstrap knows of others itself.
    always[0] = 1.0
    _, other = accuracy_gain(always, twins_alike, labels, fold, bootstrap)
    assert other[0, 0] < other[0, 1] < interval[0, 1]
    assert other[0, 0] > interval[0, 0] - 0.05


def test_the_text_is_classified_once_for_all_checkpoints(monkeypatch):
    calls = []

    def counted(*arguments, **named):
        calls.append(named["seed"])
        return text_floor(*arguments, **named)

    monkeypatch.setattr(reference_levels, "text_floor", counted)
    concept = hinted(60, share=0.5, seed=31)
    for seed in (0, 0, 1):
        for distance in (0.0, 1.0):
            MEASURE(vectors(concept, distances=[distance]), concept, seed=seed)
    assert calls == [0, 1]


def test_the_scores_of_the_text_are_its_own_even_after_a_caller_has_changed_them():
    concept = hinted(60, share=0.5)
    fold = assign_folds(concept.labels, concept.groups, folds=5, seed=0)
    floor = reference_levels.floor_on_folds(concept, fold, seed=0)
    scores = np.random.default_rng(0).standard_normal((len(concept), 2))

    def floors(*, seed: int = 0) -> xr.Dataset:
        return reference_levels.floor_dataset(floor, concept, scores, fold, seed=seed, resamples=50)

    first = floors()
    expected = first.copy(deep=True)
    first["accuracy_floor"][...] = -1.0
    first["accuracy_floor"].attrs["long_name"] = "changed"
    xr.testing.assert_identical(floors(), expected)
    other = floors(seed=1)
    assert float(other["accuracy_floor"]) == float(expected["accuracy_floor"])
    assert not np.array_equal(other["accuracy_floor_ci"], expected["accuracy_floor_ci"])


def test_too_few_groups_for_a_floor_leave_it_unknown():
    labels = np.array([0, 0, 0, 1, 1, 1] * 4)
    names = tuple(f"g{row % 6}" for row in range(24))
    concept = Concept("few", "few", ("Some text.",) * 24, labels, names)
    data = logistic_probe(folds=3, permutations=20)(
        vectors(concept, distances=[3.0]), concept, seed=0
    )
    assert data.accuracy.item() > 0.8
    assert data.accuracy_chance.item() == 0.5
    floors = [name for name in data.data_vars if "floor" in name]
    assert len(floors) == 11
    assert all(data[name].isnull().all() and data[name].attrs["units"] for name in floors)


def test_without_a_floor_there_is_none():
    concept = hinted(60, share=0.5)
    measure = logistic_probe(permutations=20, floor=False)
    data = measure(vectors(concept, distances=[0.0]), concept, seed=0)
    assert not [name for name in data.data_vars if "floor" in name]
    assert measure.identity != logistic_probe(permutations=20).identity


@pytest.mark.slow
def test_noise_is_seldom_above_the_floor_of_a_text_that_tells_nothing(record_property):
    above = 0
    for seed in range(100):
        concept = hinted(200, share=0.0, seed=seed)
        data = MEASURE(vectors(concept, distances=[0.0] * 5, seed=seed), concept, seed=seed)
        above += int((data.accuracy_above_floor_ci.sel(bound="low") > 0).sum())
    record_property("above", above)
    # One tail of 2.5%, and the runs of one text go together.
    assert above <= binom.ppf(0.999, 100, 0.025) * 5
