"""Checkpoints on the hub, from a stand-in for it on this machine.

It speaks as much of the hub's language as is needed: refs, a revision's files with their hashes,
the tree, and the files themselves.
"""

import hashlib
import http.server
import json
import re
import shutil
import threading
from pathlib import Path

import huggingface_hub.constants as constants
import pytest
import torch

from tlens_trust.checkpoints import Checkpoint, CheckpointSeries
from tlens_trust.checkpoints.download_plan import DownloadPlan, PlannedCheckpoint
from tlens_trust.checkpoints.hooked_model import own_tokenizer
from tlens_trust.checkpoints.weights import git_oid

MODEL = "org/tiny-run"
TOKENS = torch.arange(14).reshape(2, 7)


class StandIn(http.server.ThreadingHTTPServer):
    """A hub with a few repositories.

    `repositories` maps a model id to its branches, and a branch to a folder of files; `tags` are
    branches that are listed as tags. `gated` repositories let in who brings a token.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answering)
        self.repositories, self.tags, self.gated, self.asked = {}, {}, set(), []
        self.address = f"http://127.0.0.1:{self.server_port}"

    def commit(self, model, branch):
        content = "".join(
            f"{path.name}{hashlib.sha1(path.read_bytes()).hexdigest()}"
            for path in sorted(self.repositories[model][branch].iterdir())
        )
        return hashlib.sha1(f"{branch}{content}".encode()).hexdigest()

    def folder(self, model, revision):
        for branch, folder in self.repositories[model].items():
            if revision in (branch, self.commit(model, branch)):
                return folder, self.commit(model, branch)
        return None, None

    def downloads(self):
        return [Path(path).name for method, path in self.asked if method == "GET" and "res" in path]


class Answering(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        hub, path = self.server, self.path.partition("?")[0]
        hub.asked.append((self.command, path))
        api = re.fullmatch(
            r"/api/models/([^/]+/[^/]+)(?:/(revision|tree|refs)(?:/([^/]+))?)?", path
        )
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        model = (api or file)[1]
        if model not in hub.repositories:
            return self.send(b"{}", {"X-Error-Code": "RepoNotFound"}, 404)
        if api and api[2] == "refs":
            return self.send_json(self.refs(model))
        folder, commit = hub.folder(model, (api[3] or "main") if api else file[2])
        if folder is None:
            return self.send(b"{}", {"X-Error-Code": "RevisionNotFound"}, 404)
        if api and api[2] == "tree":
            return self.send_json([self.entry(path) for path in sorted(folder.iterdir())])
        if api:
            siblings = [self.sibling(path) for path in sorted(folder.iterdir())]
            return self.send_json({"id": model, "sha": commit, "siblings": siblings, "tags": []})
        if model in hub.gated and "Authorization" not in self.headers:
            return self.send(b"{}", {"X-Error-Code": "GatedRepo"}, 403)
        if not (folder / file[3]).is_file():
            return self.send(b"{}", {"X-Error-Code": "EntryNotFound"}, 404)
        content = (folder / file[3]).read_bytes()
        entry = self.entry(folder / file[3])
        etag = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
        return self.send(content, {"ETag": f'"{etag}"', "X-Repo-Commit": commit})

    def refs(self, model):
        branches = [name for name in self.server.repositories[model] if name != "pr"]
        tags = self.server.tags.get(model, ())
        known = {
            kind: [
                {"name": name, "ref": f"refs/{name}", "targetCommit": "0" * 40} for name in names
            ]
            for kind, names in (
                ("branches", [name for name in branches if name not in tags]),
                ("tags", tags),
            )
        }
        return {**known, "converts": []}

    def entry(self, path):
        content = path.read_bytes()
        entry = {"type": "file", "path": path.name, "size": len(content), "oid": git_oid(content)}
        if path.suffix in (".safetensors", ".bin"):
            digest = hashlib.sha256(content).hexdigest()
            entry["oid"] = git_oid(f"pointer to {digest}".encode())
            entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 134}
        return entry

    def sibling(self, path):
        entry = self.entry(path)
        known = {"rfilename": path.name, "size": entry["size"], "blobId": entry["oid"]}
        if "lfs" in entry:
            lfs = entry["lfs"]
            known["lfs"] = {"sha256": lfs["oid"], "size": lfs["size"], "pointerSize": 134}
        return known

    def send_json(self, content):
        self.send(json.dumps(content).encode(), {"Content-Type": "application/json"})

    def send(self, content, headers, status=200):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@pytest.fixture(scope="module")
def run(tmp_path_factory, save_model):
    """A run of three checkpoints, the first two of which hold the same weights."""
    root = tmp_path_factory.mktemp("tiny-run")
    for step, seed in ((0, 1), (1, 1), (2, 2)):
        save_model(root / f"step{step}", "gpt2", seed)
    for extra in ("README.md", "optimizer.bin", "pytorch_model.bin"):
        (root / "step2" / extra).write_bytes(extra.encode() * 1000)
    shutil.copytree(root / "step2", root / "main")
    return root


@pytest.fixture
def hub(run, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with StandIn() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        server.repositories[MODEL] = {folder.name: folder for folder in run.iterdir()}
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def go_offline(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def test_branches_and_tags_are_listed_and_parsed(hub, run):
    hub.repositories[MODEL]["step10"] = run / "step2"
    hub.tags[MODEL] = ["step10"]
    series = CheckpointSeries.from_hub(MODEL, steps="all")
    assert [checkpoint.revision for checkpoint in series] == ["step0", "step1", "step2", "step10"]
    assert hub.downloads() == []


def test_the_identity_is_known_without_a_download_and_is_that_of_the_downloaded_folder(
    hub, run, monkeypatch
):
    series = CheckpointSeries.from_hub(MODEL, steps="all")
    identities = [checkpoint.identity for checkpoint in series]
    assert hub.downloads() == []
    on_disk = [Checkpoint.from_directory(run / f"step{step}").identity for step in range(3)]
    assert identities == on_disk
    assert identities[0] == identities[1] != identities[2]
    in_cache = Checkpoint.from_directory(series[2].snapshot.fetch("step2"))
    assert in_cache.identity == identities[2]
    go_offline(monkeypatch)
    asked = len(hub.asked)
    assert Checkpoint.from_hub(MODEL, revision="step2").identity == identities[2]
    assert len(hub.asked) == asked


def test_a_plan_says_what_would_be_fetched_and_fetches_nothing(hub, run):
    series = CheckpointSeries.from_hub(MODEL, steps="all")
    plan = series.plan()
    assert hub.downloads() == []

    def needed(step):
        names = ("config.json", "generation_config.json", "model.safetensors")
        names += ("tokenizer.json", "tokenizer_config.json")
        return sum((run / f"step{step}" / name).stat().st_size for name in names)

    assert plan.n_checkpoints == 3
    assert [row.size for row in plan.rows] == [needed(step) for step in range(3)]
    # The second holds the first's files, and the third's small files are the first's too.
    assert [row.fetch for row in plan.rows] == [
        needed(0),
        0,
        (run / "step2" / "model.safetensors").stat().st_size,
    ]
    assert plan.fetch_gb == pytest.approx(sum(row.fetch for row in plan.rows) / 1e9)
    assert plan.identical == (("tiny-run@step0", "tiny-run@step1"),)
    assert f"3 checkpoints of {MODEL}" in repr(plan)
    assert "identical weights: tiny-run@step0 = tiny-run@step1" in repr(plan)


def test_what_is_in_the_cache_is_not_planned_to_be_fetched_again(hub):
    series = CheckpointSeries.from_hub(MODEL, steps="all")
    before = series.plan()
    series[0].loaded_with(device="cpu").load()
    after = CheckpointSeries.from_hub(MODEL, steps="all").plan()
    assert [row.fetch for row in after.rows] == [0, 0, before.rows[2].fetch]
    assert after.cached_gb == pytest.approx(before.size_gb - after.fetch_gb)


def test_a_revision_that_is_missing_is_named_in_the_plan(hub, run):
    model = "EleutherAI/pythia-70m"
    hub.repositories[model] = {"main": run / "main", "step0": run / "step0"}
    plan = CheckpointSeries.from_hub(model, steps=[0, 1]).plan()
    assert len(plan.problems) == 1
    assert "no revision 'step1'" in plan.problems[0]
    assert "no revision 'step1'" in repr(plan)


def test_a_checkpoint_is_downloaded_whole_and_nothing_else(hub, run):
    checkpoint = CheckpointSeries.from_hub(MODEL, steps="all")[2]
    model = checkpoint.loaded_with(device="cpu").load()
    assert set(hub.downloads()) == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    local = Checkpoint.from_directory(run / "step2").loaded_with(device="cpu").load()
    with torch.no_grad():
        torch.testing.assert_close(model(TOKENS), local(TOKENS))
    assert model.cfg.model_name == MODEL
    fetched = len(hub.downloads())
    Checkpoint.from_hub(MODEL, revision="step2").loaded_with(device="cpu").load()
    assert len(hub.downloads()) == fetched


def test_settings_and_tokenizer_come_without_the_weights(hub):
    checkpoint = Checkpoint.from_hub(MODEL, revision="step2")
    assert checkpoint.load_config().n_layer == 3
    assert checkpoint.load_tokenizer()("w7").input_ids == [7]
    assert "model.safetensors" not in hub.downloads()


def test_a_revision_without_a_tokenizer_takes_that_of_the_main_branch(hub, run, tmp_path):
    bare = shutil.copytree(run / "step2", tmp_path / "bare")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (bare / name).unlink()
    hub.repositories["org/bare"] = {"main": run / "main", "step5": bare}
    model = Checkpoint.from_hub("org/bare", revision="step5").loaded_with(device="cpu").load()
    assert own_tokenizer(model)("w7").input_ids == [7]
    hub.repositories["org/barer"] = {"main": bare, "step5": bare}
    with pytest.raises(ValueError, match="No tokenizer with 'barer@step5'"):
        Checkpoint.from_hub("org/barer", revision="step5").loaded_with(device="cpu").load()


def test_offline_the_cache_is_what_there_is(hub, monkeypatch):
    for step in (0, 2):
        Checkpoint.from_hub(MODEL, revision=f"step{step}").loaded_with(device="cpu").load()
    # Known by its small files alone, this one cannot be read offline.
    Checkpoint.from_hub(MODEL, revision="step1").load_config()
    go_offline(monkeypatch)
    asked = len(hub.asked)
    series = CheckpointSeries.from_hub(MODEL, steps="all")
    assert series.steps == (0, 2)
    assert series.plan().fetch_gb == 0
    assert series.plan().size_gb > 0
    with torch.no_grad():
        series[1].loaded_with(device="cpu").load()(TOKENS)
    with pytest.raises(ValueError, match=r"No step 1 .*nearest are 0 and 2"):
        CheckpointSeries.from_hub(MODEL, steps=[1])
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE is set"):
        CheckpointSeries.from_hub("org/other")
    with pytest.raises(ValueError, match=r"'step7' is not in the cache.*HF_HUB_OFFLINE"):
        Checkpoint.from_hub(MODEL, revision="step7").loaded_with(device="cpu").load()
    assert len(hub.asked) == asked


def test_offline_a_known_schedule_shrinks_to_what_the_cache_holds(hub, run, monkeypatch):
    model = "EleutherAI/pythia-70m"
    hub.repositories[model] = {"main": run / "main", "step512": run / "step2"}
    Checkpoint.from_hub(model, revision="step512").loaded_with(device="cpu").load()
    assert len(CheckpointSeries.from_hub(model, steps="all")) == 154
    go_offline(monkeypatch)
    assert CheckpointSeries.from_hub(model, steps="all").steps == (512,)


def test_a_cache_that_was_copied_from_elsewhere_is_read(tmp_path, run, monkeypatch):
    """The layout by hand: refs, blobs by their hash, snapshots that point at them."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    go_offline(monkeypatch)
    root = tmp_path / "models--org--copied"
    commit = "c" * 40
    for folder in ("blobs", "refs", f"snapshots/{commit}", f"snapshots/{'d' * 40}"):
        (root / folder).mkdir(parents=True)
    for path in (run / "step2").iterdir():
        content = path.read_bytes()
        lfs = path.suffix in (".safetensors", ".bin")
        blob = hashlib.sha256(content).hexdigest() if lfs else git_oid(content)
        (root / "blobs" / blob).write_bytes(content)
        (root / "snapshots" / commit / path.name).symlink_to(f"../../blobs/{blob}")
    (root / "refs" / "step2").write_text(commit)
    # A snapshot whose weights were never finished does not count.
    (root / "refs" / "step3").write_text("d" * 40)
    (root / "snapshots" / ("d" * 40) / "model.safetensors").symlink_to("../../blobs/" + "e" * 64)
    series = CheckpointSeries.from_hub("org/copied", steps="all")
    assert series.steps == (2,)
    assert series[0].identity == Checkpoint.from_directory(run / "step2").identity
    assert Checkpoint.from_hub("org/copied", revision=commit).identity == series[0].identity
    series[0].loaded_with(device="cpu").load()


