import numpy as np
import pytest
import xarray as xr

from tlens_trust.tracing import Trace
from tlens_trust.views import onset_table, summarise, summary_table

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
            "onset_reason": best("", "", "text alone reaches as much"),
            "lasting_checkpoint": best("toy@step512", "toy@step8", ""),
            "lasting_step": best(512.0 * known, 8.0 * known, np.nan),
            "gain": ((*at_best, "checkpoint"), np.zeros(share.shape)),
            "gain_ci": ((*at_best, "checkpoint", "bound"), np.zeros((*share.shape, 2))),
            "best_share": ((*at_best, "checkpoint"), share),
            "accuracy": ((*at_best, "checkpoint"), accuracy),
            "accuracy_ci": (
                (*at_best, "checkpoint", "bound"),
                np.stack([accuracy - 0.1, accuracy + 0.1], axis=-1),
            ),
        },
        {
            "concept": CONCEPTS,
            "site": sites,
            "checkpoint": NAMES,
            "step": ("checkpoint", np.array(STEPS) * known),
            "bound": ["low", "high"],
        },
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
    assert lines[1].endswith("  9–64, not lasting before 512")
    assert lines[2].endswith("  by step 8")
    assert lines[3].endswith("  never (text alone reaches as much)")
    assert max(map(len, lines[4:])) <= 100


def test_the_reason_and_whether_an_onset_lasts_can_be_computed_with():
    frame = summarise(traced(), found()).set_index("concept")
    assert frame["onset_reason"].tolist() == ["", "", "text alone reaches as much"]
    assert frame["is_lasting"].tolist() == [False, True, False]
    assert frame["lasting_checkpoint"].tolist() == ["toy@step512", "toy@step8", ""]
    assert set(summarise(traced())["onset_reason"]) == {"not measured"}


def test_the_words_of_the_summary_are_those_of_the_table_of_onsets():
    onset = found()
    for name in ("tokens", "tokens_ci"):
        onset[f"onset_{name}"] = onset[f"onset_step{name.removeprefix('tokens')}"] * np.nan
    lines = onset_table(onset).splitlines()[1:4]
    for line, row in zip(lines, summarise(traced(), onset).itertuples(), strict=True):
        assert line.removeprefix(row.concept).strip() == row.onset


def test_checkpoints_without_steps_are_told_by_name():
    lines = summary_table(traced(), found(steps=False)).splitlines()
    assert lines[1].endswith("  after step8, by step64, not lasting before step512")


def test_untrained_weights_that_were_read_for_it_come_before_step_0():
    untrained = np.broadcast_to([0.52, 0.53, 0.54], (3, 4, 3))
    frame = summarise(traced(accuracy_untrained=(AXES, untrained, FRACTION)), found())
    assert frame["untrained"].tolist() == [0.53] * 3


def test_a_concept_that_was_not_read_at_the_last_checkpoint_is_unknown_and_not_zero():
    onset = found()
    onset["accuracy"][{"concept": 1, "checkpoint": -1}] = np.nan
    lines = summary_table(traced(unknown="privacy"), onset).splitlines()
    assert lines[2].split() == ["privacy", "unknown"]
    assert "9–64" in lines[1]


def test_a_small_q_is_not_rounded_to_nothing():
    text = summary_table(traced(), found())
    assert " 0.001  9–64" in text
    tiny = (AXES[:2], np.full((3, 4), 1e-5), {"units": "1", "long_name": "q"})
    assert " <0.001  9–64" in summary_table(traced(accuracy_q=tiny), found())


def test_an_onset_of_another_run_or_of_several_probes_is_refused():
    other = found().assign_coords(checkpoint=[f"other@{step}" for step in STEPS])
    with pytest.raises(ValueError, match=r"not of the same checkpoints: toy@step0.*find_onset"):
        summarise(traced(), other)
    with pytest.raises(ValueError, match=r"several probes.*sel\(probe="):
        summarise(traced(), found().expand_dims(probe=["a", "b"]))
    with pytest.raises(ValueError, match=r"lacks accuracy_ci"):
        summarise(Trace(traced().data.drop_vars("accuracy_ci")))


def with_probes(**changed) -> Trace:
    """As `traced`, by a probe of that accuracy and by one that is right a tenth less often."""
    data = traced().data
    worse = data.assign(accuracy=data.accuracy - 0.1, accuracy_ci=data.accuracy_ci - 0.1)
    both = xr.concat([data, worse], dim="probe", data_vars=["accuracy", "accuracy_ci"])
    both = both.transpose("concept", "checkpoint", "site", "probe", ...)
    return Trace(both.assign_coords(probe=["logistic", "lda"]).assign(**changed))


