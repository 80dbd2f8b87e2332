"""A control task is right only for who learns types by heart."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from tlens_trust.activations import Activations
from tlens_trust.concepts import Concept
from tlens_trust.measures import (
    Measure,
    lda_probe,
    logistic_probe,
    mass_mean_probe,
    probe_selectivity,
)
from tlens_trust.measures.selectivity import (
    control_labels,
    first_content_word,
    last_content_word,
    recurring_word,
)

WORDS = [f"{a}{b}" for a in ("ba", "do", "ki", "lu") for b in ("fen", "gor", "mip", "tas", "wex")]


def worded(count: int) -> Concept:
    """Pairs in which either statement ends in a word that recurs."""
    draw = np.random.default_rng(0)
    return Concept(
        name="worded",
        dimension="reliability",
        statements=tuple(f"It is the {WORDS[draw.integers(20)]} of them" for _ in range(2 * count)),
        labels=np.tile([0, 1], count),
        groups=tuple(f"pair {row // 2}" for row in range(2 * count)),
    )


def readings(concept: Concept, *, heart: float, label: float, width: int = 40) -> Activations:
    """Noise, a vector for every word as long as `heart`, and the label along the first feature."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(20, width, generator=generator)
    words = [WORDS.index(last_content_word(statement)) for statement in concept.statements]
    values = 0.5 * torch.randn(len(concept), width, generator=generator) + heart * vectors[words]
    values[:, 0] += label * torch.from_numpy(2 * concept.labels - 1)
    return Activations(values.unsqueeze(1), ("blocks.0.hook_resid_post",))


def test_what_can_be_learnt_by_heart_is_not_selective():
    concept = worded(250)
    solved = "solves the control task at 1 of 1 sites.*20 types for 500"
    with pytest.warns(UserWarning, match=solved):
        by_heart = probe_selectivity()(readings(concept, heart=1.0, label=1.5), concept, seed=0)
    assert "for any concept" in by_heart.selectivity.attrs["caution"]
    assert by_heart.control_accuracy.item() > 0.95
    assert by_heart.selectivity.item() < 0.05
    unable = probe_selectivity()(readings(concept, heart=0.0, label=1.5), concept, seed=0)
    assert "caution" not in unable.selectivity.attrs
    assert abs(unable.control_accuracy.item() - 0.5) < 0.07
    assert unable.selectivity.item() > 0.4


def test_selectivity_is_accuracy_less_control_accuracy_with_the_probe_s_own_folds():
    concept = worded(60)
    activations = readings(concept, heart=0.2, label=0.7)
    for probe in (logistic_probe(), mass_mean_probe(), lda_probe()):
        data = probe_selectivity(probe)(activations, concept, seed=3)
        accuracy = probe(activations, concept, seed=3).accuracy.item()
        assert data.selectivity.item() == pytest.approx(accuracy - data.control_accuracy.item())
        low, high = data.selectivity_ci.values[0]
        assert low < data.selectivity.item() < high


def test_control_labels_are_a_function_of_the_type_with_the_share_of_the_labels():
    types = np.random.default_rng(1).choice(WORDS, size=400)
    labels = (np.random.default_rng(2).random(400) < 0.3).astype(np.int64)
    control = control_labels(types.tolist(), labels, seed=0)
    assert len(set(zip(types.tolist(), control.tolist(), strict=True))) == len(set(types.tolist()))
    assert abs(control.mean() - labels.mean()) < 0.05
    order = np.random.default_rng(3).permutation(400)
    moved = control_labels(types[order].tolist(), labels[order], seed=0)
    np.testing.assert_array_equal(moved, control[order])
    others = [control_labels(types.tolist(), labels, seed=seed) for seed in range(1, 5)]
    assert all((other != control).any() for other in others)


def test_control_labels_say_nothing_of_the_concept_s_own():
    concept = worded(200)
    types = [last_content_word(statement) for statement in concept.statements]
    agreed = [
        (control_labels(types, concept.labels, seed=seed) == concept.labels).mean()
        for seed in range(100)
    ]
    assert abs(np.mean(agreed) - 0.5) < 0.02


def test_a_type_within_one_fold_cannot_be_learnt_and_the_result_says_so():
    concept = worded(60)
    activations = readings(concept, heart=1.0, label=1.0)
    with pytest.warns(UserWarning, match="solves the control task"):
        recurring = probe_selectivity()(activations, concept, seed=0)
    assert recurring.control_seen.item() > 0.9
    own = probe_selectivity(types=str.lower)
    distinct = Concept(
        "distinct",
        "reliability",
        tuple(f"{text} {row}" for row, text in enumerate(concept.statements)),
        concept.labels,
        concept.groups,
    )
    data = own(activations, distinct, seed=0)
    assert data.control_seen.item() == 0
    assert abs(data.control_accuracy.item() - 0.5) < 0.15


