import numpy as np
import pytest
import xarray as xr

from tlens_trust.views import comparison_table, onset_table
from tlens_trust.views.text import small_number, with_interval

NAMES = ["a@step0", "a@step8", "a@step64", "a@step512"]
SITES = ["low", "best"]


def found(name, by, *, after=None, start=False, looked_at=4, tokens=np.nan) -> xr.Dataset:
    """At the best site the answer that is told; at the other one, never."""
    steps = [0.0, 8.0, 64.0, 512.0]
    first = (by if after is None else after) if by is not None else 0
    last = 3 if by is None else by
    members = np.zeros((1, 2, 4), dtype=bool)
    members[0, :, first : last + 1] = True
    axes = ("concept", "site")

    def told(value, otherwise):
        return axes, np.array([[otherwise, value]])

    step = np.nan if by is None else steps[by]
    return xr.Dataset(
        {
            f"{name}_checkpoint": told("" if by is None else NAMES[by], ""),
            f"{name}_step": told(step, np.nan),
            f"{name}_tokens": told(tokens, np.nan),
            f"{name}_step_ci": ((*axes, "bound"), np.full((1, 2, 2), steps[first])),
            f"{name}_set": ((*axes, "checkpoint"), members),
            f"{name}_at_start": told(start, False),
            f"{name}_n": told(looked_at, 4),
            "lasting_checkpoint": told("" if by is None else NAMES[by], ""),
            "lasting_step": told(step, np.nan),
        },
        {"concept": ["toxicity"], "site": SITES, "checkpoint": NAMES, "bound": ["low", "high"]},
        {"margin": 0.15, "confidence": 0.95, "floor": "True"},
    )


@pytest.mark.parametrize(
    ("onset", "told"),
    [
        (found("onset", 2, after=1), "64 (after 8)"),
        (found("onset", 1, after=0, start=True), "8 (or before)"),
        (found("onset", 0, start=True), "0 (from the start)"),
        (found("onset", None), "never"),
        (found("onset", None, looked_at=0), "unknown"),
    ],
)
def test_the_set_is_told_as_it_is_read_aloud(onset, told):
    line = onset_table(onset).splitlines()[1]
    assert line.startswith("toxicity  " + told)


def test_saturation_stands_beside_the_onset_and_every_site_on_a_line_of_its_own():
    text = onset_table(
        found("onset", 1, after=0, tokens=8e6),
        found("saturation", 3, after=2),
        every_site=True,
    )
    lines = text.splitlines()
    assert lines[1].split() == ["toxicity", "low", "never", "never"]
    assert lines[2].split() == [
        "toxicity", "best", "8", "(after", "0)", "8M", "8", "512", "(after", "64)",
    ]  # fmt: skip
    assert "low" not in onset_table(found("onset", 1, after=0)).split("\n\n")[0]
    assert "tokens" not in onset_table(found("onset", 1, after=0)).splitlines()[0]


def test_onset_and_saturation_of_different_runs_are_refused():
    other = found("saturation", 3).assign_coords(concept=["privacy"])
    with pytest.raises(ValueError, match=r"not of the same concepts: toxicity, and privacy"):
        onset_table(found("onset", 1), other)


def test_a_comparison_tells_of_every_site_with_its_interval_and_both_p_values():
    def along(values, **attributes):
        return ("site",), np.array(values), attributes

    change = xr.Dataset(
        {
            "accuracy_before": along([0.5, 0.6]),
            "accuracy_after": along([0.75, 0.6]),
            "accuracy_difference": along([0.25, 0.0]),
            "accuracy_difference_ci": (("site", "bound"), [[0.1, 0.4], [-0.1, 0.1]]),
            "accuracy_difference_n": along([40, 40]),
            "accuracy_difference_p": along([1e-5, 1.0], groups=20),
            "accuracy_difference_p_best": along([2e-3, 1.0]),
            "learned": along([12, 3]),
            "forgotten": along([2, 3]),
        },
        {"site": ["x", "y"], "bound": ["low", "high"]},
        {"concept": "toxicity", "before": "a@step0", "after": "a@step8"},
    )
    lines = comparison_table(change).splitlines()
    assert lines[0].startswith("toxicity: a@step0 to a@step8")
    assert "40 statements in 20 groups" in lines[0]
    assert lines[3].split() == [
        "x", "0.500", "0.750", "0.250", "[0.100,", "0.400]", "<0.001", "0.002", "12", "2",
    ]  # fmt: skip
    assert lines[4].split()[-4:] == ["1.000", "1.000", "3", "3"]


def test_what_is_unknown_is_left_empty_and_never_nought():
    assert with_interval(float("nan"), 0.0, 1.0) == ""
    assert small_number(float("nan")) == ""
    assert small_number(0.0) == "<0.001"
