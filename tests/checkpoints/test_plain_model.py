import pytest
import torch

from tlens_trust.checkpoints import Checkpoint
from tlens_trust.checkpoints.hooked_model import HookedModel
from tlens_trust.checkpoints.plain_model import PlainModel, is_plain_model

TOKENS = torch.arange(14).reshape(2, 7)
PARALLEL = {"gpt_neox": {}}
SEQUENTIAL = {
    "gpt2": {},
    "gpt_neox": {"use_parallel_residual": False},
    "llama": {"num_key_value_heads": 2},
    "olmo": {},
    "olmo2": {},
}
CASES = [*PARALLEL.items(), *SEQUENTIAL.items()]
KINDS = ("hook_resid_pre", "attn.hook_z", "hook_attn_out", "hook_mlp_out", "hook_resid_post")


def read(model, names, run):
    """What each hook point sees in one pass, by the name that was asked for."""
    seen = {}

    def reader(name):
        def read_here(tensor, hook):
            seen[name] = tensor.detach().clone()

        return read_here

    with torch.no_grad(), model.hooks([(name, reader(name)) for name in names]):
        run()
    return seen


@pytest.mark.parametrize(("architecture", "settings"), CASES)
def test_every_site_is_what_a_bridge_sees_at_the_hook_point_of_that_name(
    tmp_path, save_model, architecture, settings
):
    folder = save_model(tmp_path, architecture, **settings)
    from transformers import AutoModelForCausalLM

    plain = PlainModel(AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager"))
    bridge = Checkpoint.from_directory(folder).loaded_with(device="cpu", backend="bridge").load()
    names = list(plain.hook_dict)
    expected = set(KINDS) | ({"hook_resid_mid"} if (architecture, settings) in CASES[1:] else set())
    assert {name.split(".", 2)[2] for name in names} == expected
    assert len(names) == 3 * len(expected)
    mine = read(plain, names, lambda: plain.model.base_model(TOKENS))
    theirs = read(bridge, names, lambda: bridge.original_model.base_model(TOKENS))
    for name in names:
        torch.testing.assert_close(mine[name], theirs[name], rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize(("architecture", "settings"), CASES)
def test_reading_changes_nothing_of_the_model(make_model, architecture, settings):
    model = make_model(architecture, **settings)
    model.train()
    next(m for name, m in model.named_modules() if name.endswith((".h.1", ".layers.1"))).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = (
        [(name, module.training) for name, module in model.named_modules()],
        [name for name, _ in model.named_parameters()],
        [weight.data_ptr() for weight in model.parameters()],
        [weight.requires_grad for weight in model.parameters()],
        model.config._attn_implementation,
        model.config.to_dict(),
        type(model),
    )
    plain = PlainModel(model)
    read(plain, list(plain.hook_dict), lambda: plain.model.base_model(TOKENS))
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert state == (
        [(name, module.training) for name, module in model.named_modules()],
        [name for name, _ in model.named_parameters()],
        [weight.data_ptr() for weight in model.parameters()],
        [weight.requires_grad for weight in model.parameters()],
        model.config._attn_implementation,
        model.config.to_dict(),
        type(model),
    )
    assert not hooks_left(model)


def hooks_left(model):
    mine = "tlens_trust"
    return [
        hook
        for module in model.modules()
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
        if getattr(hook, "__module__", "").startswith(mine)
    ]


def test_dropout_is_off_while_reading_and_on_again_afterwards(make_model):
    model = make_model("gpt2", resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5).train()
    plain = PlainModel(model)
    name = "blocks.2.hook_resid_post"

    def last():
        return read(plain, [name], lambda: model.base_model(TOKENS))[name]

    assert torch.equal(last(), last())
    assert model.training
    first = model.base_model(TOKENS).last_hidden_state
    assert not torch.equal(first, model.base_model(TOKENS).last_hidden_state)


def test_no_hook_remains_and_the_mode_comes_back_after_an_exception(make_model):
    model = make_model("llama").train()
    plain = PlainModel(model)

    def fail(tensor, hook):
        raise RuntimeError("inside")

    with (
        pytest.raises(RuntimeError, match="inside"),
        plain.hooks([("blocks.0.hook_resid_pre", fail)]),
    ):
        model.base_model(TOKENS)
    assert not hooks_left(model)
    assert model.training


def test_a_name_that_is_not_there_leaves_no_hook_behind(make_model):
    plain = PlainModel(make_model("gpt2").train(), name="mine")
    names = ("blocks.0.hook_resid_post", "blocks.9.hook_out")
    hooks = [(name, lambda tensor, hook: None) for name in names]
    with (
        pytest.raises(ValueError, match=r"'blocks.9.hook_out' in 'mine', whose blocks run from 0"),
        plain.hooks(hooks),
    ):
        pass
    assert not hooks_left(plain.model)
    assert plain.model.training


def test_hooks_nest_and_each_is_taken_away_with_its_own_with(make_model):
    model = make_model("gpt2")
    plain = PlainModel(model)
    counts = {"outer": 0, "inner": 0}

    def count(which):
        def add(tensor, hook):
            counts[which] += 1

        return [("blocks.1.hook_resid_post", add)]

    with torch.no_grad(), plain.hooks(count("outer")):
        with plain.hooks(count("inner")):
            assert len(hooks_left(model)) == 2
            model.base_model(TOKENS)
        model.base_model(TOKENS)
    assert counts == {"outer": 2, "inner": 1}


@pytest.mark.parametrize(
    ("site", "later"),
    [
        ("blocks.1.hook_resid_post", "blocks.2.hook_resid_pre"),
        ("blocks.1.hook_resid_pre", "blocks.0.hook_resid_post"),
    ],
)
@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox", "llama", "olmo", "olmo2"])
def test_what_a_function_returns_takes_the_place_of_what_it_saw(
    make_model, architecture, site, later
):
    plain = PlainModel(make_model(architecture))
    seen = {}

    def double(tensor, hook):
        seen[hook.name] = tensor
        return 2 * tensor

    def note(tensor, hook):
        seen[hook.name] = tensor

    hooks = [(site, double), (later, note), ("blocks.2.hook_resid_post", note)]
    unhooked = read(plain, ["blocks.2.hook_resid_post"], lambda: plain.model.base_model(TOKENS))
    with torch.no_grad(), plain.hooks(hooks):
        plain.model.base_model(TOKENS)
    if later.startswith("blocks.2"):
        torch.testing.assert_close(seen[later], 2 * seen[site])
    changed = seen["blocks.2.hook_resid_post"]
    assert not torch.allclose(changed, unhooked["blocks.2.hook_resid_post"])


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox", "llama", "olmo2"])
def test_silencing_attention_and_mlp_leaves_the_stream_as_it_was(make_model, architecture):
    plain = PlainModel(make_model(architecture))
    silent = [
        (f"blocks.1.{kind}", lambda tensor, hook: torch.zeros_like(tensor))
        for kind in ("hook_attn_out", "hook_mlp_out")
    ]
    ends = ["blocks.0.hook_resid_post", "blocks.1.hook_resid_post"]
    with plain.hooks(silent):
        seen = read(plain, ends, lambda: plain.model.base_model(TOKENS))
    torch.testing.assert_close(seen[ends[0]], seen[ends[1]])
    loud = read(plain, ends, lambda: plain.model.base_model(TOKENS))
    assert not torch.allclose(loud[ends[0]], loud[ends[1]])


def test_a_heads_output_can_be_replaced(make_model):
    plain = PlainModel(make_model("gpt2"))
    shapes = []

    def silence(tensor, hook):
        shapes.append(tuple(tensor.shape))
        return torch.zeros_like(tensor)

    name = "blocks.0.hook_attn_out"
    with plain.hooks([("blocks.0.attn.hook_z", silence)]):
        seen = read(plain, [name], lambda: plain.model.base_model(TOKENS))[name]
    assert shapes == [(2, 7, 4, 8)]
    bias = plain.model.transformer.h[0].attn.c_proj.bias
    torch.testing.assert_close(seen, bias.detach().expand_as(seen))


def test_what_lies_between_attention_and_mlp_can_be_read_but_not_replaced(make_model):
    plain = PlainModel(make_model("llama"))
    with (
        pytest.raises(ValueError, match="cannot be replaced: a tensor returned there"),
        plain.hooks([("blocks.0.hook_resid_mid", lambda tensor, hook: tensor)]),
    ):
        plain.model.base_model(TOKENS)


def test_a_decoder_of_another_wiring_still_has_its_residual_stream(make_model):
    # BLOOM adds the residual stream inside its attention, which gives no attention output.
    model = make_model("bloom")
    plain = PlainModel(model, name="bloom")
    assert {name.split(".", 2)[2] for name in plain.hook_dict} == {
        "hook_resid_pre",
        "hook_resid_post",
    }
    names = [f"blocks.{layer}.hook_resid_pre" for layer in range(3)]
    seen = read(plain, names, lambda: model.base_model(TOKENS))
    with torch.no_grad():
        states = model.base_model(TOKENS, output_hidden_states=True).hidden_states
    for name, state in zip(names, states, strict=False):
        torch.testing.assert_close(seen[name], state)
    with (
        pytest.raises(ValueError, match="whose BloomBlock has hook_resid_pre"),
        plain.hooks([("blocks.0.hook_attn_out", lambda tensor, hook: None)]),
    ):
        pass


def test_a_model_without_blocks_says_what_was_looked_for():
    from transformers import PretrainedConfig, PreTrainedModel

    class Strange(PreTrainedModel):
        config_class = PretrainedConfig

        def __init__(self):
            super().__init__(PretrainedConfig(num_hidden_layers=3))
            self.towers = torch.nn.ModuleList([torch.nn.Linear(2, 2)])

    with pytest.raises(ValueError, match=r"No list of 3 blocks in 'strange'.*towers \(1\)"):
        PlainModel(Strange(), name="strange")


def test_a_plain_model_tells_its_shape_under_transformer_lens_names(make_model):
    model = make_model("llama", head_dim=16)
    cfg = PlainModel(model, name="mine").cfg
    assert (cfg.n_layers, cfg.d_model, cfg.n_heads, cfg.d_head) == (3, 32, 4, 16)
    assert (cfg.n_ctx, cfg.d_vocab, cfg.device, cfg.model_name) == (40, 64, "cpu", "mine")
    assert cfg.dtype is torch.float32
    model.to(torch.bfloat16)
    assert PlainModel(model).cfg.dtype is torch.bfloat16


def test_only_an_unwrapped_hugging_face_model_is_plain(make_model, folders):
    model = make_model("gpt2")
    assert is_plain_model(model)
    assert not is_plain_model(PlainModel(model))
    assert not is_plain_model(torch.nn.Linear(2, 2))
    assert not is_plain_model(
        Checkpoint.from_directory(folders["gpt2"]).loaded_with(device="cpu").load()
    )


def test_the_protocol_takes_what_is_hooked_and_nothing_else(make_model, folders):
    model = make_model("gpt2")
    assert isinstance(PlainModel(model), HookedModel)
    assert isinstance(
        Checkpoint.from_directory(folders["gpt2"]).loaded_with(device="cpu").load(), HookedModel
    )
    assert not isinstance(model, HookedModel)
    assert not isinstance(torch.nn.Linear(2, 2), HookedModel)