def test_several_probes_have_a_row_each_with_their_own_onset():
    onset = xr.concat([found(), found()], dim="probe").assign_coords(probe=["lda", "logistic"])
    onset["onset_checkpoint"][{"probe": 0}] = ""
    frame = summarise(with_probes(), onset)
    assert frame["probe"].tolist() == ["logistic", "lda"] * 3
    assert frame["onset"].str.startswith("never").tolist() == [False, True, False, True, True, True]
    post_hoc = summarise(with_probes())
    np.testing.assert_allclose(post_hoc["accuracy"], [0.9, 0.8] * 3)
    lines = summary_table(with_probes(), onset).splitlines()
    assert lines[0].split()[:2] == ["concept", "probe"]
    assert [line.split()[1] for line in lines[1:7]] == ["logistic", "lda"] * 3
    assert "probe" not in summary_table(traced(), found())


def test_a_probe_without_an_onset_is_unknown_beside_one_that_has_it():
    frame = summarise(with_probes(), found().expand_dims(probe=["lda"]))
    assert frame["looked_at"].tolist() == [0, 4] * 3
    assert set(frame["onset"][::2]) == {"unknown"}


def leaking(unseen_n=30.0, **changed) -> dict:
    count = {"units": "statements", "long_name": "statements"}
    shape = (3, 4, 3)
    return {
        "accuracy_n": (AXES, np.full(shape, 120), count),
        "accuracy_unseen": (AXES, np.full(shape, 0.625), FRACTION),
        "accuracy_unseen_n": (AXES, np.full(shape, unseen_n), count),
    } | changed


def test_what_leaks_is_told_beside_the_accuracy_and_q_is_said_to_be_of_the_rest():
    frame = summarise(traced(**leaking()))
    assert frame["known"].tolist() == [0.75] * 3
    assert frame["unseen_n"].tolist() == [30] * 3
    text = summary_table(traced(**leaking()))
    assert text.splitlines()[1].split()[-4:] == ["75%", "0.625", "(30)", "0.001"]
    assert "labels of the unseen statements" in text
    assert "leaks" not in summary_table(traced())
    assert "unseen" not in summary_table(traced())


def test_where_everything_leaks_there_is_no_accuracy_of_the_rest_and_nothing_is_made_up():
    nothing = (AXES, np.full((3, 4, 3), np.nan), FRACTION)
    text = summary_table(traced(**leaking(0.0, accuracy_unseen=nothing)))
    assert text.splitlines()[1].split()[-4:] == ["100%", "unknown", "(0)", "0.001"]


def test_leaks_are_of_the_paper_s_probe_alone_where_another_stands_beside_it():
    trace = with_probes(**leaking())
    trace = Trace(trace.data.assign_coords(probe=["logistic", "tracingllm"]))
    frame = summarise(trace)
    assert frame["known"].isna().tolist() == [True, False] * 3
    assert "where leaks are not counted" in summary_table(trace)


@pytest.mark.parametrize(
    ("dropped", "gone", "left"),
    [
        ("accuracy_null", ["null"], ["floor", "untrained", "q"]),
        ("accuracy_floor", ["floor"], ["null", "untrained", "q"]),
        ("accuracy_q", ["q"], ["null", "floor", "untrained"]),
    ],
)
def test_what_is_unknown_for_all_has_neither_column_nor_legend(dropped, gone, left):
    text = summary_table(Trace(traced().data.drop_vars(dropped)))
    heads = text.splitlines()[0].split()
    assert not set(gone) & set(heads)
    assert set(left) <= set(heads)
    legend = text.split("\n\n")[1]
    assert not any(line.startswith(f"{name} ") for name in gone for line in legend.splitlines())
    assert all(name in legend for name in left)


def test_what_else_was_measured_of_a_probe_stands_below_at_the_layer_of_its_row():
    margin = np.broadcast_to([1.0, 2.0, 3.0], (3, 4, 3))
    unit = {"units": "RMS of the site", "long_name": "mean distance"}
    ends = np.stack([margin - 0.5, margin + 0.5], axis=-1)
    more = {"margin": (AXES, margin, unit), "margin_ci": ((*AXES, "bound"), ends, unit)}
    text = summary_table(traced(**more))
    assert "toxicity      2  3.000 [2.500, 3.500]" in text
    assert "mean distance (RMS of the site)" in text
    by_choice = summary_table(traced(**more), found())
    assert "toxicity      1  2.000 [1.500, 2.500]" in by_choice
    assert "margin" not in summary_table(traced())
