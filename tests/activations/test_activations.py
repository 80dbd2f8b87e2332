import math
import pickle

import numpy as np
import pytest
import torch

from tlens_trust.activations import Activations
from tlens_trust.concepts import Concept

SITES = tuple(f"blocks.{i}.hook_resid_post" for i in range(4))


@pytest.fixture
def read():
    torch.manual_seed(0)
    return Activations(torch.randn(5, 4, 8), SITES, n_layers=4)


def concept(n):
    return Concept(
        name="toy",
        dimension="reliability",
        statements=tuple(f"statement {i}" for i in range(n)),
        labels=np.arange(n) % 2,
        groups=tuple(f"group {i // 2}" for i in range(n)),
    )


def test_a_site_is_had_by_name_and_by_layer(read):
    assert torch.equal(read.at(SITES[2]), read.values[:, 2])
    assert torch.equal(read.at(2), read.at(-2))


@pytest.mark.parametrize("asked", [[1, 2], [3, 0], "resid_post", -1])
def test_selecting_keeps_names_and_numbers_together(read, asked):
    fewer = read.select(asked)
    for column, site in enumerate(fewer.sites):
        assert torch.equal(fewer.values[:, column], read.values[:, SITES.index(site)])
    assert (fewer.n_layers, fewer.position) == (4, "last")


def test_a_site_that_was_not_read_is_named_with_what_was(read):
    with pytest.raises(ValueError, match=r"There are no activations at 'blocks\.1\.hook_attn_out'"):
        read.at("blocks.1.hook_attn_out")
    with pytest.raises(ValueError, match="No block 7"):
        read.at(7)


def test_layers_and_depths_go_with_the_sites(read):
    assert read.layers == (0, 1, 2, 3)
    assert read.depths == (0.25, 0.5, 0.75, 1.0)
    unknown = Activations(read.values, SITES)
    assert all(math.isnan(depth) for depth in unknown.depths)


def test_the_repr_says_what_is_inside(read):
    text = repr(Activations(read.values[:2], SITES, concept=concept(2), position=-3))
    assert "2 statements × 4 sites × 8 wide" in text
    assert "blocks.0.hook_resid_post … blocks.3.hook_resid_post" in text
    assert "position -3" in text
    assert "concept 'toy'" in text


@pytest.mark.parametrize("shape", [(5, 3, 8), (4, 8)])
def test_axes_that_do_not_match_the_sites_are_refused_and_never_reshaped(shape):
    with pytest.raises((ValueError, TypeError), match=r"one vector per statement|d_model"):
        Activations(torch.zeros(shape), SITES)


def test_rows_that_do_not_match_the_concept_are_refused(read):
    assert len(Activations(read.values, SITES, concept=concept(5))) == 5
    with pytest.raises(ValueError, match="holds 5 statements, but the concept 'toy' has 6"):
        Activations(read.values, SITES, concept=concept(6))


def test_a_site_is_named_once_and_lies_inside_the_model(read):
    with pytest.raises(ValueError, match="twice"):
        Activations(read.values, SITES[:3] + SITES[:1])
    with pytest.raises(ValueError, match="has 3 blocks, from 0 to 2"):
        Activations(read.values, SITES, n_layers=3)
    with pytest.raises(ValueError, match="is not a site"):
        Activations(read.values, ("hook_embed", *SITES[1:]))


def test_activations_travel_between_processes(read):
    again = pickle.loads(pickle.dumps(read))
    assert torch.equal(again.values, read.values)
    assert again.sites == read.sites


def test_a_notebook_shows_each_site_with_its_size():
    values = torch.tensor([[[3.0, 4.0], [0.0, 0.0]]])
    sites = tuple(f"blocks.{layer}.hook_resid_post" for layer in range(2))
    shown = Activations(values, sites)._repr_html_()
    assert f"{sites[0]}</td><td>3.54</td>" in shown
    assert f"{sites[1]}</td><td>0</td>" in shown
    assert "1 statements × 2 sites" in shown
