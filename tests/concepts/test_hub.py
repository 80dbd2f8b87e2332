"""Data sets on the hub, from a stand-in for it on this machine.

Where the hub is, and whether it may be asked, is read from the environment when `huggingface_hub`
is imported, so each visit is a process of its own.
"""

import hashlib
import http.server
import json
import os
import re
import subprocess
import sys
import threading

import pytest

datasets = pytest.importorskip("datasets")

OLD, NEW = "a" * 40, "b" * 40
REVISIONS = {"main": NEW, "v1": OLD, OLD: OLD, NEW: NEW}
REPOSITORY = "stanfordnlp/sst2"
SENTENCES = {OLD: ["an old film .", "an older film ."], NEW: ["a new film .", "a newer film ."]}


def visit(home, hub, calls, **environment):
    """Load with each set of arguments in a fresh process; what came back, or the error."""
    code = """
import json, sys
from tlens_trust.concepts import load_concepts
for arguments in json.loads(sys.argv[1]):
    try:
        concept = load_concepts(**arguments)[arguments["name"]]
        answer = {"statements": concept.statements, "provenance": dict(concept.provenance)}
    except Exception as error:
        notes = " ".join(getattr(error, "__notes__", []))
        said = f"{type(error).__name__}: {error} {notes}"
        answer = {"error": said, "os": isinstance(error, OSError)}
    print("ANSWER", json.dumps(answer))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(calls)],
        capture_output=True,
        text=True,
        check=True,
        env={
            **{key: value for key, value in os.environ.items() if not key.startswith("HF_")},
            "HF_ENDPOINT": hub.address,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",
            **environment,
        },
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
    return [json.loads(line.removeprefix("ANSWER ")) for line in lines]


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    files = {}
    for commit, sentences in SENTENCES.items():
        path = folder / f"{commit}.parquet"
        rows = [{"idx": i, "sentence": s, "label": -1} for i, s in enumerate(sentences)]
        datasets.Dataset.from_list(rows).to_parquet(path)
        files[commit] = {
            "README.md": b"a card",
            "data/test-00000-of-00001.parquet": path.read_bytes(),
            "data/train-00000-of-00001.parquet": b"large, and not to be fetched",
        }

    class Hub(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments):
            pass

        def do_HEAD(self):
            self.answer()

        def do_GET(self):
            self.answer()

        def answer(self):
            server.asked.append((self.command, self.path, self.headers.get("Authorization")))
            path = self.path.partition("?")[0]
            api = re.fullmatch(rf"/api/datasets/{REPOSITORY}/(revision|tree)/([^/]+)", path)
            file = re.fullmatch(rf"/datasets/{REPOSITORY}/resolve/([^/]+)/(.+)", path)
            if api and api[2] in REVISIONS:
                commit = REVISIONS[api[2]]
                tree = [
                    {"type": "file", "path": name, "size": len(content), "oid": self.etag(content)}
                    for name, content in files[commit].items()
                ]
                siblings = [{"rfilename": name} for name in files[commit]]
                info = {"id": REPOSITORY, "sha": commit, "siblings": siblings, "tags": []}
                self.send(json.dumps(tree if api[1] == "tree" else info).encode(), {})
            elif file and file[2] in files.get(file[1], {}):
                content = files[file[1]][file[2]]
                self.send(content, {"ETag": f'"{self.etag(content)}"', "X-Repo-Commit": file[1]})
            else:
                missing = "RevisionNotFound" if api else "RepoNotFound"
                self.send(b"{}", {"X-Error-Code": missing}, status=404)

        def etag(self, content):
            return hashlib.sha1(content).hexdigest()

        def send(self, content, headers, status=200):
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        server.asked = []
        server.address = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_the_revision_asked_for_is_read_resolved_and_kept_for_later(hub, tmp_path):
    newest, tagged, exact, unknown, no_split = visit(
        tmp_path,
        hub,
        [
            {"name": "sst2"},
            {"name": "sst2", "revision": "v1"},
            {"name": "sst2", "revision": OLD},
            {"name": "sst2", "revision": "v9"},
            {"name": "sst2", "split": "validation"},
        ],
        HF_TOKEN="hf_of_the_user",
    )
    assert newest["statements"][::2] == SENTENCES[NEW]
    assert newest["provenance"]["revision"] == NEW
    assert newest["provenance"]["revision_asked"] == "main"
    assert tagged["statements"][::2] == exact["statements"][::2] == SENTENCES[OLD]
    assert tagged["provenance"]["revision"] == exact["provenance"]["revision"] == OLD
    assert tagged["provenance"]["revision_asked"] == "v1"
    assert unknown["os"]
    assert "RevisionNotFound" in unknown["error"]
    assert "Asked for revision 'v9'" in unknown["error"]
    assert (
        "holds no Parquet files of configuration 'default' and split 'validation'"
        in (no_split["error"])
    )

    assert {token for _, _, token in hub.asked} == {"Bearer hf_of_the_user"}
    assert not [path for _, path, _ in hub.asked if "train" in path]

    # Offline, each revision is the one that it was, and one that was never read is not replaced by
    # another that happens to be there.
    asked = len(hub.asked)
    offline = visit(
        tmp_path,
        hub,
        [{"name": "sst2"}, {"name": "sst2", "revision": OLD}, {"name": "sst2", "revision": "v9"}],
        HF_HUB_OFFLINE="1",
    )
    assert [answer.get("provenance", {}).get("revision") for answer in offline] == [NEW, OLD, None]
    assert [answer.get("statements") for answer in offline[:2]] == [
        newest["statements"],
        exact["statements"],
    ]
    assert offline[2]["os"]
    assert "give a copy of its files as `path=`" in offline[2]["error"]
    assert len(hub.asked) == asked


def test_a_data_set_that_the_hub_does_not_show_is_an_os_error(hub, tmp_path):
    (gated,) = visit(tmp_path, hub, [{"name": "toxigen"}])
    assert gated["os"]
    assert "'toxigen/toxigen-data'" in gated["error"]
