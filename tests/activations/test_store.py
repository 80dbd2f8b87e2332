"""What the store keeps, what it refuses to give back, and what it lets go of."""

import dataclasses
import multiprocessing
import os
import time

import pytest
import torch

from tlens_trust.activations import ActivationStore
from tlens_trust.activations.store import ActivationKey

KEY = ActivationKey(
    checkpoint="weights",
    tokenizer="tokenizer",
    bos=None,
    backend="bridge 4.3.0",
    dtype="torch.float32",
    position="last",
    statements="texts",
)
SITES = tuple(f"blocks.{i}.hook_resid_post" for i in range(4))


def readings(sites=SITES, seed=0, rows=6):
    generator = torch.Generator().manual_seed(seed)
    return {site: torch.randn(rows, 8, generator=generator) for site in sites}


def same(found, expected):
    return found.keys() == expected.keys() and all(
        torch.equal(found[site], expected[site]) for site in expected
    )


@pytest.fixture
def store(tmp_path):
    return ActivationStore(tmp_path / "store")


def files(store, pattern="*/*.safetensors"):
    return sorted(store.folder.glob(pattern))


def test_what_is_written_is_read_to_the_bit(store):
    written = readings()
    store.write(KEY, written)
    assert same(store.read(KEY, SITES), written)
    # By a store of its own, too, as in another process.
    assert same(ActivationStore(store.folder).read(KEY, SITES), written)


def test_some_of_the_sites_are_read_without_the_others(store, monkeypatch):
    written = readings()
    store.write(KEY, written)
    from tlens_trust.activations import store as module

    digested = []
    digest = module._digest
    monkeypatch.setattr(
        module,
        "_digest",
        lambda key, site, *rest: (digested.append(site), digest(key, site, *rest))[1],
    )
    found = store.read(KEY, [SITES[2], "blocks.9.hook_resid_post"])
    assert same(found, {SITES[2]: written[SITES[2]]})
    assert digested == [SITES[2]]


def test_sites_written_later_join_those_that_are_there(store):
    written = readings()
    store.write(KEY, {site: written[site] for site in SITES[:2]})
    store.write(KEY, {site: written[site] for site in SITES[2:]})
    assert same(store.read(KEY, SITES), written)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("checkpoint", "other weights"),
        ("tokenizer", "other tokenizer"),
        ("bos", True),
        ("bos", False),
        ("backend", "bridge 4.4.0"),
        ("dtype", "torch.bfloat16"),
        ("position", "mean"),
        ("position", -1),
        ("position", (0, 2)),
        ("statements", "other texts"),
    ],
)
def test_every_part_of_the_key_keeps_entries_apart(store, field, value):
    store.write(KEY, readings())
    other = dataclasses.replace(KEY, **{field: value})
    assert store.read(other, SITES) == {}
    store.write(other, readings(seed=1))
    assert same(store.read(KEY, SITES), readings())
    assert same(store.read(other, SITES), readings(seed=1))


def test_the_parametrised_fields_are_all_there_are():
    fields = {field.name for field in dataclasses.fields(ActivationKey)}
    assert fields == {
        "checkpoint", "tokenizer", "bos", "backend", "dtype", "position", "statements"
    }  # fmt: skip


@pytest.mark.parametrize("keep", [0, 1, 7, 100, -1])
def test_a_torn_file_is_noticed_and_removed(store, keep):
    store.write(KEY, readings())
    (path,) = files(store)
    path.write_bytes(path.read_bytes()[:keep])
    assert store.read(KEY, SITES) == {}
    assert files(store) == []
    store.write(KEY, readings())
    assert same(store.read(KEY, SITES), readings())


def test_a_single_flipped_bit_is_noticed_wherever_it_lies(store):
    store.write(KEY, readings(), facts={"n_layers": 4})
    (path,) = files(store)
    whole = path.read_bytes()
    unnoticed = []
    for at in range(0, len(whole), 7):
        altered = bytearray(whole)
        altered[at] ^= 0b100
        path.write_bytes(bytes(altered))
        found = store.read(KEY, SITES)
        if found and not same(found, {site: readings()[site] for site in found}):
            unnoticed.append(at)
        path.write_bytes(whole)
    assert unnoticed == []
    assert same(store.read(KEY, SITES), readings())


