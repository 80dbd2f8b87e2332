"""A probe is scored on another set without having seen any of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tlens_trust.activations import Activations
from tlens_trust.concepts import Concept
from tlens_trust.measures import ProbeMeasure, lda_probe, logistic_probe, mass_mean_probe
from tlens_trust.measures.cross_fitters import HeldOut
from tlens_trust.measures.generalisation import (
    check_same_matter,
    check_same_reading,
    find_judges,
    number_parts,
    score_elsewhere,
)
from tlens_trust.measures.scores import score_dataset

SITES = ("blocks.0.hook_resid_post", "blocks.1.hook_resid_post")


def pairs(name: str, count: int, *, groups: str | None = None, polarity: bool = True) -> Concept:
    return Concept(
        name=name,
        dimension="reliability",
        statements=tuple(f"{name} {row}" for row in range(2 * count)),
        labels=np.tile([0, 1], count),
        groups=tuple(f"{groups or name} {row // 2}" for row in range(2 * count)),
        polarity=polarity,
    )


def readings(concept: Concept, feature: int, *, strength: float = 2.0, seed: int = 0):
    """Noise at the first site; at the second the label along one feature."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(len(concept), 2, 10, generator=generator)
    values[:, 1, feature] += strength * torch.from_numpy(2.0 * concept.labels - 1).float()
    return Activations(values, SITES, concept=concept)


def transfer(source, target, *, probe=None, seed=0):
    """Scores of the target by the source's probes, as `trace_transfer` takes them."""
    probe = probe or logistic_probe()
    check_same_matter(source.concept, target.concept)
    check_same_reading(source, target)
    held_out, fold = probe.held_out(source, source.concept, seed=seed)
    judged_by = find_judges(source.concept, target.concept, fold)
    data = score_dataset(
        score_elsewhere(held_out, target, judged_by, probe.name),
        target.concept.labels,
        number_parts(judged_by, target.concept.labels),
        target.concept.groups,
        sites=target.sites,
        seed=seed,
    )
    return data.assign_attrs(statements_in_shared_groups=int((judged_by >= 0).sum()))


@pytest.mark.parametrize("probe", [logistic_probe(), mass_mean_probe(), lda_probe()])
def test_what_both_sets_share_transfers_and_what_they_do_not_fails_to(probe):
    source = readings(pairs("plain", 200), 3)
    same = readings(pairs("other words", 150), 3, seed=1)
    other = readings(pairs("another thing", 150), 7, seed=2)
    kept = transfer(source, same, probe=probe)
    lost = transfer(source, other, probe=probe)
    # The Bayes classifier is right with the normal distribution function at 2: 97.7%.
    assert float(kept.accuracy[1]) > 0.93
    assert float(kept.accuracy_ci.sel(bound="low")[1]) > 0.9
    assert abs(float(lost.accuracy[1]) - 0.5) < 0.1
    assert abs(float(kept.accuracy[0]) - 0.5) < 0.1


def test_statements_are_scored_by_the_mean_of_the_fold_probes():
    source, target = readings(pairs("a", 60), 1), readings(pairs("b", 40), 1, seed=1)
    probe = logistic_probe()
    held_out, _ = probe.held_out(source, source.concept, seed=5)
    data = transfer(source, target, probe=probe, seed=5)
    by_hand = np.einsum("nsd,sfd->nsf", target.values.double(), held_out.directions)
    np.testing.assert_allclose(
        data.score, (by_hand + held_out.biases).mean(axis=2), rtol=1e-5, atol=1e-5
    )
    assert data.attrs["statements_in_shared_groups"] == 0


def test_a_paraphrase_is_scored_by_the_probe_that_has_not_seen_its_group():
    generator = torch.Generator().manual_seed(0)
    # Each group has a text of its own and a label drawn by lot: only a leak can read it.
    source, target = pairs("first", 60), pairs("second", 60, groups="first")
    labels = np.repeat(np.random.default_rng(0).integers(2, size=60), 2)
    source, target = replace(source, labels=labels), replace(target, labels=labels)
    base = torch.randn(60, 1, 200, generator=generator).repeat_interleave(2, dim=0)
    site = SITES[:1]
    first, second = (
        Activations(
            base + 0.05 * torch.randn(120, 1, 200, generator=generator), site, concept=concept
        )
        for concept in (source, target)
    )
    data = transfer(first, second)
    assert abs(data.accuracy.item() - 0.5) < 0.2
    assert data.attrs["statements_in_shared_groups"] == 120
    # Under names of their own nothing says that they belong together.
    apart = Activations(
        second.values, site, concept=replace(target, groups=tuple(f"x{g}" for g in target.groups))
    )
    assert transfer(first, apart).accuracy.item() > 0.95


