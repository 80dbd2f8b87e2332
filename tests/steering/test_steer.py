"""What steering does in forward passes, and that nothing is left of it afterwards."""

import warnings

import pytest
import torch

from tlens_trust.activations import collect_activations
from tlens_trust.checkpoints import Checkpoint
from tlens_trust.measures import LinearProbe
from tlens_trust.steering import ProbeFires, SteeringVector, extract_steering_vector, steer

TOLERANCE = 1e-4
IDS = [1, 2, 3, 4, 5, 6]
ARCHITECTURES = ["gpt_neox", "llama"]
KINDS = ["bridge", "plain"]


@pytest.fixture
def models(bridges, own_plains):
    return {"bridge": bridges, "plain": own_plains}


@pytest.fixture(scope="module")
def vector(direction):
    return SteeringVector.from_direction(direction, site=1, rms=20.0)


@pytest.fixture(scope="module")
def concept(planted_concept):
    return planted_concept(groups=6)


def logits_of(model, ids=IDS, **settings):
    with torch.no_grad():
        found = model(torch.tensor([ids]), **settings)
    return getattr(found, "logits", found)[0]


@pytest.mark.parametrize("mode", ["add", "ablate", "clamp", "rotate"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kind", KINDS)
def test_steering_is_an_edit_of_hugging_faces_own_forward_pass(
    kind, architecture, mode, models, plains, direction, vector, by_hand, changes, relative_error
):
    with steer(models[kind][architecture], vector, strength=3.0, mode=mode):
        found = logits_of(models[kind][architecture])
    expected = by_hand(plains[architecture], IDS, changes(direction, 3.0)[mode], range(6))
    assert relative_error(found, expected) < TOLERANCE
    unsteered = by_hand(plains[architecture], IDS, lambda x: x, [])
    assert relative_error(unsteered, expected) > 100 * TOLERANCE


@pytest.mark.parametrize(
    ("site", "part", "side"),
    [
        ("blocks.1.hook_resid_pre", "", "input"),
        ("blocks.1.hook_attn_out", "self_attn", "output"),
        ("blocks.1.hook_mlp_out", "mlp", "output"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_other_sites_are_edited_where_they_are(
    kind, site, part, side, models, plains, direction, edited, relative_error
):
    block = plains["llama"].base_model.layers[1]
    module = block.get_submodule(part) if part else block
    with edited(module, lambda x: x + 2 * direction, side):
        expected = logits_of(plains["llama"])
    vector = SteeringVector.from_direction(direction, site=site)
    with steer(models[kind]["llama"], vector, strength=2.0):
        found = logits_of(models[kind]["llama"])
    assert relative_error(found, expected) < TOLERANCE
    assert relative_error(logits_of(plains["llama"]), expected) > 100 * TOLERANCE


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kind", KINDS)
def test_heads_are_steered_each_along_its_own_direction(
    kind, architecture, models, plains, edited, relative_error
):
    heads = torch.randn(2, 8, generator=torch.Generator().manual_seed(1))
    sites = ["blocks.1.attn.hook_z[1]", "blocks.1.attn.hook_z[3]"]
    vector = SteeringVector.from_direction(heads, site=sites)
    whole = torch.zeros(32)
    whole[8:16], whole[24:32] = heads
    block = plains[architecture].base_model.layers[1]
    projection = block.self_attn.o_proj if architecture == "llama" else block.attention.dense
    with edited(projection, lambda x: x + 4 * whole, "input"):
        expected = logits_of(plains[architecture])
    with steer(models[kind][architecture], vector, strength=4.0):
        found = logits_of(models[kind][architecture])
    assert relative_error(found, expected) < TOLERANCE
    assert relative_error(logits_of(plains[architecture]), expected) > 100 * TOLERANCE


def test_several_sites_act_at_once(models, plains, direction, edited, relative_error):
    layers = plains["gpt_neox"].base_model.layers
    with edited(layers[0], lambda x: x + direction), edited(layers[2], lambda x: x - direction):
        expected = logits_of(plains["gpt_neox"])
    vector = SteeringVector.from_direction(torch.stack([direction, -direction]), site=[0, 2])
    with steer(models["bridge"]["gpt_neox"], vector, strength=1.0):
        found = logits_of(models["bridge"]["gpt_neox"])
    assert relative_error(found, expected) < TOLERANCE


@pytest.mark.parametrize("mode", ["add", "ablate", "rotate"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kind", KINDS)
def test_strength_0_changes_nothing(kind, architecture, mode, models, vector):
    model = models[kind][architecture]
    plain = logits_of(model)
    with steer(model, vector, strength=0.0, mode=mode, positions="last"):
        assert torch.equal(logits_of(model), plain)
    with steer(model, vector, strength=0.1, mode=mode, positions="last"):
        assert not torch.equal(logits_of(model), plain)


def read_at(model, tokenizer, layer=1):
    return collect_activations(
        model, ["w1 w2 w3", "w4 w5 w6 w7"], sites=layer, tokenizer=tokenizer
    ).values[:, 0]


@pytest.mark.parametrize("kind", KINDS)
def test_ablation_leaves_no_projection_and_the_rest_alone(
    kind, models, vector, tokenizer, direction
):
    model, unit = models[kind]["llama"], direction / direction.norm()
    before = read_at(model, tokenizer)
    with steer(model, vector, strength=1.0, mode="ablate"):
        after = read_at(model, tokenizer)
    assert (before @ unit).abs().min() > 0.01
    assert (after @ unit).abs().max() < 1e-5
    assert torch.allclose(before - (before @ unit)[:, None] * unit, after, atol=1e-5)


def test_clamping_sets_the_projection(models, vector, tokenizer, direction):
    unit = direction / direction.norm()
    with steer(models["bridge"]["llama"], vector, strength=0.5, mode="clamp", units="rms"):
        after = read_at(models["bridge"]["llama"], tokenizer)
    assert torch.allclose(after @ unit, torch.full((2,), 10.0), atol=1e-4)


def test_rotation_keeps_the_length_and_turns_towards_the_vector(
    models, vector, tokenizer, direction
):
    model, unit = models["bridge"]["llama"], direction / direction.norm()
    before = read_at(model, tokenizer)
    with steer(model, vector, strength=1.0, mode="rotate"):
        after = read_at(model, tokenizer)
    assert torch.allclose(before.norm(dim=1), after.norm(dim=1), rtol=1e-5)
    assert bool((after @ unit > before @ unit + 0.1).all())


def test_in_units_of_the_stream_the_length_of_the_vector_is_nothing(models, vector):
    model = models["bridge"]["llama"]
    with steer(model, vector, strength=0.2, units="rms"):
        one = logits_of(model)
    with steer(model, 7.0 * vector, strength=0.2, units="rms"):
        other = logits_of(model)
    with steer(model, vector, strength=4.0 / float(vector.norms)):
        absolute = logits_of(model)
    assert torch.allclose(one, other, atol=1e-5)
    assert torch.allclose(one, absolute, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_adding_and_subtracting_is_the_identity_and_nesting_adds_up(kind, models, vector):
    model = models[kind]["gpt_neox"]
    plain = logits_of(model)
    with steer(model, vector, strength=3.0):
        once = logits_of(model)
        with steer(model, vector, strength=-3.0):
            back = logits_of(model)
        with steer(model, vector, strength=2.0):
            both = logits_of(model)
        assert torch.equal(logits_of(model), once)
    with steer(model, vector, strength=5.0):
        at_once = logits_of(model)
    assert torch.allclose(back, plain, atol=1e-4)
    assert torch.allclose(both, at_once, atol=1e-4)
    assert not torch.allclose(once, plain, atol=1e-2)
    assert torch.equal(logits_of(model), plain)


def all_hooks(model):
    inside = getattr(model, "original_model", model)
    return sum(
        len(part._forward_hooks) + len(part._forward_pre_hooks)
        for module in {id(m): m for m in (model, inside)}.values()
        for part in module.modules()
    )


@pytest.mark.parametrize("kind", KINDS)
def test_no_hook_remains_after_an_exception(kind, models, vector):
    model = models[kind]["llama"]
    before, plain = all_hooks(model), logits_of(model)
    probe = ProbeFires(LinearProbe(torch.ones(32), 0.0), above=0.0)
    inside = 0

    def fail():
        nonlocal inside
        with steer(model, vector, strength=1.0), steer(model, vector, strength=1.0, when=probe):
            inside = all_hooks(model)
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fail()
    assert inside > before
    assert all_hooks(model) == before
    assert torch.equal(logits_of(model), plain)


def test_no_hook_remains_where_a_forward_pass_fails(models, vector):
    model = models["plain"]["llama"]
    before = all_hooks(model)
    wide = LinearProbe(torch.ones(5), 0.0)
    with (
        pytest.raises(ValueError, match="probe has 5 weights"),
        steer(model, vector, strength=1.0, when=wide),
    ):
        logits_of(model)
    assert all_hooks(model) == before


def test_weights_and_activations_are_not_edited_in_place(models, vector):
    model = models["plain"]["llama"]
    weights = {name: weight.clone() for name, weight in model.named_parameters()}
    held = []
    handle = model.base_model.layers[1].register_forward_hook(
        lambda module, args, output: held.append((output, output.clone()))
    )
    try:
        with steer(model, vector, strength=5.0, positions=(2, None)):
            logits_of(model)
    finally:
        handle.remove()
    ((seen, copy),) = held
    assert torch.equal(seen, copy)
    assert all(torch.equal(weights[name], weight) for name, weight in model.named_parameters())


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("policy", ["all", "last", "prompt", (1, 3), (-2, None), {2, 9}])
@pytest.mark.parametrize("kind", KINDS)
def test_a_padded_batch_is_steered_as_its_rows_alone(kind, policy, side, models, vector):
    model = models[kind]["llama"]
    rows = [[1, 2, 3, 4, 5, 6, 7], [8, 9, 10], [11, 2, 12, 13]]
    padding = [7 - len(row) for row in rows]
    if side == "left":
        ids = [[99] * p + row for p, row in zip(padding, rows, strict=True)]
        kept = [[0] * p + [1] * len(row) for p, row in zip(padding, rows, strict=True)]
    else:
        ids = [row + [99] * p for p, row in zip(padding, rows, strict=True)]
        kept = [[1] * len(row) + [0] * p for p, row in zip(padding, rows, strict=True)]
    kept = torch.tensor(kept)
    settings = {"attention_mask": kept}
    if kind == "plain":
        settings["position_ids"] = (kept.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad(), steer(model, vector, strength=3.0, positions=policy):
        found = model(torch.tensor(ids), **settings)
        found = getattr(found, "logits", found)
        alone = [logits_of(model, row) for row in rows]
    for number, row in enumerate(rows):
        start = padding[number] if side == "left" else 0
        assert torch.allclose(found[number, start : start + len(row)], alone[number], atol=1e-4)


def test_padding_at_the_right_is_known_without_a_mask(models, vector):
    """A bridge gives no mask to texts that it pads at the right; the last token is the text's."""
    model = models["bridge"]["llama"]
    texts = ["w1 w2 w3 w4 w5", "w6 w7"]
    with torch.no_grad(), steer(model, vector, strength=3.0, positions="last"):
        found = model(texts, padding_side="right", prepend_bos=False)
        alone = [model(text, prepend_bos=False)[0] for text in texts]
    assert torch.allclose(found[0], alone[0], atol=1e-4)
    assert torch.allclose(found[1, :2], alone[1], atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stated_prompt_makes_of_the_rest_what_is_generated(
    kind, models, plains, vector, direction, by_hand, relative_error
):
    model = models[kind]["llama"]
    with steer(model, vector, strength=3.0, positions="generated") as steering:
        unsaid = logits_of(model)
        with steering.prompt(4):
            said = logits_of(model)
        with steering.prompt([2]):
            again = logits_of(model)
        with pytest.raises(ValueError, match="lengths of 3 prompts"), steering.prompt([1, 2, 3]):
            logits_of(model)
        assert torch.equal(logits_of(model), unsaid)
    for found, places in ((unsaid, []), (said, [4, 5]), (again, [2, 3, 4, 5])):
        expected = by_hand(plains["llama"], IDS, lambda x: x + 3 * direction, places)
        assert relative_error(found, expected) < TOLERANCE


@pytest.mark.parametrize("read", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_with_a_probe_only_where_it_fires(
    kind, read, models, plains, vector, direction, by_hand, relative_error
):
    model = models[kind]["gpt_neox"]
    weight = torch.randn(32, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        stream = plains["gpt_neox"](torch.tensor([IDS]), output_hidden_states=True).hidden_states[
            read + 1
        ][0]
    scores = stream @ weight
    level = float(scores.sort().values[2:4].mean())
    probe = LinearProbe(weight, 0.0)
    low = [place for place in range(6) if scores[place] < level]
    assert len(low) == 3
    with steer(model, vector, strength=3.0, when=ProbeFires(probe, site=read, below=level)):
        below = logits_of(model)
    with steer(model, vector, strength=3.0, when=ProbeFires(probe, site=read, above=level)):
        above = logits_of(model)
    for found, places in ((below, low), (above, sorted({*range(6)} - {*low}))):
        # At an earlier site the probe is read before anything is steered; at the same site the
        # positions before have been steered only in later blocks' eyes.
        expected = by_hand(plains["gpt_neox"], IDS, lambda x: x + 3 * direction, places)
        assert relative_error(found, expected) < TOLERANCE


@pytest.mark.parametrize("cache", [True, False])
def test_a_condition_holds_with_and_without_a_cache(models, vector, cache):
    model = models["plain"]["llama"]
    probe = LinearProbe(torch.randn(32, generator=torch.Generator().manual_seed(4)), 0.0)
    ids = torch.tensor([IDS])
    settings = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 99}
    with steer(model, vector, strength=4.0, positions=(3, None), when=probe):
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            use_cache=cache,
            output_logits=True,
            return_dict_in_generate=True,
            **settings,
        )
        whole = logits_of(model, out.sequences[0, :-1].tolist())
    assert torch.allclose(torch.stack(out.logits, dim=1)[0], whole[5:], atol=1e-4)


def test_a_probe_after_the_steered_site_is_refused(models, vector):
    probe = ProbeFires(LinearProbe(torch.ones(32), 0.0), site=2, above=0.0)
    with (
        pytest.raises(ValueError, match=r"which is computed after 'blocks\.1\.hook_resid_post'"),
        steer(models["bridge"]["llama"], vector, strength=1.0, when=probe),
    ):
        pass


def test_another_width_is_refused_in_so_many_words(models):
    wide = SteeringVector.from_direction(torch.ones(4096), site=1)
    message = (
        r"This steering vector has d_model=4096, but '.*' has d_model=32\. "
        r"Extract it from a checkpoint of the model it will steer\."
    )
    for kind in KINDS:
        with (
            pytest.raises(ValueError, match=message),
            steer(models[kind]["llama"], wide, strength=1.0),
        ):
            pass
    head = SteeringVector.from_direction(torch.ones(16), site="blocks.1.attn.hook_z[0]")
    with (
        pytest.raises(ValueError, match=r"has d_head=16, but '.*' has d_head=8"),
        steer(models["bridge"]["llama"], head, strength=1.0),
    ):
        pass


def test_a_site_that_is_not_there_is_refused_in_so_many_words(models, direction):
    deep = SteeringVector.from_direction(direction, site=32)
    message = (
        r"No hook point named 'blocks.32.hook_resid_post' in '.*', whose blocks run from 0 to 2\. "
        r"List them with `sorted\(model.hook_dict\)`\."
    )
    for kind in KINDS:
        with (
            pytest.raises(ValueError, match=message),
            steer(models[kind]["llama"], deep, strength=1.0),
        ):
            pass


@pytest.mark.parametrize("kind", KINDS)
def test_the_middle_of_the_stream_is_refused_where_an_edit_would_miss_it(kind, models, direction):
    middle = SteeringVector.from_direction(direction, site="blocks.1.hook_resid_mid")
    with (
        pytest.raises(ValueError, match="would reach only the MLP and not the residual"),
        steer(models[kind]["llama"], middle, strength=1.0),
    ):
        pass


def test_another_checkpoint_of_the_run_passes_and_another_model_warns(models, direction):
    model = models["bridge"]["llama"]
    name = model.cfg.model_name
    same = SteeringVector.from_direction(direction, site=1, model=name)
    other = SteeringVector.from_direction(direction, site=1, model="EleutherAI/pythia-14m")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with steer(model, same, strength=1.0):
            pass
        with steer(model, other, strength=1.0, other_model="allow"):
            pass
    with (
        pytest.warns(UserWarning, match="comes from 'EleutherAI/pythia-14m'"),
        steer(model, other, strength=1.0),
    ):
        pass
    with (
        pytest.raises(ValueError, match="is another model"),
        steer(model, other, strength=1.0, other_model="refuse"),
    ):
        pass


@pytest.fixture
def runs(tmp_path, make_model, tokenizer):
    """Checkpoints in folders, `runs("here/one", 8)`: of this run, after so many steps."""

    def checkpoint(run, step):
        folder = tmp_path / run / f"step{step}"
        make_model("gpt_neox", seed=step).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return Checkpoint.from_directory(folder)

    return checkpoint


def test_a_vector_of_one_folder_of_a_run_steers_the_next_without_a_warning(runs, concept):
    first, last, other = runs("here/one", 1), runs("here/one", 2), runs("here/other", 2)
    vector = extract_steering_vector(first, concept, site=1, store=None)
    assert first.identity != last.identity
    model = last.loaded_with(device="cpu").load()
    plain = logits_of(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with steer(model, vector, strength=3.0):
            assert not torch.allclose(logits_of(model), plain, atol=1e-2)
    with (
        pytest.warns(UserWarning, match="comes from 'one', and 'other' is another model"),
        steer(other.loaded_with(device="cpu").load(), vector, strength=3.0),
    ):
        pass


def test_a_run_is_known_again_where_it_was_moved_to_and_so_is_its_namesake(runs, concept):
    """The guide says so: runs are told apart by the last names of their folders."""
    here, elsewhere = runs("here/one", 1), runs("elsewhere/one", 2)
    vector = extract_steering_vector(here, concept, site=1, store=None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with steer(elsewhere.loaded_with(device="cpu").load(), vector, strength=1.0):
            pass


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "push"}, "`mode` is one of 'add', 'ablate', 'clamp', 'rotate', got 'push'"),
        ({"units": "sigma"}, "`units` is 'vector' or 'rms'"),
        ({"strength": float("nan")}, "`strength` is a finite number"),
        ({"positions": "middle"}, "`positions` says which tokens to steer, got 'middle'"),
        ({"positions": (3, 3)}, "is an empty span"),
        ({"positions": {"w1 w2"}}, "'w1 w2' is 2 tokens"),
        ({"other_model": "never"}, "`other_model` is 'warn', 'allow' or 'refuse'"),
    ],
)
def test_what_is_not_allowed_is_said(settings, message, models, vector):
    with (
        pytest.raises(ValueError, match=message),
        steer(models["bridge"]["llama"], vector, **{"strength": 1.0, **settings}),
    ):
        pass


def test_without_a_known_size_of_the_stream_its_units_are_refused(models, direction):
    unsized = SteeringVector.from_direction(direction, site=1)
    with (
        pytest.raises(ValueError, match="counts in the size of the residual stream"),
        steer(models["bridge"]["llama"], unsized, strength=1.0, units="rms"),
    ):
        pass


def test_tokens_are_named_by_text_or_by_id(models, vector):
    model = models["bridge"]["llama"]
    found = []
    for tokens in ({"w2", "w5"}, {2, 5}, {2, "w5"}):
        with steer(model, vector, strength=3.0, positions=tokens):
            found.append(logits_of(model))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_gradients_flow_through_steering(models, vector):
    model = models["plain"]["llama"]
    with steer(model, vector, strength=1.0, positions=(2, None)):
        loss = model(torch.tensor([IDS])).logits.sum()
        loss.backward()
    gradient = model.get_input_embeddings().weight.grad
    assert bool((gradient[IDS[:2]].abs().sum(dim=1) > 0).all())
    model.zero_grad()


def test_a_narrow_number_format_is_computed_in_float32(make_model, direction):
    model = make_model("llama").to(torch.bfloat16)
    vector = SteeringVector.from_direction(direction, site=1)
    held = []

    def keep(module, args, output):
        held.append(output)

    block = model.base_model.layers[1]
    before = block.register_forward_hook(keep)
    with steer(model, vector, strength=0.37):
        after = block.register_forward_hook(keep)
        logits_of(model)
        after.remove()
    before.remove()
    plain, steered = held
    assert steered.dtype == torch.bfloat16
    assert torch.equal(steered, (plain.float() + 0.37 * direction).bfloat16())
