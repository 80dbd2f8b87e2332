import pickle

import numpy as np
import pytest
import torch

from tlens_trust.activations import ActivationStore, collect_activations
from tlens_trust.measures import logistic_probe, mass_mean_probe, tracingllm_probe
from tlens_trust.tracing import Trace, load_scores, probe_checkpoints, trace_checkpoints
from tlens_trust.tracing import sweep as sweep_module
from tlens_trust.tracing.sweep import trace_checkpoint
from tlens_trust.tracing.sweep_arguments import (
    checked_checkpoints,
    checked_concepts,
    checked_measures,
)


def test_every_number_is_what_the_measure_says_of_that_checkpoint_and_concept(
    sweep, checkpoints, concepts
):
    trace = sweep()
    assert trace.data["norm"].shape == (2, 3, 2)
    for concept in concepts:
        for checkpoint in checkpoints:
            read = collect_activations(checkpoint, concept)
            cell = trace.sel(concept=concept.name, checkpoint=checkpoint.name)
            norms = read.values.norm(dim=-1).double().mean(dim=0)
            np.testing.assert_allclose(cell.data["norm"].squeeze(), norms, rtol=1e-12)
    # The checkpoints are different models, and the concepts different texts.
    assert len(np.unique(trace.data["norm"])) == 12


def test_a_trace_names_steps_layers_weights_and_what_it_was_made_with(sweep, checkpoints, concepts):
    trace = sweep(seed=7)
    data = trace.data
    assert trace.steps == (0, 8, 64)
    assert data["layer"].values.tolist() == [0, 1]
    assert data["depth"].values.tolist() == [0.5, 1.0]
    assert data["identity"].values.tolist() == [c.identity for c in checkpoints]
    assert data["n_statements"].values.tolist() == [24, 24]
    assert data["n_groups"].values.tolist() == [12, 12]
    made = trace.provenance
    assert made["settings"]["seed"] == 7
    assert made["settings"]["measures"] == ["norm(norm, activation)"]
    assert made["versions"]["torch"] == torch.__version__
    assert made["concepts"]["truth"]["fingerprint"] == concepts[0].fingerprint
    assert "created" in data.attrs


def test_every_variable_has_a_unit_a_long_name_and_an_n(checkpoints, concepts):
    trace = probe_checkpoints(checkpoints[:1], concepts[:1], store=None, progress=False)
    for name, variable in trace.data.data_vars.items():
        assert variable.attrs["units"], name
        assert variable.attrs["long_name"], name
    for name in ("accuracy", "balanced_accuracy", "auroc", "cross_entropy"):
        assert (trace.data[f"{name}_n"] == 24).all()
        assert trace.data[f"{name}_ci"].dims[-1] == "bound"
    assert trace.data.cross_entropy.attrs["units"] == "nats"
    for name in trace.quantities:
        assert f"{name}_n" in trace.data or trace.data["n_statements"].values[0] == 24


def test_neither_order_nor_company_changes_a_number(
    sweep, checkpoints, concepts, quick_probe, another_concept
):
    options = {"measures": [quick_probe, mass_mean_probe(folds=3, resamples=20)]}
    there = sweep(**options).data
    back = sweep(checkpoints[::-1], [*concepts[::-1], another_concept("third", 2)], **options).data
    assert back["checkpoint"].values.tolist() == [c.name for c in checkpoints[::-1]]
    aligned = back.reindex_like(there)
    # A correction for all that a trace holds does change with what else it holds.
    for name in there.drop_vars("accuracy_q").data_vars:
        np.testing.assert_array_equal(aligned[name], there[name], err_msg=str(name))
    alone = sweep(checkpoints[1], concepts[0], **options).data
    np.testing.assert_array_equal(alone.accuracy, there.accuracy[:1, 1:2])


def test_another_seed_changes_what_is_drawn(sweep):
    same, again, other = sweep(seed=0), sweep(seed=0), sweep(seed=1)
    assert same == again
    assert (same.data["drawn"] != other.data["drawn"]).all()
    np.testing.assert_array_equal(same.data["norm"], other.data["norm"])


def test_each_checkpoint_is_loaded_once_for_all_concepts_and_measures(
    sweep, checkpoints, loads, norm_measure
):
    sweep(measures=[norm_measure(), norm_measure(name="other", variable="spread")])
    assert loads == [checkpoint.name for checkpoint in checkpoints]


def test_a_second_sweep_reads_no_model_where_the_store_holds_the_readings(
    sweep, saved, loads, tmp_path
):
    store = ActivationStore(tmp_path / "store")
    first = sweep(saved, store=store)
    assert len(loads) == 3
    second = sweep(saved, store=store, out=tmp_path / "run")
    assert len(loads) == 3
    assert second == first
    sweep(saved[:1], store=store, position="mean")
    assert len(loads) == 4


