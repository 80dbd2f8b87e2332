import json
from itertools import islice

import pytest
import torch

from tlens_trust.checkpoints import toy
from tlens_trust.checkpoints.cache import cache_folder
from tlens_trust.checkpoints.series import CheckpointSeries
from tlens_trust.checkpoints.toy import pretrain_toy_series, run_settings, train_toy_run
from tlens_trust.checkpoints.toy_text import END_OF_TEXT, make_rows, make_tokenizer
from tlens_trust.concepts.embedded.corpus import toy_corpus
from tlens_trust.concepts.embedded.sets import embedded_concepts

STEPS = (0, 1, 2, 4, 7)


def short_run(seed=0, steps=STEPS):
    return run_settings(seed=seed, steps=steps, d_model=16, n_layers=2, n_heads=2, rows=60)


def weights_of(folder):
    return {
        path.parent.name: path.read_bytes() for path in sorted(folder.glob("step*/*.safetensors"))
    }


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    train_toy_run(folder, short_run())
    return folder


class Interrupted(BaseException):
    pass


def interrupt(monkeypatch, name, at):
    """Make the named function of the module fail at its n-th call."""
    calls = iter(range(at + 1))
    whole = getattr(toy, name)

    def failing(*args):
        if next(calls) == at:
            raise Interrupted
        return whole(*args)

    monkeypatch.setattr(toy, name, failing)


def test_a_run_leaves_hugging_face_folders_at_the_steps_asked_for(finished):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert {f.name for f in finished.iterdir()} == {f"step{n}" for n in STEPS} | {"series.json"}
    folder = finished / "step7"
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.model_type == "gpt_neox"
    text = "The sparrow is a bird, and Zoë knows it."
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert model.config.vocab_size >= len(tokenizer)


def test_the_series_knows_its_steps_tokens_and_loss(finished):
    series = CheckpointSeries.from_directory(finished)
    assert series.steps == STEPS
    assert series.tokens == tuple(1000 * step for step in STEPS)
    losses = [checkpoint.loss for checkpoint in series]
    assert losses[-1] < losses[0] - 0.1


def test_the_loss_of_a_checkpoint_is_that_of_its_weights(finished, tokenizer):
    from transformers import AutoModelForCausalLM

    rows = make_rows(tokenizer, seed=0, rows=60, row_length=40)
    model = AutoModelForCausalLM.from_pretrained(finished / "step7")
    with torch.no_grad():
        over_all = toy._loss(model, rows).item()
    assert CheckpointSeries.from_directory(finished)[-1].loss == pytest.approx(over_all, abs=0.2)


@pytest.mark.parametrize("at", [0, 1, 4, 6, 7])
def test_an_interrupted_run_ends_with_the_weights_of_an_uninterrupted_one(
    finished, tmp_path, monkeypatch, at
):
    with monkeypatch.context() as patch:
        interrupt(patch, "_learning_rate" if at < 7 else "_loss", at)
        with pytest.raises(Interrupted):
            train_toy_run(tmp_path, short_run())
    assert len(weights_of(tmp_path)) < len(STEPS)
    train_toy_run(tmp_path, short_run())
    assert weights_of(tmp_path) == weights_of(finished)
    kept, whole = ((f / "series.json").read_text() for f in (tmp_path, finished))
    assert json.loads(kept) == json.loads(whole)


def test_a_resumed_run_goes_on_from_its_last_checkpoint(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt(patch, "_learning_rate", 5)
        with pytest.raises(Interrupted):
            train_toy_run(tmp_path, short_run())
    taken = []
    rate = toy._learning_rate
    monkeypatch.setattr(
        toy, "_learning_rate", lambda step, last: taken.append(step) or rate(step, last)
    )
    train_toy_run(tmp_path, short_run())
    assert taken == [4, 5, 6]


def test_without_the_saved_state_a_resumed_run_would_end_elsewhere(finished, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt(patch, "_learning_rate", 5)
        with pytest.raises(Interrupted):
            train_toy_run(tmp_path, short_run())
    file = tmp_path / "step4" / "training_state.pt"
    state = torch.load(file, weights_only=True)
    torch.save({**state, "rows": torch.Generator().manual_seed(9).get_state()}, file)
    train_toy_run(tmp_path, short_run())
    assert weights_of(tmp_path)["step7"] != weights_of(finished)["step7"]


@pytest.mark.parametrize("name", ["_write_record", "_hash"])
def test_a_run_stopped_while_it_saves_leaves_nothing_that_is_read(
    finished, tmp_path, monkeypatch, name
):
    with monkeypatch.context() as patch:
        interrupt(patch, name, 3)
        with pytest.raises(Interrupted):
            train_toy_run(tmp_path, short_run())
    train_toy_run(tmp_path, short_run())
    assert weights_of(tmp_path) == weights_of(finished)


def test_a_checkpoint_cut_off_in_the_middle_is_no_checkpoint(finished, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(Interrupted()))
        with pytest.raises(Interrupted):
            train_toy_run(tmp_path, short_run())
    assert not weights_of(tmp_path)
    with pytest.raises(ValueError, match="no checkpoint"):
        CheckpointSeries.from_directory(tmp_path)
    train_toy_run(tmp_path, short_run())
    assert weights_of(tmp_path) == weights_of(finished)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in finished.iterdir()}


def test_only_the_last_checkpoint_keeps_what_it_takes_to_go_on(finished):
    assert [f.parent.name for f in finished.glob("*/training_state.pt")] == ["step7"]


def test_a_finished_run_is_not_trained_again(finished, monkeypatch):
    before = weights_of(finished)
    monkeypatch.setattr(toy, "_train", None)
    train_toy_run(finished, short_run())
    assert weights_of(finished) == before


def test_altered_weights_are_made_again(finished, tmp_path):
    train_toy_run(tmp_path, short_run())
    file = tmp_path / "step2" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    train_toy_run(tmp_path, short_run())
    assert weights_of(tmp_path) == weights_of(finished)


def test_seeds_differ_from_the_first_weights_on(finished, tmp_path):
    train_toy_run(tmp_path, short_run(seed=1))
    ours, theirs = weights_of(tmp_path), weights_of(finished)
    assert all(ours[step] != theirs[step] for step in theirs)


def test_the_weights_depend_on_no_state_of_the_users_and_leave_it_alone(finished, tmp_path):
    threads = torch.get_num_threads()
    torch.manual_seed(12)
    expected = torch.rand(3)
    try:
        torch.set_num_threads(2)
        torch.manual_seed(12)
        train_toy_run(tmp_path, short_run())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.rand(3), expected)
    assert weights_of(tmp_path) == weights_of(finished)