def test_a_branch_that_moves_between_naming_and_reading_is_noticed(hub, run):
    checkpoint = Checkpoint.from_hub(MODEL, revision="step1")
    before = checkpoint.identity
    hub.repositories[MODEL]["step1"] = run / "step2"
    with pytest.raises(ValueError, match=r"moved from .* while it was downloaded"):
        checkpoint.loaded_with(device="cpu").load()
    assert Checkpoint.from_hub(MODEL, revision="step1").identity != before


def test_a_gated_model_needs_the_users_token_and_gets_it(hub, monkeypatch):
    hub.gated.add(MODEL)
    checkpoint = Checkpoint.from_hub(MODEL, revision="step2")
    with pytest.raises(OSError, match=r"is gated.*HF_TOKEN"):
        checkpoint.loaded_with(device="cpu").load()
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_user")
    checkpoint.loaded_with(device="cpu").load()


@pytest.mark.parametrize(
    ("model", "revision", "says"),
    [
        ("org/nothing", None, "The hub has no model 'org/nothing'"),
        (MODEL, "step99", "The hub has no revision 'step99'"),
        ("not a model id", None, "is not a model id of the hub"),
    ],
)
def test_what_the_hub_does_not_have_is_said_plainly(hub, model, revision, says):
    with pytest.raises(ValueError, match=says):
        Checkpoint.from_hub(model, revision=revision).loaded_with(device="cpu").load()
    if revision is None:
        with pytest.raises(ValueError, match=says):
            CheckpointSeries.from_hub(model)


