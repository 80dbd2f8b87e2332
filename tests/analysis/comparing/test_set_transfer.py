"""Probes of one set of statements, scored on another along training."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tlens_trust.activations import Activations
from tlens_trust.analysis import SeriesReadings, collect_series, trace_transfer
from tlens_trust.checkpoints import Checkpoint
from tlens_trust.concepts import Concept
from tlens_trust.measures import logistic_probe, mlp_probe
from tlens_trust.tracing import trace_checkpoints

PROBE = logistic_probe(C=(0.1, 10.0), folds=3, resamples=100, permutations=199)
SITES = ("blocks.0.hook_resid_post", "blocks.1.hook_resid_post")


def a_set(name, count=50, *, groups=None, **changes):
    concept = Concept(
        name,
        "reliability",
        tuple(f"{name} {row}" for row in range(2 * count)),
        np.tile([0, 1], count),
        tuple(f"{groups or name} {row // 2}" for row in range(2 * count)),
    )
    return replace(concept, **changes)


def read(concept, directions, *, seed=0, shift=0.0):
    """At the second site the label along a direction, at each step another; else noise."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for step, direction in directions.items():
        values = torch.randn(len(concept), 2, 6, generator=generator) + shift
        if direction is not None:
            sign = torch.from_numpy(2.0 * concept.labels - 1).float()
            values[:, 1] += sign[:, None] * 2 * torch.eye(6)[direction]
        found.append(
            Activations(values, SITES, Checkpoint("planted", f"step{step}", step=step), concept)
        )
    return found


def transfer(activations, source, scored_on, **options):
    """Probes of one concept, scored on another or on several, from activations at hand."""
    readings = SeriesReadings.from_activations(activations)
    names = scored_on.name if isinstance(scored_on, Concept) else [s.name for s in scored_on]
    return trace_transfer(readings, source.name, names, **{"progress": False, **options})


@pytest.fixture(scope="module")
def found():
    """Untrained, read by either set's own direction, then by one that both share."""
    source, same, other = a_set("said"), a_set("said again", 40), a_set("other", 40)
    readings = [
        *read(source, {0: None, 1: 0, 2: 0}),
        *read(same, {0: None, 1: 3, 2: 0}, seed=1),
        *read(other, {0: None, 1: 4, 2: None}, seed=2),
    ]
    return transfer(readings, source, [same, other], probe=PROBE)


def test_what_both_sets_share_transfers_and_what_one_of_them_has_does_not(found):
    here = found.isel(site=1)
    shared = here.sel(scored_on="said again").isel(checkpoint=2)
    assert float(shared.accuracy_ci.sel(bound="low")) > 0.85
    assert float(shared.accuracy_p_best) <= 0.02
    assert float(shared.accuracy_q) <= 0.05
    assert abs(float(shared.accuracy_drop)) < 0.08
    for scored_on, checkpoint, known in (
        ("said again", 1, True),
        ("other", 1, True),
        ("other", 2, False),
        ("other", 0, False),
    ):
        cell = here.sel(scored_on=scored_on).isel(checkpoint=checkpoint)
        low, high = cell.auroc_ci.values
        assert low < 0.5 < high
        assert float(cell.accuracy_p) > 0.05
        # Whether it is known in another direction, or not at all.
        assert (float(cell.accuracy_target) > 0.9) == known
    assert (here.accuracy_source.values[1:] > 0.9).all()
    assert float(here.accuracy_drop_ci.sel(bound="low", scored_on="other")[1]) > 0.3
    # At the first site nothing is, in either set.
    assert (found.accuracy_p.isel(site=0) > 0.02).all()


def test_a_claim_needs_the_fitted_set_to_be_read_too():
    """Labels that mean nothing in the one set may give a direction that reads the other."""
    source, target = a_set("noise"), a_set("plain", 40)
    rejected = 0
    for seed in range(12):
        readings = read(source, {1: None}, seed=seed) + read(target, {1: 0}, seed=100 + seed)
        cell = transfer(readings, source, target, probe=PROBE, seed=seed)
        cell = cell.isel(checkpoint=0, site=1)
        rejected += float(cell.accuracy_p) <= 0.05
    assert rejected <= 3
    assert np.ptp(cell.auroc_null.values) > 0.4


def test_the_target_s_labels_move_no_score_and_turned_round_give_no_claim():
    source, target = a_set("said"), a_set("said again", 40)
    first, second = read(source, {1: 0}), read(target, {1: 0}, seed=1)
    turned = replace(target, labels=1 - target.labels)
    results = [
        transfer([*first, replace(second[0], concept=each)], source, each, probe=PROBE).isel(
            checkpoint=0, site=1
        )
        for each in (target, turned)
    ]
    straight, flipped = results
    assert float(straight.accuracy) > 0.9
    np.testing.assert_allclose(straight.accuracy, 1 - flipped.accuracy)
    np.testing.assert_allclose(straight.auroc, 1 - flipped.auroc)
    assert float(flipped.accuracy_p) > 0.9
    assert float(flipped.accuracy_target) > 0.9


