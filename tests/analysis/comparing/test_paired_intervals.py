"""Intervals of paired differences, also where all groups differ alike."""

import numpy as np
import pytest
from scipy.stats import beta

from tlens_trust.analysis.comparing.paired_intervals import paired_interval
from tlens_trust.analysis.comparing.set_transfer_null import TargetStatements
from tlens_trust.analysis.comparing.target_set import TargetSet
from tlens_trust.concepts import Concept
from tlens_trust.measures.resampling import GroupBootstrap


@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0])
def test_a_difference_that_is_the_same_in_every_group_is_not_certain(value):
    groups = [str(row) for row in range(12)]
    bootstrap = GroupBootstrap.draw(groups, seed=0, resamples=100)
    low, high = paired_interval(np.full((12, 1), value), bootstrap)[0]
    unseen = beta.ppf(0.975, 1, 12)
    assert low == pytest.approx(value - unseen * (1 + value))
    assert high == pytest.approx(value + unseen * (1 - value))


def concept_of(name: str, groups: int) -> Concept:
    rows = range(2 * groups)
    return Concept(
        name,
        "reliability",
        tuple(f"{name} {row}" for row in rows),
        np.arange(2 * groups) % 2,
        tuple(f"{name}/{row // 2}" for row in rows),
    )


def test_a_drop_between_sets_is_as_uncertain_as_the_smaller_set():
    """The scored set is right once in each pair of twins, as where all is called positive."""
    source, scored = concept_of("source", 30), concept_of("scored", 8)
    how = TargetStatements(scored.labels, np.full(16, -1), np.zeros(16, dtype=np.int64))
    fitted = TargetSet(scored, source, how, None, resamples=100, seed=0)
    drop, interval = fitted._drop(np.ones((60, 1)), np.tile([[0.0], [1.0]], (8, 1)), np.zeros(1))
    unseen = beta.ppf(0.975, 1, 8)
    assert drop.tolist() == [0.5]
    assert interval[0] == pytest.approx([0.5 - 1.5 * unseen, 0.5 + 0.5 * unseen])
