"""How statements are batched, padded and hooked changes nothing that is read."""

import gc
import weakref
from contextlib import contextmanager, nullcontext
from itertools import pairwise

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tlens_trust.activations import collect_activations, reading

LENGTHS = (1, 2, 3, 4, 5, 7, 8, 11, 13, 16, 19, 23)
ARCHITECTURES = ("gpt2", "gpt_neox", "llama", "olmo", "olmo2")


@pytest.fixture(scope="module")
def alone(load_bridge, reference, tokenizer, words):
    """Per architecture: a bridge, and each statement's stream as transformers reads it alone."""
    statements = [words(length, start=length) for length in LENGTHS]
    rows = tokenizer(statements)["input_ids"]
    return {name: (load_bridge(name), statements, reference(name, rows)) for name in ARCHITECTURES}


def expected_at(streams, picked, position):
    taken = []
    for index in picked:
        stream = streams[index]  # [site, pos, d_model]
        if position == "last":
            taken.append(stream[:, -1])
        elif position == "mean":
            taken.append(stream.mean(dim=1))
        elif isinstance(position, tuple):
            taken.append(stream[:, slice(*position)].mean(dim=1))
        else:
            taken.append(stream[:, position])
    return torch.stack(taken)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    picked=st.lists(st.integers(0, len(LENGTHS) - 1), min_size=1, max_size=len(LENGTHS)),
    batch_tokens=st.sampled_from([1, 20, 50, 90, 10_000]),
    padding_side=st.sampled_from(["left", "right"]),
    position=st.sampled_from(["last", "mean", 0, -1, (0, 1), (-1, None)]),
)
def test_a_statement_is_read_in_a_batch_as_it_is_alone(
    architecture, alone, tokenizer, relative_error, picked, batch_tokens, padding_side, position
):
    model, statements, streams = alone[architecture]
    read = collect_activations(
        model,
        [statements[i] for i in picked],
        tokenizer=tokenizer,
        batch_tokens=batch_tokens,
        padding_side=padding_side,
        position=position,
    )
    assert relative_error(read.values, expected_at(streams, picked, position)) < 1e-4


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_padding_on_the_left_would_show_without_the_mask(
    architecture, alone, tokenizer, relative_error, monkeypatch
):
    model, statements, streams = alone[architecture]
    run = reading.run_blocks
    monkeypatch.setattr(
        reading, "run_blocks", lambda model, tokens, kept: run(model, tokens, torch.ones_like(kept))
    )
    read = collect_activations(model, statements, tokenizer=tokenizer, padding_side="left")
    expected = expected_at(streams, range(len(LENGTHS)), "last")
    assert relative_error(read.values[-1:], expected[-1:]) < 1e-4  # the longest has no padding
    assert relative_error(read.values[:-1], expected[:-1]) > 1e-2


def test_left_padding_would_show_without_positions_of_its_own(
    alone, tokenizer, relative_error, monkeypatch
):
    from tlens_trust.activations import forward_pass

    model, statements, streams = alone["gpt2"]
    monkeypatch.setattr(
        forward_pass, "_extra_arguments", lambda body, is_token: {"use_cache": False}
    )
    read = collect_activations(model, statements, tokenizer=tokenizer, padding_side="left")
    expected = expected_at(streams, range(len(LENGTHS)), "last")
    assert relative_error(read.values[:-1], expected[:-1]) > 1e-2


def test_positions_count_the_statements_own_tokens_with_and_without_bos(
    alone, tokenizer, reference, relative_error
):
    model, statements, _ = alone["llama"]
    texts = statements[3:]
    rows = tokenizer(texts)["input_ids"]
    streams = reference("llama", [[98, *row] for row in rows])
    for position, take in [
        ("last", lambda s: s[:, -1]),
        (0, lambda s: s[:, 1]),
        (1, lambda s: s[:, 2]),
        ((0, 2), lambda s: s[:, 1:3].mean(dim=1)),
        ("mean", lambda s: s[:, 1:].mean(dim=1)),
    ]:
        for side in ("left", "right"):
            read = collect_activations(
                model, texts, tokenizer=tokenizer, bos=True, position=position, padding_side=side
            )
            expected = torch.stack([take(stream) for stream in streams])
            assert relative_error(read.values, expected) < 1e-4