def test_a_shift_costs_the_threshold_and_not_the_direction():
    source, target = a_set("said"), a_set("said again", 40)
    readings = read(source, {1: 0}) + read(target, {1: 0}, seed=1, shift=20.0)
    cell = transfer(readings, source, target, probe=PROBE)
    cell = cell.isel(checkpoint=0, site=1)
    assert float(cell.accuracy) < 0.7
    assert float(cell.auroc) > 0.9


def test_a_set_scored_by_its_own_probes_is_cross_validated():
    source = a_set("said")
    readings = read(source, {0: None, 1: 0})
    found = transfer(readings, source, source, probe=PROBE)
    for name in ("accuracy", "auroc", "accuracy_ci", "auroc_ci"):
        own, _, ci = name.partition("_")
        there = f"{own}_source{'_' if ci else ''}{ci}"
        # An interval that is widened afterwards takes its variance from its own width.
        close = 0.02 if ci else 1e-9
        np.testing.assert_allclose(found[name], found[there], atol=close)
        np.testing.assert_allclose(found[there], found[there.replace("source", "target")])
    assert (found.accuracy_drop == 0).all()
    assert int(found.held_out_n) == len(source)


def test_no_group_is_scored_by_a_probe_that_has_seen_it():
    """Each group has a place of its own and a label drawn by lot: only a leak can read it."""
    labels = np.repeat(np.random.default_rng(0).integers(2, size=50), 2)
    source = a_set("first", labels=labels)
    target = a_set("second", groups="first", labels=labels)
    places = torch.randn(50, 2, 200, generator=torch.Generator().manual_seed(0))
    places = places.repeat_interleave(2, dim=0)

    def score(scored):
        readings = [
            Activations(places, SITES, Checkpoint("m", "step1", step=1), each)
            for each in (source, scored)
        ]
        return transfer(readings, source, scored, probe=PROBE)

    held_out = score(target)
    assert (np.abs(held_out.accuracy - 0.5) < 0.25).all()
    assert int(held_out.held_out_n) == 100
    # Under other names nothing says that they belong together.
    leaking = score(replace(target, groups=tuple(f"x{group}" for group in target.groups)))
    assert (leaking.accuracy > 0.95).all()
    assert int(leaking.held_out_n) == 0


def test_what_stands_beside_is_what_a_sweep_says(checkpoints, another_concept, loads):
    source = another_concept("truth", 0)
    scored = {
        "again": replace(another_concept("again", 1), dimension="truth"),
        "more": replace(another_concept("more", 2), dimension="truth"),
    }
    readings = collect_series(checkpoints, {"truth": source, **scored}, store=None)
    found = trace_transfer(readings, "truth", probe=PROBE, seed=3, progress=False)
    assert loads == [each.name for each in checkpoints]
    assert found.scored_on.values.tolist() == ["again", "more"]
    trace = trace_checkpoints(
        checkpoints,
        [source, *scored.values()],
        measures=replace(PROBE, floor=False),
        store=None,
        progress=False,
        seed=3,
    ).data
    for name in ("accuracy", "accuracy_ci", "auroc", "auroc_ci"):
        own, _, ci = name.partition("_")
        tail = "_ci" if ci else ""
        np.testing.assert_allclose(
            found[f"{own}_source{tail}"], trace[name].sel(concept="truth"), atol=1e-9
        )
        for each in scored:
            np.testing.assert_allclose(
                found[f"{own}_target{tail}"].sel(scored_on=each),
                trace[name].sel(concept=each),
                atol=1e-9,
            )


def test_untrained_weights_stand_beside_and_not_among_the_checkpoints(checkpoints, another_concept):
    source = another_concept("truth", 0)
    target = replace(another_concept("again", 1), dimension="truth")

    def compare(series, untrained):
        readings = collect_series(series, [source, target], store=None, untrained=untrained)
        return trace_transfer(readings, "truth", "again", probe=PROBE, progress=False)

    own = compare(checkpoints, "auto")
    assert (own.accuracy_above_untrained.isel(checkpoint=0) == 0).all()
    np.testing.assert_array_equal(own.accuracy_untrained, own.accuracy.values[[0, 0, 0]])
    np.testing.assert_allclose(
        own.accuracy_above_untrained, own.accuracy - own.accuracy_untrained, atol=1e-12
    )
    later = compare(checkpoints[1:], "auto")
    assert later.checkpoint.values.tolist() == [each.name for each in checkpoints[1:]]
    assert later.accuracy_untrained.notnull().all()
    np.testing.assert_array_equal(later.accuracy, own.accuracy[1:])
    assert compare(checkpoints[1:], None).accuracy_untrained.isnull().all()