def test_a_set_transferred_to_itself_gives_its_own_held_out_scores():
    source = readings(pairs("same", 80), 2)
    probe = mass_mean_probe()
    own = probe(source, source.concept, seed=4)
    data = transfer(source, source, probe=probe, seed=4)
    np.testing.assert_allclose(data.score, own.score, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(data.auroc, own.auroc)


def test_the_same_text_under_another_name_of_its_group_is_still_held_out():
    source = pairs("a", 50)
    copied = Concept(
        "b",
        "reliability",
        source.statements,
        source.labels,
        tuple(f"elsewhere {row}" for row in range(100)),
    )
    activations = readings(source, 2)
    data = transfer(activations, replace(activations, concept=copied), seed=1)
    own = logistic_probe()(activations, source, seed=1)
    np.testing.assert_allclose(data.score, own.score, rtol=1e-5, atol=1e-6)


def test_the_target_s_labels_move_no_score():
    source, target = readings(pairs("a", 60), 1), readings(pairs("b", 40), 1, seed=1)
    turned = replace(target, concept=replace(target.concept, labels=1 - target.concept.labels))
    straight, flipped = transfer(source, target), transfer(source, turned)
    np.testing.assert_array_equal(straight.score, flipped.score)
    np.testing.assert_allclose(straight.accuracy, 1 - flipped.accuracy)


def test_what_does_not_go_together_is_an_error_that_says_why():
    source, target = readings(pairs("a", 30), 1), readings(pairs("b", 30), 1)

    def with_concept(**changes):
        return replace(target, concept=replace(target.concept, **changes))

    cases = [
        (source, with_concept(polarity=False), "Neither label of 'b' is the trustworthy side"),
        (
            replace(source, concept=replace(source.concept, polarity=False)),
            with_concept(polarity=False),
            "Neither 'a' nor 'b' has a trustworthy side",
        ),
        (source, with_concept(dimension="privacy"), "'a' is about reliability, and 'b' about"),
        (source, target.select([0]), "Collect both at the same sites"),
        (source, replace(target, position="mean"), "position 'last', the target at 'mean'"),
    ]
    for one, other, message in cases:
        with pytest.raises(ValueError, match=message):
            transfer(one, other)
    no_side = replace(source, concept=replace(source.concept, polarity=False))
    assert transfer(no_side, no_side).accuracy.notnull().all()


def test_a_group_is_held_out_whole_where_one_of_its_texts_is_known():
    source = pairs("a", 50)
    texts = tuple(t if row % 2 else f"new {t}" for row, t in enumerate(source.statements))
    groups = tuple(f"elsewhere {row // 2}" for row in range(100))
    target = Concept("b", "reliability", texts, source.labels, groups)
    activations = readings(source, 2)
    data = transfer(activations, replace(activations, concept=target), seed=1)
    assert data.attrs["statements_in_shared_groups"] == 100
    own = logistic_probe()(activations, source, seed=1)
    np.testing.assert_allclose(data.score, own.score, rtol=1e-5, atol=1e-6)


def test_a_statement_that_every_probe_has_seen_one_way_or_another_is_an_error():
    source = pairs("a", 30)
    groups = tuple(np.roll(source.groups, 6).tolist())
    crossed = Concept("b", "reliability", source.statements, source.labels, groups)
    activations = readings(source, 1)
    with pytest.raises(ValueError, match=r"Group .* of 'b' .*several groups of 'a'"):
        transfer(activations, replace(activations, concept=crossed))


def test_a_probe_without_a_direction_is_refused():
    class Constant:
        identity = "constant"
        least_folds = 2

        def __call__(self, activations, labels, groups, fold):
            return HeldOut(np.zeros(tuple(activations.shape[:2])))

    source = readings(pairs("a", 30), 1)
    with pytest.raises(ValueError, match="'constant' probe keeps no direction"):
        transfer(source, source, probe=ProbeMeasure("constant", Constant()))
