import numpy as np
import pytest

from tlens_trust import accessors
from tlens_trust.concepts import Concept


def test_lint_of_a_concept_takes_its_seed_and_nothing_else():
    statements = tuple(f"{'Yea' if i % 2 else 'Nay'}, {i}." for i in range(60))
    groups = tuple(str(i // 2) for i in range(60))
    concept = Concept("assent", "assent", statements, np.array([0, 1] * 30), groups)
    assert concept.lint().rules == concept.lint(seed=0).rules == ("token-cue", "text-floor")
    assert concept.lint().subject == "'assent'"
    with pytest.raises(TypeError):
        concept.lint(1)


def test_one_name_can_be_registered_on_two_classes():
    owners = [type(name, (), {"__annotations__": {}}) for name in ("First", "Second")]
    for owner in owners:
        accessor = type(f"Of{owner.__name__}", (), {"__init__": lambda self, instance: None})
        accessors.register_on(owner, "sizes_of")(accessor)
    try:
        made = [type(owner().sizes_of).__name__ for owner in owners]
    finally:
        for owner in owners:
            del accessors._REGISTERED[owner.__module__, owner.__name__, "sizes_of"]
    assert made == ["OfFirst", "OfSecond"]
