"""Work that several measures share is done once, and never on other activations."""

import gc
import weakref
from dataclasses import replace

import numpy as np
import torch

from tlens_trust.activations import Activations
from tlens_trust.concepts import Concept
from tlens_trust.measures import ProbeMeasure, probe_margin
from tlens_trust.measures.cross_fitters import MassMeanCrossFitter
from tlens_trust.measures.cross_validation import do_once, mass_mean_probe

CALLS: list[int] = []


class Counting(MassMeanCrossFitter):
    """Notes how often it fits."""

    def __call__(self, activations, labels, groups, fold):
        CALLS.append(1)
        return super().__call__(activations, labels, groups, fold)


def drawn(seed: int = 0) -> tuple[Activations, Concept]:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(40, 2, 3, generator=generator)
    sites = ("blocks.0.hook_resid_post", "blocks.1.hook_resid_post")
    labels = np.tile([0, 1], 20)
    names = tuple(f"pair {row // 2}" for row in range(40))
    texts = tuple(f"statement {row}" for row in range(40))
    return Activations(values, sites), Concept("drawn", "x", texts, labels, names)


def test_a_probe_is_fitted_once_for_all_that_ask_for_its_scores():
    activations, concept = drawn()
    probe = replace(mass_mean_probe(permutations=50, floor=False), cross_fitter=Counting())
    CALLS.clear()
    first = probe(activations, concept, seed=0)
    probe_margin(probe)(activations, concept, seed=0)
    assert len(CALLS) == 1
    assert probe(activations, concept, seed=0).identical(first)
    probe(activations, concept, seed=1)
    assert len(CALLS) == 2


def test_what_was_kept_is_what_fresh_activations_give():
    activations, concept = drawn()
    probe: ProbeMeasure = mass_mean_probe(permutations=50, floor=False)
    probe(activations, concept, seed=0)
    again = probe(activations, concept, seed=0)
    fresh = probe(drawn()[0], concept, seed=0)
    assert again.identical(fresh)
    assert not again.identical(probe(drawn(seed=1)[0], concept, seed=0))


def test_activations_changed_in_place_are_other_activations():
    activations, _ = drawn()
    assert do_once(activations, "sum", lambda: 1) == do_once(activations, "sum", lambda: 2) == 1
    activations.values.mul_(2)
    assert do_once(activations, "sum", lambda: 2) == 2


def test_nothing_outlives_its_activations():
    class Result:
        pass

    activations, _ = drawn()
    kept = weakref.ref(do_once(activations, "result", Result))
    assert kept() is not None
    del activations
    gc.collect()
    assert kept() is None


def test_old_results_make_room_for_new_ones():
    activations, _ = drawn()
    for number in range(20):
        do_once(activations, number, lambda: "old")
    assert do_once(activations, 0, lambda: "new") == "new"
    assert do_once(activations, 19, lambda: "new") == "old"


def test_a_key_that_cannot_be_hashed_is_no_obstacle():
    activations, _ = drawn()
    assert do_once(activations, ("a", ["list"]), lambda: 1) == 1
    assert do_once(activations, ("a", ["list"]), lambda: 2) == 2
