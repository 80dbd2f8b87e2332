"""What a user calls: models, checkpoints, concepts, and the store between them."""

import dataclasses
import io
import re

import numpy as np
import pytest
import torch

from tlens_trust.activations import ActivationStore, collect_activations, model_source, reading
from tlens_trust.activations.collect import collect_concepts
from tlens_trust.activations.reading_options import ReadingOptions
from tlens_trust.checkpoints import Checkpoint
from tlens_trust.concepts import Concept


@pytest.fixture
def checkpoint(folders):
    return Checkpoint.from_directory(folders["llama"])


@pytest.fixture
def store(tmp_path):
    return ActivationStore(tmp_path / "store")


@pytest.fixture
def concept(words):
    return Concept(
        name="toy",
        dimension="reliability",
        statements=tuple(words(3 + i % 4, start=i) for i in range(10)),
        labels=np.arange(10) % 2,
        groups=tuple(f"group {i // 2}" for i in range(10)),
    )


@pytest.fixture
def loads(monkeypatch):
    """The checkpoints that were loaded, in order."""
    loaded = []
    load = Checkpoint.load

    def count(self, **settings):
        loaded.append(self.name)
        return load(self, **settings)

    monkeypatch.setattr(Checkpoint, "load", count)
    return loaded


@pytest.fixture
def passes(monkeypatch):
    """Statements in each forward pass, in order."""
    counts = []
    run = reading.run_blocks

    def count(model, tokens, kept):
        counts.append(len(tokens))
        run(model, tokens, kept)

    monkeypatch.setattr(reading, "run_blocks", count)
    return counts