def test_a_number_that_is_unknown_stays_nan(sweep, norm_measure, tmp_path):
    class Unknown(norm_measure):
        def __call__(self, activations, concept, *, seed):
            found = super().__call__(activations, concept, seed=seed)
            if concept.name == "truth":
                found["norm"][0] = np.nan
            return found

    trace = sweep(measures=Unknown(), out=tmp_path / "run")
    for made in (trace, Trace.load(tmp_path / "run"), Trace.load(tmp_path / "run" / "trace.nc")):
        assert np.isnan(made.data["norm"].sel(concept="truth").isel(site=0)).all()
        assert np.isfinite(made.data["norm"].sel(concept="truth").isel(site=1)).all()
        assert np.isfinite(made.data["norm"].sel(concept="kindness")).all()
    assert "unknown" not in repr(trace)


def test_what_a_measure_says_of_a_cell_as_a_whole_has_no_site(sweep, norm_measure, tmp_path):
    class Whole(norm_measure):
        def __call__(self, activations, concept, *, seed):
            found = super().__call__(activations, concept, seed=seed)
            step = activations.checkpoint.step
            return found.assign(whole=((), float(step), {"units": "steps", "long_name": "step"}))

    trace = sweep(measures=Whole(), out=tmp_path)
    assert trace.data["whole"].dims == ("concept", "checkpoint")
    assert trace.data["whole"].values.tolist() == [[0, 8, 64]] * 2
    assert Trace.load(tmp_path) == trace
    assert len(trace.to_frame()) == 2 * 3 * 2


def test_an_error_says_once_at_which_concept_checkpoint_and_sites(sweep, norm_measure):
    class Failing(norm_measure):
        def __call__(self, activations, concept, *, seed):
            if concept.name == "kindness" and activations.checkpoint.step == 8:
                raise ValueError("no optimum")
            return super().__call__(activations, concept, seed=seed)

    with pytest.raises(ValueError, match="no optimum") as caught:
        sweep(measures=Failing())
    (note,) = caught.value.__notes__
    for word in ("'kindness'", "'tiny@step8'", "blocks.0.hook_resid_post to blocks.1"):
        assert word in note


def test_an_error_in_reading_says_at_which_concept_and_checkpoint(sweep):
    with pytest.raises(ValueError, match="block 9") as caught:
        sweep(sites=[9])
    (note,) = caught.value.__notes__
    assert "'truth'" in note
    assert "'tiny@step0'" in note


def test_a_mapping_gives_concepts_their_names_in_the_trace(sweep, concepts):
    trace = sweep(wanted={"a": concepts[0], "b/../../c": concepts[0]})
    assert trace.concepts == ("a", "b/../../c")
    np.testing.assert_array_equal(trace.data["norm"][0], trace.data["norm"][1])


@pytest.mark.parametrize(
    ("check", "given", "words"),
    [
        (checked_checkpoints, [], "at least one Checkpoint.*got none"),
        (checked_checkpoints, ["pythia"], "got a str.*from_hub"),
        (checked_concepts, {}, "at least one Concept.*got none"),
        (checked_concepts, ["toxicity"], "got a str.*load_concepts"),
        (checked_concepts, "toxicity", "got a str.*load_concepts"),
        (checked_measures, [], "at least one Measure.*got none"),
        (checked_measures, [len], "got a builtin_function"),
    ],
)
def test_a_sweep_of_nothing_or_of_something_else_is_refused(check, given, words):
    with pytest.raises(ValueError, match=words):
        check(given)


def test_a_name_stands_once(sweep, checkpoints, concepts, norm_measure):
    with pytest.raises(ValueError, match="two checkpoints named 'tiny@step8'"):
        sweep([checkpoints[1], checkpoints[1]])
    with pytest.raises(ValueError, match=r"two concepts named 'truth'.*mapping"):
        sweep(wanted=[concepts[0], concepts[0]])
    with pytest.raises(ValueError, match="two measures named 'norm'"):
        sweep(measures=[norm_measure(), norm_measure()])


def test_a_protocol_that_is_not_there_is_refused_with_those_that_are(checkpoints, concepts):
    with pytest.raises(ValueError, match=r"no protocol 'paper'.*'grouped', 'tracingllm'"):
        probe_checkpoints(checkpoints, concepts, protocol="paper")


def test_the_paper_s_protocol_is_traced_by_its_name_and_says_what_leaks(
    checkpoints, concepts, tmp_path
):
    options = {"store": None, "progress": False}
    trace = probe_checkpoints(
        checkpoints[:2], concepts[0], protocol="tracingllm", out=tmp_path, **options
    )
    read = collect_activations(checkpoints[1], concepts[0])
    cell = tracingllm_probe(floor=False)(read, concepts[0], seed=0)
    np.testing.assert_array_equal(trace.data.accuracy[0, 1], cell.accuracy)
    assert (trace.data.accuracy_n == 5).all()
    # 19 of 24 rows are trained on, and the cut falls within a pair.
    assert trace.data.leak_group.dims == ("concept", "checkpoint")
    assert (trace.data.leak_group == 1).all()
    assert "leak_group" in trace.data.accuracy.attrs["leaks"]
    assert trace.provenance["settings"]["measures"][0].startswith("tracingllm(")
    scores = load_scores(tmp_path, "truth")
    assert scores.isnull().sum("example").values.tolist() == [[19, 19], [19, 19]]
    both = trace_checkpoints(
        checkpoints[:1],
        concepts[0],
        measures=[logistic_probe(folds=3, resamples=20, permutations=20), tracingllm_probe()],
        **options,
    )
    np.testing.assert_array_equal(
        both.data.accuracy.sel(probe="tracingllm"), trace.data.accuracy[:, :1]
    )
    assert (both.data.accuracy_n.sel(probe="logistic") == 24).all()


