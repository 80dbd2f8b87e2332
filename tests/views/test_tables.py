import numpy as np
import pytest
import xarray as xr

from tlens_trust.tracing import Trace
from tlens_trust.views import summarise, summary_table

STEPS = [0, 8, 64, 512]
NAMES = [f"toy@step{step}" for step in STEPS]
SITES = [f"blocks.{i}.hook_resid_post" for i in range(3)]
CONCEPTS = ["toxicity", "privacy", "fairness"]
AXES = ("concept", "checkpoint", "site")
FRACTION = {"units": "fraction of statements", "long_name": "held-out accuracy"}


def traced(*, unknown=None, **changed) -> Trace:
    """Layer 2 is read at .9 in the end, and layer 1 at .8; what stands beside differs by layer."""
    accuracy = np.full((len(CONCEPTS), len(STEPS), len(SITES)), 0.5)
    accuracy[:, 2:, 1], accuracy[:, 2:, 2] = 0.8, 0.9
    accuracy[:, 0] = 0.51
    if unknown is not None:
        accuracy[CONCEPTS.index(unknown), -1] = np.nan
    null = np.broadcast_to([[0.40, 0.60], [0.41, 0.61], [0.42, 0.62]], (*accuracy.shape, 2))
    by_cell = np.broadcast_to([[0.55], [0.56], [0.57]], accuracy.shape[:2])
    variables = {
        "accuracy": (AXES, accuracy, FRACTION),
        "accuracy_ci": (
            (*AXES, "bound"),
            np.stack([accuracy - 0.05, accuracy + 0.05], axis=-1),
            FRACTION,
        ),
        "accuracy_null": ((*AXES, "bound"), null, FRACTION),
        "accuracy_floor": (AXES[:2], by_cell, FRACTION),
        "accuracy_q": (AXES[:2], by_cell / 1000, {"units": "1", "long_name": "q"}),
    } | changed
    return Trace(
        xr.Dataset(
            variables,
            {
                "concept": CONCEPTS,
                "checkpoint": NAMES,
                "site": SITES,
                "bound": ["low", "high"],
                "step": ("checkpoint", STEPS),
                "layer": ("site", np.arange(3)),
                "depth": ("site", (np.arange(3) + 1) / 3),
            },
        )
    )


def found(*, steps=True) -> xr.Dataset:
    """What `find_onset` might give: after one step and by another, from the start, and never."""
    at_best = ("concept", "site")
    sites = [*SITES, "best"]

    def best(*values):
        array = np.full((len(CONCEPTS), len(sites)), values[0], dtype=np.array(values).dtype)
        array[:, -1] = values
        return at_best, array

    members = np.zeros((len(CONCEPTS), len(sites), len(STEPS)), dtype=bool)
    members[0, -1, 1:3], members[1, -1, :2], members[2, -1, :] = True, True, True
    share = np.zeros((len(CONCEPTS), len(sites), len(STEPS)))
    share[:, 1] = 0.6
    share[:, 2] = 0.4
    accuracy = np.full(share.shape, 0.7)
    known = np.nan if not steps else 1
    ends = np.full((len(CONCEPTS), len(sites), 2), np.nan)
    ends[:, -1] = [[8, 64], [0, 8], [0, np.nan]]
    return xr.Dataset(
        {
            "onset_checkpoint": best("toy@step64", "toy@step8", ""),
            "onset_step": best(64 * known, 8 * known, np.nan),
            "onset_step_ci": ((*at_best, "bound"), ends * known),
            "onset_at_start": best(False, True, False),
            "onset_n": best(4, 4, 4),
            "onset_set": ((*at_best, "checkpoint"), members),
            "lasting_step": best(512.0, 8.0, np.nan),
            "best_share": ((*at_best, "checkpoint"), share),
            "accuracy": ((*at_best, "checkpoint"), accuracy),
            "accuracy_ci": (
                (*at_best, "checkpoint", "bound"),
                np.stack([accuracy - 0.1, accuracy + 0.1], axis=-1),
            ),
        },
        {"concept": CONCEPTS, "site": sites, "checkpoint": NAMES, "bound": ["low", "high"]},
        {"margin": 0.15, "confidence": 0.95, "floor": "True"},
    )