def test_a_folder_that_holds_another_run_is_refused(finished):
    with pytest.raises(ValueError, match=r"another toy run, with .*seed=0 instead of 1"):
        train_toy_run(finished, short_run(seed=1))
    with pytest.raises(ValueError, match=r"steps=\[0, 1, 2, 4, 7\] instead of \[0, 1\]"):
        train_toy_run(finished, short_run(steps=(0, 1)))


def test_a_folder_that_holds_something_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="no toy run"):
        pretrain_toy_series(tmp_path)
    (tmp_path / "series.json").write_text("[]")
    with pytest.raises(ValueError, match="not the record of a toy run"):
        pretrain_toy_series(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("steps", [(), (0,), (1, 2), (0, 2, 2), (0, 4, 2)])
def test_steps_that_do_not_rise_from_0_are_refused(steps):
    with pytest.raises(ValueError, match="increase from 0"):
        run_settings(steps=steps)


def test_a_negative_seed_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`seed` must be a whole number from 0, got -1"):
        pretrain_toy_series(tmp_path, seed=-1)


def test_progress_is_shown_where_it_is_asked_for(tmp_path, capfd):
    train_toy_run(tmp_path / "silent", short_run(steps=(0, 1)), progress=False)
    assert capfd.readouterr() == ("", "")
    train_toy_run(tmp_path / "shown", short_run(steps=(0, 1)), progress=True)
    shown = capfd.readouterr().err
    assert "toy series" in shown
    assert "1/1" in shown


def test_the_default_folder_lies_in_the_cache_and_differs_between_seeds(tmp_path, monkeypatch):
    monkeypatch.setenv("TLENS_TRUST_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    settings = {seed: short_run(seed) for seed in (0, 1)}
    monkeypatch.setattr(toy, "run_settings", lambda *, seed: settings[seed])
    series = [pretrain_toy_series(seed=seed, progress=False) for seed in (0, 1)]
    assert [s.steps for s in series] == [STEPS, STEPS]
    assert series[0].model != series[1].model
    assert all(s.model.startswith(str(tmp_path)) for s in series)
    for each in series:
        assert [c.name for c in each] == [f"toy@step{step}" for step in STEPS]


def test_without_the_variable_the_cache_is_the_users(monkeypatch):
    import platformdirs

    monkeypatch.delenv("TLENS_TRUST_CACHE", raising=False)
    assert cache_folder() == platformdirs.user_cache_path("tlens_trust")


def test_every_word_of_corpus_and_statements_is_one_token(tokenizer):
    statements = [s for concept in embedded_concepts().values() for s in concept.statements]
    for text in [*statements, *islice(toy_corpus(5), 2000)]:
        words = text.replace(".", " .").replace(",", " ,").replace("'s", " 's").split()
        assert len(tokenizer(text)["input_ids"]) == len(words)
    assert len(tokenizer(" aardvark")["input_ids"]) == len(" aardvark")


def test_rows_begin_with_a_passage_and_seldom_cut_one(tokenizer):
    rows = make_rows(tokenizer, seed=2, rows=300, row_length=40)
    assert rows.shape == (300, 40)
    decoded = [tokenizer.decode(row) for row in rows]
    passages = set(islice(toy_corpus(2), 3000))
    parts = [[part for part in row.split(END_OF_TEXT) if part] for row in decoded]
    whole = [part in passages for row in parts for part in row]
    assert sum(whole) > 0.98 * len(whole)
    assert all(row[0] in passages for row in parts)


def test_another_seed_gives_other_rows(tokenizer):
    ours, again, others = (make_rows(tokenizer, seed=s, rows=50, row_length=40) for s in (0, 0, 1))
    assert torch.equal(ours, again)
    assert not torch.equal(ours, others)
