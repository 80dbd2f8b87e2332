"""Every checkpoint is held against untrained weights, statement by statement."""

import numpy as np
import pytest

from tlens_trust.analysis import information_plane
from tlens_trust.checkpoints import Checkpoint, CheckpointSeries
from tlens_trust.concepts import Concept
from tlens_trust.measures import (
    kernel_dependence,
    logistic_probe,
    mass_mean_probe,
    tracingllm_probe,
)
from tlens_trust.tracing import Trace, load_scores
from tlens_trust.tracing.assembly import CheckpointRecord, find_untrained, is_step_0
from tlens_trust.tracing.sweep_arguments import choose_untrained

ABOVE = "accuracy_above_untrained"


@pytest.fixture(scope="module")
def vague():
    """Two concepts that the tiny models read now and then: the word that tells comes first."""
    found = []
    for seed, name in enumerate(("truth", "kindness")):
        generator = np.random.default_rng(seed)
        statements, groups = [], []
        for pair in range(20):
            middle = " ".join(f"w{i}" for i in generator.integers(8, 40, size=6))
            statements += [f"w{2 * seed + label} {middle} w7" for label in (0, 1)]
            groups += [f"pair {pair}"] * 2
        labels = np.arange(40) % 2
        found.append(Concept(name, name, tuple(statements), labels, tuple(groups)))
    return found


@pytest.fixture(scope="module")
def probe():
    return logistic_probe(C=(1.0,), folds=3, resamples=50, permutations=20, floor=False)


@pytest.fixture
def sweep(sweep, vague, probe):
    def run(series=None, wanted=None, **arguments):
        return sweep(
            series, vague if wanted is None else wanted, **({"measures": probe} | arguments)
        )

    return run


def right(scores):
    return ((scores > 0) == (scores["label"] == 1)).astype(float)


def test_accuracy_is_held_against_step_0_at_the_same_site(sweep, tmp_path):
    trace = sweep(out=tmp_path)
    data = trace.data
    for name in ("accuracy", "balanced_accuracy", "auroc", "cross_entropy"):
        for suffix in ("", "_ci"):
            own, beside = data[f"{name}{suffix}"], data[f"{name}_untrained{suffix}"]
            for step in range(3):
                np.testing.assert_array_equal(beside[:, step], own[:, 0])
    np.testing.assert_allclose(data[ABOVE], data.accuracy - data.accuracy_untrained, atol=1e-12)
    assert (data[ABOVE][:, 0] == 0).all()
    assert float(abs(data[ABOVE]).max()) > 0.05
    assert data.accuracy_untrained.attrs["untrained"] == "tiny@step0"
    assert {"accuracy_untrained", ABOVE, f"{ABOVE}_ci"}.isdisjoint(trace.quantities)


def test_the_difference_is_taken_statement_by_statement(sweep, tmp_path):
    data = sweep(out=tmp_path).data.sel(concept="truth")
    told = right(load_scores(tmp_path, "truth"))
    gain = told - told.isel(checkpoint=0)
    np.testing.assert_allclose(data[ABOVE], gain.mean("example"), atol=1e-12)
    spread = gain.isel(checkpoint=2).groupby("group").mean("example").std("group", ddof=1)
    width = (data[f"{ABOVE}_ci"].sel(bound="high") - data[f"{ABOVE}_ci"].sel(bound="low"))[2]
    # Student's 2.1 on 20 groups, on either side; what the folds share makes it wider.
    assert (width > 0.7 * 2 * 2.1 * spread / np.sqrt(20)).all()
    low, high = (data[f"{ABOVE}_ci"].sel(bound=bound) for bound in ("low", "high"))
    assert ((low <= data[ABOVE]) & (data[ABOVE] <= high)).all()


def test_what_both_read_alike_leaves_no_doubt(sweep, checkpoints):
    """The control: the same weights again, under another step."""
    again = Checkpoint(
        "tiny",
        "step9",
        step=9,
        in_memory=checkpoints[0].in_memory,
        tokenizer=checkpoints[0].tokenizer,
    )
    data = sweep([checkpoints[0], again]).data
    assert (data[ABOVE] == 0).all()
    assert (data[f"{ABOVE}_ci"] == 0).all()
    other = sweep(checkpoints[:2]).data
    wide = other[f"{ABOVE}_ci"].sel(bound="high") - other[f"{ABOVE}_ci"].sel(bound="low")
    assert (wide[:, 1] > 0.05).all()