def test_the_models_own_tokenizer_is_used_where_none_is_given(alone, tokenizer):
    """A bridge's tokenizer was set to add a BOS token; its setting is what counts."""
    model, statements, _ = alone["llama"]
    assert model.tokenizer(statements[0])["input_ids"][0] == 98
    own = collect_activations(model, statements)
    assert torch.equal(
        own.values, collect_activations(model, statements, tokenizer=tokenizer, bos=True).values
    ) == bool(model.cfg.default_prepend_bos)
    without = collect_activations(model, statements, bos=False)
    assert torch.equal(
        without.values, collect_activations(model, statements, tokenizer=tokenizer).values
    )


def test_the_same_call_gives_the_same_bits(alone, tokenizer):
    model, statements, _ = alone["gpt_neox"]
    first, second = (
        collect_activations(model, statements, tokenizer=tokenizer, batch_tokens=50).values
        for _ in range(2)
    )
    assert torch.equal(first, second)


def test_a_statement_that_occurs_twice_is_read_once_and_given_twice(alone, tokenizer, monkeypatch):
    model, statements, _ = alone["llama"]
    seen = []
    run = reading.run_blocks

    def count(model, tokens, kept):
        seen.append(len(tokens))
        run(model, tokens, kept)

    monkeypatch.setattr(reading, "run_blocks", count)
    twice = collect_activations(
        model, [statements[4], statements[2], statements[4]], tokenizer=tokenizer
    )
    assert sum(seen) == 2
    assert torch.equal(twice.values[0], twice.values[2])
    assert not torch.equal(twice.values[0], twice.values[1])


def test_out_of_memory_halves_the_budget_and_reads_all_the_same(
    alone, tokenizer, relative_error, monkeypatch
):
    model, statements, streams = alone["llama"]
    run = reading.run_blocks
    sizes = []

    def scarce(model, tokens, kept):
        if tokens.numel() > 40:
            sizes.append(("failed", tokens.numel()))
            raise torch.OutOfMemoryError("CUDA out of memory.")
        sizes.append(("read", tokens.numel()))
        run(model, tokens, kept)

    monkeypatch.setattr(reading, "run_blocks", scarce)
    read = collect_activations(model, statements, tokenizer=tokenizer, batch_tokens=4096)
    assert relative_error(read.values, expected_at(streams, range(len(LENGTHS)), "last")) < 1e-4
    failed = [size for what, size in sizes if what == "failed"]
    assert failed == sorted(failed, reverse=True)
    assert failed
    assert all(small <= large / 2 for large, small in pairwise(failed))
    assert not attached(model)


def attached(model):
    return [name for name, point in model.hook_dict.items() if point.fwd_hooks]


