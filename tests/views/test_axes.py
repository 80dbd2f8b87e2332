import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from tlens_trust.views.axes import log_positions, training_axis


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=20, unique=True))
def test_a_logarithmic_axis_keeps_the_order_of_training_and_holds_no_zero(counts):
    counts = np.array(sorted(counts))
    where = log_positions(counts)
    assert (where > 0).all()
    assert (np.diff(where) > 0).all()


def test_an_axis_with_unknown_tokens_names_the_checkpoint_and_the_other_axis():
    data = xr.Dataset(
        coords={
            "checkpoint": ["a", "b"],
            "step": ("checkpoint", [0, 1]),
            "tokens": ("checkpoint", [0.0, np.nan]),
        }
    )
    assert training_axis(data, "step").tolist() == [0, 1]
    with pytest.raises(ValueError, match=r"tokens is unknown for 1 of 2.*\(b\).*x='step'"):
        training_axis(data, "tokens")