def test_the_layer_is_the_one_that_other_folds_chose_with_the_accuracy_that_is_of_that_choice():
    frame = summarise(traced(), found()).set_index("concept")
    assert frame["layer"].tolist() == [1, 1, 1]  # chosen most often, though layer 2 shows more
    assert frame["accuracy"].tolist() == [0.7] * 3
    np.testing.assert_allclose(frame[["low", "high"]], [[0.6, 0.8]] * 3)
    assert set(frame["chosen"]) == {"on other folds"}
    # What stands beside is of that layer and the last checkpoint.
    assert frame["null"].tolist() == [0.61] * 3
    assert frame["floor"].tolist() == [0.55, 0.56, 0.57]
    assert frame["untrained"].tolist() == [0.51] * 3


def test_without_folds_to_choose_on_the_choice_is_called_what_it_is():
    frame = summarise(traced())
    assert frame["layer"].tolist() == [2, 2, 2]
    assert frame["accuracy"].tolist() == [0.9] * 3
    assert set(frame["chosen"]) == {"post hoc"}
    assert frame["looked_at"].tolist() == [0, 0, 0]
    text = summary_table(traced())
    assert "optimistic" in text
    assert "onset" not in text
    assert "optimistic" not in summary_table(traced(), found())


def test_the_onset_is_told_with_the_other_end_of_its_set():
    frame = summarise(traced(), found()).set_index("concept")
    assert frame.loc["toxicity", ["onset_step", "after_step", "lasting_step"]].tolist() == [
        64, 8, 512,
    ]  # fmt: skip
    assert frame.loc["privacy", "at_start"]
    assert np.isnan(frame.loc["fairness", "onset_step"])
    lines = summary_table(traced(), found()).splitlines()
    assert lines[1].endswith("64 (after 8)")
    assert lines[2].endswith("8 (or before)")
    assert lines[3].endswith("never")
    assert max(map(len, lines)) <= 100


def test_checkpoints_without_steps_are_told_by_name():
    lines = summary_table(traced(), found(steps=False)).splitlines()
    assert lines[1].endswith("step64 (after step8)")


def test_untrained_weights_that_were_read_for_it_come_before_step_0():
    untrained = np.broadcast_to([0.52, 0.53, 0.54], (3, 4, 3))
    frame = summarise(traced(accuracy_untrained=(AXES, untrained, FRACTION)), found())
    assert frame["untrained"].tolist() == [0.53] * 3


def test_a_concept_that_was_not_read_at_the_last_checkpoint_is_unknown_and_not_zero():
    onset = found()
    onset["accuracy"][{"concept": 1, "checkpoint": -1}] = np.nan
    lines = summary_table(traced(unknown="privacy"), onset).splitlines()
    assert lines[2].split() == ["privacy", "unknown"]
    assert "64 (after 8)" in lines[1]


def test_a_small_q_is_not_rounded_to_nothing():
    text = summary_table(traced(), found())
    assert " 0.001  64" in text
    tiny = (AXES[:2], np.full((3, 4), 1e-5), {"units": "1", "long_name": "q"})
    assert " <0.001  64" in summary_table(traced(accuracy_q=tiny), found())


def test_an_onset_of_another_run_or_of_several_probes_is_refused():
    other = found().assign_coords(checkpoint=[f"other@{step}" for step in STEPS])
    with pytest.raises(ValueError, match=r"not of the same checkpoints: toy@step0.*find_onset"):
        summarise(traced(), other)
    with pytest.raises(ValueError, match=r"several probes.*sel\(probe="):
        summarise(traced(), found().expand_dims(probe=["a", "b"]))
    with pytest.raises(ValueError, match=r"lacks accuracy_ci"):
        summarise(Trace(traced().data.drop_vars("accuracy_ci")))