def test_memory_folder_interruption_and_light_cells_give_the_same(
    sweep, checkpoints, vague, probe, tmp_path
):
    probes = [probe, mass_mean_probe(folds=3, resamples=50, permutations=20, floor=False)]
    at_once = sweep(wanted=vague[:1], measures=probes)
    sweep(checkpoints[1:], vague[:1], measures=probes, out=tmp_path, untrained=None)
    assert ABOVE not in Trace.load(tmp_path).data
    in_parts = sweep(wanted=vague[:1], measures=probes, out=tmp_path)
    assert in_parts.data.equals(at_once.data)
    assert Trace.load(tmp_path).data.equals(at_once.data)
    assert at_once.data[ABOVE].dims == ("concept", "checkpoint", "probe", "site")
    alone = sweep(wanted=vague[:1], measures=probes[1]).data
    np.testing.assert_array_equal(at_once.data[ABOVE].sel(probe="mass_mean"), alone[ABOVE])


def test_step_0_of_an_earlier_sweep_serves_a_later_one(sweep, checkpoints, vague, loads, tmp_path):
    whole = sweep(out=tmp_path)
    loads.clear()
    part = sweep(checkpoints[2:], vague[:1], out=tmp_path)
    assert loads == []
    assert part.checkpoints == ("tiny@step64",)
    np.testing.assert_array_equal(part.data[ABOVE], whole.data[ABOVE][:1, 2:])
    assert part.data.accuracy_untrained.attrs["untrained"] == "tiny@step0"


@pytest.mark.parametrize("kept", [False, True])
def test_without_a_step_0_random_weights_are_read_and_stay_off_the_axis(
    sweep, saved, loads, tmp_path, kept
):
    options = {"out": tmp_path / "run"} if kept else {}
    trace = sweep(saved[1:], **options)
    assert [name.partition("@")[2] for name in loads] == ["random0", "step8", "step64"]
    assert trace.steps == (8, 64)
    (name,) = {n for n in loads if n.endswith("@random0")}
    assert trace.data.accuracy_untrained.attrs["untrained"] == name
    # The same weights, traced on their own.
    own = sweep([saved[1].untrained(seed=0)])
    for step in range(2):
        np.testing.assert_array_equal(
            trace.data.accuracy_untrained[:, step], own.data.accuracy[:, 0]
        )
    np.testing.assert_allclose(
        trace.data[ABOVE], trace.data.accuracy - trace.data.accuracy_untrained, atol=1e-12
    )
    if kept:
        assert Trace.load(tmp_path / "run") == trace
        loads.clear()
        assert sweep(saved[1:], **options) == trace
        assert loads == []
        scores = load_scores(tmp_path / "run", "truth")
        assert scores["step"].values.tolist() == [8, 64]


def test_random_weights_on_request_stand_in_for_step_0(sweep, checkpoints):
    at_random = sweep(checkpoints, untrained="random", seed=5).data
    at_step_0 = sweep(checkpoints, untrained="step0", seed=5).data
    assert at_random.accuracy_untrained.attrs["untrained"] == "tiny@random5"
    assert (at_random.accuracy_untrained != at_step_0.accuracy_untrained).any()
    np.testing.assert_array_equal(at_random.accuracy, at_step_0.accuracy)
    assert (at_random[ABOVE][:, 0] != 0).any()


def test_models_in_memory_have_random_weights_too(sweep, checkpoints):
    trace = sweep(checkpoints[2:], seed=4)
    assert trace.data.accuracy_untrained.attrs["untrained"] == "tiny@random4"
    assert trace.data[ABOVE].notnull().all()


def test_none_reads_nothing_more_and_says_nothing(sweep, saved, loads):
    trace = sweep(saved[1:2], untrained=None)
    assert len(loads) == 1
    assert not [name for name in trace.data.data_vars if "untrained" in str(name)]
    with pytest.raises(ValueError, match="no untrained level of 'accuracy'"):
        trace.above_untrained()


def test_where_there_are_none_it_is_unknown_and_says_why(sweep, checkpoints, saved, tmp_path):
    stranger = Checkpoint(
        "stranger",
        "step5",
        step=5,
        in_memory=checkpoints[1].in_memory,
        tokenizer=checkpoints[1].tokenizer,
    )
    trace = sweep([checkpoints[0], checkpoints[1], stranger])
    data = trace.data
    assert data[ABOVE][:, :2].notnull().all()
    assert data[ABOVE][:, 2].isnull().all()
    assert data.accuracy_untrained[:, 2].isnull().all()
    why = data.accuracy_untrained.attrs["untrained"]
    assert why.startswith("tiny@step0; for others unknown: there is no step 0, and the checkpoints")
    assert "of 2 models" in why
    assert not trace.above_untrained()[:, 2].any()
    trace.save(tmp_path / "trace.nc")
    assert Trace.load(tmp_path / "trace.nc") == trace


def choose(checkpoints, untrained="auto", series=None, known=()):
    return choose_untrained(
        untrained,
        checkpoints if series is None else series,
        checkpoints,
        known,
        seed=0,
    )