def no_model(monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(Checkpoint, "load", fail)
    monkeypatch.setattr(reading, "run_blocks", fail)


def test_a_checkpoint_a_bridge_and_a_plain_model_give_the_same(
    checkpoint, concept, load_plain, tokenizer, relative_error
):
    from_disk = collect_activations(checkpoint, concept, device="cpu")
    bridge = collect_activations(checkpoint.loaded_with(device="cpu").load(), concept)
    plain = collect_activations(load_plain("llama"), concept, tokenizer=tokenizer)
    assert torch.equal(from_disk.values, bridge.values)
    assert relative_error(plain.values, bridge.values) < 1e-4
    assert (from_disk.checkpoint, plain.checkpoint) == (checkpoint, None)
    assert from_disk.concept is concept
    assert from_disk.n_layers == 3


def test_readings_come_back_in_the_statements_own_order(checkpoint, concept):
    forwards = collect_activations(checkpoint, concept.statements, batch_tokens=12)
    backwards = collect_activations(checkpoint, concept.statements[::-1], batch_tokens=12)
    torch.testing.assert_close(forwards.values, backwards.values.flip(0), rtol=1e-4, atol=1e-5)
    assert forwards.values.shape == (10, 3, 32)
    assert forwards.values.dtype == torch.float32
    assert forwards.values.device.type == "cpu"


def test_readings_of_one_site_lie_together_in_memory(checkpoint, concept):
    read = collect_activations(checkpoint, concept)
    assert all(read.at(layer).is_contiguous() for layer in range(3))


def test_a_checkpoints_tokenizer_adds_no_bos_that_it_was_not_published_with(
    checkpoint, concept, tokenizer
):
    own = collect_activations(checkpoint, concept)
    assert torch.equal(own.values, collect_activations(checkpoint, concept, bos=False).values)
    assert not torch.allclose(own.values, collect_activations(checkpoint, concept, bos=True).values)


def test_one_pass_serves_every_concept_and_site(checkpoint, concept, loads, passes, words):
    others = [[words(5), words(6)], concept, [words(2)]]
    read = list(
        collect_concepts(
            checkpoint, [concept, *others], ReadingOptions(sites=[0, 1, 2], store=None)
        )
    )
    assert len(loads) == 1
    assert sum(passes) == 10 + 2 + 1  # the concept that comes twice is read once
    assert [len(each) for each in read] == [10, 2, 10, 1]
    assert torch.equal(read[0].values, read[2].values)


def test_concepts_may_come_by_name(bridge, concept):
    (read,) = collect_concepts(bridge, {"toy": concept}, ReadingOptions(store=None))
    assert read.concept is concept


def test_what_else_is_read_changes_no_bit(checkpoint, concept, words, store):
    alone = collect_activations(checkpoint, concept, batch_tokens=20)
    others = [[words(5), words(6)], [*concept.statements[:3], words(9)]]
    *_, among = collect_concepts(
        checkpoint, [*others, concept], ReadingOptions(batch_tokens=20, store=store)
    )
    assert torch.equal(alone.values, among.values)


def test_a_checkpoint_is_loaded_when_first_needed_and_let_go_of_at_the_end(
    checkpoint, concept, loads, words, monkeypatch
):
    released = []
    release = model_source.release
    monkeypatch.setattr(model_source, "release", lambda m: (released.append(m), release(m)))
    each = collect_concepts(checkpoint, [concept, [words(4)]], ReadingOptions(store=None))
    assert loads == []
    next(each)
    assert (len(loads), len(released)) == (1, 0)
    list(each)
    assert (len(loads), len(released)) == (1, 1)
    assert all(weight.numel() == 0 for weight in released[0].parameters())


def test_a_checkpoint_is_let_go_of_when_reading_fails(checkpoint, words, monkeypatch):
    released = []
    release = model_source.release
    monkeypatch.setattr(model_source, "release", lambda m: (released.append(m), release(m)))
    with pytest.raises(ValueError, match="Too long to read"):
        collect_activations(checkpoint, [words(400)])
    assert len(released) == 1


def test_a_model_that_was_passed_in_is_not_let_go_of(bridge, concept):
    collect_activations(bridge, concept)
    assert all(weight.numel() for weight in bridge.parameters())


def test_a_second_sweep_reads_no_model(checkpoint, concept, store, words, monkeypatch):
    lists = [concept, [words(5), words(6)]]
    first = list(collect_concepts(checkpoint, lists, ReadingOptions(store=store)))
    no_model(monkeypatch)
    again = Checkpoint.from_directory(checkpoint.folder)
    second = list(
        collect_concepts(again, lists, ReadingOptions(store=ActivationStore(store.folder)))
    )
    for one, two in zip(first, second, strict=True):
        assert torch.equal(one.values, two.values)
        assert (one.sites, one.n_layers, one.concept) == (two.sites, two.n_layers, two.concept)
    # The control: what was not read before does need the model.
    with pytest.raises(AssertionError, match="a model was loaded"):
        collect_activations(checkpoint, [words(5)], store=store)


def test_fewer_sites_are_served_from_more(checkpoint, concept, store, monkeypatch):
    every = collect_activations(checkpoint, concept, store=store)
    no_model(monkeypatch)
    for asked in (-1, [2, 0], "blocks.1.hook_resid_post"):
        some = collect_activations(checkpoint, concept, store=store, sites=asked)
        assert torch.equal(some.values, every.select(asked).values)


def test_further_sites_are_read_alone_and_kept_with_the_rest(
    checkpoint, concept, store, monkeypatch
):
    asked = []
    read_statements = source_collect().read_statements

    def watch(*args, sites, **kwargs):
        asked.append(sites)
        return read_statements(*args, sites=sites, **kwargs)

    monkeypatch.setattr(source_collect(), "read_statements", watch)
    collect_activations(checkpoint, concept, store=store, sites=[0])
    every = collect_activations(checkpoint, concept, store=store)
    assert asked == [
        ("blocks.0.hook_resid_post",),
        ("blocks.1.hook_resid_post", "blocks.2.hook_resid_post"),
    ]
    fresh = collect_activations(checkpoint, concept)
    assert torch.equal(every.values, fresh.values)
    no_model(monkeypatch)
    assert torch.equal(collect_activations(checkpoint, concept, store=store).values, fresh.values)


def source_collect():
    from tlens_trust.activations import collect

    return collect


def test_weights_that_share_a_name_share_no_entry(saved_model, tmp_path, concept, store):
    import shutil

    read = []
    for seed in (1, 2):
        run = tmp_path / f"seed {seed}"
        shutil.copytree(saved_model("llama", seed), run / "step1")
        checkpoint = Checkpoint.from_directory(run / "step1")
        checkpoint = dataclasses.replace(checkpoint, model="the same")
        assert checkpoint.revision == "step1"
        read.append(collect_activations(checkpoint, concept, store=store).values)
    assert not torch.allclose(read[0], read[1])


def test_weights_that_changed_in_place_are_read_anew(saved_model, concept, store):
    folder = saved_model("llama", 1)
    checkpoint = Checkpoint.from_directory(folder)
    before = collect_activations(checkpoint, concept, store=store)
    other = saved_model("llama", 2)
    (folder / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    after = collect_activations(checkpoint, concept, store=store)
    assert not torch.allclose(before.values, after.values)


def test_a_tokenizer_that_changed_is_noticed_without_the_model(saved_model, concept, store):
    folder = saved_model("llama", 3)
    before = collect_activations(Checkpoint.from_directory(folder), concept, store=store)
    path = folder / "tokenizer.json"
    path.write_text(
        re.sub(r'"w(\d)": (\d)\b', lambda m: f'"w{9 - int(m[1])}": {m[2]}', path.read_text())
    )
    after = collect_activations(Checkpoint.from_directory(folder), concept, store=store)
    assert not torch.allclose(before.values, after.values)


@pytest.mark.parametrize(
    "settings",
    [
        {"position": "mean"},
        {"position": 0},
        {"bos": True},
        {"dtype": torch.bfloat16},
    ],
)
def test_what_changes_a_reading_changes_the_entry(checkpoint, concept, store, loads, settings):
    plain = collect_activations(checkpoint, concept, store=store)
    changed = collect_activations(checkpoint, concept, store=store, **settings)
    assert len(loads) == 2
    assert not torch.equal(plain.values, changed.values)


def test_what_does_not_change_a_reading_does_not_change_the_entry(
    checkpoint, concept, store, monkeypatch
):
    every = collect_activations(checkpoint, concept, store=store)
    no_model(monkeypatch)
    for settings in ({"batch_tokens": 9}, {"padding_side": "left"}):
        again = collect_activations(checkpoint, concept, store=store, **settings)
        assert torch.equal(every.values, again.values)
    bridge = checkpoint.loaded_with(backend="bridge")
    assert torch.equal(every.values, collect_activations(bridge, concept, store=store).values)


def test_device_and_dtype_of_what_is_loaded_already_are_refused(bridge, concept):
    with pytest.raises(
        ValueError, match=r"`device` and `dtype` are settings for loading a Checkpoint"
    ):
        collect_activations(bridge, concept, dtype=torch.bfloat16)


def test_a_torn_entry_is_read_from_the_model_again(checkpoint, concept, store, loads):
    first = collect_activations(checkpoint, concept, store=store)
    (path,) = store.folder.glob("*/*.safetensors")
    path.write_bytes(path.read_bytes()[:-5])
    assert torch.equal(collect_activations(checkpoint, concept, store=store).values, first.values)
    assert torch.equal(collect_activations(checkpoint, concept, store=store).values, first.values)
    assert len(loads) == 2


def test_a_model_and_its_checkpoint_use_the_checkpoints_entry(
    checkpoint, concept, store, monkeypatch
):
    model = checkpoint.loaded_with(device="cpu").load()
    first = collect_activations(model, concept, checkpoint=checkpoint, store=store)
    no_model(monkeypatch)
    assert torch.equal(collect_activations(checkpoint, concept, store=store).values, first.values)


def test_a_model_without_a_checkpoint_has_no_entry(bridge, concept, store):
    with pytest.raises(ValueError, match="Pass `checkpoint=` as well"):
        collect_activations(bridge, concept, store=store)


def test_a_model_that_something_hangs_on_is_kept_out_of_the_store(
    checkpoint, concept, store, load_plain, tokenizer
):
    bridge, plain = checkpoint.loaded_with(device="cpu").load(), load_plain("llama")
    kept = {"checkpoint": checkpoint, "store": store, "tokenizer": tokenizer}
    with (
        bridge.hooks([("blocks.0.hook_resid_post", lambda x, hook: x + 1)]),
        pytest.raises(ValueError, match="A function is hooked to"),
    ):
        collect_activations(bridge, concept, **kept)
    handle = plain.base_model.layers[1].register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match=r"A function is hooked to 'model\.layers\.1'"):
        collect_activations(plain, concept, **kept)
    handle.remove()
    assert collect_activations(bridge, concept, **kept).values.isfinite().all()
    assert collect_activations(plain, concept, **kept).values.isfinite().all()


def test_a_model_in_memory_is_read_as_it_is_now(load_plain, concept, store, tokenizer):
    model = load_plain("llama")
    checkpoint = Checkpoint("training", in_memory=model, tokenizer=tokenizer)
    before = collect_activations(checkpoint, concept, store=store)
    with torch.no_grad():
        model.base_model.layers[0].mlp.down_proj.weight.mul_(2.0)
    after = collect_activations(checkpoint, concept, store=store)
    assert not torch.allclose(before.values, after.values)
    assert all(weight.numel() for weight in model.parameters())


def test_errors_name_the_checkpoint(checkpoint, words):
    with pytest.raises(ValueError, match=r"No block 9 in 'llama', whose blocks run from 0 to 2"):
        collect_activations(checkpoint, [words(3)], sites=9)


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        ("one text", "Put it in a list"),
        ([], "`statements` is empty"),
        (["w1", ""], "no tokens to read in statement 1"),
        (["w1 w2", " ".join(["w1"] * 49)], "statement 1, 'w1 w1.* has 49 tokens.* holds 48"),
    ],
)
def test_statements_that_cannot_be_read_are_refused(bridge, statements, message):
    with pytest.raises(ValueError, match=message):
        collect_activations(bridge, statements, bos=False)


