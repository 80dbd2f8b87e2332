from dataclasses import replace

import numpy as np
import pytest

from tlens_trust.activations import ActivationStore
from tlens_trust.analysis import (
    SeriesReadings,
    collect_run,
    collect_series,
    direction_genealogy,
    find_forgetting,
    transfer_matrix,
)
from tlens_trust.measures import logistic_probe
from tlens_trust.tracing import trace_checkpoints

PROBE = logistic_probe(C=(0.1, 1.0), folds=3, resamples=20, permutations=20, floor=False)


def test_collecting_reads_nothing_until_a_comparison_comes_to_a_checkpoint(
    checkpoints, concepts, loads
):
    readings = collect_series(checkpoints, concepts, store=None)
    assert loads == []
    readings.at(0)
    assert loads == [checkpoints[0].name]


@pytest.mark.parametrize("has_store", [True, False])
def test_each_model_is_loaded_once_for_several_comparisons_and_concepts(
    saved, concepts, loads, tmp_path, has_store
):
    store = ActivationStore(tmp_path) if has_store else None
    readings = collect_series(saved[1:], concepts, store=store)
    for concept in concepts:
        transfer_matrix(readings, concept, probe=PROBE, permutations=5, progress=False)
        direction_genealogy(
            readings, concept.name, direction="mass_mean", splits=2, blocks=3, permutations=4,
            progress=False,
        )  # fmt: skip
    assert loads == [checkpoint.name for checkpoint in saved[1:]]


def test_without_a_store_activations_stay_in_memory_and_with_one_they_do_not(
    checkpoints, concepts, tmp_path
):
    in_memory = collect_series(checkpoints, concepts, store=None)
    assert in_memory.at(0) is in_memory.at(0)
    stored = collect_series(checkpoints, concepts, store=ActivationStore(tmp_path))
    assert stored.at(0) is not stored.at(0)
    for held, fetched in zip(in_memory.at(2), stored.at(2), strict=True):
        np.testing.assert_array_equal(held.values, fetched.values)


def test_random_weights_are_read_only_when_they_are_needed_and_are_no_checkpoint(
    checkpoints, concepts, loads
):
    readings = collect_series(checkpoints[1:], concepts, store=None)
    assert readings.untrained not in (None, "", *readings.checkpoints)
    list(readings)
    assert loads == [checkpoint.name for checkpoint in checkpoints[1:]]
    assert [activations.concept for activations in readings.at_untrained()] == list(concepts)
    assert len(readings) == 2
    assert readings.untrained_number(0) is None
    at_step_0 = collect_series(checkpoints, concepts, store=None)
    assert (at_step_0.untrained, at_step_0.untrained_number(2)) == ("", 0)
    assert at_step_0.at_untrained() is None


def test_a_concept_is_chosen_by_its_name_or_itself_and_by_the_name_of_a_mapping(
    checkpoints, concepts
):
    first, second = concepts
    readings = collect_series(checkpoints, {"new name": first, second.name: second}, store=None)
    for choice in ("new name", first):
        chosen = readings.select(choice)
        assert [concept.name for concept in chosen.concepts] == ["new name"]
        assert chosen.original_names == (first.name,)
        (activations,) = chosen.at(0)
        np.testing.assert_array_equal(activations.values, readings.at(0)[0].values)
    turned = readings.select([second, "new name"])
    assert [activations.concept.name for activations in turned.at(0)] == [second.name, "new name"]


def test_what_was_not_read_is_refused_before_anything_is_read(checkpoints, concepts, loads):
    readings = collect_series(checkpoints, concepts, store=None)
    others = replace(concepts[0], labels=1 - concepts[0].labels)
    for concept, message in (
        (None, "one concept at a time"),
        ("sung", "No activations were read of 'sung'"),
        (others, "Other statements were read as 'truth'"),
    ):
        with pytest.raises(ValueError, match=message):
            transfer_matrix(readings, concept, progress=False)
    for concepts_twice in ([], ["truth", "truth"]):
        with pytest.raises(ValueError, match="each once"):
            readings.select(concepts_twice)
    with pytest.raises(ValueError, match="`sites` got an empty sequence"):
        collect_series(checkpoints, concepts, sites=[])
    assert loads == []


def test_activations_at_hand_are_refused_where_there_are_none_or_they_lack_a_baseline(planted):
    activations = planted({1: None})
    with pytest.raises(ValueError, match="`activations` is empty"):
        SeriesReadings.from_activations([])
    for untrained, message in (("random", "Random weights have to be read"), ("step0", "step 0")):
        with pytest.raises(ValueError, match=message):
            SeriesReadings.from_activations(activations, untrained=untrained)


@pytest.fixture
def run_folder(checkpoints, concepts, tmp_path):
    trace_checkpoints(
        checkpoints, concepts, measures=PROBE, out=tmp_path / "run", store=None, position="mean",
        bos=False, progress=False,
    )  # fmt: skip
    return tmp_path / "run"


def test_a_run_is_collected_as_it_was_read(run_folder, checkpoints, concepts):
    as_run = collect_run(run_folder, checkpoints, "truth", store=None)
    directly = collect_series(checkpoints, concepts, position="mean", bos=False, store=None)
    assert as_run.concepts == (concepts[0],)
    assert as_run.sites == directly.sites
    np.testing.assert_array_equal(as_run.at(2)[0].values, directly.at(2)[0].values)
    otherwise = collect_series(checkpoints, concepts, store=None)
    assert (as_run.at(2)[0].values != otherwise.at(2)[0].values).any()


def test_forgetting_takes_readings_of_the_run_and_refuses_others(run_folder, checkpoints, concepts):
    options = {"layer": 0, "measure": PROBE, "refits": 2, "progress": False}
    readings = collect_run(run_folder, checkpoints, ["truth"], store=None)
    forgetting = find_forgetting(run_folder, "truth", readings, **options)
    assert forgetting.right_share.notnull().all()
    at_one_site = collect_run(run_folder, checkpoints, "truth", sites=[0], store=None)
    again = find_forgetting(run_folder, "truth", at_one_site, **options)
    np.testing.assert_array_equal(again.right_share, forgetting.right_share)
    others = replace(concepts[0], labels=1 - concepts[0].labels)
    for wrong, message in (
        (collect_run(run_folder, checkpoints[1:], "truth", store=None), "lack 'tiny@step0'"),
        (collect_run(run_folder, checkpoints, "truth", sites=[1], store=None), "lack the site"),
        (collect_series(checkpoints, others, store=None), "Other statements were read as 'truth'"),
    ):
        with pytest.raises(ValueError, match=message):
            find_forgetting(run_folder, "truth", wrong, **options)