def test_a_hub_that_cannot_be_reached_is_said_plainly(hub, monkeypatch):
    nobody = "http://127.0.0.1:9"
    monkeypatch.setattr(constants, "ENDPOINT", nobody)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        nobody + "/{repo_id}/resolve/{revision}/{filename}",
    )
    with pytest.raises(OSError, match=r"could not be reached .*HF_HUB_OFFLINE=1"):
        CheckpointSeries.from_hub(MODEL)
    with pytest.raises(OSError, match="could not be reached"):
        CheckpointSeries.from_hub("LLM360/Amber", steps=[0]).plan()


def test_a_single_model_on_its_main_branch_is_a_checkpoint(hub, run):
    checkpoint = Checkpoint.from_hub(MODEL)
    assert (checkpoint.name, checkpoint.step) == ("tiny-run", None)
    assert checkpoint.identity == Checkpoint.from_directory(run / "step2").identity
    checkpoint.loaded_with(device="cpu").load()


def test_a_tuned_model_of_no_known_family_is_a_checkpoint_without_a_step(
    hub, save_model, tmp_path, monkeypatch
):
    """As the paper's tuned target: no family, no step, and a chat template beside the weights."""
    model = "LLM360/AmberChat"
    save_model(tmp_path / "chat", "llama", 3)
    template = "{% for each in messages %}{{ each['content'] }} {% endfor %}"
    (tmp_path / "chat" / "chat_template.jinja").write_text(template)
    hub.repositories[model] = {"main": tmp_path / "chat"}
    chat = Checkpoint.from_hub(model)
    assert (chat.name, chat.step, chat.tokens, chat.stage) == ("AmberChat", None, None, None)
    online = chat.loaded_with(device="cpu").load()
    go_offline(monkeypatch)
    asked = len(hub.asked)
    again = Checkpoint.from_hub(model)
    assert again.identity == chat.identity
    assert again.load_tokenizer().chat_template == template
    with torch.no_grad():
        assert torch.equal(again.loaded_with(device="cpu").load()(TOKENS), online(TOKENS))
    assert len(hub.asked) == asked


def test_a_notebook_shows_a_plan_as_a_table():
    rows = (
        PlannedCheckpoint("m@<i>", 8, 2_000_000_000, 1_500_000_000),
        PlannedCheckpoint("m@last", None, 0, 0, problem="gone <for good>"),
    )
    shown = DownloadPlan("org/m", rows)._repr_html_()
    assert "<td>8</td><td>2.00</td><td>1.50</td>" in shown
    assert "gone &lt;for good&gt;" in shown
    assert "<i>" not in shown
