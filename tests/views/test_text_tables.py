import re

import numpy as np
import pytest
import xarray as xr

from tlens_trust.analysis.onset.reasons import (
    NOT_ABOVE_NULL,
    NOT_MEASURED,
    STILL_RISING,
    TEXT_ALONE,
    TOO_FEW,
)
from tlens_trust.views import comparison_table, onset_table
from tlens_trust.views.text_tables import small_number, with_interval

NAMES = ["a@step0", "a@step8", "a@step64", "a@step512"]
STEPS = [0.0, 8.0, 64.0, 512.0]
SITES = ["low", "best"]


def found(
    name,
    by,
    *,
    after=None,
    start=False,
    lasting=None,
    last_high=0.5,
    looked_at=4,
    tokens=np.nan,
    reason=TEXT_ALONE,
    names=NAMES,
    steps=STEPS,
    floor=True,
) -> xr.Dataset:
    """At the best site the answer that is told; at the other one, never.

    `lasting` is the checkpoint from which on it lasts (-1 for none), by default the onset's own;
    `last_high` the upper bound of the gain at the last checkpoint.
    """
    first = (by if after is None else after) if by is not None else 0
    last = 3 if by is None else by
    lasting = by if lasting is None else lasting
    members = np.zeros((1, 2, 4), dtype=bool)
    members[0, :, first : last + 1] = True
    axes = ("concept", "site")
    value = {"onset": "gain", "saturation": "shortfall"}[name]
    bounds = np.zeros((1, 2, 4, 2))
    bounds[..., -1, 1] = last_high

    def told(value, otherwise):
        return axes, np.array([[otherwise, value]])

    step = np.nan if by is None else steps[by]
    lasts = by is not None and lasting >= 0
    return xr.Dataset(
        {
            f"{name}_checkpoint": told("" if by is None else names[by], ""),
            f"{name}_step": told(step, np.nan),
            f"{name}_tokens": told(tokens, np.nan),
            f"{name}_tokens_ci": ((*axes, "bound"), np.array([[[np.nan] * 2, [0.0, tokens]]])),
            f"{name}_step_ci": ((*axes, "bound"), np.full((1, 2, 2), steps[first])),
            f"{name}_set": ((*axes, "checkpoint"), members),
            f"{name}_at_start": told(start, False),
            f"{name}_n": told(looked_at, 4),
            f"{name}_reason": told("" if by is not None else reason, TOO_FEW),
            "lasting_checkpoint": told(names[lasting] if lasts else "", ""),
            "lasting_step": told(steps[lasting] if lasts else np.nan, np.nan),
            value: ((*axes, "checkpoint"), np.zeros((1, 2, 4))),
            f"{value}_ci": ((*axes, "checkpoint", "bound"), bounds),
        },
        {
            "concept": ["toxicity"],
            "site": SITES,
            "checkpoint": names,
            "step": ("checkpoint", steps),
            "bound": ["low", "high"],
        },
        {"margin": 0.15, "confidence": 0.95, "floor": str(floor)},
    )


def line_of(onset) -> str:
    """What the table says of the concept."""
    return onset_table(onset).splitlines()[1].removeprefix("toxicity  ")


@pytest.mark.parametrize(
    ("onset", "told"),
    [
        (found("onset", 2, after=1), "9–64"),
        (found("onset", 3, after=1), "9–512"),
        (found("onset", 1, after=0, start=True), "by step 8"),
        (found("onset", 0, start=True), "by step 0 (first checkpoint)"),
        (found("onset", None), "never (text alone reaches as much)"),
        (found("onset", None, reason=NOT_ABOVE_NULL), "never (not above the null)"),
        (found("onset", None, reason=TOO_FEW), "never (too few statements)"),
        (found("onset", None, reason=NOT_MEASURED), "unknown"),
        (found("onset", None, looked_at=0, reason=NOT_MEASURED), "unknown"),
    ],
)
def test_an_onset_is_an_interval_or_the_reason_why_there_is_none(onset, told):
    assert line_of(onset) == told