def test_the_type_is_the_word_that_differs_most_and_stands_elsewhere_than_was_read():
    draw = np.random.default_rng(0)
    rows = [(WORDS[a], WORDS[b]) for a, b in draw.integers([8, 20], size=(120, 2))]
    said = [f"It was {a} that {b} called, on {('Monday', 'Friday')[i % 2]}." for i, (a, b) in
            enumerate(rows)]  # fmt: skip
    groups = [str(row // 2) for row in range(120)]
    place, types = recurring_word(said, groups)
    assert (place, types) == (1, [b for _, b in rows])
    # Where few differ is not taken, nor what nobody else says, nor what is read itself.
    alone = [f"{text[:-1]} of {'x' * (2 + row)}." for row, text in enumerate(said)]
    assert recurring_word(alone, groups, position="mean")[0] == 1
    ending = [f"{a} called {b}" for a, b in rows]
    assert [recurring_word(ending, groups, position=p)[0] for p in ("last", "mean")] == [0, 2]
    starting = [f"{b} called {a}, as was said" for a, b in rows]
    assert [recurring_word(starting, groups, position=p)[0] for p in (0, "mean")] == [2, 0]
    assert recurring_word(["?", "?", "!", "!"], ["a", "b", "c", "d"])[1] == ["?", "?", "!", "!"]


def test_a_type_that_few_share_in_plain_sight_says_nothing_where_the_default_does():
    """Statements end in one of two frames; their object, of twenty, is faint where was read."""
    draw = np.random.default_rng(1)
    things, frames = draw.integers(20, size=200), draw.integers(2, size=200)
    texts = tuple(
        f"They saw {WORDS[a]} {('yesterday', 'tomorrow')[b]}"
        for a, b in zip(things, frames, strict=True)
    )
    groups = tuple(str(row // 2) for row in range(200))
    concept = Concept("seen", "reliability", texts, np.tile([0, 1], 100), groups)
    generator = torch.Generator().manual_seed(0)
    values = 0.5 * torch.randn(200, 30, generator=generator)
    values[:, 0] += torch.from_numpy(2.0 * concept.labels - 1)
    values[:, 1] += 3 * torch.from_numpy(2.0 * frames - 1)
    activations = Activations(values.unsqueeze(1), ("blocks.0.hook_resid_post",))
    probe = mass_mean_probe(floor=False)
    with pytest.warns(UserWarning, match="2 types for 200 statements"):
        plain = probe_selectivity(probe, types="last_word")(activations, concept, seed=0)
    assert plain.control_accuracy.item() > 0.95
    assert plain.selectivity.item() < 0.05
    default = probe_selectivity(probe)(activations, concept, seed=0)
    assert default.control_types.item() == 20
    assert default.control_accuracy.attrs["types"] == "content word 2"
    assert default.selectivity_ci.sel(bound="low").item() > 0.2


def test_content_words_are_those_that_carry_one():
    assert last_content_word("They gave it to us.") == "gave"
    assert last_content_word("Don't trust the mother-in-law!") == "mother-in-law"
    assert first_content_word("It was not the Ölpreis.") == "ölpreis"
    assert last_content_word("It is.") == "is"
    assert last_content_word("42") == "42"


def test_it_is_a_measure_with_labelled_results_and_one_answer():
    concept = worded(40)
    activations = readings(concept, heart=0.5, label=0.5)
    measure = probe_selectivity(mass_mean_probe())
    assert isinstance(measure, Measure)
    data = measure(activations, concept, seed=0)
    assert data.identical(measure(activations, concept, seed=0))
    for name, variable in data.data_vars.items():
        assert {"units", "long_name"} <= variable.attrs.keys(), name
        assert variable.notnull().all(), name
    variants = [
        probe_selectivity(),
        measure,
        probe_selectivity(controls=5),
        probe_selectivity(types="first_word"),
        probe_selectivity(types="last_word"),
        probe_selectivity(types=str.lower),
    ]
    assert len({variant.identity for variant in variants}) == len(variants)
    assert probe_selectivity(types="first_word").name == "selectivity_logistic_first_word"


def test_what_makes_no_control_task_is_an_error():
    with pytest.raises(ValueError, match=r"with a name.*lambda"):
        probe_selectivity(types=lambda statement: statement[-1])
    with pytest.raises(ValueError, match=r'"last_word", "first_word", or a function'):
        probe_selectivity(types="length")
    with pytest.raises(ValueError, match="`controls` must be a whole number from 1"):
        probe_selectivity(controls=0)
    with pytest.raises(ValueError, match="All 3 statements have the same type 'a'"):
        control_labels(["a"] * 3, np.array([0, 1, 0]), seed=0)


def test_the_interval_is_wider_than_that_of_scores_which_know_nothing_of_common_rows():
    concept = worded(60)
    activations = readings(concept, heart=0.0, label=0.0)
    probe = mass_mean_probe(floor=False)
    data = probe_selectivity(probe)(activations, concept, seed=0)
    bare = replace(probe, cross_fitter=Bare(probe.cross_fitter))
    without = probe_selectivity(bare)(activations, concept, seed=0)
    np.testing.assert_array_equal(data.selectivity, without.selectivity)
    for name in ("selectivity", "control_accuracy"):
        found, plain = (np.diff(each[f"{name}_ci"].values)[0, 0] for each in (data, without))
        assert found >= plain, name
    assert np.diff(data.selectivity_ci.values) > 1.05 * np.diff(without.selectivity_ci.values)
    clear = readings(concept, heart=0.0, label=6.0)
    sure = probe_selectivity(probe)(clear, concept, seed=0)
    assert sure.selectivity_ci.values[0, 0] > 0.3


@dataclass(frozen=True)
class Bare:
    """A cross-fitter that keeps what it knows of probes without one more fold to itself."""

    cross_fitter: object
    identity: str = "bare"
    least_folds: int = 2

    def __call__(self, activations, labels, groups, fold):
        return replace(self.cross_fitter(activations, labels, groups, fold), fewer=None)
