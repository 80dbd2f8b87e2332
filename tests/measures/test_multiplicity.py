"""Of what is claimed among many, as few claims are false as is said."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tlens_trust.measures.multiplicity import benjamini_hochberg

P_VALUES = arrays(np.float64, st.integers(1, 30), elements=st.floats(0, 1))


@given(P_VALUES)
def test_adjusted_values_are_larger_in_the_same_order_and_no_larger_than_bonferroni_s(p):
    q = benjamini_hochberg(p)
    assert (q >= p - 1e-12).all()
    assert (q <= np.minimum(1, len(p) * p) + 1e-12).all()
    assert (np.diff(q[np.argsort(p, kind="stable")]) >= -1e-12).all()


@given(P_VALUES, st.floats(0.001, 0.5))
def test_claims_are_those_of_the_step_up_rule(p, level):
    # The largest k for which k p-values are at most k/m of the level, by its definition.
    ordered = np.sort(p)
    below = np.flatnonzero(ordered <= level * np.arange(1, len(p) + 1) / len(p))
    expected = below[-1] + 1 if len(below) else 0
    q = benjamini_hochberg(p)
    # On the very edge rounding decides.
    assert (q <= level * (1 - 1e-9)).sum() <= expected <= (q <= level * (1 + 1e-9)).sum()


def test_what_was_not_tested_is_no_claim():
    p = np.array([[0.01, np.nan], [0.02, 0.5]])
    q = benjamini_hochberg(p)
    np.testing.assert_array_equal(np.isnan(q), np.isnan(p))
    np.testing.assert_allclose(q[~np.isnan(q)], benjamini_hochberg(p[~np.isnan(p)]))
    assert np.isnan(benjamini_hochberg(np.full(3, np.nan))).all()


def test_a_false_discovery_is_as_rare_as_the_level_says_and_uncorrected_it_is_not():
    generator = np.random.default_rng(0)
    corrected, plain = [], []
    for _ in range(500):
        p = generator.random(40)
        p[:10] = generator.random(10) * 0.002
        for claimed, shares in ((benjamini_hochberg(p) <= 0.1, corrected), (p <= 0.1, plain)):
            shares.append(claimed[10:].sum() / max(claimed.sum(), 1))
    assert np.mean(corrected) < 0.1 < np.mean(plain)


def test_a_number_that_is_no_p_value_is_refused():
    with pytest.raises(ValueError, match=r"between 0 and 1, got 1\.5"):
        benjamini_hochberg(np.array([0.2, 1.5]))