def test_a_task_travels_to_another_process_and_means_the_same(sweep, saved, tmp_path, monkeypatch):
    tasks = []

    def keep(task, **arguments):
        tasks.append(task)
        return trace_checkpoint(task, **arguments)

    monkeypatch.setattr(sweep_module, "trace_checkpoint", keep)
    trace = sweep(saved[:2], store=ActivationStore(tmp_path))
    done = trace_checkpoint(pickle.loads(pickle.dumps(tasks[1])))
    for name, cell in done.cells.items():
        expected = trace.sel(concept=name, checkpoint=done.record.name).data["norm"].squeeze()
        np.testing.assert_array_equal(cell["norm"], expected)


def test_progress_is_shown_on_request_only(sweep, capsys):
    sweep(progress=False)
    assert capsys.readouterr() == ("", "")
    sweep(progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "6/6" in shown.err
    assert "tiny@step64" in shown.err


def test_models_in_memory_and_on_disk_give_the_same_numbers(sweep, checkpoints, saved):
    in_memory, on_disk = sweep(checkpoints[1:2]), sweep(saved[1:2])
    np.testing.assert_allclose(in_memory.data["norm"], on_disk.data["norm"], rtol=1e-4)


def test_held_out_scores_come_back_by_checkpoint_site_and_statement(
    sweep, concepts, quick_probe, tmp_path
):
    trace = sweep(measures=quick_probe, out=tmp_path)
    scores = load_scores(tmp_path, "truth")
    assert scores.dims == ("checkpoint", "site", "example")
    assert scores["statement"].values.tolist() == list(concepts[0].statements)
    assert scores["group"].values.tolist() == list(concepts[0].groups)
    assert scores["step"].values.tolist() == [0, 8, 64]
    accuracy = ((scores > 0) == (scores["label"] == 1)).mean("example")
    np.testing.assert_allclose(accuracy, trace.data.accuracy.sel(concept="truth"), rtol=1e-12)
    for fold in range(3):  # no group stands in two folds
        inside = set(scores["group"].values[scores["fold"].values == fold])
        assert not inside & set(scores["group"].values[scores["fold"].values != fold])


def test_heads_are_numbered_along_the_sites_and_chosen_with_their_layer(sweep, tmp_path):
    trace = sweep(sites="z", out=tmp_path)
    assert trace.data["head"].values.tolist() == [0, 1, 0, 1]
    assert trace.data["layer"].values.tolist() == [0, 0, 1, 1]
    assert trace.data["head"].attrs["long_name"]
    assert trace.sel(layer=1, head=0).sites == ("blocks.1.attn.hook_z[0]",)
    assert trace.sel(head=1).sites == ("blocks.0.attn.hook_z[1]", "blocks.1.attn.hook_z[1]")
    assert Trace.load(tmp_path) == trace
    assert trace.to_frame().set_index("site")["head"]["blocks.1.attn.hook_z[1]"].tolist() == [1] * 6
    with pytest.raises(ValueError, match="no head 7"):
        trace.sel(head=7)
    best = trace.best_site("norm")
    places = zip(best.layer.values.ravel(), best["head"].values.ravel(), strict=True)
    numbers = [f"blocks.{layer}.attn.hook_z[{head}]" for layer, head in places]
    assert best.site.values.ravel().tolist() == numbers


def test_a_trace_without_heads_has_none_to_choose(sweep):
    trace = sweep()
    assert "head" not in trace.data.coords
    with pytest.raises(ValueError, match=r"No site of this trace is a head.*sites='z'"):
        trace.sel(head=0)


def test_what_nothing_could_be_read_with_is_refused_though_all_is_there(sweep, tmp_path):
    sweep(out=tmp_path)
    with pytest.raises(ValueError, match="`batch_tokens` must be a whole number"):
        sweep(out=tmp_path, batch_tokens=0)


def test_checkpoints_that_are_loaded_in_two_ways_are_not_compared(saved, concepts):
    two_ways = [saved[0], saved[1].loaded_with(dtype=torch.bfloat16)]
    with pytest.raises(ValueError, match=r"Load all checkpoints in one way"):
        probe_checkpoints(two_ways, concepts[:1], store=None, progress=False)