def test_auto_draws_nothing_where_it_can_not_and_a_request_is_refused():
    class Hooked:
        """Made by TransformerLens."""

    hooked = [Checkpoint("h", "step8", step=8, in_memory=Hooked())]
    assert choose(hooked).name == ""
    assert choose(hooked).template is None
    assert "TransformerLens made" in choose(hooked).missing_reason
    with pytest.raises(ValueError, match=r"Random weights cannot be drawn.*TransformerLens made"):
        choose(hooked, "random")
    spread = [Checkpoint("h", "step8", step=8)]
    assert choose(spread).template is spread[0]
    spread = [spread[0].loaded_with(device_map="auto")]
    assert "device_map" in choose(spread).missing_reason
    several = [Checkpoint(f"h{seed}", f"step{8 * seed}", step=8 * seed) for seed in (1, 2)]
    assert "2 models" in choose(several).missing_reason
    run = CheckpointSeries("h", tuple(several))
    assert choose(several, series=run).template is several[0]


def test_step_0_that_is_asked_for_must_be_there():
    late = [Checkpoint("h", "step8", step=8)]
    with pytest.raises(ValueError, match=r"untrained='step0' needs step 0 of 'h'.*'random'"):
        choose(late, "step0")
    known = [record("h", "step0", 0)]
    assert choose(late, "step0", known=known).name == ""
    with pytest.raises(ValueError, match=r"'auto', 'step0', 'random' or None, got 'first'"):
        choose(late, "first")


def record(model, revision, step, *, tokens=None, stage=None, **more):
    return CheckpointRecord(
        name=f"{model}@{revision}",
        model=model,
        revision=revision,
        step=step,
        tokens=tokens,
        stage=stage,
        loss=None,
        identity="0",
        **more,
    )


@pytest.mark.parametrize(
    ("step_0", "expected"),
    [
        (record("m", "step0", 0), True),
        (record("m", "stage1-step0-tokens0B", 0, tokens=0, stage="stage1"), True),
        (record("m", "step1", 1), False),
        (record("m", "main", None), False),
        (record("m", "stage2-step0", 0, stage="stage2"), False),
        (record("m", "ckpt_000", 0), False),
        (record("m", "step0", 0, tokens=3_500_000_000), False),
    ],
)
def test_step_0_is_one_that_has_seen_nothing(step_0, expected):
    assert is_step_0(step_0) is expected
    later = record("m", "step9", 9)
    assert (find_untrained(later, [later, step_0]) is step_0) is expected


def test_a_checkpoint_is_held_against_its_own_model():
    records = [record(model, f"step{step}", step) for model in ("a", "b") for step in (0, 9)]
    assert find_untrained(records[3], records) is records[2]
    assert find_untrained(record("c", "step9", 9), records) is None
    drawn = record("a", "random", None, drawn=True)
    named = record("a", "step9", 9, untrained=drawn.name)
    assert find_untrained(named, [*records, drawn]) is drawn
    assert find_untrained(record("a", "step9", 9, untrained=None), records) is None


def test_by_the_paper_s_protocol_the_test_statements_are_compared(
    sweep, checkpoints, vague, probe, tmp_path
):
    measures = [
        probe,
        tracingllm_probe(resamples=50, permutations=20, floor=False),
    ]
    data = sweep(checkpoints[:2], vague[:1], measures=measures, out=tmp_path).data
    above = data[ABOVE].sel(probe="tracingllm", checkpoint="tiny@step8")
    told = right(load_scores(tmp_path, "truth").sel(probe="tracingllm")).isel(
        example=slice(32, None)
    )
    gain = (told.isel(checkpoint=1) - told.isel(checkpoint=0)).mean("example")
    np.testing.assert_allclose(above.squeeze(), gain, atol=1e-12)
    np.testing.assert_allclose(data[ABOVE], data.accuracy - data.accuracy_untrained, atol=1e-12)
    assert data[f"{ABOVE}_ci"].notnull().all()


def test_a_measure_without_an_accuracy_has_nothing_to_compare(sweep, norm_measure):
    data = sweep(measures=norm_measure()).data
    assert not [name for name in data.data_vars if "untrained" in str(name)]


def test_what_kernels_give_is_held_against_untrained_weights_too(sweep, saved):
    measures = [kernel_dependence(permutations=20, resamples=4)]
    data = sweep(saved[1:], measures=measures, seed=3).data
    own = sweep([saved[1].untrained(seed=3)], measures=measures, seed=3).data
    for step in range(len(saved) - 1):
        np.testing.assert_allclose(data.cka_untrained[:, step], own.cka[:, 0], rtol=1e-6)
    assert "random" in data.cka_untrained.attrs["untrained"]
    plane = information_plane(Trace(data), estimator="cka")
    np.testing.assert_allclose(
        plane.x_untrained,
        own.cka[:, 0].sel(against="first_block", variant="raw", width=1.0),
        rtol=1e-6,
    )
    assert plane.x_untrained.attrs["untrained"] == data.cka_untrained.attrs["untrained"]
    assert float(abs(data.cka - data.cka_untrained).max()) > 0.01