def test_an_interval_of_one_step_is_that_step():
    assert line_of(found("onset", 2, after=1, steps=[0.0, 8.0, 9.0, 10.0])) == "9"


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, "1–8"),
        ({"lasting": 3}, "1–8, not lasting before 512"),
        ({"lasting": -1, "last_high": 0.1}, "1–8, lost again by 512"),
        # That little is shown at the last checkpoint does not show that the concept is lost.
        ({"lasting": -1, "last_high": 0.3}, "1–8, not shown at 512"),
    ],
)
def test_what_does_not_last_is_said_to_and_what_lasts_is_not(changed, told):
    onset = found("onset", 1, after=0, **changed)
    assert line_of(onset) == told
    phrase = told.partition(", ")[2].rpartition(" ")[0]
    legend = onset_table(onset).partition("\n\n")[2]
    for each in ("Not lasting before:", "Lost again by:", "Not shown at:"):
        assert (each in legend) == (each.lower() == f"{phrase}:"), each


def test_checkpoints_without_steps_or_of_steps_that_start_again_are_named():
    nowhere = [np.nan] * 4
    assert line_of(found("onset", 2, after=1, steps=nowhere)) == "after step8, by step64"
    assert line_of(found("onset", 1, start=True, steps=nowhere, after=0)) == "by step8"
    stages = [f"m@stage{1 + i // 2}-step{100 * (1 + i % 2)}" for i in range(4)]
    again = found("onset", 2, after=1, names=stages, steps=[100.0, 200.0, 100.0, 200.0])
    assert line_of(again) == "after stage1-step200, by stage2-step100"
    # Later stages may count on from the one before, and a range across them says little.
    on = found("onset", 2, after=1, names=stages, steps=[100.0, 200.0, 300.0, 400.0])
    assert line_of(on) == "201–300"
    on = on.assign_coords(stage=("checkpoint", ["stage1", "stage1", "stage2", "stage2"]))
    assert line_of(on) == "after stage1-step200, by stage2-step100"


def test_revisions_of_different_models_are_told_apart():
    models = ["base@main", "sft@main", "dpo@main", "rl@main"]
    assert line_of(found("onset", 2, after=1, names=models, steps=[np.nan] * 4)) == (
        "after sft@main, by dpo@main"
    )
    # A run that began with steps has some.
    assert line_of(found("onset", 1, after=0, names=models, steps=[64.0, *[np.nan] * 3])) == (
        "after 64, by sft@main"
    )


def test_the_legend_explains_what_the_table_says_and_nothing_else():
    text = " ".join(onset_table(found("onset", 3, after=1)).split())
    assert (
        "9–512: after step 8 and by step 512; checkpoints between, if any, do not decide." in text
    )
    assert "accuracy above its null and its text floor" in text
    assert "97.5% sure" in text
    assert "Never" not in text
    assert "first one is not excluded" not in text
    never = " ".join(onset_table(found("onset", None, floor=False)).split())
    assert "Never (text alone reaches as much): a text-only baseline" in never
    assert "and its text floor" not in never
    assert "97.5% sure" not in never
    start = " ".join(onset_table(found("onset", 1, after=0, start=True)).split())
    assert "By: at that checkpoint or before it; even the first one is not excluded." in start
    assert "Before that" in text
    assert "Before that" not in start


def test_a_saturation_that_comes_and_goes_is_said_to():
    text = onset_table(found("onset", 1, after=0), found("saturation", 1, after=0, lasting=-1))
    assert re.split("  +", text.splitlines()[1])[1:] == ["1–8", "1–8, not lasting before 512"]
    never = found("saturation", None, reason=STILL_RISING)
    assert "never (not level before the last checkpoint)" in onset_table(
        found("onset", 1, after=0), never
    )


def test_saturation_stands_beside_the_onset_and_every_site_on_a_line_of_its_own():
    text = onset_table(
        found("onset", 1, after=0, tokens=8e6),
        found("saturation", 3, after=2),
        every_site=True,
    )
    lines = text.splitlines()
    few = "never (too few statements)"
    assert re.split("  +", lines[1]) == ["toxicity", "low", few, few]
    assert re.split("  +", lines[2]) == ["toxicity", "best", "1–8", "after 0, by 8M", "65–512"]
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
