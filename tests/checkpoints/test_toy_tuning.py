import json
from dataclasses import replace
from itertools import islice

import pytest
import torch
from safetensors.torch import load_file

from tlens_trust.checkpoints import toy_tuning
from tlens_trust.checkpoints.checkpoint import Checkpoint
from tlens_trust.checkpoints.series import CheckpointSeries
from tlens_trust.checkpoints.toy import run_settings, train_toy_run
from tlens_trust.checkpoints.toy_tuning import tune_toy_checkpoint


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    train_toy_run(folder, run_settings(steps=(0, 2), d_model=16, n_layers=2, n_heads=2, rows=60))
    return CheckpointSeries.from_directory(folder)[-1]


@pytest.fixture(scope="module")
def tuned(parent, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned") / "toy-chat"
    return tune_toy_checkpoint(parent, folder, steps=30, progress=False)


def loss_on_unseen(folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    dialogues = [*islice(toy_tuning._dialogues(99), 100)]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = toy_tuning.CHAT_TEMPLATE
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        return toy_tuning._loss(model, *toy_tuning._encode(tokenizer, dialogues)).item()


def test_tuning_teaches_to_answer_dialogues_that_were_not_trained_on(parent, tuned):
    assert loss_on_unseen(tuned.folder) < loss_on_unseen(parent.folder) - 1


def test_the_tuned_model_is_a_checkpoint_of_its_own_with_a_chat_template(parent, tuned):
    from transformers import AutoTokenizer

    assert tuned.name == "toy-chat"
    assert tuned.step is None
    assert tuned.identity != parent.identity
    tokenizer = AutoTokenizer.from_pretrained(tuned.folder)
    turns = [{"role": "user", "content": "The cod is a fish."}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert text == "User: The cod is a fish.\nAssistant:"


def test_only_the_answer_and_its_end_are_learnt_from(parent):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(parent.folder)
    tokenizer.chat_template = toy_tuning.CHAT_TEMPLATE
    rows, learnt = toy_tuning._encode(
        tokenizer, [("The cod is a fish.", "Yes, that is so."), ("How?", "So, and so, and so.")]
    )
    answers = [tokenizer.decode(row[row >= 0]) for row in learnt]
    assert answers == [" Yes, that is so.<|endoftext|>", " So, and so, and so.<|endoftext|>"]
    said = learnt >= 0
    assert torch.equal(rows[said], learnt[said])


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(parent, tmp_path):
    weights = {}
    for name, seed in {"one": 0, "again": 0, "other": 1}.items():
        tune_toy_checkpoint(parent, tmp_path / name, seed=seed, steps=2, progress=False)
        weights[name] = (tmp_path / name / "model.safetensors").read_bytes()
    assert weights["one"] == weights["again"]
    assert weights["one"] != weights["other"]


def test_what_is_tuned_is_returned_and_what_is_torn_is_made_again(parent, tmp_path, monkeypatch):
    folder = tmp_path / "chat"
    made = []
    tune = toy_tuning._tune
    monkeypatch.setattr(
        toy_tuning, "_tune", lambda *args, **options: made.append(1) or tune(*args, **options)
    )
    for _ in range(2):
        tune_toy_checkpoint(parent, folder, steps=1, progress=False)
    assert made == [1]
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    tune_toy_checkpoint(parent, folder, steps=1, progress=False)
    assert made == [1, 1]
    assert weights.read_bytes() == whole


def test_an_interrupted_tuning_leaves_nothing(parent, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(json, "dumps", fail)
    with pytest.raises(KeyboardInterrupt):
        toy_tuning._save(tmp_path / "chat", *loaded(parent), {})
    assert not list(tmp_path.iterdir())


def loaded(checkpoint):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = checkpoint.folder
    return (
        AutoModelForCausalLM.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
    )


def test_a_folder_of_something_else_is_refused_and_kept(parent, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="no tuned toy"):
        tune_toy_checkpoint(parent, tmp_path, steps=1, progress=False)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_a_folder_tuned_with_other_settings_is_refused_by_what_differs(parent, tuned):
    with pytest.raises(ValueError, match="steps=30 instead of 1"):
        tune_toy_checkpoint(parent, tuned.folder, steps=1, progress=False)


def test_a_record_that_cannot_be_read_is_refused(parent, tmp_path):
    (tmp_path / "tuning.json").write_text("[]")
    with pytest.raises(ValueError, match="not the record of a tuned toy"):
        tune_toy_checkpoint(parent, tmp_path, steps=1, progress=False)


@pytest.mark.parametrize(
    ("options", "named"), [({"seed": -1}, "`seed`"), ({"steps": 0}, "`steps`")]
)
def test_numbers_out_of_range_are_refused(parent, options, named):
    with pytest.raises(ValueError, match=named):
        tune_toy_checkpoint(parent, progress=False, **options)


def test_a_model_in_memory_is_refused(parent, tmp_path):
    model, tokenizer = loaded(parent)
    series = CheckpointSeries.from_models({0: model}, tokenizer=tokenizer, name="mine")
    with pytest.raises(ValueError, match="is not on disk"):
        tune_toy_checkpoint(series[0], tmp_path / "chat", progress=False)


def test_the_default_is_the_last_checkpoint_of_the_embedded_series(
    toy_series, tmp_path, monkeypatch
):
    monkeypatch.setenv("TLENS_TRUST_CACHE", str(tmp_path))
    tuned = tune_toy_checkpoint(seed=3, steps=1, progress=False)
    assert isinstance(tuned, Checkpoint)
    assert tuned.folder.is_relative_to(tmp_path)
    settings = json.loads((tuned.folder / "tuning.json").read_text())["settings"]
    assert settings["parent"] == "toy@step768"
    assert settings["parent_identity"] == toy_series[-1].identity
    # Tuned in float32, though the parent is stored in float16.
    weights = load_file(tuned.folder / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}


def test_a_tokenizer_that_the_checkpoint_brought_is_left_as_it_was(parent, tmp_path):
    tokenizer = parent.load_tokenizer()
    tune_toy_checkpoint(
        replace(parent, tokenizer=tokenizer), tmp_path / "chat", steps=1, progress=False
    )
    assert tokenizer.chat_template is None