def test_other_arguments_that_make_no_sense_are_refused(
    bridge, checkpoint, words, saved_model, load_plain
):
    texts = [words(3)]
    with pytest.raises(ValueError, match="'left' or 'right'"):
        collect_activations(bridge, texts, padding_side="both")
    with pytest.raises(ValueError, match="must be a whole number from 1"):
        collect_activations(bridge, texts, batch_tokens=0)
    other = Checkpoint.from_directory(saved_model("gpt2", 1))
    with pytest.raises(ValueError, match="Leave `checkpoint` out"):
        collect_activations(checkpoint, texts, checkpoint=other)
    bare = load_plain("gpt2")
    with pytest.raises(ValueError, match="has no tokenizer"):
        collect_activations(bare, texts)


def test_progress_counts_statements(bridge, words, monkeypatch):
    import tqdm.auto

    bars = []

    class Bar(tqdm.auto.tqdm):
        def __init__(self, **settings):
            super().__init__(**settings, file=io.StringIO())
            bars.append(self)

    monkeypatch.setattr(tqdm.auto, "tqdm", Bar)
    collect_activations(bridge, [words(3), words(4), words(3)], progress=True)
    (bar,) = bars
    assert (bar.n, bar.total) == (2, 2)
    collect_activations(bridge, [words(3), words(4)])
    assert len(bars) == 1