def test_a_file_under_another_entrys_name_is_not_taken_for_it(store):
    store.write(KEY, readings())
    other = dataclasses.replace(KEY, checkpoint="other weights")
    store.write(other, readings(seed=1))
    mine, theirs = (next(iter(store._parts(key))) for key in (KEY, other))
    mine.write_bytes(theirs.read_bytes())
    assert store.read(KEY, SITES) == {}
    assert same(store.read(other, SITES), readings(seed=1))


def test_facts_are_given_back_and_are_none_of_an_entry_that_is_not_there(store):
    assert store.facts(KEY) is None
    store.write(KEY, readings(), facts={"n_layers": 4, "n_heads": 2})
    assert store.facts(KEY) == {"n_layers": 4, "n_heads": 2}


def test_what_was_used_least_recently_goes_first(store):
    bounded = ActivationStore(store.folder, max_gb=1)
    keys = [dataclasses.replace(KEY, statements=str(i)) for i in range(3)]
    for age, key in zip((300, 200, 100), keys, strict=True):
        bounded.write(key, readings())
        (path,) = bounded._parts(key)
        os.utime(path, (time.time() - age,) * 2)
    bounded.read(keys[0], SITES[:1])  # the oldest is used again
    one = bounded.n_bytes / 3
    bounded.max_gb = 3.5 * one / 1e9
    newest = dataclasses.replace(KEY, statements="newest")
    bounded.write(newest, readings())
    kept = [bool(bounded.read(key, SITES)) for key in [*keys, newest]]
    assert kept == [True, False, True, True]
    assert bounded.n_bytes <= bounded.max_gb * 1e9


def test_the_store_never_holds_more_than_it_may(store):
    store.write(KEY, readings())
    bounded = ActivationStore(store.folder, max_gb=2.5 * store.n_bytes / 1e9)
    for i in range(6):
        bounded.write(dataclasses.replace(KEY, statements=str(i)), readings())
        assert bounded.n_bytes <= bounded.max_gb * 1e9
    assert len(files(bounded)) == 2


def test_what_is_larger_than_the_store_is_not_kept_and_said(store):
    small = ActivationStore(store.folder, max_gb=1e-7)
    with pytest.warns(UserWarning, match="Raise `max_gb`"):
        small.write(KEY, readings())
    assert files(small, "*/*") == []


@pytest.mark.parametrize("limit", [0, -1, float("nan"), True])
def test_a_store_of_no_size_is_refused(tmp_path, limit):
    with pytest.raises(ValueError, match="must be positive"):
        ActivationStore(tmp_path, max_gb=limit)


def test_an_unfinished_file_is_never_read_and_cleared_away_in_time(store, monkeypatch):
    from tlens_trust.activations import store as module

    def stop(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(module.os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        store.write(KEY, readings())
    monkeypatch.undo()
    assert files(store, "*/*") == []
    # One that a killed process left behind.
    left = store.folder / KEY.digest[:2] / ".0.tmp"
    left.write_bytes(b"half")
    assert store.read(KEY, SITES) == {}
    store.write(KEY, readings())
    assert left.exists()
    os.utime(left, (0, 0))
    store.write(KEY, readings(seed=1))
    assert not left.exists()


def _use(folder, seed, failures):
    """Write, read and evict in one folder, beside others that do the same."""
    store = ActivationStore(folder, max_gb=6e-5)
    for turn in range(40):
        key = dataclasses.replace(KEY, statements=str((seed + turn) % 5))
        expected = readings(seed=(seed + turn) % 5, rows=100)
        found = store.read(key, SITES)
        if any(not torch.equal(found[site], expected[site]) for site in found):
            failures.put(f"{seed}: wrong readings in turn {turn}")
        store.write(key, expected)
    failures.put(None)


def test_processes_share_a_store_without_reading_anything_but_whole_entries(tmp_path):
    context = multiprocessing.get_context("fork")
    failures = context.Queue()
    workers = [context.Process(target=_use, args=(tmp_path, seed, failures)) for seed in range(3)]
    for worker in workers:
        worker.start()
    said = [failures.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(timeout=60)
    assert said == [None, None, None]
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert list(tmp_path.glob("*/.*.tmp")) == []
