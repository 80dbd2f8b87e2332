import pytest

from tlens_trust.activations.sites import (
    ModelShape,
    resolve_sites,
    site_depth,
    site_layer,
    split_site,
)

TOY = ModelShape("toy", n_layers=4, n_heads=3)
NAMED = ModelShape(
    "parallel",
    n_layers=2,
    n_heads=2,
    hook_names=frozenset(
        f"blocks.{layer}.{hook}"
        for layer in range(2)
        for hook in ("hook_resid_pre", "hook_resid_post", "hook_attn_out", "attn.hook_z", "hook_in")
    )
    | {"hook_embed"},
)


def test_the_default_is_every_blocks_output_in_order():
    assert resolve_sites(TOY) == tuple(f"blocks.{i}.hook_resid_post" for i in range(4))


@pytest.mark.parametrize(
    ("kind", "hook"),
    [
        ("resid_pre", "hook_resid_pre"),
        ("resid_mid", "hook_resid_mid"),
        ("attn_out", "hook_attn_out"),
        ("mlp_out", "hook_mlp_out"),
    ],
)
def test_a_kind_stands_for_that_place_in_every_block(kind, hook):
    assert resolve_sites(TOY, kind) == tuple(f"blocks.{i}.{hook}" for i in range(4))


def test_z_makes_every_head_a_site():
    sites = resolve_sites(TOY, "z")
    assert len(sites) == 12
    assert sites[4] == "blocks.1.attn.hook_z[1]"


def test_negative_layers_count_from_the_last_block():
    assert resolve_sites(TOY, [0, -1]) == ("blocks.0.hook_resid_post", "blocks.3.hook_resid_post")
    assert resolve_sites(TOY, -4) == resolve_sites(TOY, 0)


def test_a_site_asked_for_twice_is_read_once():
    assert resolve_sites(TOY, [3, -1, "blocks.3.hook_resid_post"]) == ("blocks.3.hook_resid_post",)


def test_full_names_are_kept_in_the_order_asked_for():
    asked = ["blocks.1.hook_attn_out", "blocks.0.attn.hook_z[1]"]
    assert resolve_sites(NAMED, asked) == tuple(asked)


@pytest.mark.parametrize("layer", [4, -5])
def test_a_layer_beyond_the_model_says_where_its_blocks_end(layer):
    with pytest.raises(
        ValueError, match=f"No block {layer} in 'toy', whose blocks run from 0 to 3"
    ):
        resolve_sites(TOY, layer)


def test_a_hook_name_beyond_the_model_is_answered_in_the_house_style():
    with pytest.raises(ValueError, match="No hook point") as caught:
        resolve_sites(TOY, "blocks.32.hook_resid_post")
    assert str(caught.value) == (
        "No hook point named 'blocks.32.hook_resid_post' in 'toy', whose blocks run from 0 to 3. "
        "List them with `sorted(model.hook_dict)`."
    )


def test_a_misspelt_name_is_answered_with_the_nearest_one():
    with pytest.raises(ValueError, match="Did you mean 'resid_post'"):
        resolve_sites(TOY, "residpost")
    with pytest.raises(ValueError, match=r"Did you mean 'blocks\.1\.hook_attn_out'"):
        resolve_sites(NAMED, "blocks.1.hook_atn_out")


def test_resid_mid_of_parallel_blocks_says_why_there_is_none():
    for asked in ("resid_mid", "blocks.1.hook_resid_mid"):
        with pytest.raises(ValueError, match="in parallel"):
            resolve_sites(NAMED, asked)
    # Not a word of it where a block just lacks the hook point.
    with pytest.raises(ValueError, match="none of its blocks has `hook_mlp_out`"):
        resolve_sites(NAMED, "mlp_out")
    stream_alone = ModelShape("stream", 1, 1, frozenset({"blocks.0.hook_resid_post"}))
    with pytest.raises(ValueError, match="none of its blocks has `hook_resid_mid`"):
        resolve_sites(stream_alone, "resid_mid")


def test_a_hook_point_outside_the_blocks_is_refused_with_the_nearest_inside():
    with pytest.raises(ValueError, match=r"is outside the blocks.*blocks\.0\.hook_resid_pre"):
        resolve_sites(NAMED, "hook_embed")


def test_a_head_beyond_the_model_is_refused():
    assert resolve_sites(NAMED, "blocks.0.attn.hook_z[1]")
    with pytest.raises(ValueError, match="heads run from 0 to 1"):
        resolve_sites(NAMED, "blocks.0.attn.hook_z[2]")


@pytest.mark.parametrize("nothing", [[], ()])
def test_asking_for_nothing_is_an_error(nothing):
    with pytest.raises(ValueError, match="got an empty sequence"):
        resolve_sites(TOY, nothing)


@pytest.mark.parametrize("wrong", [[1.5], [None], [True]])
def test_what_is_neither_name_nor_number_is_refused(wrong):
    # Under test the annotation is checked first, and takes all but the bool.
    with pytest.raises((ValueError, TypeError), match=r"is a name or a layer number|'sites'"):
        resolve_sites(TOY, wrong)


def test_layer_and_head_are_read_off_a_name():
    assert site_layer("blocks.11.attn.hook_z[3]") == 11
    assert split_site("blocks.11.attn.hook_z[3]") == ("blocks.11.attn.hook_z", 3)
    assert split_site("blocks.11.hook_mlp_out") == ("blocks.11.hook_mlp_out", None)
    with pytest.raises(ValueError, match="is not a site"):
        site_layer("ln_final.hook_scale")


def test_depth_runs_from_nothing_to_everything_in_the_order_of_computation():
    order = ["hook_resid_pre", "attn.hook_z[0]", "hook_resid_mid", "hook_resid_post"]
    depths = [site_depth(f"blocks.{i}.{hook}", 4) for i in range(4) for hook in order]
    assert depths == sorted(depths)
    assert (depths[0], depths[-1]) == (0.0, 1.0)


@pytest.mark.parametrize(
    "kind", ["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "z"]
)
def test_every_site_of_a_bridge_is_a_hook_point_of_it(bridge, kind):
    sites = resolve_sites(bridge, kind)
    assert len(sites) == (12 if kind == "z" else 3)
    assert all(split_site(site)[0] in bridge.hook_dict for site in sites)


def test_a_bridge_of_parallel_blocks_has_no_resid_mid(load_bridge):
    with pytest.raises(ValueError, match="in parallel"):
        resolve_sites(load_bridge("gpt_neox"), "resid_mid")