def test_a_floor_is_told_by_the_words_that_both_sets_share():
    def said(name, cue):
        concept = a_set(name, 40)
        texts = tuple(
            f"{cue[label]} {text}" for label, text in zip(concept.labels, concept.statements,
                                                          strict=True)
        )  # fmt: skip
        return replace(concept, statements=texts)

    source, cued, bare = (
        said("said", ("no", "yes")), said("again", ("no", "yes")), said("bare", ("so", "so")),
    )  # fmt: skip
    readings = [each for concept in (source, cued, bare) for each in read(concept, {1: None})]
    found = transfer(readings, source, [cued, bare], probe=PROBE)
    assert float(found.accuracy_floor.sel(scored_on="again")) == 1.0
    assert abs(float(found.accuracy_floor.sel(scored_on="bare")) - 0.5) < 0.1
    above = found.accuracy_above_floor_ci.sel(scored_on="again", bound="high")
    assert (above < 0).all()
    quick = replace(PROBE, floor=False)
    without = transfer(readings, source, cued, probe=quick)
    for name in ("accuracy_floor", "accuracy_floor_ci", "accuracy_above_floor"):
        assert without[name].isnull().all()


def test_every_number_has_a_unit_an_interval_and_its_axes(found):
    assert found.accuracy.dims == ("scored_on", "checkpoint", "site")
    assert found.accuracy_source.dims == ("checkpoint", "site")
    assert found.step.values.tolist() == [0, 1, 2]
    for name, variable in found.data_vars.items():
        assert {"units", "long_name"} <= variable.attrs.keys(), name
        assert variable.notnull().all(), name
    for stem in (
        "accuracy",
        "auroc",
        "accuracy_source",
        "accuracy_target",
        "auroc_source",
        "accuracy_drop",
        "accuracy_above_floor",
        "accuracy_above_untrained",
        "accuracy_untrained",
    ):
        low, high = (found[f"{stem}_ci"].sel(bound=bound) for bound in ("low", "high"))
        assert ((low <= found[stem] + 1e-9) & (found[stem] <= high + 1e-9)).all(), stem
    assert (found.accuracy_n == 80).all()
    assert (found.accuracy_source_n == 100).all()


def test_the_result_can_be_written_and_read(found, tmp_path):
    import xarray as xr

    found.to_netcdf(tmp_path / "transfer.nc", engine="netcdf4")
    again = xr.load_dataset(tmp_path / "transfer.nc", engine="netcdf4")
    xr.testing.assert_allclose(found, again)


def test_two_sets_without_a_trustworthy_side_may_share_a_name(checkpoints, another_concept):
    one = replace(another_concept("tense", 0), polarity=False)
    other = replace(another_concept("tense", 1), polarity=False)
    readings = collect_series(
        checkpoints[1:], {"tense": one, "another": other}, store=None, untrained=None
    )
    found = trace_transfer(readings, "tense", "another", probe=PROBE, progress=False)
    assert str(found.scored_on.values) == "another"
    assert found.attrs["fitted_on"] == "tense"


def test_what_cannot_be_transferred_is_refused_before_anything_is_read(checkpoints, loads):
    source, target = a_set("said"), a_set("said again")
    cases = [
        (replace(target, dimension="privacy"), "is about reliability"),
        (replace(target, polarity=False), "Neither label of 'said again'"),
        (replace(target, groups=("said 1", "said again 0") * 50,
                 statements=(*source.statements[4:], *target.statements[:4])),
         "occurs in several groups"),
    ]  # fmt: skip
    for scored_on, message in cases:
        readings = collect_series(checkpoints, [source, scored_on], store=None)
        with pytest.raises(ValueError, match=message):
            trace_transfer(readings, "said", progress=False)
    readings = collect_series(checkpoints, [source, target], store=None)
    for names, message in (
        (
            ("said", "sung"),
            r"No activations were read of 'sung'. These readings hold 'said', 'said again'",
        ),
        (("sung",), "No activations were read of 'sung'"),
        (("said", ["said again", "said again"]), "each once"),
        (("said", []), "each once"),
    ):
        with pytest.raises(ValueError, match=message):
            trace_transfer(readings, *names, progress=False)
    with pytest.raises(ValueError, match="two concepts named 'said again'"):
        collect_series(checkpoints, [source, target, target], store=None)
    with pytest.raises(ValueError, match="`untrained` must be"):
        collect_series(checkpoints, [source, target], store=None, untrained="never")
    assert loads == []


def test_a_probe_without_a_direction_cannot_be_transferred():
    source, target = a_set("said"), a_set("said again")
    activations = read(source, {1: 0}) + read(target, {1: 0})
    with pytest.raises(ValueError, match="keeps no direction"):
        transfer(activations, source, target, probe=mlp_probe(folds=3, max_epochs=2))
