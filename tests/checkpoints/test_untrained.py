"""Random weights in a checkpoint's architecture, drawn when they are loaded."""

import numpy as np
import pytest
import torch

from tlens_trust.activations import collect_activations
from tlens_trust.checkpoints import Checkpoint, CheckpointSeries
from tlens_trust.checkpoints.loading import draw_weights
from tlens_trust.checkpoints.toy import run_settings, train_toy_run


def weights(checkpoint):
    with checkpoint.loaded_with(device="cpu").loaded() as model:
        return {name: weight.detach().clone() for name, weight in model.named_parameters()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A short toy run of seed 0, as this machine draws and trains it."""
    folder = tmp_path_factory.mktemp("run")
    train_toy_run(folder, run_settings(steps=(0, 20), d_model=16, n_layers=2, n_heads=2, rows=60))
    return CheckpointSeries.from_directory(folder)


def test_the_first_checkpoint_of_a_toy_run_is_what_its_seed_draws(trained):
    """Known answer: that run draws its weights from seed 0 in the same way."""
    drawn, first = weights(trained[-1].untrained(seed=0)), weights(trained[0])
    assert drawn.keys() == first.keys()
    for name, weight in drawn.items():
        torch.testing.assert_close(weight, first[name], rtol=0, atol=0)
    other = weights(trained[-1].untrained(seed=1))
    assert any(not torch.equal(other[name], first[name]) for name in other)


def test_the_embedded_series_begins_with_what_seed_0_draws(toy_series):
    """To float16, in which it is stored; processors may differ in a last digit beyond."""
    drawn, first = weights(toy_series[-1].untrained(seed=0)), weights(toy_series[0])
    for name, weight in drawn.items():
        torch.testing.assert_close(weight, first[name], rtol=1e-3, atol=1e-6)
    other = weights(toy_series[-1].untrained(seed=1))
    assert any((other[name] - first[name]).abs().max() > 0.1 for name in other)


def test_the_same_seed_draws_the_same(toy_series):
    untrained = toy_series[3].untrained(seed=5)
    first, second = weights(untrained), weights(untrained)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_user_s_own_random_numbers_go_on_as_before():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    drawn = draw_weights(lambda: torch.nn.Linear(4, 4), seed=1)
    assert torch.equal(torch.rand(3), expected)
    assert not drawn.weight.requires_grad


def test_neither_weights_nor_their_hash_are_read(toy_series, tmp_path):
    source = toy_series[-1].folder
    (tmp_path / "config.json").write_bytes((source / "config.json").read_bytes())
    toy_series[-1].load_tokenizer().save_pretrained(tmp_path)
    bare = Checkpoint("bare", "step9", step=9, folder=tmp_path)
    untrained = bare.untrained()
    assert untrained.weight_files == ()
    assert untrained.identity == toy_series[-1].untrained().identity
    assert weights(untrained).keys() == weights(toy_series[0]).keys()
    with pytest.raises(ValueError, match="weights"):
        bare.load()


def test_its_name_and_identity_tell_it_from_any_other(toy_series):
    trained = toy_series[-1]
    untrained = [trained.untrained(seed=seed) for seed in (0, 1)]
    assert [each.name.partition("@")[2] for each in untrained] == ["random0", "random1"]
    assert len({each.identity for each in (*untrained, *toy_series)}) == len(toy_series) + 2
    assert (untrained[0].step, untrained[0].loss) == (0, None)
    # The architecture is the same along the run.
    assert toy_series[2].untrained().identity == untrained[0].identity


def test_a_plain_model_in_memory_is_left_alone_and_another_one_drawn():
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=9, n_layer=2, n_embd=16, n_head=2)).train()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    untrained = Checkpoint("gpt", "step8", step=8, in_memory=model).untrained(seed=3)
    assert untrained.in_memory is not model
    assert model.training
    assert not untrained.in_memory.training
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name])
    torch.manual_seed(3)
    expected = GPT2LMHeadModel(model.config)
    for name, weight in untrained.in_memory.named_parameters():
        assert torch.equal(weight, dict(expected.named_parameters())[name])
    assert (untrained.name, untrained.step) == ("gpt@random3", 0)


def test_what_is_not_known_to_be_drawn_is_refused(toy_series):
    class Hooked:
        """Made by TransformerLens, for all one knows."""

    with pytest.raises(ValueError, match=r"does not record how its weights are drawn.*step 0"):
        Checkpoint("hooked", "step8", step=8, in_memory=Hooked()).untrained()
    with pytest.raises(ValueError, match="drawn on one device"):
        toy_series[-1].untrained().loaded_with(device_map="auto").load()


def test_untrained_weights_are_read_like_any_checkpoint(trained):
    texts = ["The sea is salt.", "Milk is white."]
    drawn = collect_activations(trained[-1].untrained(), texts)
    first = collect_activations(trained[0], texts)
    last = collect_activations(trained[-1], texts)
    np.testing.assert_array_equal(drawn.values, first.values)
    assert (drawn.values - last.values).abs().max() > 0.1