def test_no_hook_remains_after_an_exception_inside(alone, tokenizer, monkeypatch):
    model, statements, _ = alone["llama"]
    during = []

    def fail(*args, **kwargs):
        during.extend(attached(model))
        raise RuntimeError("in the middle of it")

    monkeypatch.setattr(reading, "read_span", fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        collect_activations(model, statements, tokenizer=tokenizer)
    assert during
    assert not attached(model)
    assert not any(len(point._forward_hooks) for point in model.hook_dict.values())


def test_hooks_of_the_users_own_stay_and_act(alone, tokenizer):
    model, statements, _ = alone["llama"]
    plain = collect_activations(model, statements, tokenizer=tokenizer)
    with model.hooks([("blocks.0.hook_resid_post", lambda x, hook: x + 1.0)]):
        moved = collect_activations(model, statements, tokenizer=tokenizer)
        assert len(attached(model)) > 0
    assert not torch.equal(moved.values[:, 1:], plain.values[:, 1:])
    assert not attached(model)


def norms(model):
    return [part for part in model.modules() if hasattr(type(part), "uses_rms_norm")]


@pytest.mark.parametrize("architecture", ["olmo", "llama"])
def test_sparing_idle_norms_changes_no_bit_and_leaves_nothing_behind(
    architecture, alone, tokenizer, monkeypatch
):
    model, statements, _ = alone[architecture]
    spared = []
    enter = reading.without_idle_norms

    @contextmanager
    def watch(model):
        with enter(model):
            spared.append(sum("forward" in vars(part) for part in norms(model)))
            yield

    monkeypatch.setattr(reading, "without_idle_norms", watch)
    fast = collect_activations(model, statements, tokenizer=tokenizer)
    monkeypatch.setattr(reading, "without_idle_norms", lambda model: nullcontext())
    slow = collect_activations(model, statements, tokenizer=tokenizer)
    assert torch.equal(fast.values, slow.values)
    assert spared[0] >= 7  # two a block and the last one
    assert not any("forward" in vars(part) for part in norms(model))


def test_a_hook_inside_a_norm_still_acts_while_others_are_spared(alone, tokenizer):
    model, statements, _ = alone["llama"]
    plain = collect_activations(model, statements, tokenizer=tokenizer)
    with (
        pytest.warns(UserWarning, match="edited hook_scale/hook_normalized"),
        model.hooks([("blocks.1.ln2.hook_normalized", lambda x, hook: 2 * x)]),
    ):
        edited = collect_activations(model, statements, tokenizer=tokenizer)
    assert torch.equal(edited.at(0), plain.at(0))
    assert not torch.allclose(edited.at(1), plain.at(1))
    # Reading there is a hook like any other.
    inside = collect_activations(
        model, statements, sites="blocks.1.ln2.hook_normalized", tokenizer=tokenizer
    )
    assert inside.values.norm(dim=-1).allclose(torch.tensor(32.0).sqrt(), rtol=1e-3)


def test_no_tensor_over_positions_outlives_its_block(alone, tokenizer, monkeypatch):
    model, statements, _ = alone["llama"]
    seen, alive, kept = [], [], []
    read_span = reading.read_span

    def watch(x, *args, **kwargs):
        # The block before may still be referred to by this block's own forward.
        alive.append(sum(ref() is not None for ref in seen[:-1]))
        seen.append(weakref.ref(x))
        taken = read_span(x, *args, **kwargs)
        kept.append((taken.untyped_storage().nbytes(), taken.numel() * taken.element_size()))
        return taken

    monkeypatch.setattr(reading, "read_span", watch)
    collect_activations(model, statements, tokenizer=tokenizer, batch_tokens=10_000)
    gc.collect()
    assert alive == [0, 0, 0]
    assert all(ref() is None for ref in seen)
    assert all(storage == needed for storage, needed in kept)


def test_neither_unembedding_nor_blocks_that_nobody_asked_for_are_computed(
    load_plain, load_bridge, tokenizer, words
):
    statements = [words(4), words(9)]
    calls = []
    for model, inside in [
        (plain := load_plain("llama"), plain),
        (bridge := load_bridge("llama"), bridge.original_model),
    ]:
        calls.clear()
        blocks = inside.base_model.layers
        handles = [
            module.register_forward_hook(lambda *_, name=name: calls.append(name))
            for name, module in [("unembedding", inside.lm_head), ("last block", blocks[2])]
        ]
        collect_activations(model, statements, sites=[0, 1], tokenizer=tokenizer)
        assert calls == []
        collect_activations(model, statements, sites=[0, 2], tokenizer=tokenizer)
        assert set(calls) <= {"last block"}
        for handle in handles:
            handle.remove()


def test_aliases_of_one_hook_point_are_read_once(bridge, tokenizer, words, monkeypatch):
    reads = []
    read_span = reading.read_span
    monkeypatch.setattr(
        reading, "read_span", lambda *a, **k: (reads.append(1), read_span(*a, **k))[1]
    )
    both = ["blocks.1.hook_resid_post", "blocks.1.hook_out"]
    activations = collect_activations(bridge, [words(3)], sites=both, tokenizer=tokenizer)
    assert len(reads) == 1
    assert torch.equal(activations.at(both[0]), activations.at(both[1]))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_names_statement_site_and_model(
    load_bridge, tokenizer, words, value
):
    model = load_bridge("llama")
    model.cfg.model_name = "the-broken-one"
    with torch.no_grad():
        model.original_model.base_model.embed_tokens.weight[50] = value
    fine = [words(3), words(7)]
    assert collect_activations(model, fine, tokenizer=tokenizer).values.isfinite().all()
    with pytest.raises(ValueError, match="The activations hold") as caught:
        collect_activations(model, [*fine, "w1 w50"], tokenizer=tokenizer)
    message = str(caught.value)
    for part in ("statement 2, 'w1 w50'", "blocks.0.hook_resid_post", "the-broken-one"):
        assert part in message


def test_large_activations_whose_sum_overflows_are_no_error(load_bridge, tokenizer, words):
    model = load_bridge("llama")
    with model.hooks([("blocks.2.hook_resid_post", lambda x, hook: torch.full_like(x, 3e38))]):
        read = collect_activations(model, [words(3), words(4)], tokenizer=tokenizer)
    assert (read.at(2) == 3e38).all()


def test_sites_of_unlike_width_are_refused_by_name(bridge, tokenizer, words):
    with pytest.raises(ValueError, match=r"hook_z\[0\]' 8 and 'blocks\.0\.hook_resid_post' 32"):
        collect_activations(bridge, [words(3)], sites=[0, "z"], tokenizer=tokenizer)


def test_a_hook_point_that_exists_and_never_fires_is_named(bridge, tokenizer, words):
    silent = "blocks.0.attn.hook_hidden_states"
    assert silent in bridge.hook_dict
    with pytest.raises(ValueError, match=rf"'{silent}' .* did not fire"):
        collect_activations(bridge, [words(3)], sites=[silent, 0], tokenizer=tokenizer)


@pytest.mark.parametrize("site", ["blocks.0.attn.hook_pattern", "blocks.0.attn.hook_attn_scores"])
def test_what_is_indexed_by_pairs_of_tokens_is_no_site(bridge, tokenizer, words, site):
    with pytest.raises(ValueError, match="does not hold one vector per token"):
        collect_activations(bridge, [words(4)], sites=site, tokenizer=tokenizer)


def test_a_tensor_with_heads_wants_to_know_which(bridge, tokenizer, words):
    with pytest.raises(ValueError, match=r"has 4 heads. Choose one, as in .*hook_q\[0\]"):
        collect_activations(bridge, [words(3)], sites="blocks.0.attn.hook_q", tokenizer=tokenizer)
    one = collect_activations(
        bridge, [words(3)], sites="blocks.0.attn.hook_q[3]", tokenizer=tokenizer
    )
    assert one.values.shape == (1, 1, 8)
    with pytest.raises(ValueError, match="heads run from 0 to 3"):
        collect_activations(
            bridge, [words(3)], sites="blocks.0.attn.hook_q[4]", tokenizer=tokenizer
        )
    with pytest.raises(ValueError, match="has no heads"):
        collect_activations(
            bridge, [words(3)], sites="blocks.0.hook_resid_post[0]", tokenizer=tokenizer
        )


def test_a_position_that_one_statement_lacks_names_it(bridge, tokenizer, words):
    with pytest.raises(ValueError, match=r"a statement of 2 tokens.*This is statement 1, 'w0 w7'"):
        collect_activations(bridge, [words(5), words(2)], position=3, tokenizer=tokenizer)


def test_a_narrow_dtype_comes_back_in_float32(folders, tokenizer, words, relative_error):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folders["llama"], dtype=torch.bfloat16).eval()
    for position in ("last", "mean"):
        read = collect_activations(
            model, [words(5), words(9)], tokenizer=tokenizer, position=position
        )
        assert read.values.dtype == torch.float32
