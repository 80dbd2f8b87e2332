import hashlib
import multiprocessing
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tlens_trust import files
from tlens_trust.files import remove_abandoned, replaced_file, replaced_folder, write_file

SIZE = 2**18


@pytest.fixture
def umask():
    before = os.umask(0o027)
    yield
    os.umask(before)


def names_in(folder):
    return sorted(path.name for path in folder.rglob("*"))


@pytest.mark.parametrize("content", ["Größe\n", b"\0\xff"])
def test_what_is_written_is_what_is_read_and_hashed(tmp_path, content):
    path = tmp_path / "new" / "folders" / "file"
    digest = write_file(path, "old")
    digest = write_file(path, content)
    data = content if isinstance(content, bytes) else content.encode("utf-8")
    assert path.read_bytes() == data
    assert digest == hashlib.sha256(data).hexdigest()
    assert names_in(path.parent) == ["file"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_no_temporary_one(tmp_path, error):
    write_file(tmp_path / "file", "old")

    def stop_half_way():
        with replaced_file(tmp_path / "file") as unfinished:
            unfinished.write_text("half")
            raise error

    with pytest.raises(error):
        stop_half_way()
    assert (tmp_path / "file").read_text() == "old"
    assert names_in(tmp_path) == ["file"]


def test_an_error_leaves_the_old_folder_and_no_temporary_one(tmp_path):
    with replaced_folder(tmp_path / "model") as unfinished:
        (unfinished / "old").write_text("whole")

    def stop_half_way():
        with replaced_folder(tmp_path / "model") as unfinished:
            (unfinished / "new").write_text("half")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        stop_half_way()
    assert names_in(tmp_path) == ["model", "old"]


def test_a_folder_that_cannot_take_its_place_leaves_the_old_one(tmp_path, monkeypatch):
    with replaced_folder(tmp_path / "model") as unfinished:
        (unfinished / "old").write_text("whole")
    rename = os.replace

    def refuse(source, target):
        if Path(source).name == "model" and Path(target) == tmp_path / "model":
            raise PermissionError("in use")
        rename(source, target)

    monkeypatch.setattr(files.os, "replace", refuse)
    with pytest.raises(PermissionError), replaced_folder(tmp_path / "model"):
        pass
    assert names_in(tmp_path) == ["model", "old"]


def test_a_folder_takes_the_place_of_an_older_one(tmp_path):
    for name in ("old", "new"):
        with replaced_folder(tmp_path / "model") as unfinished:
            (unfinished / name).write_text("whole")
            # Nobody who lists the folders beside the model takes it for one.
            assert names_in(tmp_path / "model") == ([] if name == "old" else ["old"])
            assert not any(path.suffix == ".safetensors" for path in tmp_path.glob("*/*"))
    assert names_in(tmp_path) == ["model", "new"]


def _write_many(path, letter):
    for _ in range(30):
        write_file(path, letter * SIZE)


def _write_with_a_fixed_name(path, letter):
    """What `write_file` is not: both processes write to one temporary file."""
    unfinished = path.with_name(".partial")
    for _ in range(30):
        with open(unfinished, "wb") as file:
            for _ in range(16):
                file.write(letter * (SIZE // 16))
                file.flush()
        os.replace(unfinished, path)


def torn_or_failed(path, write):
    """Whether two processes that write to one place fail, or leave a torn file to be read."""
    path.write_bytes(b"a" * SIZE)
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write, args=(path, letter)) for letter in (b"a", b"b")]
    for writer in writers:
        writer.start()
    torn = 0
    while any(writer.is_alive() for writer in writers):
        content = path.read_bytes()
        torn += content not in (b"a" * SIZE, b"b" * SIZE)
    for writer in writers:
        writer.join()
    return bool(torn or any(writer.exitcode for writer in writers))


def test_two_processes_never_collide_on_one_place(tmp_path, capfd):
    assert not torn_or_failed(tmp_path / "file", _write_many)
    assert names_in(tmp_path) == ["file"]
    # Whether two writers meet is up to the scheduler; one of many tries does.
    assert any(torn_or_failed(tmp_path / "file", _write_with_a_fixed_name) for _ in range(20))


@pytest.fixture
def calls(monkeypatch):
    """The names of what was flushed and renamed, in order."""
    made = []
    fsync, replace = os.fsync, os.replace

    def flush(descriptor):
        what = "folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file"
        made.append(f"flush {what}")
        fsync(descriptor)

    def rename(source, target):
        made.append(f"rename to {Path(target).name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "replace", rename)
    return made


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="the test needs /proc")
def test_the_file_is_flushed_before_it_is_renamed_and_the_folder_after(tmp_path, calls):
    write_file(tmp_path / "file", "text")
    assert calls == ["flush file", "rename to file", "flush folder"]
    calls.clear()
    with replaced_folder(tmp_path / "model") as unfinished:
        (unfinished / "a").write_text("1")
        (unfinished / "b").write_text("2")
    calls.remove("rename to replaced")  # there was no older folder to move out of the way
    assert calls == ["flush file", "flush file", "rename to model", "flush folder"]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="the test needs /proc")
def test_a_rename_alone_flushes_nothing(tmp_path, calls):
    (tmp_path / ".partial").write_text("text")
    os.replace(tmp_path / ".partial", tmp_path / "file")
    assert calls == ["rename to file"]


def test_a_disk_that_fails_to_flush_leaves_the_old_file(tmp_path, monkeypatch):
    write_file(tmp_path / "file", "old")

    def fail(descriptor):
        raise OSError("No space left on device")

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_file(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "old"
    assert names_in(tmp_path) == ["file"]


def mode(path):
    return path.stat().st_mode & 0o777


def test_files_and_folders_have_the_permissions_that_the_umask_allows(tmp_path, umask):
    tensors = {"x": torch.zeros(2)}
    write_file(tmp_path / "text", "text")
    with replaced_file(tmp_path / "tensors") as unfinished:
        save_file(tensors, unfinished)
    with replaced_folder(tmp_path / "model") as unfinished:
        save_file(tensors, unfinished / "weights")
    assert [mode(tmp_path / name) for name in ("text", "tensors", "model/weights")] == [0o640] * 3
    assert mode(tmp_path / "model") == 0o750


def test_what_a_killed_process_left_is_removed_after_a_day(tmp_path):
    old, young = tmp_path / "a" / ".1.tmp", tmp_path / "a" / ".2.tmp"
    old_folder, other = tmp_path / ".3.tmp", tmp_path / "kept.tmp"
    for path in (old, young, old_folder / "model" / "weights", other):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    for path in (old, old_folder, other):
        os.utime(path, (0, 0))
    remove_abandoned(tmp_path)
    assert names_in(tmp_path) == [".2.tmp", "a", "kept.tmp"]
    shutil.rmtree(tmp_path / "a")
    remove_abandoned(tmp_path / "a")
